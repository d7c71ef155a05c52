"""Whitening of the training states of several seeds, from sums over the parts that their training sets have in common.

Seeds train on all folds but two, so that their covariances are sums of the same folds. Each part of the rows is summed
once and added for every seed that trains on it: `R D^2` multiply-adds instead of `Q R D^2`.

Letters: `R` states, `D` width, `Q` seeds, `D'` axes kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmark.probing.labels import Split
from benchmark.probing.probes import EVAL_BATCH_SIZE

SMALLEST_DEVIATION, SMALLEST_VARIANCE = 1e-6, 1e-7
"""Columns below the first are constant; axes below the second share of the largest variance are dropped."""


@dataclass(frozen=True)
class Whitening:
    """Mean float64 [D] and axes float64 [D, D'] of the training states of one seed, on their device."""

    mean: torch.Tensor
    axes: torch.Tensor


@dataclass
class Moments:
    """Sums over a set of states minus a shift that all sets have in common.

    Attributes:
        count: number of states.
        total: float64 [D], their sum.
        products: float64 [D, D], the sum of their outer products.
    """

    count: int
    total: torch.Tensor
    products: torch.Tensor

    def add(self, other: Moments) -> None:
        """Add the sums of a set that is disjoint from this one."""
        self.count += other.count
        self.total += other.total
        self.products += other.products


def shared_parts(trains: Sequence[np.ndarray], num_states: int) -> list[tuple[np.ndarray, list[int]]]:
    """The rows by the set of seeds that train on them: row indices, and positions of these seeds."""
    membership = np.zeros((len(trains), num_states), bool)
    for q, rows in enumerate(trains):
        membership[q, rows] = True
    used = np.flatnonzero(membership.any(0))
    patterns, part = np.unique(membership[:, used], axis=1, return_inverse=True)
    return [(used[part.reshape(-1) == i], np.flatnonzero(pattern).tolist()) for i, pattern in enumerate(patterns.T)]


def whiten_seeds(states: Sequence[torch.Tensor], splits: Sequence[Split], ridge: float) -> list[Whitening]:
    """The whitening of every seed; states float32 [R, D] per seed, and a tensor that seeds share is summed once."""
    whitenings: list[Whitening | None] = [None] * len(states)
    for tensor in {id(tensor): tensor for tensor in states}.values():
        seeds = [q for q, of_seed in enumerate(states) if of_seed is tensor]
        for q, whitening in zip(seeds, _whiten_shared(tensor, [splits[q].train for q in seeds], ridge), strict=True):
            whitenings[q] = whitening
    return [whitening for whitening in whitenings if whitening is not None]


def _whiten_shared(states: torch.Tensor, trains: Sequence[np.ndarray], ridge: float) -> list[Whitening]:
    width = states.shape[1]
    shift = states.mean(0, dtype=torch.float64)

    def empty() -> Moments:
        zeros = torch.zeros((width, width), dtype=torch.float64, device=states.device)
        return Moments(0, zeros[0].clone(), zeros)

    by_seed = [empty() for _ in trains]
    for rows, seeds in shared_parts(trains, len(states)):
        moments = empty()
        for batch in torch.from_numpy(rows).to(states.device).split(EVAL_BATCH_SIZE):
            centred = states[batch].double() - shift
            moments.count += len(batch)
            moments.total += centred.sum(0)
            moments.products += centred.T @ centred
        for q in seeds:
            by_seed[q].add(moments)
    return [_axes(moments, shift, ridge) for moments in by_seed]


def _axes(moments: Moments, shift: torch.Tensor, ridge: float) -> Whitening:
    """The principal axes, each divided by the standard deviation along it."""
    mean = moments.total / moments.count
    covariance = moments.products / moments.count - torch.outer(mean, mean)
    deviation = covariance.diagonal().clamp(min=0).sqrt()
    scale = torch.where(deviation > SMALLEST_DEVIATION, 1 / deviation, 0)
    variances, axes = torch.linalg.eigh(covariance * scale[:, None] * scale)
    largest = variances.max() if len(variances) else torch.zeros((), device=shift.device)
    is_used = variances > SMALLEST_VARIANCE * largest.clamp(min=1e-30)
    axes = scale[:, None] * axes[:, is_used] / torch.sqrt(variances[is_used] + ridge * largest)
    return Whitening(shift + mean, axes)
