"""The tasks that the field names, scored by their published rewards.

Sources: Trivedi et al. 2021 (LEAPS, arXiv 2108.13643) for stairClimber, fourCorners, topOff, maze, cleanHouse and
harvester; Liu et al. 2023 (HPRL, arXiv 2301.12950) for doorKey, oneStroke, seeder and snake. The papers' rewards were
implemented more than once; the rules here are those of the one implementation that has all ten, Carvalho et al. 2024
(Reclaiming the Source of Programmatic Policies, ICLR; github.com/lelis-research/prog_policies), in which a reward is
collected action by action, a mistake costs 1 and ends the episode, and solving gives 1 in all. A `move` into a wall
turns the robot round, at most 10 markers lie on a cell, and 10,000 events end an episode.

Where this differs from the implementations:

- stairClimber and maze are scored as in LEAPS' paper (1 at the marker, -1 off the stairs), not by distance.
- LEAPS scores fourCorners by the corners that hold a marker, nothing if one lies elsewhere; topOff by the cells from
  the west that are as they should be, and one for ending in the east; cleanHouse by ten markers in the western half,
  without the bin's. Its fourCorners and harvester have one start, and its mistakes cost less.
- oneStroke counts the start as visited (as HPRL does), so that 1 can be reached: prog_policies stops at 35 of 36.
  Running into the border does not end the episode, which it does in HPRL.
- doorKey costs 1 for a marker put elsewhere (0.0001 in HPRL); key, goal and robot never share a cell.
- snake starts without a body behind it and grows one of two cells (HPRL: starts with it, in a fixed place; fixed
  places of food). Food never appears on the body, and the conditions see the markers that are there: prog_policies
  draws them only.

Letters: `H W` grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from karel_env.extras.named_worlds import DOORS, WORLDS, Cell, Dice, stairs
from karel_env.stepping import Played, State, play
from karel_env.world import Worlds

NAMES = tuple(WORLDS)
MODE = "turn180"
MAX_MARKERS = 10
MAX_EVENTS = 10_000
PENALTY = -1.0
FOOD = 20
"""Markers that the snake can eat."""
_FIRST_BODY = 2

Rule = Callable[[State], tuple[float, bool]]
"""After an action: the reward for it and whether the episode is over. It may change the state."""


@dataclass(frozen=True)
class Episode:
    """What a program got.

    Attributes:
        reward: sum over its actions; at most 1.
        played: how the execution ended.
    """

    reward: float
    played: Played


@dataclass(frozen=True)
class NamedTask:
    """One task in one world.

    Attributes:
        name: one of `NAMES`.
        seed: that the world was drawn from.
        world: the initial one; its leading shape is empty.
        mode: what an illegal action does, as of `interpreter.run`.
    """

    name: str
    seed: int
    world: Worlds
    mode: str = MODE

    def episode(self, words: np.ndarray, observe: Callable[[State], None] | None = None) -> Episode:
        """Run a program, given as words, for its reward.

        Args:
            words: int [T], a valid program.
            observe: gets the state after each action, once the task has changed it.
        """
        rule = _RULES[self.name](self.world, Dice(self.seed, len(NAMES) + NAMES.index(self.name)))
        reward = 0.0

        def after(state: State) -> bool:
            nonlocal reward
            max_steps, over = rule(state)
            reward += max_steps
            if observe is not None:
                observe(state)
            return over

        played = play(words, self.world, after, mode=self.mode, max_markers=MAX_MARKERS, max_events=MAX_EVENTS)
        return Episode(round(reward, 9), played)


def named_task(name: str, seed: int, mode: str = MODE) -> NamedTask:
    """The world of a task that a seed draws, and its reward.

    Raises:
        ValueError: a name that is not one of `NAMES`.
    """
    if name not in WORLDS:
        raise ValueError(f"named task {name!r}: expected one of {', '.join(NAMES)}")
    return NamedTask(name, seed, WORLDS[name](Dice(seed, NAMES.index(name))), mode)


def score(words: np.ndarray, name: str, seeds: Sequence[int], mode: str = MODE) -> np.ndarray:
    """float64, the reward of one program in the world of each seed."""
    return np.array([named_task(name, seed, mode).episode(words).reward for seed in seeds], np.float64)


def _markers(world: Worlds) -> list[Cell]:
    return [(int(row), int(column)) for row, column in np.argwhere(world.cells > 0)]


def _total(state: State) -> int:
    return int(np.maximum(state.cells, 0).sum())


def _at_marker(world: Worlds, allowed: set[Cell] | None = None) -> Rule:
    """1 for reaching the one marker; a mistake to leave the allowed cells before."""
    (goal,) = _markers(world)

    def after(state: State) -> tuple[float, bool]:
        if (state.row, state.column) == goal:
            return 1.0, True
        if allowed is not None and (state.row, state.column) not in allowed:
            return PENALTY, True
        return 0.0, False

    return after


def _stair_climber(world: Worlds, _: Dice) -> Rule:
    """Stay on the stairs: on a step or in the cell above it."""
    steps = stairs(*world.cells.shape)
    return _at_marker(world, {*steps, *((row - 1, column) for row, column in steps)})


def _maze(world: Worlds, _: Dice) -> Rule:
    return _at_marker(world)


def _four_corners(world: Worlds, _: Dice) -> Rule:
    """A quarter for a marker in each corner; a mistake to put one elsewhere or a second one."""
    height, width = world.cells.shape
    corners = tuple(np.array([(1, 1), (1, width - 2), (height - 2, 1), (height - 2, width - 2)]).T)
    before = 0

    def after(state: State) -> tuple[float, bool]:
        nonlocal before
        filled = int((state.cells[corners] > 0).sum())
        gained, before = filled - before, filled
        if _total(state) > filled:
            return PENALTY, True
        return gained / 4, filled == 4

    return after


def _top_off(world: Worlds, _: Dice) -> Rule:
    """A share for a second marker on each marked cell; a mistake to take one or to put one elsewhere."""
    marked = tuple(np.argwhere(world.cells > 0).T)
    count = len(marked[0])
    before = 0

    def after(state: State) -> tuple[float, bool]:
        nonlocal before
        cell = state.cells[marked]
        topped = int((cell == 2).sum())
        gained, before = topped - before, topped
        if (cell == 0).any() or _total(state) > topped + count:
            return PENALTY, True
        return gained / count, topped == count

    return after


def _gather(world: Worlds, _: Dice) -> Rule:
    """cleanHouse and harvester: a share for each marker taken; a mistake to put one."""
    count = int(np.maximum(world.cells, 0).sum())
    before = count

    def after(state: State) -> tuple[float, bool]:
        nonlocal before
        left = _total(state)
        collected, before = before - left, left
        return (PENALTY, True) if collected < 0 else (collected / count, left == 0)

    return after


def _door_key(world: Worlds, _: Dice) -> Rule:
    """Half for taking the key, which opens the door, half for a marker on the goal's; a mistake to err with markers."""
    key, goal = sorted(_markers(world), key=lambda cell: cell[1])
    locked = True

    def after(state: State) -> tuple[float, bool]:
        nonlocal locked
        total = _total(state)
        if locked:
            if total > 2:
                return PENALTY, True
            if state.cells[key] > 0:
                return 0.0, False
            locked = False
            for door in DOORS:
                state.cells[door] = 0
            return 0.5, False
        if total == 1:
            return 0.0, False
        return (0.5, True) if state.cells[goal] == 2 else (PENALTY, True)

    return after


