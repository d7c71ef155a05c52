"""The figures of one checkpoint of a series, and the file of the points of a series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from benchmark.causal.merges import MergeResult
from benchmark.errors import UsageError
from benchmark.runner.store import write_atomic
from benchmark.statistics import Estimate
from benchmark.tasks.scoring import Summary

DELTA, USE, MERGES = "delta", "use", "merges"
ORDERED = (DELTA, USE, MERGES)
"""Figures whose order in training is compared; `CurvePoint.resampled` has them."""


@dataclass(frozen=True)
class RotationFigures:
    """Figures of protocol 4; see `RotationResult`. `seeds` is the number of probe seeds that they are of."""

    verdict: str
    seeds: int
    skill: Estimate
    delta: Estimate
    pose_delta: Estimate | None
    arithmetic: Estimate


@dataclass(frozen=True)
class UseFigures:
    """Figures of *Uses*, on strict pairs; see `UseScore`.

    Attributes:
        verdict, solved: see `UseResult`.
        steered, margin, use: also where the verdict is N/A since the model solves too few tasks; None with too few pairs.
    """

    verdict: str
    solved: float | None
    steered: Estimate | None
    margin: Estimate | None
    use: Estimate | None


@dataclass(frozen=True)
class CurvePoint:
    """Figures of one checkpoint.

    Attributes:
        step: training step, or if `is_ordinal` its number in the series, from 0.
        tasks, tokens: tasks and tokens seen; None if unknown.
        accuracy: scores on the test tasks.
        distinct: number of distinct valid programs / number of test tasks.
        rotation, use, merges: None if not measured.
        content: the paper's semantic content by probe depth; None if not measured, or with too few distinct programs.
        floors: by depth, the largest of the same figure of a probe of less; see `probing.written.content`.
        reach: see `ReachFigures`.
        resampled: value of `ORDERED` figures in bootstrap resamples of prompts (delta) and tasks, the same ones for all
            checkpoints on a suite.
        perplexity, reference_words, skill, gap, delta, verdict, mdl_delta, future: of protocol 3; in earlier records only.
    """

    step: int
    tasks: int | None
    tokens: int | None
    accuracy: Summary
    distinct: float
    is_ordinal: bool = False
    rotation: RotationFigures | None = None
    use: UseFigures | None = None
    merges: MergeResult | None = None
    content: dict[str, Estimate] | None = None
    floors: dict[str, Estimate] | None = None
    reach: int | None = None
    resampled: dict[str, list[float]] = field(default_factory=dict)
    perplexity: float | None = None
    reference_words: float | None = None
    skill: Estimate | None = None
    gap: Estimate | None = None
    delta: Estimate | None = None
    verdict: str | None = None
    mdl_delta: Estimate | None = None
    future: dict[int, Estimate] = field(default_factory=dict)

    @property
    def num_distinct(self) -> int:
        """Number of distinct valid programs for the test tasks."""
        return round(self.distinct * self.accuracy.shown.n)

    def figure(self, name: str) -> Estimate | None:
        """A figure of `ORDERED`; None if it was not measured, or is not defined."""
        if name == DELTA:
            return self.rotation.delta if self.rotation else None
        if name == USE:
            return self.use.use if self.use else None
        return self.merges.merges if self.merges else None


_POINT, _POINTS = TypeAdapter(CurvePoint), TypeAdapter(list[CurvePoint])


def dump_point(point: CurvePoint) -> bytes:
    """One point as a line of JSON."""
    content: bytes = _POINT.dump_json(point, exclude_defaults=True)
    return content


def read_point(path: Path) -> CurvePoint:
    """Read one point."""
    return _POINT.validate_json(path.read_bytes())


def read_points(path: Path) -> list[CurvePoint]:
    """Read the points of a series, in order, from a file of `write_points`.

    Raises:
        UsageError: The file cannot be read or is not such a file.
    """
    try:
        points = _POINTS.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        message = " ".join(str(error).split())[:200]
        raise UsageError(f"{path}: {message}; expected a file of points that this command wrote") from error
    if not points:
        raise UsageError(f"{path}: no points in it; expected at least one")
    return points


def write_points(path: Path, points: Sequence[CurvePoint]) -> None:
    """Write all points of a series as one JSON file, one line per point."""
    write_atomic(path, ("[" + ",\n".join(dump_point(point).decode() for point in points) + "]\n").encode())
