"""What probes of one source of states predict, and the interface of whoever trains them. NumPy only.

Letters: see `benchmark.probing.probes`.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark.probing.labels import Split
from benchmark.probing.protocol import Protocol


class StateArray(typing.Protocol):
    """States [R, D] that are indexed by a slice or by row numbers: an array, memory-mapped or not, or several."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        """float32 [asked, D]."""
        ...


class ProbeTrainer(typing.Protocol):
    """`fit_probes`, or what takes its place and has others compute."""

    def __call__(
        self,
        states: Sequence[StateArray],
        targets: np.ndarray,
        counts: np.ndarray,
        splits: Sequence[Split],
        widths: Sequence[int],
        seeds: Sequence[int],
        protocol: Protocol,
        progress: Callable[[int], None] = ...,
        inits: Sequence[int] | None = ...,
    ) -> ProbeFit:
        """See `fit_probes`."""
        ...


@dataclass(frozen=True)
class ProbeFit:
    """What the probes of one source of states predict.

    Attributes:
        validation: float32 [Q, G, K], cross-entropy in nats on validation, at the best check.
        log_prob: a seed, float32 [G, K, Rt], log-probability of the true class of each of its test states, at that
            check; 0 where the label is missing.
        predicted: a seed, int16 [G, K, Rt], the most probable class.
    """

    validation: np.ndarray
    log_prob: list[np.ndarray]
    predicted: list[np.ndarray]


def fit_in_process(*args: Any, **options: Any) -> ProbeFit:
    """`benchmark.probing.probes.fit_probes`, the default `Fitter`; torch is imported by the first call."""
    from benchmark.probing.probes import fit_probes

    return fit_probes(*args, **options)
