"""The values that activations take in unedited runs, by principal component. NumPy only.

An edit that works only through activations outside this range shows a path that the model does not use by itself
(Makelov, Lange & Nanda 2023, 2311.17030). Letters: `R` states, `D` width, `C` components, `K` leading ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

KEPT_VARIANCE = 0.95
_MIN_SHARE = 1e-12
"""Smallest variance of a component, as a share of the largest; less is rounding."""


@dataclass(frozen=True)
class ComponentRange:
    """Principal components of an activation with the range of each coordinate.

    Attributes:
        basis: float32 [D, C], components in decreasing order of variance, one per column; at most as many as states.
        low, high: float32 [C], smallest and largest coordinate.
        variance: float64 [C], variance of each coordinate.
        offset: float32 [D], the part outside the components, which all states have in common; None if C is D.
    """

    basis: np.ndarray
    low: np.ndarray
    high: np.ndarray
    variance: np.ndarray
    offset: np.ndarray | None = None

    @classmethod
    def of(cls, states: np.ndarray) -> ComponentRange:
        """The components and ranges of states [R, D]; memory grows with R * D and the square of the smaller of both."""
        mean = states.mean(0, dtype=np.float64)
        centered = states.astype(np.float64) - mean
        if len(states) < states.shape[1]:
            return cls._of_few(states, centered, mean)
        variance, basis = np.linalg.eigh(centered.T @ centered / len(states))
        basis = np.ascontiguousarray(basis[:, ::-1], np.float32)
        coordinates = states.astype(np.float32) @ basis
        return cls(basis, coordinates.min(0), coordinates.max(0), variance[::-1].clip(min=0))

    @classmethod
    def _of_few(cls, states: np.ndarray, centered: np.ndarray, mean: np.ndarray) -> ComponentRange:
        """As `of` for fewer states than dimensions, by the products of states with each other."""
        variance, weights = np.linalg.eigh(centered @ centered.T / len(states))
        is_used = variance > _MIN_SHARE * max(float(variance.max(initial=0)), 1e-30)
        variance, weights = variance[is_used][::-1], weights[:, is_used][:, ::-1]
        basis = (centered.T @ (weights / np.sqrt(variance * len(states)))).astype(np.float32)
        coordinates = states.astype(np.float32) @ basis
        offset = (mean - basis.astype(np.float64) @ (basis.T.astype(np.float64) @ mean)).astype(np.float32)
        return cls(np.ascontiguousarray(basis), coordinates.min(0), coordinates.max(0), variance, offset)

    @property
    def leading(self) -> np.ndarray:
        """float32 [D, K], the fewest components that hold `KEPT_VARIANCE` of the variance."""
        share = np.cumsum(self.variance) / max(float(self.variance.sum()), 1e-30)
        return np.asarray(self.basis[:, : int(np.searchsorted(share, KEPT_VARIANCE)) + 1])

    def random_vectors(self, norms: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
        """float32 [B, D], vectors of random direction inside the leading components with the norms [B], a seed for each."""
        leading = self.leading
        generators = [np.random.Generator(np.random.Philox(seed)) for seed in seeds]
        normal = np.stack([generator.standard_normal(leading.shape[1]) for generator in generators])
        vectors = normal @ leading.T.astype(np.float64)
        vectors *= norms[:, None] / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-30)
        return vectors.astype(np.float32)
