"""Distributed alignment search: a subspace trained so that a donor's coordinates in it write the donor's word.

Source: Geiger et al. 2023 (2303.02536). An orthonormal basis [D, K] is trained by gradient on choose pairs: the
coordinates of a pair's state are replaced by those of a state with the target value, and the loss is the cross entropy of
the six continuations against the target. Since an expressive map can be fitted to any network (Sutter et al. 2025,
2507.08802), it is judged on other tasks, and the same search is made under a false semantics.

Letters: `B` rows of a batch, `D` width, `K` rank, `R` donors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from benchmark.causal.detail.donors import pick_donors

if TYPE_CHECKING:
    import torch

DAS_RANKS = (4, 16)
TRAIN_PAIRS, TRAIN_BATCH, TRAIN_STEPS = 384, 64, 60
"""Largest number of choose pairs that are trained on, pairs of a step, and steps."""
LEARNING_RATE = 0.03
DAS_SEED = 90_301


class DifferentiablePrefixes(Protocol):
    """Prefixes whose word scores can be differentiated by the state of one site."""

    def word_scores(self, states: torch.Tensor) -> torch.Tensor:
        """float [B, 6], log-probabilities of the six continuations after the state [B, D] is set."""
        ...


@dataclass(frozen=True)
class TrainingBatch:
    """Pairs of one step.

    Attributes:
        prefixes: the prepared prefixes.
        states: float32 [B, D], their states at the site.
        target: int [B], words to be written.
        rows: int [B], their pairs.
    """

    prefixes: DifferentiablePrefixes
    states: np.ndarray
    target: np.ndarray
    rows: np.ndarray


def train_basis(
    batches: Sequence[TrainingBatch],
    values: np.ndarray,
    donors: np.ndarray,
    labels: np.ndarray,
    rank: int,
    steps: int = TRAIN_STEPS,
) -> np.ndarray:
    """Train the basis of a subspace.

    Args:
        batches: pairs of each step, in turn.
        values: int [P], the new value of every pair of the measurement.
        donors: float32 [R, D], states at the mean prefixes.
        labels: int [R], their values.
        rank: K, at most D.
        steps: number of steps of Adam.

    Returns:
        float32 [D, K], orthonormal directions, one per column; the same for the same arguments on one machine.
    """
    import torch

    width = donors.shape[1]
    random = np.random.Generator(np.random.Philox([DAS_SEED, rank]))
    start = random.standard_normal((width, min(rank, width))).astype(np.float32) / np.float32(np.sqrt(width))
    with torch.inference_mode(False), torch.enable_grad():
        weights = torch.from_numpy(start).requires_grad_(True)
        optimizer = torch.optim.Adam([weights], lr=LEARNING_RATE)
        for step in range(steps):
            batch = batches[step % len(batches)]
            # Another donor at each step, so that a basis cannot learn single donors.
            picked = donors[pick_donors(labels, values[batch.rows], batch.rows, DAS_SEED + 1_000_003 * (1 + step))]
            states, new = torch.from_numpy(batch.states), torch.from_numpy(np.ascontiguousarray(picked))
            basis, _ = torch.linalg.qr(weights)
            scores = batch.prefixes.word_scores(states + ((new - states) @ basis) @ basis.T)
            loss = torch.nn.functional.cross_entropy(scores.float(), torch.from_numpy(batch.target.astype(np.int64)))
            (weights.grad,) = torch.autograd.grad(loss, [weights])
            optimizer.step()
        trained, _ = torch.linalg.qr(weights.detach())
    return np.ascontiguousarray(trained.numpy(), np.float32)
