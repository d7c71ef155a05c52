"""Edits that take their new value from the state of another prefix, a donor, rather than from class means.

Letters: `B` states, `R` donors, `D` width, `K` rank.
Source: interchange interventions, Geiger et al. 2021 (2106.02997); in a trained subspace, Geiger et al. 2023 (2303.02536).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmark.causal.targets import TURNS

DONOR_SEED = 90_201


@dataclass(frozen=True)
class DonorSwap:
    """Replace the coordinates in a subspace by those of a donor that has the new value.

    Attributes:
        donors: float32 [R, D], states at the mean prefixes.
        labels: int [R], their values.
        basis: float32 [D, K], orthonormal directions, one per column; None to replace the full vector.
    """

    donors: np.ndarray
    labels: np.ndarray
    basis: np.ndarray | None = None

    @property
    def rank(self) -> int:
        """Dimension of what is replaced."""
        return self.donors.shape[1] if self.basis is None else self.basis.shape[1]

    def replace(self, states: np.ndarray, target: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """float32 [B, D], states with the coordinates of donors of value `target` int [B]; `rows` int [B] seed the choice."""
        donors = self.donors[pick_donors(self.labels, target, rows)]
        if self.basis is None:
            return np.asarray(donors, np.float32)
        return np.asarray(states + ((donors - states) @ self.basis) @ self.basis.T, np.float32)


def pick_donors(labels: np.ndarray, target: np.ndarray, rows: np.ndarray, seed: int = DONOR_SEED) -> np.ndarray:
    """int64 [B], a donor of value `target` for each row, the same whatever rows are picked together.

    Args:
        labels: int [R], values of the donors.
        target: int [B], wanted values; any donor is picked for a value that none has.
        rows: int [B], pairs, which seed the choice.
        seed: first seed.
    """
    of_value = [np.flatnonzero(labels == value) for value in range(TURNS)]
    of_value = [members if len(members) else np.arange(len(labels)) for members in of_value]
    uniform = np.array([np.random.Generator(np.random.Philox(seed + int(row))).random() for row in rows])
    return np.array(
        [of_value[value][int(u * len(of_value[value]))] for value, u in zip(target.tolist(), uniform, strict=True)],
        np.int64,
    )
