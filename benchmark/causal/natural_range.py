"""The values that activations take in unedited runs, by principal component. NumPy only.

An edit that works only through activations outside this range shows a path that the model does not use by itself
(Makelov, Lange & Nanda 2023, 2311.17030). Letters: `R` states, `D` width, `K` leading components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KEPT_VARIANCE = 0.95


@dataclass(frozen=True)
class ComponentRange:
    """Principal components of an activation with the range of each coordinate.

    Attributes:
        basis: float32 [D, D], components in decreasing order of variance, one per column.
        low, high: float32 [D], smallest and largest coordinate.
        variance: float64 [D], variance of each coordinate.
    """

    basis: np.ndarray
    low: np.ndarray
    high: np.ndarray
    variance: np.ndarray

    @classmethod
    def of(cls, states: np.ndarray) -> ComponentRange:
        """The components and ranges of states [R, D]."""
        centered = states.astype(np.float64) - states.mean(0, dtype=np.float64)
        variance, basis = np.linalg.eigh(centered.T @ centered / len(states))
        basis = np.ascontiguousarray(basis[:, ::-1], np.float32)
        coordinates = states.astype(np.float32) @ basis
        return cls(basis, coordinates.min(0), coordinates.max(0), variance[::-1].clip(min=0))

    @property
    def leading(self) -> np.ndarray:
        """float32 [D, K], the fewest components that hold `KEPT_VARIANCE` of the variance."""
        share = np.cumsum(self.variance) / max(float(self.variance.sum()), 1e-30)
        return np.asarray(self.basis[:, : int(np.searchsorted(share, KEPT_VARIANCE)) + 1])

    def random_vectors(self, norms: np.ndarray, seed: int) -> np.ndarray:
        """float32 [B, D], vectors of random direction inside the leading components with the norms [B]."""
        leading = self.leading
        generator = np.random.Generator(np.random.Philox(seed))
        vectors = generator.standard_normal((len(norms), leading.shape[1])) @ leading.T.astype(np.float64)
        vectors *= norms[:, None] / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-30)
        return vectors.astype(np.float32)
