"""Results of trained probes, and the interface of a probe trainer. NumPy only.

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
    """Hidden states [R, D] that support indexing by a slice or by row indices: an array, a memory map, or several."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        """float32 [len(rows), D]."""
        ...


class ProbeTrainer(typing.Protocol):
    """A function that trains probes as `fit_probes` does, for example on other processes or from a cache."""

    def __call__(
        self,
        states: Sequence[StateArray],
        targets: np.ndarray,
        counts: np.ndarray,
        splits: Sequence[Split],
        widths: Sequence[int],
        seeds: Sequence[int],
        protocol: Protocol,
        on_steps: Callable[[int], None] = ...,
        inits: Sequence[int] | None = ...,
    ) -> ProbeFit:
        """See `fit_probes`."""
        ...


@dataclass(frozen=True)
class ProbeFit:
    """Validation and test results of the probes of one source of states.

    Attributes:
        validation: float32 [Q, G, K], cross-entropy in nats on validation, at the best checkpoint.
        log_prob: float32 [G, K, Rt] per seed, log-probability of the true class of each test state, at that checkpoint;
            0 where the label is missing.
        predicted: int16 [G, K, Rt] per seed, the most probable class.
        log_posterior: float32 [G, C, Rt] per seed, log-probabilities of the C classes of all heads, one head after the
            other; None unless it was requested.
    """

    validation: np.ndarray
    log_prob: list[np.ndarray]
    predicted: list[np.ndarray]
    log_posterior: list[np.ndarray] | None = None


def fit_in_process(*args: Any, **options: Any) -> ProbeFit:
    """`benchmark.probing.probes.fit_probes`, the default `ProbeTrainer`; the first call imports torch."""
    from benchmark.probing.probes import fit_probes

    return fit_probes(*args, **options)
