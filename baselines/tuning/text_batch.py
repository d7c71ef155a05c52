"""Texts that share no beginning, in a batch that is padded at its end.

A causal model gives each token the state that it would have without the padding, which comes after it. Letters: `N` texts of a
batch, `T` tokens of the longest, rounded up; `A` targets of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from baselines.tuning.prefix_tree import Text

MOST_TOKENS = 3072
"""Tokens of a batch, with padding: those of 16 prompts of `laptop`."""
LENGTH_STEP = 16
"""T is a multiple of it, so that a compiled model meets few shapes."""


@dataclass(frozen=True)
class TextBatch:
    """Texts of similar lengths.

    Attributes:
        ids: int64 [N, T], token ids; 0 after the end of a text.
        num_tokens: number of tokens without the padding.
        sources: int64 [A], index in the flattened `ids` of the token whose state predicts each target.
        targets: int64 [A], token ids that are predicted.
        questions: the question of each target.
    """

    ids: np.ndarray
    num_tokens: int
    sources: np.ndarray
    targets: np.ndarray
    questions: Sequence[str]

    def __len__(self) -> int:
        return self.num_tokens

    @staticmethod
    def of(texts: Sequence[Text], context: int | None = None) -> TextBatch:
        """The batch of some texts, padded to the length of the longest, rounded up to at most `context`."""
        longest = max(len(text.ids) for text in texts)
        width = _padded(longest) if context is None else max(longest, min(_padded(longest), context))
        ids = np.zeros((len(texts), width), np.int64)
        sources: list[int] = []
        targets: list[int] = []
        questions: list[str] = []
        for i, text in enumerate(texts):
            ids[i, : len(text.ids)] = text.ids
            for position, question in text.targets.items():
                sources.append(i * width + position - 1)
                targets.append(text.ids[position])
                questions.append(question)
        num_tokens = sum(len(text.ids) for text in texts)
        return TextBatch(ids, num_tokens, np.array(sources), np.array(targets), questions)


def batch_texts(texts: Sequence[Text], context: int | None = None, most_tokens: int = MOST_TOKENS) -> list[TextBatch]:
    """Texts in batches of at most `most_tokens` tokens, shortest first; a longer text has a batch of its own.

    Args:
        texts: the texts.
        context: number of tokens that the model takes, which padding does not exceed; None if it has no limit.
        most_tokens: tokens of a batch, with padding.
    """
    parts: list[list[Text]] = []
    for text in sorted(texts, key=lambda text: len(text.ids)):
        if not parts or _padded(len(text.ids)) * (len(parts[-1]) + 1) > most_tokens:
            parts.append([])
        parts[-1].append(text)
    return [TextBatch.of(part, context) for part in parts]


def _padded(length: int) -> int:
    return -(-length // LENGTH_STEP) * LENGTH_STEP
