"""The second variable: where the robot is, in the frame of its start. NumPy only.

A pair is a task, a prefix and a direction; the edit sets every robot onto the next cell in that direction of its start's
frame, and changes nothing else. The cell must be free in all shown examples, and no move of the prefix may be blocked, so
that the displacement follows from the words.

Letters: `Q` pairs, `K` actions of a prefix, `V` displacements, `M` states, `E` shown examples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from benchmark.causal.pairs import (
    MAX_BASE,
    MIN_EDITED,
    PairSettings,
    candidate_prefixes,
    derive_pairs,
    most_frequent,
    posterior_of_distinct,
    prefix_length,
    prefix_number,
    rank_within,
)
from benchmark.causal.rotation import net_rotation
from benchmark.causal.targets import END, TURNS, SuffixTable, execute_prefixes
from benchmark.tasks.suite import Suite
from karel_env.semantics import LEFT, MOVE, ORIGINAL, RIGHT, Semantics
from karel_env.world import Worlds

DIRECTIONS = ("forward", "right", "back", "left")
STEPS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
"""int [4, 2], cells forward and to the right of a step in each direction; a heading makes the same steps in a world."""
MOVES_PER_TASK, PREFIXES_PER_TASK = 5, 60
MIN_WEIGHT = 5.0
"""Least precision of a difference of means, in pairs of prefixes of equal rotation."""
_COMPASS = np.array([[-1, 0], [0, 1], [1, 0], [0, -1]])
"""int [4, 2], rows and columns of a step by heading."""


@dataclass(frozen=True)
class MovePairs:
    """Pairs of a suite; tasks and split are those of `derive_pairs`.

    Attributes:
        task: int64 [Q].
        prefix: int8 [Q, K].
        direction: int8 [Q], in which the robots are moved, index of `DIRECTIONS`.
        target, base_word: int8 [Q], the most probable next word after and before.
        other: int8 [Q], another direction, after which the target is not the most probable word; -1 if there is none.
        is_report: bool [Q], whether the task reports.
        is_strict: bool [Q], whether the target differs from the most frequent one of choose pairs with the same direction
            and base word.
        look_up: int8 [Q], the most frequent target of choose pairs by direction, base word and last word; -1 if there is none.
    """

    task: np.ndarray
    prefix: np.ndarray
    direction: np.ndarray
    target: np.ndarray
    base_word: np.ndarray
    other: np.ndarray
    is_report: np.ndarray
    is_strict: np.ndarray
    look_up: np.ndarray

    def __len__(self) -> int:
        return len(self.task)


def displacement(prefixes: np.ndarray, semantics: Semantics = ORIGINAL) -> np.ndarray:
    """int64 [P, 2], cells forward and to the right of the start after prefixes int [P, K] in a world without walls."""
    effects = semantics.action_table()[prefixes]
    position, heading = np.zeros((len(prefixes), 2), np.int64), np.zeros(len(prefixes), np.int64)
    for effect in effects.T:
        position += STEPS[heading] * (effect == MOVE)[:, None]
        heading = (heading + (effect == RIGHT) - (effect == LEFT)) % TURNS
    return position


def displacement_code(position: np.ndarray, length: int) -> np.ndarray:
    """int64 [P], a number for each displacement int [P, 2] of prefixes of `length` actions; -1 outside their reach."""
    side = 2 * length + 1
    is_within = (np.abs(position) <= length).all(1)
    return np.where(is_within, (position[:, 0] + length) * side + position[:, 1] + length, -1)


def move_robots(worlds: Worlds, starts: Worlds, position: np.ndarray) -> tuple[Worlds, np.ndarray]:
    """Set robots onto cells in the frame of their start.

    Args:
        worlds: [M, E], their headings and all else are kept.
        starts: [M, E], worlds before the prefix.
        position: int [M, 2], cells forward and to the right of the start.

    Returns:
        The worlds, and bool [M], whether the cell is free in every example.
    """
    heading = starts.robot[..., 2].astype(np.int64)
    forward, right = _COMPASS[heading], _COMPASS[(heading + 1) % TURNS]
    cell = starts.robot[..., :2] + forward * position[:, None, :1] + right * position[:, None, 1:]
    is_inside = ((cell >= 0) & (cell < worlds.size)).all(-1)
    row, column = (np.where(is_inside, cell[..., axis], 0) for axis in range(2))
    at = (row * worlds.cells.shape[-1] + column)[..., None]
    cells = worlds.cells.reshape(*worlds.cells.shape[:-2], -1)
    is_free = is_inside & (np.take_along_axis(cells, at, -1)[..., 0] >= 0)
    robot = worlds.robot.copy()
    robot[..., 0], robot[..., 1] = row, column
    return Worlds(worlds.cells, robot, worlds.size), is_free.all(1)


def adjusted_differences(
    states: np.ndarray, labels: np.ndarray, strata: np.ndarray, changes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Differences of class means at equal values of another variable.

    Args:
        states: float32 [R, D].
        labels: int [R], values of the variable.
        strata: int [R], values of the other variable.
        changes: int [C, 2], old and new value of each difference.

    Returns:
        float32 [C, D], mean(new) - mean(old) within each stratum, averaged over strata by precision; and float64 [C],
        the summed precision n_old * n_new / (n_old + n_new), 0 (with a difference of 0) where no stratum has both.
    """
    differences, weights = np.zeros((len(changes), states.shape[1])), np.zeros(len(changes))
    for stratum in np.unique(strata):
        members = strata == stratum
        present = np.unique(labels[members])
        means = {v: states[members & (labels == v)].mean(0, dtype=np.float64) for v in present.tolist()}
        counts = dict(zip(present.tolist(), np.bincount(labels[members])[present].tolist(), strict=True))
        for index, (old, new) in enumerate(changes.tolist()):
            if old in counts and new in counts:
                weight = counts[old] * counts[new] / (counts[old] + counts[new])
                differences[index] += weight * (means[new] - means[old])
                weights[index] += weight
    differences /= np.maximum(weights, 1e-9)[:, None]
    return differences.astype(np.float32), weights


