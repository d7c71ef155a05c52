"""Semantics: a table from each action word to its effect, and one from each condition word to its test.

The benchmark's control executes the same program in the same world with another table: under an alternative semantics
the robot takes another path (Jin & Rinard 2024, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np

from karel_env.language import ACTIONS, CONDITIONS

MOVE, LEFT, RIGHT, PICK, PUT = range(len(ACTIONS))
EFFECTS = ("move", "left", "right", "pick", "put")


@dataclass(frozen=True)
class Semantics:
    """Effects of all action and condition words.

    Attributes:
        name: short name, stored in records.
        actions: for each action word (index in `ACTIONS`), its effect (also an index in `ACTIONS`).
        conditions: for each condition word (index in `CONDITIONS`), the tested condition.
        flipped: for each condition word, whether its value is inverted.
    """

    name: str
    actions: tuple[int, ...] = tuple(range(len(ACTIONS)))
    conditions: tuple[int, ...] = tuple(range(len(CONDITIONS)))
    flipped: tuple[bool, ...] = (False,) * len(CONDITIONS)

    def __post_init__(self) -> None:
        if sorted(self.actions) != list(range(len(ACTIONS))):
            raise ValueError(f"semantics {self.name!r}: actions must be a permutation of 0..4, got {self.actions}")
        if len(self.conditions) != len(CONDITIONS) or len(self.flipped) != len(CONDITIONS):
            raise ValueError(f"semantics {self.name!r}: conditions and flipped need {len(CONDITIONS)} entries each")

    def action_table(self) -> np.ndarray:
        """int8 [5], effect of each action word."""
        return np.array(self.actions, np.int8)

    def condition_table(self) -> np.ndarray:
        """int8 [5], test of each condition word, plus 8 where its value is inverted."""
        return (np.array(self.conditions) + 8 * np.array(self.flipped)).astype(np.int8)


ORIGINAL = Semantics("original")
FLIP = Semantics("flip", (MOVE, RIGHT, LEFT, PICK, PUT))
"""Left and right exchanged: a mirror image, derivable from the true state, so not a control (docs/alternatives.md)."""
ADVERSARIAL = Semantics("adversarial", (LEFT, RIGHT, MOVE, PICK, PUT))
"""turn_right means move, turn_left means turn_right, move means turn_left (Jin & Rinard 2024, section 4.3)."""


def assign(move: int, left: int, right: int) -> Semantics:
    """The semantics in which the action words with indices `move`, `left` and `right` have these effects.

    The other two words pick and put, in the order of the vocabulary; exchanging them would not change the robot's
    position. The name has one letter per action word: `m` moves, `l` and `r` turn, `p` picks, `u` puts.
    """
    actions = [-1] * len(ACTIONS)
    for effect, word in ((MOVE, move), (LEFT, left), (RIGHT, right)):
        actions[word] = effect
    remaining = [w for w in range(len(ACTIONS)) if actions[w] < 0]
    actions[remaining[0]], actions[remaining[1]] = PICK, PUT
    return Semantics("".join("mlrpu"[e] for e in actions), tuple(actions))


def mirror_classes() -> list[Semantics]:
    """The 29 alternatives: one representative of each mirror class, without the original's class.

    There are 60 assignments of {move, left, right} to five words. Exchanging left and right mirrors the path, which
    gives 30 classes. The representative is the member whose word for `left` comes first in the vocabulary; the choice
    matters only where walls break the symmetry (docs/alternatives.md). Sorted by name.
    """
    return list(_classes_by_name().values())


def mirror_class(name: str) -> Semantics:
    """The alternative of `mirror_classes` with this name; raises KeyError for an unknown name."""
    return _classes_by_name()[name]


@cache
def _classes_by_name() -> dict[str, Semantics]:
    members = [assign(m, a, b) for m, a, b in permutations(range(len(ACTIONS)), 3) if a < b]
    return {s.name: s for s in sorted(members, key=lambda s: s.name) if s.actions != ORIGINAL.actions}


def condition_flips() -> list[Semantics]:
    """Semantics with one condition inverted, per condition in the order of the vocabulary, and one with all inverted."""
    alone = [tuple(i == j for i in range(len(CONDITIONS))) for j in range(len(CONDITIONS))]
    flips = [Semantics(f"not-{name}", flipped=flipped) for name, flipped in zip(CONDITIONS, alone, strict=True)]
    return [*flips, Semantics("not-all", flipped=(True,) * len(CONDITIONS))]
