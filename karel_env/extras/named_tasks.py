"""The named tasks of programmatic reinforcement learning, scored by their published rewards.

Sources: Trivedi et al. 2021 (LEAPS, arXiv 2108.13643) for stairClimber, fourCorners, topOff, maze, cleanHouse and
harvester; Liu et al. 2023 (HPRL, arXiv 2301.12950) for doorKey, oneStroke, seeder and snake. The papers' rewards have
several implementations; the rules here are those of the only one that has all ten, Carvalho et al. 2024
(Reclaiming the Source of Programmatic Policies, ICLR; github.com/lelis-research/prog_policies), in which the reward is
summed over actions, a mistake costs 1 and ends the episode, and a solved task gives 1 in total. A `move` into a wall
turns the robot around, a cell has at most 10 markers, and an episode ends after 10,000 events.

Differences from the implementations:

- stairClimber and maze are scored as in LEAPS' paper (1 at the marker, -1 off the stairs), not by distance.
- LEAPS scores fourCorners by the number of corners with a marker, or 0 if there is a marker elsewhere; topOff by the number
  of correct cells counted from the west, plus one for ending in the east; cleanHouse by ten markers in the western half,
  without that of the bin. Its fourCorners and harvester have a single start, and its mistakes cost less.
- oneStroke counts the start as visited (as HPRL does), so that 1 can be reached: prog_policies stops at 35 of 36.
  Running into the border does not end the episode, which it does in HPRL.
- doorKey costs 1 for a marker put elsewhere (0.0001 in HPRL); key, goal and robot never share a cell.
- snake starts without a body and grows one of two cells (in HPRL it starts with that body at a fixed position, and food
  has fixed positions). Food never appears on the body, and conditions test the actual markers; in prog_policies the
  food is only drawn.

Letters: `H W` grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from karel_env.execution.stepping import Played, State, play
from karel_env.extras.named_worlds import DOORS, WORLDS, Cell, Dice, stairs
from karel_env.world import Worlds

NAMES = tuple(WORLDS)
MODE = "turn180"
MAX_MARKERS = 10
MAX_EVENTS = 10_000
PENALTY = -1.0
FOOD = 20
"""Number of markers that the snake can eat."""
_FIRST_BODY = 2

Rule = Callable[[State], tuple[float, bool]]
"""Called after each action with the state, which it may change; returns the reward and whether the episode is over."""


@dataclass(frozen=True)
class Episode:
    """Result of a program in a task.

    Attributes:
        reward: sum over the program's actions; at most 1.
        played: result of the execution.
    """

    reward: float
    played: Played


@dataclass(frozen=True)
class NamedTask:
    """One task in one world.

    Attributes:
        name: one of `NAMES`.
        seed: seed of the world.
        world: initial world (empty leading shape).
        mode: effect of an illegal action, as in `interpreter.run`.
    """

    name: str
    seed: int
    world: Worlds
    mode: str = MODE

    def episode(self, words: np.ndarray, observe: Callable[[State], None] | None = None) -> Episode:
        """Execute a program and return its reward.

        Args:
            words: int [T], a valid program.
            observe: called with the state after each action and the task's change of it.
        """
        rule = _RULES[self.name](self.world, Dice(self.seed, len(NAMES) + NAMES.index(self.name)))
        reward = 0.0

        def after(state: State) -> bool:
            nonlocal reward
            gained, is_over = rule(state)
            reward += gained
            if observe is not None:
                observe(state)
            return is_over

        played = play(words, self.world, after, mode=self.mode, max_markers=MAX_MARKERS, max_events=MAX_EVENTS)
        return Episode(round(reward, 9), played)


def named_task(name: str, seed: int, mode: str = MODE) -> NamedTask:
    """Build a task with the world drawn from a seed.

    Raises:
        ValueError: the name is not one of `NAMES`.
    """
    if name not in WORLDS:
        raise ValueError(f"named task {name!r}: expected one of {', '.join(NAMES)}")
    return NamedTask(name, seed, WORLDS[name](Dice(seed, NAMES.index(name))), mode)


def score(words: np.ndarray, name: str, seeds: Sequence[int], mode: str = MODE) -> np.ndarray:
    """Rewards of one program in the world of each seed, float64."""
    return np.array([named_task(name, seed, mode).episode(words).reward for seed in seeds], np.float64)


def _markers(world: Worlds) -> list[Cell]:
    return [(int(row), int(column)) for row, column in np.argwhere(world.cells > 0)]


def _total(state: State) -> int:
    return int(np.maximum(state.cells, 0).sum())


def _at_marker(world: Worlds, allowed: set[Cell] | None = None) -> Rule:
    """Reward 1 for reaching the only marker; leaving the allowed cells first is a mistake."""
    (goal,) = _markers(world)

    def after(state: State) -> tuple[float, bool]:
        if (state.row, state.column) == goal:
            return 1.0, True
        if allowed is not None and (state.row, state.column) not in allowed:
            return PENALTY, True
        return 0.0, False

    return after


def _stair_climber(world: Worlds, _: Dice) -> Rule:
    """Allowed cells: the steps of the stairs and the cells above them."""
    steps = stairs(*world.cells.shape)
    return _at_marker(world, {*steps, *((row - 1, column) for row, column in steps)})


def _maze(world: Worlds, _: Dice) -> Rule:
    return _at_marker(world)


def _four_corners(world: Worlds, _: Dice) -> Rule:
    """Reward 1/4 per corner with a marker; putting one elsewhere, or a second one, is a mistake."""
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
    """An equal share for a second marker on each marked cell; taking one, or putting one elsewhere, is a mistake."""
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
    """cleanHouse and harvester: an equal share for each marker taken; putting one is a mistake."""
    count = int(np.maximum(world.cells, 0).sum())
    before = count

    def after(state: State) -> tuple[float, bool]:
        nonlocal before
        left = _total(state)
        collected, before = before - left, left
        return (PENALTY, True) if collected < 0 else (collected / count, left == 0)

    return after


def _door_key(world: Worlds, _: Dice) -> Rule:
    """Reward 1/2 for taking the key, which opens the door, and 1/2 for a marker on the goal; other marker actions are mistakes."""
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
    """An equal share for each visited cell; a cell becomes a wall when the robot leaves it."""
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
    """An equal share for a marker on each cell; putting a second one, or taking one, is a mistake."""
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
    """Reward 1/20 for each marker reached, which lengthens the body; running into the body is a mistake."""
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
