"""Resampling a handful of probe seeds undercovers, as docs/probing.md states; the t quantile of `interval_over_units_and_seeds` does not."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmark.statistics import bootstrap_weights, interval_over_units_and_seeds

PAGE = Path(__file__).parents[2] / "docs" / "probing.md"
STATED = re.compile(r"in (\d+)% of\s+cases\s+with\s+ten\s+values\s+and\s+in\s+(\d+)%\s+with\s+five")
NUM_CASES, NUM_RESAMPLES = 4_000, 1_000


@pytest.fixture(scope="module")
def stated_coverage() -> dict[int, int]:
    match = STATED.search(PAGE.read_text(encoding="utf-8"))
    assert match is not None
    return {10: int(match[1]), 5: int(match[2])}


def bootstrap_coverage(seeds: int) -> float:
    """Fraction of cases in which the percentile interval at 95% of the mean of `seeds` normal values contains it."""
    values = np.random.default_rng(seeds).normal(size=(NUM_CASES, seeds))
    weights = bootstrap_weights(seeds, NUM_RESAMPLES, seed=0) / seeds
    low, high = np.quantile(values @ weights.T, (0.025, 0.975), axis=1)
    return float(((low <= 0) & (high >= 0)).mean())


@pytest.mark.parametrize("seeds", [5, 10])
def test_resampled_seeds_undercover_as_documented(seeds: int, stated_coverage: dict[int, int]) -> None:
    assert 100 * bootstrap_coverage(seeds) == pytest.approx(stated_coverage[seeds], abs=1.5)
    assert stated_coverage[seeds] < 93


@pytest.mark.parametrize("seeds", [5, 10])
def test_the_t_quantile_covers(seeds: int) -> None:
    values = np.random.default_rng(seeds).normal(size=(NUM_CASES, seeds))
    intervals = [
        interval_over_units_and_seeds(float(row.mean()), np.zeros(2), row, n=seeds, level=0.95) for row in values
    ]
    assert np.mean([interval.low <= 0 <= interval.high for interval in intervals]) == pytest.approx(0.95, abs=0.01)
