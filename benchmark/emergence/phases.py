"""Phases of a training run, and the relation of semantic content and accuracy over training.

Source: Jin & Rinard 2024, section 4 (babbling, syntax acquisition, semantics acquisition; R^2 of semantic content and
accuracy). The rule for the phases is this project's: the paper reads them off its curves. Letters: `K` checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

PAPER_SHARES = (0.50, 0.25, 0.25)
"""Shares of training in the paper: babbling, syntax acquisition, semantics acquisition."""
PAPER_R2 = 0.878
RISE_LEVEL, PLATEAU_LEVEL = 0.1, 0.9
"""Shares of its final value at which a curve counts as rising, and as levelled off."""
NUM_FINAL_CHECKPOINTS = 3
"""Number of final checkpoints whose mean is the final value of a curve."""


@dataclass(frozen=True)
class Phases:
    """Phase boundaries of a training run, in units of its axis.

    Attributes:
        babbling: end of babbling: the share of distinct programs first exceeds `RISE_LEVEL` of its final value.
        syntax: end of syntax acquisition: that share first exceeds `PLATEAU_LEVEL` of its final value.
        solved: point at which accuracy first exceeds `PLATEAU_LEVEL` of its final value.
        shares: shares of training of the three phases; semantics acquisition lasts to the end, as in the paper.
        to_solved: the same shares of the training up to `solved`; None if `solved` precedes semantics acquisition.
        accuracy: at the end of each phase, interpolated.
    """

    babbling: float
    syntax: float
    solved: float
    shares: tuple[float, float, float]
    to_solved: tuple[float, float, float] | None
    accuracy: tuple[float, float, float]


def find_phases(tokens: np.ndarray, distinct: np.ndarray, accuracy: np.ndarray) -> Phases:
    """Find the phases of one run.

    Args:
        tokens: [K], training in tokens, tasks or steps, increasing.
        distinct: [K], number of distinct valid programs / number of test tasks.
        accuracy: [K], accuracy on the test tasks.

    Raises:
        ValueError: There are fewer than `NUM_FINAL_CHECKPOINTS` + 1 checkpoints.
    """
    if len(tokens) <= NUM_FINAL_CHECKPOINTS:
        raise ValueError(f"phases: {len(tokens)} checkpoints; at least {NUM_FINAL_CHECKPOINTS + 1} are needed")
    babbling = crossing_tokens(tokens, distinct, RISE_LEVEL * distinct[-NUM_FINAL_CHECKPOINTS:].mean())
    syntax = crossing_tokens(tokens, distinct, PLATEAU_LEVEL * distinct[-NUM_FINAL_CHECKPOINTS:].mean())
    solved = crossing_tokens(tokens, accuracy, PLATEAU_LEVEL * accuracy[-NUM_FINAL_CHECKPOINTS:].mean())
    at = np.interp([babbling, syntax, tokens[-1]], tokens, accuracy)
    return Phases(
        babbling,
        syntax,
        solved,
        _shares(babbling, syntax, float(tokens[-1])),
        _shares(babbling, syntax, solved) if solved > syntax else None,
        (float(at[0]), float(at[1]), float(at[2])),
    )


def _shares(first: float, second: float, end: float) -> tuple[float, float, float]:
    return first / end, (second - first) / end, (end - second) / end


def crossing_tokens(tokens: np.ndarray, values: np.ndarray, level: float) -> float:
    """Tokens at which a curve first reaches a level, by linear interpolation; the first value if it starts there."""
    first = int(np.argmax(values >= level))
    if first == 0:
        return float(tokens[0])
    below, above = values[first - 1], values[first]
    return float(tokens[first - 1] + (level - below) / (above - below) * (tokens[first] - tokens[first - 1]))


@dataclass(frozen=True)
class Relation:
    """Relation of two curves of a run.

    Attributes:
        n: number of checkpoints at which both are defined.
        r2: squared correlation of the values, as in the paper; high for any two increasing curves, related or not.
        r2_second_half: the same over the second half of training.
        changes: correlation of first differences between checkpoints, and its two-sided p value.
        rank_changes: Spearman's rank correlation of first differences, and its two-sided p value.
    """

    n: int
    r2: float
    r2_second_half: float | None
    changes: tuple[float, float]
    rank_changes: tuple[float, float]


def relate(tokens: Sequence[float], curve: Sequence[float | None], accuracy: Sequence[float]) -> Relation | None:
    """Relate two curves [K]; None with fewer than five checkpoints at which both are defined, or if one is constant.

    Checkpoints need not be evenly spaced, so first differences are taken per token.
    """
    indices = [i for i, value in enumerate(curve) if value is not None]
    if len(indices) < 5:
        return None
    t = np.array(tokens, float)[indices]
    a, b = np.array([curve[i] for i in indices], float), np.array(accuracy, float)[indices]
    second_half = t >= t[-1] / 2
    slopes = np.diff(a) / np.diff(t), np.diff(b) / np.diff(t)
    if min(np.ptp(slopes[0]), np.ptp(slopes[1]), np.ptp(a), np.ptp(b)) == 0:
        return None
    pearson, spearman = stats.pearsonr(*slopes), stats.spearmanr(*slopes)
    return Relation(
        len(indices),
        float(np.corrcoef(a, b)[0, 1] ** 2),
        _second_half_r2(a[second_half], b[second_half]),
        (float(pearson.statistic), float(pearson.pvalue)),
        (float(spearman.statistic), float(spearman.pvalue)),
    )


def _second_half_r2(a: np.ndarray, b: np.ndarray) -> float | None:
    """None with fewer than four checkpoints, or if a curve is constant."""
    return float(np.corrcoef(a, b)[0, 1] ** 2) if len(a) >= 4 and np.ptp(a) and np.ptp(b) else None


@dataclass(frozen=True)
class BetweenRuns:
    """Correlation between runs of two curves at the same checkpoint.

    Attributes:
        n: number of checkpoints at which both are defined in all runs.
        r: correlation of the deviations from the mean over runs, which removes the trend that runs share.
        p: two-sided p value of r, assuming independent checkpoints; they are not, so it is too small.
    """

    n: int
    r: float
    p: float


def relate_runs(
    run_curves: Sequence[Sequence[float | None]], run_accuracies: Sequence[Sequence[float]]
) -> BetweenRuns | None:
    """Relate two curves [runs, K] between runs; None with fewer than five common checkpoints or identical runs.

    Source: repeated-measures correlation (Bakdash & Marusich 2017, section 2), with checkpoints as subjects.
    """
    indices = [k for k in range(len(run_accuracies[0])) if all(curve[k] is not None for curve in run_curves)]
    if len(indices) < 5:
        return None
    a, b = (
        np.array([[curve[k] for k in indices] for curve in curves], float) for curves in (run_curves, run_accuracies)
    )
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    spread = float(np.sqrt((a * a).sum() * (b * b).sum()))
    if spread == 0:
        return None
    r = float((a * b).sum() / spread)
    degrees_of_freedom = len(indices) * (len(run_accuracies) - 1) - 1
    t = r * np.sqrt(degrees_of_freedom / (1 - r * r))
    return BetweenRuns(len(indices), r, float(2 * stats.t.sf(abs(t), degrees_of_freedom)))
