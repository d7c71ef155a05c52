"""Net rotation of a prefix under a semantics: rights less lefts, modulo 4. It does not depend on the world."""

from __future__ import annotations

import numpy as np

from benchmark.causal.targets import TURNS
from karel_env.features import PRIMARY
from karel_env.screen import valid_alternatives
from karel_env.semantics import LEFT, ORIGINAL, RIGHT, Semantics, mirror_class

NUM_ALTERNATIVES = 4


def net_rotation(prefixes: np.ndarray, semantics: Semantics = ORIGINAL) -> np.ndarray:
    """int64 [P], net rotation in quarter turns to the right of action words `prefixes`, int [P, K]."""
    effects = semantics.action_table()[prefixes]
    net: np.ndarray = ((effects == RIGHT).astype(np.int64) - (effects == LEFT)).sum(1)
    return net % TURNS


def alternative_semantics(count: int = NUM_ALTERNATIVES) -> list[Semantics]:
    """Alternatives that the derivability screen keeps for facing and whose rotations differ, evenly spaced.

    Two alternatives with the same words for left and right have the same net rotation, so one of each is taken; so is
    none with the words of the original.
    """
    by_words: dict[tuple[int, int], Semantics] = {}
    for name in valid_alternatives(PRIMARY):
        semantics = mirror_class(name)
        words = (semantics.actions.index(LEFT), semantics.actions.index(RIGHT))
        if set(words) != {LEFT, RIGHT}:
            by_words.setdefault(words, semantics)
    distinct = list(by_words.values())
    return [distinct[i] for i in np.linspace(0, len(distinct) - 1, count).round().astype(int)]
