"""Intervals against simulations whose truth is known, and against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmark.statistics import bootstrap_weights, holm, interval_over_units_and_seeds, mean, wilson


@pytest.mark.parametrize("level", [0.90, 0.95])
@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0, 3.0])
def test_the_interval_over_units_and_seeds_covers_the_truth(level, seeds, ratio):
    """`ratio`: standard deviation due to the seeds over that due to the units of one fold."""
    rng = np.random.default_rng([seeds, round(10 * ratio)])
    units, simulations = 60, 1000
    weights = bootstrap_weights(seeds * units, 400, 1)
    covered = 0
    for _ in range(simulations):
        figures = rng.normal(size=(seeds, units)) + rng.normal(size=(seeds, 1)) * ratio / np.sqrt(units)
        resampled = weights @ figures.ravel() / figures.size
        found = interval_over_units_and_seeds(figures.mean(), resampled, figures.mean(1), figures.size, level)
        covered += found.low <= 0 <= found.high
    assert level - 0.035 < covered / simulations < level + 0.035


def test_an_interval_without_the_seeds_would_not_cover():
    """Positive control: where seeds matter, the units alone are far too sure."""
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(500):
        figures = rng.normal(size=(5, 60)) + rng.normal(size=(5, 1)) * 3 / np.sqrt(60)
        half = 1.96 * figures.std() / np.sqrt(figures.size)
        covered += abs(figures.mean()) <= half
    assert covered / 500 < 0.6


def test_bootstrap_weights_are_draws_with_replacement():
    weights = bootstrap_weights(50, 4000, 3)
    assert (weights.sum(1) == 50).all()
    assert weights.mean() == pytest.approx(1)
    assert weights.var() == pytest.approx(1 - 1 / 50, abs=0.02)
    assert np.array_equal(weights, bootstrap_weights(50, 4000, 3))


def test_wilson_and_mean_are_those_of_the_textbook():
    found = wilson(8, 10)
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 0) is None
    values = np.array([1.0, 2.0, 4.0, 8.0])
    low, high = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert (mean(values).low, mean(values).high) == pytest.approx((low, high))
    assert mean(values[:1]) is None


def test_holm_is_stepwise():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