def step_changes(length: int) -> np.ndarray:
    """int64 [V * 4, 2], code before and after a step in each direction, -1 outside; row `code * 4 + direction`."""
    side = 2 * length + 1
    position = np.stack(np.divmod(np.arange(side * side), side), 1) - length
    after = [displacement_code(position + step, length) for step in STEPS]
    return np.stack([np.repeat(np.arange(side * side), 4), np.stack(after, 1).ravel()], 1)


@dataclass(frozen=True)
class MoveShift:
    """Add the difference of class means between the displacement and the next one in a direction.

    Attributes:
        differences: float32 [V * 4, D], see `step_changes`.
        is_defined: bool [V * 4], whether enough prefixes of equal rotation have both.
    """

    differences: np.ndarray
    is_defined: np.ndarray

    @classmethod
    def of(cls, states: np.ndarray, codes: np.ndarray, rotation: np.ndarray, length: int) -> MoveShift:
        """From states float32 [R, D] with displacement codes int [R] (-1: left out) and rotations int [R]."""
        used = codes >= 0
        changes = step_changes(length)
        differences, weights = adjusted_differences(states[used], codes[used], rotation[used], changes)
        return cls(differences, (weights >= MIN_WEIGHT) & (changes[:, 1] >= 0))

    def shifts(self, codes: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """float32 [B, D], what is added to states of displacement `codes`, and bool [B], whether it is defined."""
        index = codes * 4 + direction
        return self.differences[index], (codes >= 0) & self.is_defined[index]


@lru_cache(maxsize=4)
def mean_codes(suite: Suite, settings: PairSettings) -> np.ndarray:
    """int64 [R], displacement code of each mean prefix of `derive_pairs`; -1 where a move was blocked in an example."""
    pairs = derive_pairs(suite, settings)
    inputs = pairs.tasks.inputs[pairs.mean_task, : suite.shown]
    return _codes(inputs, pairs.mean_prefix)[0]


def _codes(inputs: Worlds, prefix: np.ndarray) -> tuple[np.ndarray, Worlds]:
    """Displacement codes of prefixes, -1 where a move was blocked; and the worlds after them."""
    reached, position = execute_prefixes(prefix, inputs), displacement(prefix)
    expected, is_free = move_robots(reached, inputs, position)
    is_free &= (expected.robot == reached.robot).all((-2, -1))
    return np.where(is_free, displacement_code(position, prefix.shape[1]), -1), reached


@lru_cache(maxsize=4)
def derive_move_pairs(suite: Suite, settings: PairSettings) -> MovePairs:
    """Derive the pairs of a suite; no model is involved."""
    pairs, length = derive_pairs(suite, settings), prefix_length(suite)
    task, prefix = candidate_prefixes(pairs.tasks, np.arange(settings.tasks), length)
    inputs, outputs = (worlds[:, : suite.shown] for worlds in (pairs.tasks.inputs, pairs.tasks.outputs))
    order = _priority(task, prefix, 0)
    rows = np.flatnonzero(rank_within(task, order) < PREFIXES_PER_TASK)
    task, prefix = task[rows], prefix[rows]
    codes, reached = _codes(inputs[task], prefix)
    table = SuffixTable.of_suite(suite, length)
    base = posterior_of_distinct(table, reached, outputs[task], task)
    rows = np.flatnonzero((codes >= 0) & (base.sum(1) > 0))
    task, prefix, codes, base, reached = task[rows], prefix[rows], codes[rows], base[rows], reached[rows]
    dummy = np.zeros((len(pairs.mean_task), 1), np.float32)
    defined = MoveShift.of(dummy, mean_codes(suite, settings), net_rotation(pairs.mean_prefix), length).is_defined
    posterior = np.zeros((len(task), 4, END + 1))
    for direction, step in enumerate(STEPS):
        moved, is_free = move_robots(reached, inputs[task], displacement(prefix) + step)
        rows = np.flatnonzero(is_free & defined[codes * 4 + direction])
        if len(rows):
            posterior[rows, direction] = posterior_of_distinct(table, moved[rows], outputs[task[rows]], task[rows])
    return _select_moves(pairs.split, task, prefix, base, posterior)


def _select_moves(
    split: np.ndarray, task: np.ndarray, prefix: np.ndarray, base: np.ndarray, posterior: np.ndarray
) -> MovePairs:
    """The candidates whose target is clear and not that of the base, up to the limit per task; see `MovePairs`."""
    best, target_of, base_word = posterior.max(2), posterior.argmax(2), base.argmax(1)
    second = np.sort(posterior, 2)[:, :, -2]
    at_base = np.take_along_axis(base, target_of, 1)
    is_pair = (best >= MIN_EDITED) & ~np.isclose(best, second) & (target_of != base_word[:, None])
    row, direction = np.nonzero(is_pair & (at_base <= MAX_BASE))
    rank = rank_within(task[row], _priority(task[row], prefix[row], 1 + direction))
    row, direction = row[rank < MOVES_PER_TASK], direction[rank < MOVES_PER_TASK]
    target = target_of[row, direction]
    other = np.full(len(row), -1, np.int8)
    for step in range(1, 4):
        alternative = (direction + step) % 4
        is_other = (best[row, alternative] > 0) & (target_of[row, alternative] != target) & (other < 0)
        other[is_other] = alternative[is_other]
    is_report = split[task[row]] == 1
    coarse = direction * (END + 1) + base_word[row]
    fine = coarse * END + prefix[row, -1]
    frequent, look_up = (
        most_frequent(key[~is_report], target[~is_report], 4 * (END + 1) * END)[key] for key in (coarse, fine)
    )
    return MovePairs(
        task=task[row],
        prefix=prefix[row].astype(np.int8),
        direction=direction.astype(np.int8),
        target=target.astype(np.int8),
        base_word=base_word[row].astype(np.int8),
        other=other,
        is_report=is_report,
        is_strict=frequent != target,
        look_up=look_up.astype(np.int8),
    )


def _priority(task: np.ndarray, prefix: np.ndarray, salt: np.ndarray | int) -> np.ndarray:
    """uint64 [P], random order of the candidates of a task, the same on every platform."""
    key = (task.astype(np.uint64) << np.uint64(40)) ^ (prefix_number(prefix).astype(np.uint64) << np.uint64(4))
    with np.errstate(over="ignore"):
        z = (key ^ np.asarray(salt).astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))