def _one_stroke(world: Worlds, _: Dice) -> Rule:
    """A share for each cell visited; what was visited becomes wall as the robot leaves it."""
    count = int((world.cells >= 0).sum())
    position = (int(world.robot[0]), int(world.robot[1]))
    visited = 0

    def after(state: State) -> tuple[float, bool]:
        nonlocal position, visited
        new = 1 if visited == 0 else 0
        cell = (state.row, state.column)
        if cell != position:
            state.cells[position] = -1
            position, new = cell, new + 1
        visited += new
        return new / count, visited == count

    return after


def _seeder(world: Worlds, _: Dice) -> Rule:
    """A share for a marker on each cell; a mistake to put a second one or to take one."""
    count = int((world.cells >= 0).sum())
    before = 0

    def after(state: State) -> tuple[float, bool]:
        nonlocal before
        total = _total(state)
        gained, before = total - before, total
        if gained < 0 or state.cells.max() > 1:
            return PENALTY, True
        return gained / count, total == count

    return after


def _snake(world: Worlds, dice: Dice) -> Rule:
    """A twentieth for each marker reached, which lengthens the body; a mistake to run into the body."""
    (food,) = _markers(world)
    body = [(int(world.robot[0]), int(world.robot[1]))]
    longest = _FIRST_BODY

    def after(state: State) -> tuple[float, bool]:
        nonlocal food, longest
        head, reward = (state.row, state.column), 0.0
        if head in body[:-1]:
            return PENALTY, True
        if head == food:
            reward = 1 / FOOD
            longest += 1
            state.cells[food] = 0
            if longest == _FIRST_BODY + FOOD:
                return reward, True
            free = [(int(r), int(c)) for r, c in np.argwhere(state.cells >= 0)]
            food = dice.choose([cell for cell in free if cell != head and cell not in body])
            state.cells[food] = 1
        if head != body[-1]:
            state.cells[body[-1]] = 1
            body.append(head)
            if len(body) > longest:
                state.cells[body.pop(0)] = 0
        return reward, False

    return after


_RULES: dict[str, Callable[[Worlds, Dice], Rule]] = {
    "stairClimber": _stair_climber,
    "fourCorners": _four_corners,
    "topOff": _top_off,
    "maze": _maze,
    "cleanHouse": _gather,
    "harvester": _gather,
    "doorKey": _door_key,
    "oneStroke": _one_stroke,
    "seeder": _seeder,
    "snake": _snake,
}
