"""The vocabulary of Karel and batches of programs.

A program is a sequence of *words*. The canonical text is the words joined by one space, so splitting the
text at white space gives the words again. A word is an action (`move();`), a keyword (`while`), a condition
(`(front_is_clear())`) or a bracket. A word's id is its index in `WORDS`; traces and labels refer
to a word by its index in the program; `def` has index 0.

Letters: `N` programs, `T` words of a program.
Source of the language: docs/karel_env.md, after Jin & Rinard 2024 and Bunel et al. 2018.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

ACTIONS = ("move", "turn_left", "turn_right", "pick_marker", "put_marker")
CONDITIONS = ("front_is_clear", "left_is_clear", "right_is_clear", "markers_present", "no_markers_present")
MAX_REPEAT = 19
MAX_NESTING = 64
"""Deepest nesting of blocks; a deeper program is a syntax error. Published generators nest at most 4 deep."""

WORDS = (
    *(f"{a}();" for a in ACTIONS),
    *(f"({c}())" for c in CONDITIONS),
    *(f"{c}())" for c in CONDITIONS),
    *(f"({n})" for n in range(MAX_REPEAT + 1)),
    *("(not", "if", "ifelse", "else", "while", "repeat", "def", "run()", "{", "}", "};"),
)
WORD_ID = {word: i for i, word in enumerate(WORDS)}
ACTION_ID = {name: i for i, name in enumerate(ACTIONS)}
CONDITION_ID = {name: i for i, name in enumerate(CONDITIONS)}

FIRST_CONDITION = len(ACTIONS)
FIRST_NEGATED = FIRST_CONDITION + len(CONDITIONS)
FIRST_COUNT = FIRST_NEGATED + len(CONDITIONS)
NOT, IF, IFELSE, ELSE, WHILE, REPEAT, DEF, RUN, OPEN, CLOSE, CLOSE_NEXT = range(
    FIRST_COUNT + MAX_REPEAT + 1, len(WORDS)
)

HEADER = (DEF, RUN, OPEN)
HEADER_TEXT = " ".join(WORDS[w] for w in HEADER)
"""Start of every program; prompts end with it, so that a model's output begins with the first statement."""


@dataclass(frozen=True)
class Programs:
    """A batch of programs as one flat array.

    Attributes:
        words: int16 [sum of T], word ids of all programs, one after the other.
        offsets: int64 [N + 1], program i is `words[offsets[i]:offsets[i + 1]]`.
    """

    words: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64 [N], number of words T of each program, header and closing bracket included."""
        return np.diff(self.offsets)

    def program(self, index: int) -> np.ndarray:
        """int16 [T], the words of one program."""
        return self.words[self.offsets[index] : self.offsets[index + 1]]

    def take(self, indices: Iterable[int]) -> Programs:
        """The programs at `indices`, in that order."""
        return Programs.of([self.program(i) for i in indices])

    def texts(self) -> list[str]:
        """The canonical text of each program."""
        words, offsets = [WORDS[word] for word in self.words.tolist()], self.offsets.tolist()
        return [" ".join(words[start:end]) for start, end in pairwise(offsets)]

    @classmethod
    def of(cls, programs: Sequence[Sequence[int] | np.ndarray]) -> Programs:
        """Build a batch from sequences of word ids, which are not validated (`parser.parse` validates)."""
        offsets = np.zeros(len(programs) + 1, np.int64)
        np.cumsum([len(p) for p in programs], out=offsets[1:])
        words = np.concatenate([np.asarray(p, np.int16) for p in programs]) if programs else np.zeros(0, np.int16)
        return cls(words.astype(np.int16, copy=False), offsets)

    @classmethod
    def straight_line(cls, actions: np.ndarray, lengths: np.ndarray) -> Programs:
        """Build programs without control flow.

        Args:
            actions: int [N, A], action ids (indices in `ACTIONS`); entries after a row's length are ignored.
            lengths: int [N], number of actions per row, at least 1.
        """
        lengths = np.asarray(lengths, np.int64)
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths + len(HEADER) + 1, out=offsets[1:])
        words = np.empty(offsets[-1], np.int16)
        for i, word in enumerate(HEADER):
            words[offsets[:-1] + i] = word
        words[offsets[1:] - 1] = CLOSE
        used = np.arange(actions.shape[1]) < lengths[:, None]
        at = offsets[:-1, None] + len(HEADER) + np.arange(actions.shape[1])
        words[at[used]] = actions[used]
        return cls(words, offsets)


def text_of(words: Sequence[int] | np.ndarray) -> str:
    """The canonical text of one program given as word ids."""
    return " ".join([WORDS[word] for word in np.asarray(words).tolist()])
