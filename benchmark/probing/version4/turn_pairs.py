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
    """

    left: int
    right: int

    @property
    def name(self) -> str:
        """The two words as letters of `m l r p u` (move, turn_left, turn_right, pick_marker, put_marker)."""
        return _LETTERS[self.left] + _LETTERS[self.right]

    def steps(self) -> np.ndarray:
        """int64 [5], turn of each action word in quarter turns to the right: -1, 0 or 1."""
        steps = np.zeros(len(ACTIONS), np.int64)
        steps[self.left], steps[self.right] = -1, 1
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
ALL_PAIRS = (ORIGINAL_PAIR, *MARKER_PAIRS, *POSE_PAIRS, UNTURNED_PAIR)


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
