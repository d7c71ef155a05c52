"""Random nested programs and worlds for the tests, seeded."""

from __future__ import annotations

import random

import numpy as np

from karel_env.language import ACTIONS, CONDITIONS
from karel_env.world import Worlds


def statements(rng: random.Random, depth: int, most: int = 4) -> list:
    return [statement(rng, depth) for _ in range(rng.randint(1, most))]


def statement(rng: random.Random, depth: int) -> object:
    kind = rng.choice(["action", "action", "action", "if", "ifelse", "while", "repeat"]) if depth else "action"
    if kind == "action":
        return rng.choice(ACTIONS)
    if kind == "repeat":
        return ("repeat", rng.choice([0, 1, 2, 3, 19]), statements(rng, depth - 1))
    condition = (rng.choice(CONDITIONS), rng.random() < 0.5)
    blocks = [statements(rng, depth - 1) for _ in range(2 if kind == "ifelse" else 1)]
    return (kind, condition, *blocks)


def worlds(rng: np.random.Generator, count: int, height: int, width: int) -> Worlds:
    cells = np.full((count, height, width), -1, np.int16)
    cells[:, 1:-1, 1:-1] = rng.choice([-1, 0, 0, 0, 1, 2, 9], (count, height - 2, width - 2))
    robot = np.stack(
        [rng.integers(1, height - 1, count), rng.integers(1, width - 1, count), rng.integers(0, 4, count)], 1
    )
    cells[np.arange(count), robot[:, 0], robot[:, 1]] = rng.integers(0, 3, count)
    return Worlds.of(cells, robot)
