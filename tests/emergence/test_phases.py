"""The phases of curves whose phases are known, and relations against scipy and by construction."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmark.emergence.phases import crossing_tokens, find_phases, relate, relate_runs

TOKENS = np.linspace(0, 100, 101)


def ramp(begin, end):
    return np.clip((TOKENS - begin) / (end - begin), 0, 1)


def test_the_papers_shares_are_found_where_they_are_put():
    distinct, accuracy = ramp(48.75, 76.25), 0.1 + 0.15 * ramp(50, 75) + 0.65 * ramp(75, 95)
    found = find_phases(TOKENS, distinct, accuracy)
    assert found.shares == pytest.approx((0.515, 0.22, 0.265), abs=1e-9)
    assert found.accuracy[2] == pytest.approx(0.9)
    assert found.syntax < found.solved < 95
    assert sum(found.to_solved) == pytest.approx(1)


def test_a_run_that_knows_syntax_from_the_start_has_no_babbling():
    found = find_phases(TOKENS, np.ones(101), ramp(0, 50))
    assert found.shares == (0, 0, 1)


def test_accuracy_that_comes_before_syntax_gives_no_semantics_phase():
    assert find_phases(TOKENS, ramp(40, 90), ramp(0, 20)).to_solved is None


def test_crossings_lie_between_checkpoints():
    assert crossing_tokens(np.array([0.0, 10, 20]), np.array([0.0, 0, 1]), 0.25) == 12.5


def test_too_few_checkpoints_are_refused():
    with pytest.raises(ValueError, match="3 checkpoints"):
        find_phases(TOKENS[:3], TOKENS[:3], TOKENS[:3])


def test_two_trends_with_nothing_in_common_relate_by_level_and_not_by_change():
    rng = np.random.default_rng(5)
    apart = relate(TOKENS, TOKENS + rng.normal(0, 1, 101), TOKENS + rng.normal(0, 1, 101))
    assert apart.r2 > 0.99
    assert abs(apart.changes[0]) < 0.2
    assert abs(apart.rank_changes[0]) < 0.2


def test_curves_that_move_together_relate_by_change():
    steps = np.random.default_rng(6).random(101).cumsum()
    together = relate(TOKENS, steps, 0.5 * steps**1.5)
    assert together.rank_changes[0] > 0.8
    assert together.changes[1] < 1e-6
    assert together.n == 101


def test_checkpoints_without_a_figure_are_left_out():
    steps = np.random.default_rng(6).random(20).cumsum()
    values = [None] * 12 + steps[12:].tolist()
    assert relate(TOKENS[:20], values, steps).n == 8
    assert relate(TOKENS[:20], [None] * 18 + [1.0, 2.0], steps) is None


def test_between_runs_is_the_partial_correlation_given_the_checkpoint():
    rng = np.random.default_rng(7)
    trend = TOKENS[:12] / 10
    lead = rng.normal(size=(3, 12))
    one, other = trend + lead + rng.normal(size=(3, 12)), trend**2 + lead + rng.normal(size=(3, 12))
    found = relate_runs(one.tolist(), other.tolist())
    dummies = np.tile(np.eye(12), (3, 1))

    def residual(y):
        return y - dummies @ np.linalg.lstsq(dummies, y, rcond=None)[0]

    assert found.r == pytest.approx(stats.pearsonr(residual(one.ravel()), residual(other.ravel())).statistic)
    # The same test as that of the slope in the regression on dummies and the other curve.
    design = np.column_stack([other.ravel(), dummies])
    left = one.ravel() - design @ np.linalg.lstsq(design, one.ravel(), rcond=None)[0]
    freedom = 36 - 13
    cov = (left @ left / freedom) * np.linalg.inv(design.T @ design)
    t = np.linalg.lstsq(design, one.ravel(), rcond=None)[0][0] / np.sqrt(cov[0, 0])
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), freedom))
    assert found.n == 12


def test_a_shared_trend_is_no_relation_between_runs():
    rng = np.random.default_rng(8)
    one, other = (TOKENS + rng.normal(size=(3, 101)) for _ in range(2))
    assert abs(relate_runs(one.tolist(), other.tolist()).r) < 0.2


def test_a_constant_curve_has_no_relation():
    rising, constant = np.arange(8.0) ** 2, np.zeros(8)
    assert relate(TOKENS[:8], rising.tolist(), constant.tolist()) is None
    late = relate(np.arange(12.0), (np.arange(12.0) ** 2).tolist(), [0, 1, 0, 2, *[3.0] * 8])
    assert late.r2_second_half is None
    assert 0 < late.r2 < 1


def test_one_run_or_few_common_checkpoints_say_nothing_between_runs():
    steps = np.arange(8.0).tolist()
    assert relate_runs([steps], [steps]) is None
    assert relate_runs([steps, steps], [steps, steps]) is None
    assert relate_runs([steps, [None] * 4 + steps[4:]], [steps, steps]) is None
