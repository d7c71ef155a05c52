"""The continuations of a prefix as tokens: their ids, scores and texts.

They are the six words that may follow an action, unless a model is opened with others.

Letters: `B` prefixes, `C` continuations, `V` vocabulary, `G` is C, or 1 if continuations differ in their last token only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmark.models.huggingface import HuggingFaceModel
from karel_env.language import ACTIONS, CLOSE, WORDS

NEXT_WORDS = (*WORDS[: len(ACTIONS)], WORDS[CLOSE])
AT_PREFIX = "prefix"


@dataclass(frozen=True)
class ScoredWords:
    """See `benchmark.causal.interventions.WordScores`."""

    log_probs: np.ndarray
    is_argmax: np.ndarray


@dataclass(frozen=True)
class PrefixTokens:
    """Tokens of one prefix after its prompt.

    Attributes:
        prompt: ids of the prompt.
        prefix: ids of the prefix.
        words: ids of each of the C continuations after it.
    """

    prompt: list[int]
    prefix: list[int]
    words: tuple[tuple[int, ...], ...]


def num_copies(item: PrefixTokens) -> int:
    """G, rows per prefix: one if the continuations are single tokens after a common beginning, else one for each."""
    return 1 if len({word[:-1] for word in item.words}) == 1 else len(item.words)


def are_complete(written: list[np.ndarray]) -> bool:
    """Whether every row has its closing bracket."""
    return bool(written) and bool((np.stack(written) == len(ACTIONS)).any(0).all())


def words_to_texts(written: list[np.ndarray]) -> list[str]:
    """The words of each row up to its closing bracket, joined by spaces; `written` is int [B] per word."""
    texts = []
    for row in np.stack(written, 1).tolist():
        stop = row.index(len(ACTIONS)) + 1 if len(ACTIONS) in row else len(row)
        texts.append(" ".join(NEXT_WORDS[word] for word in row[:stop]))
    return texts


def score_words(tokens: Sequence[PrefixTokens], logits: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities [B, C], and whether the argmax of the vocabulary begins the best word [B].

    With a common beginning of the continuations, both are those of the token after it.

    Args:
        tokens: tokens of B prefixes.
        logits: [B * G, width, V] from the last token of the prefix on.
    """
    copies = num_copies(tokens[0])
    log_probs = logits.double().log_softmax(-1).cpu()
    at = len(tokens[0].words[0]) - 1 if copies == 1 else 0
    first = log_probs[::copies, at]
    starts = np.array([[word[at] for word in item.words] for item in tokens])
    if copies == 1:
        scores = np.take_along_axis(first.numpy(), starts, 1)
    else:
        scores = np.array(
            [
                [
                    sum(float(log_probs[row * copies + index, i, token]) for i, token in enumerate(word))
                    for index, word in enumerate(item.words)
                ]
                for row, item in enumerate(tokens)
            ]
        )
    best = starts[np.arange(len(scores)), scores.argmax(1)]
    return scores, first.argmax(-1).numpy() == best


@dataclass
class PreparedTokens:
    """A `PreparedPrefixes`: groups of rows that are run together.

    Attributes:
        count: B.
        num_continuations: C.
        parts: rows int64 and the group that holds them.
        model, prompts, prefixes: what was prepared.
    """

    count: int
    num_continuations: int
    parts: list[tuple[np.ndarray, Any]]
    model: HuggingFaceModel
    prompts: Sequence[str]
    prefixes: Sequence[str]

    def complete(self, max_new_words: int) -> list[str]:
        """See `PreparedPrefixes.complete`."""
        texts = [""] * self.count
        for rows, group in self.parts:
            written = group.complete(max_new_words)
            if written is None:
                starts = [f"{self.prompts[i]} {self.prefixes[i]}" for i in rows]
                written = [generation.text for generation in self.model.generate(starts, max_new_words)]
            for row, text in zip(rows.tolist(), written, strict=True):
                texts[row] = text
        return texts

    def states(self, position: str = AT_PREFIX) -> list[np.ndarray]:
        """See `PreparedPrefixes.states`."""
        return self._gather(lambda group: group.states(position))

    def activations(self) -> list[np.ndarray]:
        """See `PreparedPrefixes.activations`."""
        return self._gather(lambda group: group.activations())

    def _gather(self, read: Callable[[Any], list[np.ndarray]]) -> list[np.ndarray]:
        gathered: list[np.ndarray] = []
        for rows, group in self.parts:
            for index, values in enumerate(read(group)):
                if index == len(gathered):
                    gathered.append(np.empty((self.count, values.shape[1]), np.float32))
                gathered[index][rows] = values
        return gathered

    def score(
        self,
        site: int = 0,
        states: np.ndarray | None = None,
        position: str = AT_PREFIX,
        ranges: Sequence[Any] | None = None,
    ) -> ScoredWords:
        """See `PreparedPrefixes.score`."""
        log_probs = np.empty((self.count, self.num_continuations))
        is_argmax = np.empty(self.count, bool)
        for rows, group in self.parts:
            values = None if states is None else states[rows]
            log_probs[rows], is_argmax[rows] = group.score(site, values, position, ranges)
        return ScoredWords(log_probs, is_argmax)
