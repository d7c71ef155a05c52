"""Edits of a state: replace the value of a variable by another one, by a linear map of low rank.

Every edit is one function of the states, the value that they have and the value that they get. Class means come from
tasks that do not report; nothing is trained but the ridge regression of the probe subspace.

Letters: `B` states, `R` states that an edit is computed from, `C` values of the variable, `D` width.
Sources: difference in means, Marks & Tegmark 2023 (2310.06824); subspaces of probes, Ravfogel et al. 2020 (2004.07667).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

_RIDGE = 1e-3


class Edit(Protocol):
    """An edit of states."""

    @property
    def rank(self) -> int:
        """Dimension of the subspace that the edit changes."""
        ...

    def __call__(self, states: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """float32 [B, D], the states with value `target` int [B] instead of `source` int [B]."""
        ...


@dataclass(frozen=True)
class MeanShift:
    """Add the difference of two class means, times `scale`.

    Attributes:
        means: float32 [C, D].
        scale: 1 unless the dose is varied.
    """

    means: np.ndarray
    scale: float = 1.0

    @property
    def rank(self) -> int:
        """See `Edit.rank`."""
        return len(self.means) - 1

    def __call__(self, states: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """See `Edit`."""
        return np.asarray(states + np.float32(self.scale) * (self.means[target] - self.means[source]), np.float32)


@dataclass(frozen=True)
class SubspaceSwap:
    """Set the coordinates in a subspace to those of the class mean.

    Attributes:
        means: float32 [C, D].
        read: float32 [D, K], directions whose products with a state are its coordinates.
        write: float32 [D, K], directions along which a difference of coordinates is added; `read.T @ write` is the identity.
    """

    means: np.ndarray
    read: np.ndarray
    write: np.ndarray

    @property
    def rank(self) -> int:
        """See `Edit.rank`."""
        return self.read.shape[1]

    def __call__(self, states: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """See `Edit`; the source does not matter."""
        return np.asarray(states + ((self.means[target] - states) @ self.read) @ self.write.T, np.float32)


@dataclass(frozen=True)
class MeanVector:
    """Replace the full vector by the class mean.

    Attributes:
        means: float32 [C, D].
    """

    means: np.ndarray

    @property
    def rank(self) -> int:
        """See `Edit.rank`."""
        return self.means.shape[1]

    def __call__(self, states: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """See `Edit`."""
        return np.asarray(self.means[target], np.float32)


def class_means(states: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """float32 [C, D], mean of `states` [R, D] per label int [R]; the overall mean for a label that does not occur."""
    means = np.repeat(states.mean(0, dtype=np.float64)[None], num_classes, 0)
    for label in np.unique(labels):
        means[label] = states[labels == label].mean(0, dtype=np.float64)
    return means.astype(np.float32)


def mean_shift(states: np.ndarray, labels: np.ndarray, num_classes: int, scale: float = 1.0) -> MeanShift:
    """The edit of the verdict, from `states` float32 [R, D] with `labels` int [R]."""
    return MeanShift(class_means(states, labels, num_classes), scale)


def erasure(states: np.ndarray, labels: np.ndarray, num_classes: int) -> SubspaceSwap:
    """A control: every value is replaced by the mean over all, in the span of the class means."""
    means = class_means(states, labels, num_classes)
    basis = _orthonormal((means - means.mean(0)).T)
    return SubspaceSwap(np.repeat(states.mean(0)[None], num_classes, 0), basis, basis)


def mean_span_swap(states: np.ndarray, labels: np.ndarray, num_classes: int) -> SubspaceSwap:
    """Swap the coordinates in the span of the class means."""
    means = class_means(states, labels, num_classes)
    basis = _orthonormal((means - means.mean(0)).T)
    return SubspaceSwap(means, basis, basis)


def probe_swap(states: np.ndarray, labels: np.ndarray, num_classes: int, by_covariance: bool) -> SubspaceSwap:
    """Swap the coordinates in the subspace of a linear probe's weights, orthogonally or along the covariance.

    Args:
        states: float32 [R, D].
        labels: int [R].
        num_classes: C.
        by_covariance: write along the covariance times the weights, which changes what the probe reads with the smallest
            change in units of the natural variation; otherwise along the weights themselves.
    """
    means = class_means(states, labels, num_classes)
    centered = states.astype(np.float64) - states.mean(0, dtype=np.float64)
    covariance = centered.T @ centered / len(states)
    ridge = _RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    one_hot = np.eye(num_classes)[labels] - np.eye(num_classes)[labels].mean(0)
    weights = np.linalg.solve(covariance + ridge, centered.T @ one_hot / len(states))
    read = _orthonormal(weights)
    write = covariance @ read @ np.linalg.inv(read.T @ covariance @ read) if by_covariance else read
    return SubspaceSwap(means, read.astype(np.float32), write.astype(np.float32))


EDITS: dict[str, Callable[[np.ndarray, np.ndarray, int], Edit]] = {
    "mean shift": mean_shift,
    "class-mean span": mean_span_swap,
    "probe subspace": lambda states, labels, count: probe_swap(states, labels, count, False),
    "probe subspace by covariance": lambda states, labels, count: probe_swap(states, labels, count, True),
    "mean vector": lambda states, labels, count: MeanVector(class_means(states, labels, count)),
    "erasure": erasure,
}
"""The edits of full detail by name; the first is that of the verdict, and the last a control."""


def _orthonormal(vectors: np.ndarray) -> np.ndarray:
    """[D, K], an orthonormal basis of the span of the columns [D, C]."""
    left, singular, _ = np.linalg.svd(vectors.astype(np.float64), full_matrices=False)
    rank = int((singular > 1e-6 * max(singular[0], 1e-30)).sum())
    return np.asarray(left[:, :rank], np.float32)
