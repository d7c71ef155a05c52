"""The distinct labels of rotation: which pair of action words turns the robot.

Under any assignment of effects to words, rotation after a straight-line prefix is (number of the second turning word -
number of the first) mod 4, whatever the other three words do. The 60 assignments have 10 such labels up to a mirror
image, the original among them, so that a probe is trained for 10 labels instead of for 30 semantics.

Letters: `K` labels (0 is the original), `R` rows, `T` words of a program.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from karel_env.language import ACTIONS
from karel_env.semantics import LEFT, MOVE, PICK, PUT, RIGHT, Semantics

NUM_ROTATIONS = 4
_LETTERS = "mlrpu"


@dataclass(frozen=True, order=True)
class TurnPair:
    """A label of rotation.

    Attributes:
        left, right: indices in `ACTIONS` of the words that turn the robot left and right; left < right.
        left_turns, right_turns: quarter turns to the right of each; those of `SAME_WORDS_PAIRS` are no semantics.
    """

    left: int
    right: int
    left_turns: int = -1
    right_turns: int = 1

    @property
    def name(self) -> str:
        """The two words as letters of `m l r p u` (move, turn_left, turn_right, pick_marker, put_marker)."""
        words = _LETTERS[self.left] + _LETTERS[self.right]
        return words if self.is_semantics else f"{words}{self.left_turns}{self.right_turns}"

    @property
    def is_semantics(self) -> bool:
        """Whether the label is the rotation under some semantics."""
        return (self.left_turns, self.right_turns) == (-1, 1)

    def steps(self) -> np.ndarray:
        """int64 [5], quarter turns to the right of each action word."""
        steps = np.zeros(len(ACTIONS), np.int64)
        steps[self.left], steps[self.right] = self.left_turns, self.right_turns
        return steps


ORIGINAL_PAIR = TurnPair(LEFT, RIGHT)
POSE_PAIRS = (TurnPair(MOVE, LEFT), TurnPair(MOVE, RIGHT))
"""Alternatives in which the two turning words are `move` and a turn, so that no marker word matters."""
MARKER_PAIRS = tuple(
    pair
    for pair in (TurnPair(a, b) for a, b in combinations(range(len(ACTIONS)), 2))
    if len({pair.left, pair.right} & {PICK, PUT}) == 1
)
"""Alternatives with exactly one turning marker word: the distinct labels of the 18 alternatives of protocol 3."""
UNTURNED_PAIR = TurnPair(PICK, PUT)
"""The alternative in which no pose word turns; derivable from the state in every suite, since turns leave no room."""
ARITHMETIC_PAIRS = (TurnPair(LEFT, RIGHT, 1, 2), TurnPair(LEFT, RIGHT, 2, 1))
"""Labels of the same two words with another arithmetic: lefts + 2 rights, and 2 lefts + rights, modulo 4."""
TURN_COUNT_PAIR = TurnPair(LEFT, RIGHT, 1, 1)
"""The number of turns, lefts + rights, modulo 4."""
SAME_WORDS_PAIRS = (*ARITHMETIC_PAIRS, TURN_COUNT_PAIR)
SEMANTIC_PAIRS = (ORIGINAL_PAIR, *MARKER_PAIRS, *POSE_PAIRS, UNTURNED_PAIR)
"""The labels that are the rotation under some semantics."""
ALL_PAIRS = (*SEMANTIC_PAIRS, *SAME_WORDS_PAIRS)


def pair_of(semantics: Semantics) -> TurnPair:
    """The label of rotation under a semantics, up to a mirror image."""
    return TurnPair(*sorted((semantics.actions.index(LEFT), semantics.actions.index(RIGHT))))


def rotations(prefixes: np.ndarray, pair: TurnPair) -> np.ndarray:
    """int64 [R], rotation in quarter turns to the right, 0 to 3, after straight-line prefixes.

    Args:
        prefixes: int [R, T], action words so far; negative values are places after the prefix.
        pair: the label.
    """
    turns = np.append(pair.steps(), 0)[np.where(prefixes < 0, len(ACTIONS), prefixes)]
    return np.asarray(turns.sum(1) % NUM_ROTATIONS)
