"""What the measurement asks of a model: states at a prefix, and the next word after one of them is replaced.

The measurement knows models through these classes only; `benchmark.models.steering` provides them for networks of
transformers, `benchmark.calibrate.planners` for models whose answer is known.

Letters: `B` prefixes, `D` width of a site.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

AT_PREFIX, AT_PROMPT = POSITIONS = ("prefix", "prompt")
"""Where a state is replaced: at the last token of the prefix, or at the last token of the prompt before it."""


class NaturalRange(Protocol):
    """The values that an activation takes in unedited runs."""

    @property
    def basis(self) -> np.ndarray:
        """float32 [D, C], orthonormal directions, one per column."""
        ...

    @property
    def low(self) -> np.ndarray:
        """float32 [C], smallest coordinate along each direction."""
        ...

    @property
    def high(self) -> np.ndarray:
        """float32 [C], largest coordinate along each direction."""
        ...

    @property
    def offset(self) -> np.ndarray | None:
        """float32 [D], the part outside the directions, the same in all unedited runs; None if C is D."""
        ...


class WordScores(Protocol):
    """Scores of the six continuations after B prefixes."""

    @property
    def log_probs(self) -> np.ndarray:
        """float64 [B, 6], summed log-probability in nats of each of `targets.NEXT_WORDS`."""
        ...

    @property
    def is_argmax(self) -> np.ndarray:
        """bool [B], whether the most probable token of the full vocabulary begins the best of the six."""
        ...


class PreparedPrefixes(Protocol):
    """B prefixes after their prompts, ready for any number of edits."""

    def states(self, position: str = AT_PREFIX) -> Sequence[np.ndarray]:
        """float32 [B, D] per site of the model, in an unedited run."""
        ...

    def activations(self) -> Sequence[np.ndarray]:
        """float32 [B, D] per clamped activation of the model, at the last token of the prefix in an unedited run."""
        ...

    def score(
        self,
        site: int = 0,
        states: np.ndarray | None = None,
        position: str = AT_PREFIX,
        ranges: Sequence[NaturalRange] | None = None,
    ) -> WordScores:
        """Score the six continuations of every prefix.

        Args:
            site: index of the site whose state is replaced.
            states: float32 [B, D], its new value; None for an unedited run.
            position: where it is replaced, one of `POSITIONS`.
            ranges: per clamped activation its natural range, to which the activations after the site are limited.
        """
        ...

    def complete(self, max_new_words: int) -> list[str]:
        """The text that the model writes greedily after every prefix, unedited."""
        ...


class SteerableModel(Protocol):
    """A model whose states can be replaced."""

    @property
    def batch_rows(self) -> int:
        """Largest number of prefixes that are prepared at a time, a limit of memory."""
        ...

    @property
    def sites(self) -> Sequence[str]:
        """Names of the places at which states can be replaced, in the order of computation."""
        ...

    def prepare(self, prompts: Sequence[str], prefixes: Sequence[str]) -> PreparedPrefixes:
        """Run B prefixes (canonical text without header) after their prompts.

        Raises:
            ModelError: states cannot be read or replaced in this model.
        """
        ...


class WordScorer(Protocol):
    """A model that gives probabilities of the next word, with or without states."""

    @property
    def batch_rows(self) -> int:
        """Largest number of prefixes that are scored at a time."""
        ...

    def score_words(self, prompts: Sequence[str], prefixes: Sequence[str]) -> np.ndarray:
        """float [B, 6], log-probabilities in nats of the six continuations after B prefixes (canonical text, no header).

        Raises:
            ModelError: the model cannot score them.
        """
        ...


@dataclass(frozen=True)
class SteerableScorer:
    """The `WordScorer` of a model whose states can be replaced."""

    model: SteerableModel

    @property
    def batch_rows(self) -> int:
        """See `WordScorer.batch_rows`."""
        return self.model.batch_rows

    def score_words(self, prompts: Sequence[str], prefixes: Sequence[str]) -> np.ndarray:
        """See `WordScorer.score_words`."""
        return self.model.prepare(prompts, prefixes).score().log_probs
