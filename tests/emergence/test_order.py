"""Increasing fits, half points and their differences, on curves whose answer is known."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from curve_points import simulate_series
from sklearn.isotonic import IsotonicRegression

from benchmark.emergence.axis import choose_axis
from benchmark.emergence.monotone import fit_increasing, half_points, simultaneous_lower
from benchmark.emergence.order import (
    AFTER,
    AT_LEAST,
    BEFORE,
    CURVES,
    FEW,
    MIN_POINTS,
    OPEN,
    TOGETHER,
    USE_OR_ZERO,
    build_curve,
    conclude,
    find_half_point,
    find_order,
    first_crossing,
)
from benchmark.emergence.point import DELTA, MERGES, USE
from benchmark.emergence.report import build_report, format_report
from benchmark.statistics import Estimate


@pytest.mark.parametrize("count", [1, 2, 7, 20])
def test_the_fit_is_the_isotonic_regression_of_scikit_learn(count):
    values = np.random.default_rng(count).normal(size=(30, count)) + np.linspace(0, 1, count)
    values[0] = np.sort(values[0])[::-1]
    for row, fit in zip(values, fit_increasing(values), strict=True):
        assert fit == pytest.approx(IsotonicRegression().fit_transform(np.arange(count), row), abs=1e-12)


def test_the_half_point_lies_between_the_checkpoints_around_it():
    position = np.array([2.0, 3, 4, 6])
    rising = [0, 0.2, 0.8, 1]
    # Of the plateau that a late decline pools, the level is the mean.
    declining = [0, 0.2, 1.2, 0.8]
    values = np.array([rising, declining, [0.6, 0.7, 1, 1], [-1, -1, -1, -0.1], [0, 0.5, 0.5, 1]])
    assert half_points(position, values) == pytest.approx([3.5, 3.375, 2, np.nan, 3], nan_ok=True)


def test_a_bound_that_holds_for_all_checkpoints_is_below_one_that_holds_for_each():
    generator = np.random.default_rng(5)
    resampled = generator.normal(size=(2000, 12))
    lower = simultaneous_lower(np.zeros(12), resampled, 0.95)
    assert (lower < -2.5).all()
    assert (resampled.min(1) > lower.max()).mean() == pytest.approx(0.95, abs=0.02)
    assert simultaneous_lower(np.ones(3), np.ones((10, 3)), 0.95) == pytest.approx([1, 1, 1])


def test_the_order_of_known_curves_is_returned():
    series = {f"seed {s}": simulate_series(s, {DELTA: 10.0, USE: 12.0, MERGES: 8.0}, noise=0.002) for s in range(4)}
    order = find_order(series, choose_axis(series.values()))
    for name, expected in ((DELTA, 10), (USE, 12), (MERGES, 8)):
        estimate = order.half[name]
        assert estimate.value == pytest.approx(expected, abs=0.1)
        assert estimate.low < expected < estimate.high
        assert estimate.n == 4
    assert order.differences["delta - use"].value == pytest.approx(-2, abs=0.1)
    assert order.conclusions["delta - use"] == BEFORE
    assert order.conclusions["delta - merges"] == AFTER
    # The first checkpoint above the bound of each figure, of checkpoints at whole doublings.
    crossings = order.crossings["seed 0"]
    assert crossings[DELTA] < crossings[USE]
    assert crossings[DELTA] in {2.0**k for k in range(17)}


@pytest.mark.parametrize(
    ("low", "high", "conclusion"),
    [(-3, -0.1, BEFORE), (0.1, 2, AFTER), (-0.4, 0.4, TOGETHER), (-0.4, 0.6, OPEN), (-0.3, -0.1, BEFORE)],
)
def test_what_an_interval_means(low, high, conclusion):
    assert conclude(Estimate((low + high) / 2, low, high, 5)) == conclusion
    assert conclude(None) == conclude(Estimate(-2, -3, -1, 2)) == FEW


@pytest.mark.parametrize(
    ("low", "high", "first_is_latest", "second_is_latest", "conclusion"),
    [
        # The first figure may have risen earlier still, which keeps `before`; the second may have, which does not.
        (-3, -0.1, True, False, BEFORE),
        (-3, -0.1, False, True, OPEN),
        (0.1, 2, False, True, AFTER),
        (0.1, 2, True, False, OPEN),
        (-0.4, 0.4, False, True, OPEN),
        (-0.4, 0.4, True, False, OPEN),
    ],
)
def test_a_half_point_that_may_be_earlier_supports_one_conclusion(
    low, high, first_is_latest, second_is_latest, conclusion
):
    assert conclude(Estimate((low + high) / 2, low, high, 5), first_is_latest, second_is_latest) == conclusion


def test_a_figure_that_is_first_defined_above_half_has_a_latest_half_point():
    seeds = {f"seed {s}": simulate_series(s, {DELTA: 10.0, USE: 6.0}, noise=0.002) for s in range(3)}
    # As for a model that solves too little before: use is measured from the eighth doubling on, where it is final.
    late = {
        run: [replace(p, use=None, resampled={DELTA: p.resampled[DELTA]}) if p.tasks < 2**8 else p for p in points]
        for run, points in seeds.items()
    }
    assert find_order(seeds, choose_axis(seeds.values())).num_latest == dict.fromkeys(CURVES, 0)
    order = find_order(late, choose_axis(late.values()))
    assert order.num_latest == {**dict.fromkeys(CURVES, 0), USE: 3, USE_OR_ZERO: 3}
    assert order.half[USE].value == 8
    assert order.side("delta - use") == AT_LEAST
    assert order.conclusions["delta - use"] == AFTER
    text = format_report(build_report(late))
    assert re.search(r"use +at most 256 ", text)
    assert re.search(r"delta - use +at least \+2\.\d+ ", text)


def coverage(num_simulations: int) -> tuple[float, float]:
    """Share of simulated experiments whose interval holds the true difference; and mean error of the difference."""
    true_difference, hits, errors = -0.7, [], []
    for simulation in range(num_simulations):
        halves = np.random.default_rng([7, simulation]).normal([10.0, 10.7], 0.3, size=(5, 2))
        series = {
            str(s): simulate_series(
                [simulation, s], {DELTA: halves[s, 0], USE: halves[s, 1]}, noise=0.03, shared=simulation
            )
            for s in range(5)
        }
        difference = find_order(series, choose_axis(series.values())).differences["delta - use"]
        hits.append(difference.low <= true_difference <= difference.high)
        errors.append(difference.value - true_difference)
    return float(np.mean(hits)), float(np.mean(errors))


def test_the_interval_of_a_difference_holds_the_true_one():
    share, error = coverage(24)
    assert share >= 21 / 24
    assert abs(error) < 0.15


@pytest.mark.slow
def test_the_interval_holds_the_true_difference_as_often_as_it_says():
    share, error = coverage(400)
    assert 0.92 <= share <= 0.985
    assert abs(error) < 0.05


def test_a_series_that_tells_too_little_has_no_half_point():
    points = simulate_series(1, {DELTA: 10.0}, noise=0.002)
    axis = choose_axis([points])
    assert build_curve(points, DELTA, axis) is not None
    # The untrained model is no point of a logarithmic axis.
    assert build_curve(points[: MIN_POINTS + 1], DELTA, axis) is not None
    assert build_curve(points[:MIN_POINTS], DELTA, axis) is None
    assert build_curve(points, USE, axis) is None
    flat = build_curve(simulate_series(1, {DELTA: 10.0}, noise=0.02, height=0.0), DELTA, axis)
    assert find_half_point(flat) is None
    assert first_crossing(flat) is None


def test_use_counts_as_missing_or_as_zero_where_the_model_solves_too_little():
    series = {"one": simulate_series(3, {DELTA: 10.0, USE: 6.0}, noise=0.002, solved_from=9)}
    order = find_order(series, choose_axis(series.values()))
    halves = order.by_series["one"]
    assert halves[USE] == pytest.approx(6, abs=0.3)
    assert 8 <= halves[USE_OR_ZERO] <= 9
    assert order.differences["delta - use"].value > order.differences[f"delta - {USE_OR_ZERO}"].value
