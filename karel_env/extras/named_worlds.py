"""Worlds of the named tasks of programmatic reinforcement learning, drawn from a seed.

The rules are those of Trivedi et al. 2021 (LEAPS, arXiv 2108.13643; code: github.com/clvrai/leaps) and Liu et al. 2023
(HPRL, arXiv 2301.12950; code: github.com/NTURobotLearningLab/HPRL), with the random placements of Carvalho et al. 2024
(Reclaiming the Source of Programmatic Policies, ICLR; code: github.com/lelis-research/prog_policies). The random
number generator is this project's, so a seed gives another world of the same distribution than in that code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from karel_env.generation.draws import PURPOSES, below, draw, stream_key
from karel_env.world import HEADINGS, WALL, Worlds

Cell = tuple[int, int]
_T = TypeVar("_T")
EAST, SOUTH = HEADINGS.index("east"), HEADINGS.index("south")
DOORS: tuple[Cell, ...] = ((2, 4), (3, 4))
"""Cells of the door of doorKey, walls until the key is taken."""
BIN: Cell = (2, 12)
"""Cell of cleanHouse that has a marker in every world."""

_HOUSE = """
######################
#..##########.#......#
#..#..........#####.##
##.#................##
##........#.........##
###.#.###.#..###.#.###
#...#...#....#...#..##
#...#...#....#...#...#
#...#...#....#...##..#
#...#...##..##...##.##
#...#...##..##...#..##
#...#...##..##...#..##
#...#...##..##...#..##
######################
"""
_NO_GARBAGE = ((1, 13), BIN, (3, 10), (4, 11), (5, 11), (6, 10))
"""Cells of cleanHouse without garbage: the start, the bin, and passages."""


class Dice:
    """Random numbers of one world, from a separate stream of `draws`.

    Args:
        seed: seed of the world.
        task: number of the task.
    """

    def __init__(self, seed: int, task: int) -> None:
        self.key = int(stream_key(seed, len(PURPOSES) + 1000, task, 0))
        self.num_draws = 0

    def below(self, bound: int) -> int:
        """A uniform integer from 0 to `bound` - 1."""
        self.num_draws += 1
        return int(below(np.uint64(draw(np.uint64(self.key), self.num_draws - 1)), bound))

    def choose(self, items: Sequence[_T]) -> _T:
        """A uniformly chosen item."""
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[_T]) -> list[_T]:
        """The items in a random order (Fisher-Yates shuffle)."""
        remaining = list(items)
        for last in range(len(remaining) - 1, 0, -1):
            index = self.below(last + 1)
            remaining[last], remaining[index] = remaining[index], remaining[last]
        return remaining


def _empty_room(height: int, width: int) -> np.ndarray:
    """Cells of a world without inner walls and markers."""
    cells = np.full((height, width), WALL, np.int16)
    cells[1:-1, 1:-1] = 0
    return cells


def _inner(rows: range, columns: range) -> list[Cell]:
    return [(row, column) for row in rows for column in columns]


def _world(cells: np.ndarray, at: Cell, heading: int = EAST) -> Worlds:
    return Worlds.of(cells, np.array([*at, heading], np.int16))


def stairs(height: int, width: int) -> list[Cell]:
    """Cells from which the stairs are climbed, from the bottom up."""
    return [(height - 1 - i, i) for i in range(1, width - 1)]


def stair_climber(dice: Dice) -> Worlds:
    """12x12; stairs from the bottom left to the top right, robot and marker on two of them, the marker higher."""
    cells = _empty_room(12, 12)
    steps = stairs(12, 12)
    for row, column in steps[:-1]:
        cells[row, column + 1] = WALL
        cells[row, min(column + 2, 11)] = WALL
    low, high = sorted(dice.shuffled(range(len(steps)))[:2])
    cells[steps[high]] = 1
    return _world(cells, steps[low])


def four_corners(dice: Dice) -> Worlds:
    """12x12, empty; robot in the bottom row, not in a corner, facing east."""
    return _world(_empty_room(12, 12), (10, 2 + dice.below(8)))


def top_off(dice: Dice) -> Worlds:
    """12x12; one to eight markers in the bottom row, robot at its western end, facing east."""
    cells = _empty_room(12, 12)
    positions = dice.shuffled(_inner(range(10, 11), range(2, 11)))
    for position in positions[: 1 + dice.below(len(positions) - 1)]:
        cells[position] = 1
    return _world(cells, (10, 1))


def maze(dice: Dice) -> Worlds:
    """8x8; a maze whose passages form a tree over every second cell, grown from the robot's cell at the bottom left; one marker."""
    cells = np.full((8, 8), WALL, np.int16)
    start = (6, 1)
    cells[start] = 0
    open_ends = [start]
    while open_ends:
        row, column = open_ends.pop()
        for down, right in dice.shuffled(((-2, 0), (2, 0), (0, -2), (0, 2))):
            beyond = (row + down, column + right)
            if 0 < beyond[0] < 7 and 0 < beyond[1] < 7 and cells[beyond] == WALL:
                cells[row + down // 2, column + right // 2] = cells[beyond] = 0
                open_ends.append(beyond)
    free = [(int(r), int(c)) for r, c in np.argwhere(cells == 0)]
    cells[dice.choose([position for position in free if position != start])] = 1
    return _world(cells, start)


def clean_house(dice: Dice) -> Worlds:
    """14x22; the apartment, ten markers next to its walls and one in the cell of the bin, robot at the door facing south."""
    rows = _HOUSE.split()
    cells = np.array([[WALL if glyph == "#" else 0 for glyph in row] for row in rows], np.int16)
    walls = cells == WALL
    neighbours = np.zeros_like(walls)
    for axis in (0, 1):
        for shift in (-1, 1):
            neighbours |= np.roll(walls, shift, axis)
    positions = [(int(r), int(c)) for r, c in np.argwhere(neighbours & ~walls)]
    for position in dice.shuffled([p for p in positions if p not in _NO_GARBAGE])[:10]:
        cells[position] = 1
    cells[BIN] = 1
    return _world(cells, (1, 13), SOUTH)


def harvester(dice: Dice) -> Worlds:
    """8x8, a marker on every cell; robot in the bottom row, not in a corner, facing east."""
    cells = _empty_room(8, 8)
    cells[1:-1, 1:-1] = 1
    return _world(cells, (6, 2 + dice.below(4)))


def door_key(dice: Dice) -> Worlds:
    """8x8; a wall between two rooms, key and robot in the western one, the goal's marker in the eastern one."""
    cells = _empty_room(8, 8)
    cells[:, 4] = WALL
    key, robot = dice.shuffled(_inner(range(1, 7), range(1, 4)))[:2]
    cells[key] = 1
    cells[dice.choose(_inner(range(1, 7), range(5, 7)))] = 1
    return _world(cells, robot)


def one_stroke(dice: Dice) -> Worlds:
    """8x8, empty; robot anywhere, facing east."""
    return _world(_empty_room(8, 8), dice.choose(_inner(range(1, 7), range(1, 7))))


def seeder(dice: Dice) -> Worlds:
    """8x8, empty; robot anywhere but in the outer columns, facing east."""
    return _world(_empty_room(8, 8), dice.choose(_inner(range(1, 7), range(2, 6))))


def snake(dice: Dice) -> Worlds:
    """8x8 with one marker; robot anywhere but in the outer columns, facing east."""
    cells = _empty_room(8, 8)
    robot = dice.choose(_inner(range(1, 7), range(2, 6)))
    cells[dice.choose([position for position in _inner(range(1, 7), range(1, 7)) if position != robot])] = 1
    return _world(cells, robot)


WORLDS: dict[str, Callable[[Dice], Worlds]] = {
    "stairClimber": stair_climber,
    "fourCorners": four_corners,
    "topOff": top_off,
    "maze": maze,
    "cleanHouse": clean_house,
    "harvester": harvester,
    "doorKey": door_key,
    "oneStroke": one_stroke,
    "seeder": seeder,
    "snake": snake,
}
"""Functions that draw a world, by task name."""
