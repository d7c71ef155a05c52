"""Pack texts that begin alike into one row of tokens, so that a common beginning is computed once.

A row is a prefix tree in which a token attends to its ancestors only and has the position that it has in its text, so every
text gets the states and the loss that it would have alone. Letters: `T` tokens of a row, `A` targets of a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

OUTPUTS = "outputs"
"""What the targets in a prompt belong to, for the losses by question."""


@dataclass(frozen=True)
class Text:
    """Tokens of one text.

    Attributes:
        ids: token ids.
        num_given: number of tokens before the answer.
        question: what is asked, for the losses by question.
        outputs: positions of the output worlds of a prompt, if their tokens have a loss as well.
    """

    ids: tuple[int, ...]
    num_given: int
    question: str = ""
    outputs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.num_given < len(self.ids):
            raise ValueError(f"{self.num_given} of {len(self.ids)} tokens are given; expected at least 1 and not all")
        if not all(1 <= position < self.num_given for position in self.outputs):
            raise ValueError(f"outputs {self.outputs}: expected positions from 1 to {self.num_given - 1}")

    @property
    def targets(self) -> dict[int, str]:
        """What has a loss: position of the token, and what it belongs to."""
        answer = range(self.num_given, len(self.ids))
        return dict.fromkeys(self.outputs, OUTPUTS) | dict.fromkeys(answer, self.question)


@dataclass(frozen=True)
class Row:
    """Texts in one row of tokens.

    Attributes:
        ids: int64 [T], token ids.
        parents: int64 [T], index of the token before each token in its texts; -1 at a beginning.
        positions: int64 [T], positions in the texts.
        sources: int64 [A], index of the token whose state predicts each target.
        targets: int64 [A], token ids that are predicted.
        questions: the question of each target.
    """

    ids: np.ndarray
    parents: np.ndarray
    positions: np.ndarray
    sources: np.ndarray
    targets: np.ndarray
    questions: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)

    def mask(self) -> np.ndarray:
        """bool [T, T], whether token i attends to token j: itself and its ancestors."""
        mask = np.zeros((len(self), len(self)), bool)
        for token, parent in enumerate(self.parents.tolist()):
            if parent >= 0:
                mask[token] = mask[parent]
            mask[token, token] = True
        return mask


class _Tree:
    """A prefix tree that grows; tokens are numbered in the order in which they are added."""

    def __init__(self) -> None:
        self.children: dict[tuple[int, int], int] = {}
        self.ids: list[int] = []
        self.parents: list[int] = []
        self.positions: list[int] = []
        self.sources: list[int] = []
        self.targets: list[int] = []
        self.questions: list[str] = []

    def count_new(self, texts: Iterable[Text]) -> int:
        """Number of tokens that texts would add."""
        added: set[tuple[int, ...]] = set()
        for text in texts:
            node: int | None = -1
            for position, token in enumerate(text.ids):
                node = None if node is None else self.children.get((node, token))
                if node is None:
                    added.add(text.ids[: position + 1])
        return len(added)

    def add(self, text: Text) -> None:
        """Add a text."""
        node = -1
        targets = text.targets
        for position, token in enumerate(text.ids):
            if position in targets:
                self.sources.append(node)
                self.targets.append(token)
                self.questions.append(targets[position])
            child = self.children.get((node, token))
            if child is None:
                child = self.children[node, token] = len(self.ids)
                self.ids.append(token)
                self.parents.append(node)
                self.positions.append(position)
            node = child

    def to_row(self) -> Row:
        """The row of this tree."""
        ids, parents, positions, sources, targets = (
            np.array(values, np.int64)
            for values in (self.ids, self.parents, self.positions, self.sources, self.targets)
        )
        return Row(ids, parents, positions, sources, targets, self.questions)


def pack(groups: Sequence[Sequence[Text]], most_tokens: int) -> list[Row]:
    """Pack groups of texts, in their order, into rows of at most `most_tokens` tokens; a larger group has a row of its own."""
    rows: list[Row] = []
    tree = _Tree()
    for group in groups:
        if tree.ids and len(tree.ids) + tree.count_new(group) > most_tokens:
            rows.append(tree.to_row())
            tree = _Tree()
        for text in group:
            tree.add(text)
    return [*rows, tree.to_row()] if tree.ids else rows
