"""Intervals of delta for tied controls: the frozen one errs to the safe side, and what would not."""

from __future__ import annotations

import numpy as np
import pytest

from benchmark.calibrate.intervals.tied_controls import INTERVALS, Case, frozen, intersection_bounds, simulate
from benchmark.probing.version4.rotation_interval import GapSample, estimate_gap


def gap(value: float, seed: int) -> GapSample:
    random = np.random.default_rng(seed)
    return GapSample(value, value + random.normal(scale=0.02, size=400), value + random.normal(scale=0.02, size=7))


def test_with_a_control_of_its_own_every_interval_is_about_that_of_protocol_4() -> None:
    case = Case(gap(0.3, 1), (gap(0.1, 2),), 490)
    assert frozen(case) == pytest.approx(of_a_single_control(case), abs=1e-9)
    for name, interval in INTERVALS.items():
        assert interval(case) == pytest.approx(frozen(case), abs=0.015), name


def of_a_single_control(case: Case) -> tuple[float, float]:
    estimate = estimate_gap(case.beyond(0), case.groups, 0.95)
    return estimate.low, estimate.high


def test_controls_out_of_reach_do_not_widen_the_intersection_bounds() -> None:
    near, far = gap(0.1, 2), gap(-0.5, 3)
    alone, both = (Case(gap(0.3, 1), controls, 490) for controls in ((near,), (near, far)))
    assert intersection_bounds(both) == pytest.approx(intersection_bounds(alone))


def test_tied_controls() -> None:
    shares = simulate(4, 0.0, cases=80)
    low, high = shares["protocol 4"]
    assert low <= 0.02
    assert high > 0.02
    # The smallest ends over the controls are never above the truth more often, and their upper end is not below it.
    assert shares["intersection bounds"][0] <= 0.02
    assert shares["intersection bounds"][1] < high
    assert shares["percentile"][1] > high
