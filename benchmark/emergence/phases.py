"""The phases of a training run, and how semantic content and accuracy go together over it.

Source: Jin & Rinard 2024, section 4 (babbling, syntax acquisition, semantics acquisition; R^2 of semantic content and
accuracy). The rule for the phases is this project's, since the paper reads them off its curves. Letters: `K` checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

PAPER_SHARES = (0.50, 0.25, 0.25)
"""Of training, as the paper gives them: babbling, syntax acquisition, semantics acquisition."""
PAPER_R2 = 0.878
RISE_LEVEL, PLATEAU_LEVEL = 0.1, 0.9
"""Shares of its final value at which a curve counts as having begun to rise, and as having levelled off."""
NUM_FINAL_CHECKPOINTS = 3
"""Checkpoints whose mean is the final value of a curve."""


@dataclass(frozen=True)
class Phases:
    """Where a training run passes from one phase to the next, in training tokens.

    Attributes:
        babbling: end of babbling: the share of distinct programs first exceeds `RISEN` of its final value.
        syntax: end of syntax acquisition: it first exceeds `LEVELLED` of its final value; semantics follows.
        solved: accuracy first exceeds `LEVELLED` of its final value: what is learnt after it is little.
        shares: of training, of the three phases; semantics acquisition lasts to the end, as in the paper.
        to_solved: the same shares of the training up to `solved`; None where that comes before semantics begins.
        accuracy: at the end of each phase, interpolated.
    """

    babbling: float
    syntax: float
    solved: float
    shares: tuple[float, float, float]
    to_solved: tuple[float, float, float] | None
    accuracy: tuple[float, float, float]


def find_phases(tokens: np.ndarray, distinct: np.ndarray, accuracy: np.ndarray) -> Phases:
    """The phases of one run.

    Args:
        tokens: [K], rising.
        distinct: [K], different valid programs over test tasks.
        accuracy: [K], of the test tasks.

    Raises:
        ValueError: fewer than `LAST` + 1 checkpoints.
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
    """Where a curve first reaches a level, linear between checkpoints; its first token if it begins there."""
    first = int(np.argmax(values >= level))
    if first == 0:
        return float(tokens[0])
    below, above = values[first - 1], values[first]
    return float(tokens[first - 1] + (level - below) / (above - below) * (tokens[first] - tokens[first - 1]))


@dataclass(frozen=True)
class Relation:
    """How two curves of a run go together.

    Attributes:
        n: checkpoints that have both figures.
        r2: squared correlation of the values, as the paper gives it; two curves that both rise have a high one
            whatever they have to do with each other.
        r2_second_half: the same over the second half of training.
        changes: correlation of first differences, from checkpoint to checkpoint, and its two-sided p.
        rank_changes: Spearman's rank correlation of first differences, and its two-sided p.
    """

    n: int
    r2: float
    r2_second_half: float | None
    changes: tuple[float, float]
    rank_changes: tuple[float, float]


def relate(tokens: Sequence[float], curve: Sequence[float | None], accuracy: Sequence[float]) -> Relation | None:
    """The relation of two curves [K]; None with fewer than five checkpoints that have both.

    Checkpoints need not be evenly spaced, so first differences are taken per token.
    """
    indices = [i for i, value in enumerate(curve) if value is not None]
    if len(indices) < 5:
        return None
    t = np.array(tokens, float)[indices]
    a, b = np.array([curve[i] for i in indices], float), np.array(accuracy, float)[indices]
    second_half = t >= t[-1] / 2
    slopes = np.diff(a) / np.diff(t), np.diff(b) / np.diff(t)
    pearson, spearman = stats.pearsonr(*slopes), stats.spearmanr(*slopes)
    return Relation(
        len(indices),
        float(np.corrcoef(a, b)[0, 1] ** 2),
        float(np.corrcoef(a[second_half], b[second_half])[0, 1] ** 2) if second_half.sum() >= 4 else None,
        (float(pearson.statistic), float(pearson.pvalue)),
        (float(spearman.statistic), float(spearman.pvalue)),
    )


@dataclass(frozen=True)
class BetweenRuns:
    """Whether that run is ahead in one curve which is ahead in the other, at the same checkpoint.

    Attributes:
        n: checkpoints at which all runs have both figures.
        r: correlation of the deviations from the mean over runs; the trend, which all runs share, is not in it.
        p: two-sided, of r, as if checkpoints of a run were independent; they are not quite, so it is too small.
    """

    n: int
    r: float
    p: float


def relate_runs(run_curves: Sequence[Sequence[float | None]], run_accuracies: Sequence[Sequence[float]]) -> BetweenRuns | None:
    """The relation of two curves [runs, K] between runs; None for fewer than five common checkpoints, or runs all alike.

    Source: repeated-measures correlation (Bakdash & Marusich 2017, section 2), with checkpoints in the place of subjects.
    """
    indices = [k for k in range(len(run_accuracies[0])) if all(curve[k] is not None for curve in run_curves)]
    if len(indices) < 5:
        return None
    a, b = (np.array([[curve[k] for k in indices] for curve in curves], float) for curves in (run_curves, run_accuracies))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    spread = float(np.sqrt((a * a).sum() * (b * b).sum()))
    if spread == 0:
        return None
    r = float((a * b).sum() / spread)
    degrees_of_freedom = len(indices) * (len(run_accuracies) - 1) - 1
    t = r * np.sqrt(degrees_of_freedom / (1 - r * r))
    return BetweenRuns(len(indices), r, float(2 * stats.t.sf(abs(t), degrees_of_freedom)))
