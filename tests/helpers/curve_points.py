"""Points of a training whose figures rise where one says, with noise that all checkpoints have from their tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmark.causal.merges import MergeResult
from benchmark.emergence.point import DELTA, MERGES, USE, CurvePoint, RotationFigures, UseFigures
from benchmark.statistics import Estimate, bootstrap_weights, wilson
from benchmark.tasks.scoring import Summary

DOUBLINGS = 16
NUM_UNITS, NUM_RESAMPLES = 60, 200


def summary(shown: float = 0.5, distinct: float | None = 0.4) -> Summary:
    """Scores of 600 tasks."""
    rate = wilson(round(600 * shown), 600)
    assert rate is not None
    return Summary(rate, rate, rate, rate, rate, rate, distinct, 5.0, {"solved": round(600 * shown)})


def simulate_series(
    seed: int | Sequence[int],
    halves: Mapping[str, float],
    noise: float,
    shared: int = 0,
    height: float = 0.4,
    solved_from: float = 0.0,
) -> list[CurvePoint]:
    """An untrained model and a checkpoint at 1, 2, 4 ... 65,536 tasks.

    Args:
        seed: of what varies between series.
        halves: by figure, the logarithm of the tasks at which it reaches half of its final value.
        noise: standard error of a figure, half of it from tasks that all series of one `shared` have.
        shared: seed of the tasks.
        height: final value of each figure.
        solved_from: logarithm of the tasks from which the model solves enough for a verdict of use.
    """
    position = np.arange(DOUBLINGS + 1, dtype=float)
    weights = bootstrap_weights(NUM_UNITS, NUM_RESAMPLES, 1) / NUM_UNITS
    figures: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for number, (name, half) in enumerate(halves.items()):
        true_curve = height / (1 + np.exp(-2.5 * (position - half)))
        scale = noise * np.sqrt(NUM_UNITS / 2)
        of_tasks = np.random.default_rng([11, shared, number]).normal(size=(NUM_UNITS, len(position))) * scale
        own = np.random.default_rng([13, number, *np.atleast_1d(seed)]).normal(size=of_tasks.shape) * scale
        units = true_curve + of_tasks + own
        figures[name] = units.mean(0), weights @ units
    untrained = {name: np.zeros(NUM_RESAMPLES) for name in figures}
    points = [_point(0, dict.fromkeys(figures, 0.0), untrained, False)]
    for k, doublings in enumerate(position):
        values = {name: float(of_name[0][k]) for name, of_name in figures.items()}
        resampled = {name: of_name[1][:, k] for name, of_name in figures.items()}
        points.append(_point(int(2**doublings), values, resampled, doublings >= solved_from))
    return points


def _point(tasks: int, values: Mapping[str, float], resampled: Mapping[str, np.ndarray], is_solved: bool) -> CurvePoint:
    estimates = {
        name: Estimate(value, *np.quantile(resampled[name], [0.025, 0.975]).tolist(), NUM_UNITS)
        for name, value in values.items()
    }
    rotation = use = merges = None
    if DELTA in estimates:
        delta = estimates[DELTA]
        rotation = RotationFigures("INCONCLUSIVE", 3, delta, delta, delta, delta)
    if USE in estimates:
        part = estimates[USE]
        use = UseFigures("USES" if is_solved else "N/A", 0.9 if is_solved else 0.1, part, part, part)
    if MERGES in estimates:
        merges = MergeResult(estimates[MERGES], Estimate(0.0, -0.02, 0.02, 100), 0.8, 0.1, 0.4, 100)
    return CurvePoint(
        tasks // 128, tasks, tasks * 114, summary(), 0.3, rotation=rotation, use=use, merges=merges,
        resampled={name: part.tolist() for name, part in resampled.items()},
    )  # fmt: skip
