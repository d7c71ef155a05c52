"""The axis of training: tasks seen where all points tell them, else tokens, else steps, else numbers in the series."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.emergence.point import CurvePoint


@dataclass(frozen=True)
class Axis:
    """What the progress of training is counted in.

    Attributes:
        name: attribute of a point: `tasks`, `tokens` or `step`.
        label: for a figure and a report.
        has_zero_start: whether 0 is a model without training, and twice as much twice the training.
    """

    name: str
    label: str
    has_zero_start: bool = True

    def values(self, points: Sequence[CurvePoint]) -> np.ndarray:
        """float64 [K], one value per point."""
        return np.array([getattr(point, self.name) for point in points], float)


def choose_axis(series: Iterable[Sequence[CurvePoint]]) -> Axis:
    """The axis of some series, which all of their points tell."""
    points = [point for part in series for point in part]
    if all(point.tasks is not None for point in points):
        return Axis("tasks", "training tasks")
    if all(point.tokens is not None for point in points):
        return Axis("tokens", "training tokens")
    if any(point.is_ordinal for point in points):
        return Axis("step", "checkpoint", has_zero_start=False)
    return Axis("step", "training steps")
