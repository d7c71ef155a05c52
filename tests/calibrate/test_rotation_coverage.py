"""Coverage of the intervals of protocol 4: counted over draws, simulated with tied controls."""

from __future__ import annotations

import numpy as np
import pytest

from benchmark.calibrate.rotation_coverage import (
    JUDGED_FIGURES,
    coverage_by_pseudo_model,
    pooled_coverage,
    simulate_tied_controls,
)


def draws_of(name: str, half: float, draws: int = 400, spread: float = 1.0, seed: int = 0) -> list[dict]:
    """Cells of one pseudo-model whose figures are normal with the standard deviation `spread`."""
    random = np.random.default_rng(seed)
    return [
        {"pseudo-model": name, **{f: [value, value - half, value + half] for f in JUDGED_FIGURES}}
        for value in random.normal(size=draws) * spread
    ]


@pytest.mark.parametrize(("half", "expected"), [(1.960, 0.95), (1.0, 0.683), (0.5, 0.383)])
def test_the_share_is_that_of_the_normal_distribution(half, expected):
    (entry,) = coverage_by_pseudo_model(draws_of("state", half))
    for figure in JUDGED_FIGURES:
        covered, draws = entry[figure]
        assert draws == 400
        assert covered / draws == pytest.approx(expected, abs=0.05)


def test_few_draws_are_not_judged_against_a_mean_that_they_made():
    """Intervals of width 1.96 sigma cover 95% also where the mean is over six draws, of which each is a sixth."""
    cells = [cell for i in range(300) for cell in draws_of(f"state {i}", 1.960, 6, seed=i)]
    pooled = pooled_coverage(coverage_by_pseudo_model(cells))
    assert pooled["delta"]["intervals"] == 1800
    assert pooled["delta"]["share"] == pytest.approx(0.95, abs=0.02)


def test_what_is_left_out_of_the_pool():
    """Networks drawn anew, pseudo-models of few draws, and intervals without width."""
    cells = draws_of("random-init", 0.1) + draws_of("noise", 0.0, spread=0.0) + draws_of("state", 9.0, 4)
    entries = coverage_by_pseudo_model(cells)
    assert [entry["pseudo-model"] for entry in entries] == ["random-init", "noise"]
    assert entries[1]["delta"] == [0, 0]
    assert pooled_coverage(entries) == {}


def test_the_least_covered_pseudo_model_is_named():
    cells = draws_of("wide", 3.0) + draws_of("narrow", 0.3)
    fewest = pooled_coverage(coverage_by_pseudo_model(cells))["fewest"]
    assert fewest["pseudo-model"] == "narrow"
    assert fewest["share"] < 0.4


def test_tied_controls_err_towards_a_smaller_delta():
    """A single control is covered in 95%; of four equal ones the largest is subtracted, so the lower end stays below the truth."""
    single, four = (simulate_tied_controls(number, 400) for number in (1, 4))
    assert 0.93 <= single["covered"] <= 0.985
    assert abs(single["low_above"] - single["high_below"]) < 0.03
    assert four["low_above"] <= 0.015
    assert four["high_below"] > 0.04
    assert sum(four.values()) == pytest.approx(1)
