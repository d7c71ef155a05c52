"""Verdict: what decides it, the reasons for N/A, intervals that cover, and evidence that is read back."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from benchmark.calibrate.causal_calibration import MAX_COVERAGE, MIN_COVERAGE, simulate_coverage
from benchmark.calibrate.planners import PLANNER, Planner, PlannerWorld
from benchmark.causal.evidence import NOT_RUN, CausalEvidence
from benchmark.causal.measurement import measure_use
from benchmark.causal.merges import merge_pairs, resample_merges, score_merges
from benchmark.causal.pairs import PairSettings, derive_pairs
from benchmark.causal.verdict import (
    LOOK_UP,
    NOT_APPLICABLE,
    NOT_SHOWN,
    USES,
    Rates,
    judge,
    natural_rates,
    resample_use,
    score_rates,
    solves_too_few,
    sum_rates,
)
from benchmark.errors import SubmissionError
from benchmark.tasks.suite import load_suite

LAPTOP = load_suite("laptop")
FEW = PairSettings(tasks=150)
PAIRS = derive_pairs(LAPTOP, FEW)


@pytest.fixture(scope="module")
def evidence() -> CausalEvidence:
    measured = measure_use(Planner(PlannerWorld(LAPTOP, FEW), PLANNER, 0), LAPTOP, settings=FEW)
    assert measured.use.verdict == USES
    assert measured.evidence is not None
    return measured.evidence


def test_the_natural_range_must_keep_the_effect(evidence):
    clamped = evidence.unedited.copy()
    result = judge(replace(evidence, clamped=clamped), PAIRS)
    assert result.verdict == NOT_SHOWN
    assert "natural range" in result.reason
    rows = np.flatnonzero(PAIRS.is_report & PAIRS.is_strict)
    clamped[rows[: int(0.8 * len(rows))]] = PAIRS.target[rows[: int(0.8 * len(rows))]]
    assert judge(replace(evidence, clamped=clamped), PAIRS).verdict == USES


@pytest.mark.parametrize("control", ["random", "other_value", "wrong_position", "untrained"])
def test_a_control_that_does_as_well_decides(evidence, control):
    words = np.broadcast_to(evidence.steered[0], getattr(evidence, control).shape).copy()
    result = judge(replace(evidence, **{control: words}), PAIRS)
    assert result.verdict == NOT_SHOWN
    assert result.strict is not None
    assert result.strict.margin.value == pytest.approx(0, abs=0.02)


def test_an_alternative_counts_where_its_value_differs(evidence):
    steered = evidence.steered.copy()
    steered[2] = steered[0]
    result = judge(replace(evidence, steered=steered), PAIRS)
    assert result.verdict == NOT_SHOWN
    assert result.strict is not None
    assert result.strict.largest.startswith("alternative")


def test_not_applicable_has_a_reason(evidence):
    none_solved = judge(replace(evidence, is_solved=np.zeros_like(evidence.is_solved)), PAIRS)
    assert (none_solved.verdict, none_solved.use) == (NOT_APPLICABLE, None)
    assert "expected at least 30%" in none_solved.reason
    solved = evidence.is_solved & ~(PAIRS.is_strict & PAIRS.is_report)
    assert "no strict pair" in judge(replace(evidence, is_solved=solved), PAIRS).reason


def test_pairs_that_the_model_does_not_solve_are_counted(evidence):
    solved = evidence.is_solved.copy()
    rows = np.flatnonzero(PAIRS.is_report)[::3]
    solved[rows] = False
    result = judge(replace(evidence, is_solved=solved), PAIRS)
    assert result.dropped["the model does not solve the task from the prefix"] == len(rows)
    assert result.every is not None
    assert result.every.pairs == PAIRS.is_report.sum() - len(rows)


def test_the_look_up_decides_but_is_not_subtracted_from_the_score():
    counts = np.full((3, 80), 4.0)
    hits = counts * np.array([0.75, 0.0, 0.5])[:, None]
    natural = Rates(("natural",), np.full((1, 80), 3.0), np.full((1, 80), 4.0))
    score = score_rates(Rates(("steered", "no edit", LOOK_UP), hits, counts), natural, 320)
    assert score.margin.value == pytest.approx(0.25)
    assert score.use.value == pytest.approx(1.0)
    assert score.largest == LOOK_UP


def test_resamples_are_those_of_the_intervals(evidence):
    rows = PAIRS.is_report & evidence.is_solved
    natural = natural_rates(evidence, PAIRS, rows)
    value, resampled = resample_use(sum_rates(evidence, PAIRS, rows & PAIRS.is_strict), natural)
    use = judge(evidence, PAIRS).use
    assert (value, *np.quantile(resampled, [0.025, 0.975])) == pytest.approx((use.value, use.low, use.high))
    merges = merge_pairs(LAPTOP, FEW)
    scores = np.log(merges.posterior + 0.02 + 0.3 * np.arange(6) * (merges.prefix[:, :1] == 0))
    result = score_merges(merges, scores).merges
    assert np.quantile(resample_merges(merges, scores), [0.025, 0.975]) == pytest.approx((result.low, result.high))


def test_intervals_cover_the_truth():
    """A quick sibling of the slow test: 120 draws, a share within four standard errors of 95%."""
    for share in simulate_coverage(120, seed=2).values():
        assert 0.87 <= share <= 1


@pytest.mark.slow
def test_intervals_cover_the_truth_in_500_draws():
    for share in simulate_coverage(500).values():
        assert MIN_COVERAGE <= share <= MAX_COVERAGE


def test_evidence_is_read_back(evidence):
    arrays = evidence.to_arrays()
    assert all(a.dtype in (np.int8, np.uint8, np.float32) for a in arrays.values())
    again = CausalEvidence.from_arrays(arrays)
    for field in fields(CausalEvidence):
        assert np.array_equal(getattr(again, field.name), getattr(evidence, field.name))
    assert judge(again, PAIRS) == judge(evidence, PAIRS)
    assert (evidence.random[:, ~PAIRS.is_strict] == NOT_RUN).all()
    with pytest.raises(SubmissionError, match="no array clamped"):
        CausalEvidence.from_arrays({name: a for name, a in arrays.items() if name != "clamped"})


def test_a_share_of_choose_pairs_far_below_the_smallest_decides_alone():
    """Three standard errors of a share of tasks, since pairs of one task are solved together."""
    pairs = derive_pairs(load_suite("laptop"))
    choose = ~pairs.is_report
    tasks = np.unique(pairs.task[choose])
    bound = 0.3 - 3 * (0.3 * 0.7 / len(tasks)) ** 0.5
    shares = {}
    for count in range(len(tasks) // 2):
        is_solved = np.isin(pairs.task, tasks[:count])
        shares[float(is_solved[choose].mean())] = solves_too_few(is_solved, pairs)
    assert all(too_few == (share < bound) for share, too_few in shares.items())
    assert {True, False} == set(shares.values())
