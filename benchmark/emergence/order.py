"""In which order do delta, use and merges arise in training? Half points, their differences, and first crossings.

The half point of a figure is the logarithm to base 2 of the training at which its increasing fit reaches half of its
final value; a difference of -1 means half as much training. Intervals hold the tasks drawn (bootstrap, the same tasks
for all checkpoints and series) and, with several series of one recipe, the training seeds (Student's t). What the differences
would mean was written before any was computed: docs/emergence.md.

Letters: `K` checkpoints, `W` resamples, `S` series.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.causal.verdict import MARGIN, NOT_APPLICABLE
from benchmark.emergence.axis import Axis
from benchmark.emergence.monotone import half_points, simultaneous_lower
from benchmark.emergence.point import DELTA, MERGES, USE, CurvePoint
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.statistics import Estimate, interval_over_units_and_seeds

USE_OR_ZERO = "use, 0 where N/A"
"""Use as 0 where the model solves too few tasks for a verdict: the latest half point that use may have."""
CURVES = (DELTA, USE, USE_OR_ZERO, MERGES)
DIFFERENCES = ((DELTA, USE), (DELTA, USE_OR_ZERO), (DELTA, MERGES), (USE, MERGES))
BOUNDS = {DELTA: ROTATION_STANDARD.margin, USE: MARGIN}
"""What the lower bound of a figure must exceed for a first crossing; of merges, its floor."""
MIN_POINTS = 4
"""Smallest number of trained checkpoints at which a figure is defined, for a half point."""
LEVEL = 0.95
MAX_UNDEFINED = 0.05
"""Largest share of resamples without a half point."""
BEFORE, AFTER, TOGETHER, OPEN, FEW = "before", "after", "together", "undecided", "too few series"
MIN_SERIES = 3
"""Smallest number of series for a conclusion."""
AT_MOST, AT_LEAST, ABOUT = "at most ", "at least ", "about "
"""What stands before a half point or a difference that is a bound; before a difference of two bounds, `ABOUT`."""
TOGETHER_DOUBLINGS = 0.5
"""Two half points within this many doublings of training count as together."""


@dataclass(frozen=True)
class Curve:
    """A figure over the trained checkpoints of a series at which it is defined.

    Attributes:
        position: float64 [K], logarithm to base 2 of the training.
        values: float64 [K].
        resampled: float64 [W, K].
        bounds: float64 [K], what a lower bound must exceed for a crossing.
    """

    position: np.ndarray
    values: np.ndarray
    resampled: np.ndarray
    bounds: np.ndarray


@dataclass(frozen=True)
class HalfPoint:
    """The half point of a figure in a series: value and in each resample, float64 [W]."""

    value: float
    resampled: np.ndarray


@dataclass(frozen=True)
class Order:
    """What a report has of the order of the figures.

    Attributes:
        half: by figure, mean half point (logarithm to base 2 of the training) over the series that have one, with its 95%
            interval; `n` is their number.
        num_latest: by figure, number of series whose half point `is_latest`.
        differences: by pair such as `delta - use`, mean difference of half points, likewise.
        conclusions: by pair, `BEFORE`, `AFTER`, `TOGETHER`, `OPEN` or `FEW`.
        by_series: half points of each series by figure; None where there is none.
        crossings: by series and figure, training at the first checkpoint at which the figure exceeds its bound, with
            bounds that hold for all checkpoints at the same time; None if at none.
    """

    half: dict[str, Estimate | None]
    num_latest: dict[str, int]
    differences: dict[str, Estimate | None]
    conclusions: dict[str, str]
    by_series: dict[str, dict[str, float | None]]
    crossings: dict[str, dict[str, float | None]]

    def side(self, difference: str) -> str:
        """What stands before a difference whose half points are latest ones in some series; empty without any."""
        first, second = (self.num_latest[name] > 0 for name in difference.split(" - "))
        return (ABOUT if first else AT_LEAST) if second else AT_MOST if first else ""


def build_curve(points: Sequence[CurvePoint], name: str, axis: Axis) -> Curve | None:
    """The curve of a figure; None with fewer than `MIN_POINTS` checkpoints."""
    rows: list[tuple[float, float, list[float], float]] = []
    for training, point in zip(axis.values(points), points, strict=True):
        value, resampled, bound = _point_values(point, name)
        if training > 0 and value is not None and resampled:
            rows.append((float(np.log2(training)), value, resampled, bound))
    if len(rows) < MIN_POINTS:
        return None
    position, values, samples, bounds = zip(*rows, strict=True)
    longest = max(map(len, samples))
    resampled_rows = [part * longest if len(part) == 1 else part for part in samples]
    return Curve(np.array(position), np.array(values), np.array(resampled_rows).T, np.array(bounds))


def _point_values(point: CurvePoint, name: str) -> tuple[float | None, list[float], float]:
    """Value, resampled values and bound of a figure at a checkpoint; a single resampled value stands for equal ones."""
    if name == USE_OR_ZERO:
        if point.use is not None and point.use.verdict == NOT_APPLICABLE and point.use.solved is not None:
            return 0.0, [0.0], BOUNDS[USE]
        name = USE
    estimate = point.figure(name)
    floor = point.merges.floor.high if point.merges and point.merges.floor else 0.0
    bound = (BOUNDS | {MERGES: floor})[name]
    return (estimate.value if estimate else None), point.resampled.get(name, []), bound


def find_half_point(curve: Curve) -> HalfPoint | None:
    """The half point; None if the figure never exceeds its bound, or is not above 0 in too many resamples.

    Without the first condition noise alone, whose increasing fit rises, would have a half point.
    """
    if first_crossing(curve) is None:
        return None
    value = float(half_points(curve.position, curve.values))
    resampled = half_points(curve.position, curve.resampled)
    is_undefined = np.isnan(resampled)
    if np.isnan(value) or is_undefined.mean() > MAX_UNDEFINED:
        return None
    return HalfPoint(value, np.where(is_undefined, value, resampled))


def is_latest(half: HalfPoint | None, curve: Curve | None) -> bool:
    """Whether a figure has half of its final value at the first checkpoint that defines it: it may have had it before."""
    return half is not None and curve is not None and bool(half.value == curve.position[0])


def first_crossing(curve: Curve) -> float | None:
    """Training at the first checkpoint whose lower bound exceeds the bound of the figure; None if there is none."""
    is_above = simultaneous_lower(curve.values, curve.resampled, LEVEL) > curve.bounds
    return float(2 ** curve.position[is_above.argmax()]) if is_above.any() else None


def mean_over_series(parts: Sequence[HalfPoint]) -> Estimate | None:
    """Mean of half points, or of differences of them, with its interval; None without any.

    Of one series, the interval holds the tasks alone; of several, which have the same tasks, the training seeds as well.
    """
    if not parts:
        return None
    values = np.array([part.value for part in parts])
    count = min(len(part.resampled) for part in parts)
    resampled = np.mean([part.resampled[:count] for part in parts], axis=0)
    value = float(values.mean())
    if len(parts) > 1:
        return interval_over_units_and_seeds(value, resampled, values, len(parts), LEVEL, same_units=True)
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high), 1)


def subtract(first: HalfPoint, second: HalfPoint) -> HalfPoint:
    """The difference of two half points of one series."""
    count = min(len(first.resampled), len(second.resampled))
    return HalfPoint(first.value - second.value, first.resampled[:count] - second.resampled[:count])


def conclude(difference: Estimate | None, first_is_latest: bool = False, second_is_latest: bool = False) -> str:
    """What an interval of a difference says of the first of two figures; the rule is fixed in docs/emergence.md.

    Args:
        difference: mean over series; None if no series has both half points.
        first_is_latest, second_is_latest: whether the half point of the figure may be earlier in a series (`is_latest`),
            so that the difference may be too large, or too small.
    """
    if difference is None or difference.n < MIN_SERIES:
        return FEW
    if difference.high < 0:
        return OPEN if second_is_latest else BEFORE
    if difference.low > 0:
        return OPEN if first_is_latest else AFTER
    is_small = difference.low > -TOGETHER_DOUBLINGS and difference.high < TOGETHER_DOUBLINGS
    return TOGETHER if is_small and not first_is_latest and not second_is_latest else OPEN


def find_order(series: Mapping[str, Sequence[CurvePoint]], axis: Axis) -> Order:
    """The order of the figures over all series, which are training seeds of one recipe."""
    curves = {run: {name: build_curve(points, name, axis) for name in CURVES} for run, points in series.items()}
    halves = {
        run: {name: find_half_point(curve) if curve else None for name, curve in of_run.items()}
        for run, of_run in curves.items()
    }
    num_latest = {name: sum(is_latest(halves[run][name], curves[run][name]) for run in series) for name in CURVES}
    differences, conclusions = {}, {}
    for first, second in DIFFERENCES:
        pairs = [(of_run[first], of_run[second]) for of_run in halves.values()]
        difference = mean_over_series([subtract(a, b) for a, b in pairs if a is not None and b is not None])
        differences[f"{first} - {second}"] = difference
        conclusions[f"{first} - {second}"] = conclude(difference, num_latest[first] > 0, num_latest[second] > 0)
    return Order(
        {name: mean_over_series([h for of_run in halves.values() if (h := of_run[name])]) for name in CURVES},
        num_latest,
        differences,
        conclusions,
        {run: {name: h.value if h else None for name, h in of_run.items()} for run, of_run in halves.items()},
        {
            run: {name: first_crossing(curve) if curve else None for name, curve in of_run.items()}
            for run, of_run in curves.items()
        },
    )
