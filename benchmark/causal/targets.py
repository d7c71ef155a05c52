"""Exact distribution of the next word from a state of the robot, edited or not. NumPy only, like the verdict.

All suffixes of the training distribution are executed from the state; those that lead every shown example to its output
under the suite's equality are weighted by their probability. No model is involved, and no single reference program.

Letters: `M` states, `E` shown examples, `Q` suffixes, `A` longest suffix.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from benchmark.errors import UsageError
from benchmark.tasks.suite import Suite
from karel_env.generation.recipe import ControlRecipe
from karel_env.language import ACTIONS, CLOSE, WORDS, Programs
from karel_env.world import Worlds

if TYPE_CHECKING:
    from karel_env.execution.compiler import Code

NEXT_WORDS = (*WORDS[: len(ACTIONS)], WORDS[CLOSE])
"""The six continuations of a straight-line program: an action, or the closing bracket."""
END = len(ACTIONS)
"""Index of the closing bracket in `NEXT_WORDS`."""
TURNS = 4
_MAX_EXECUTIONS = 400_000
"""Executions of one call of the interpreter, a limit of memory."""


@dataclass(frozen=True)
class SuffixTable:
    """All continuations of a prefix of fixed length, except the closing bracket alone, with their probabilities.

    Attributes:
        actions: int8 [Q, A], padded with zeros.
        lengths: int64 [Q], number of actions, at least 1.
        weights: float64 [Q], probability under the training distribution, up to a factor.
        end_weight: the same for the closing bracket alone; 0 if the prefix is too short to be a program.
        equality: one of `benchmark.tasks.suite.EQUALITIES`.
    """

    actions: np.ndarray
    lengths: np.ndarray
    weights: np.ndarray
    end_weight: float
    equality: str

    @classmethod
    def of_suite(cls, suite: Suite, prefix_length: int) -> SuffixTable:
        """The continuations of prefixes of `prefix_length` actions.

        Raises:
            UsageError: the suite has control flow, or no program is that long.
        """
        check_straight_line(suite)
        shortest, longest = (length - prefix_length for length in suite.train_length)
        if longest < 1:
            raise UsageError(
                f"suite {suite.name}: prefixes of {prefix_length} actions; expected fewer than its longest program, "
                f"{suite.train_length[1]}"
            )
        share = np.array(suite.recipe.weights) / sum(suite.recipe.weights)
        rows = [row for length in range(max(1, shortest), longest + 1) for row in product(range(END), repeat=length)]
        actions = np.zeros((len(rows), longest), np.int8)
        for index, row in enumerate(rows):
            actions[index, : len(row)] = row
        lengths = np.array([len(row) for row in rows])
        is_used = np.arange(longest) < lengths[:, None]
        weights = np.where(is_used, share[actions], 1.0).prod(1)
        return cls(actions, lengths, weights, 1.0 if shortest <= 0 else 0.0, suite.equality)

    @cached_property
    def code(self) -> Code:
        """The Q suffixes, compiled."""
        from karel_env.execution.compiler import compile_programs

        return compile_programs(Programs.straight_line(self.actions, self.lengths))

    def next_word_posterior(self, states: Worlds, outputs: Worlds) -> np.ndarray:
        """Distribution of the next word given that the program brings each state to its output.

        Args:
            states: worlds [M, E] after the prefix.
            outputs: worlds [M, E] that the program must reach.

        Returns:
            float64 [M, 6], in the order of `NEXT_WORDS`; a row of zeros where no suffix reaches all outputs.
        """
        step = max(1, _MAX_EXECUTIONS // len(self.lengths))
        rows = np.flatnonzero(self._are_near(states, outputs))
        totals = np.zeros((len(states), len(NEXT_WORDS)))
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            totals[part] = self._total_weights(states[part], outputs[part])
        sums = totals.sum(1, keepdims=True)
        return np.divide(totals, sums, out=np.zeros_like(totals), where=sums > 0)

    def _are_near(self, states: Worlds, outputs: Worlds) -> np.ndarray:
        """bool [M], whether the longest suffix has as many actions as each output differs by; no other state can reach it.

        An action moves the robot by one cell, turns it by a quarter, or changes the markers of a cell by one.
        """
        differ = np.abs(states.cells - outputs.cells)
        if self.equality == "drawn":
            # The robot hides what it ends on.
            row, column = (outputs.robot[..., i, None, None] for i in range(2))
            rows, columns = np.indices(differ.shape[-2:])
            differ = np.where((rows == row) & (columns == column), 0, differ)
        apart = np.abs(states.robot - outputs.robot)
        turns = np.minimum(apart[..., 2], TURNS - apart[..., 2])
        actions = differ.sum((-2, -1), dtype=np.int64) + apart[..., :2].sum(-1, dtype=np.int64) + turns
        is_near: np.ndarray = (actions <= self.lengths.max()).all(1)
        return is_near

    def _total_weights(self, states: Worlds, outputs: Worlds) -> np.ndarray:
        """float64 [M, 6], summed weights of the suffixes that reach all outputs, by first word."""
        num_states, num_suffixes = len(states), len(self.lengths)
        from karel_env.execution.interpreter import run

        first = run(self.code, _repeat(states[:, 0], num_suffixes)).worlds
        suffix, state = np.nonzero(equal_worlds(first, _repeat(outputs[:, 0], num_suffixes), self.equality))
        if states.shape[1] > 1 and len(suffix):
            programs = Programs.straight_line(self.actions[suffix], self.lengths[suffix])
            reached = run(programs, states[state, 1:]).worlds
            is_match = equal_worlds(reached, outputs[state, 1:], self.equality).all(1)
            suffix, state = suffix[is_match], state[is_match]
        cells = state * len(NEXT_WORDS) + self.actions[suffix, 0]
        # Without any suffix the counts are integers.
        sums = np.bincount(cells, self.weights[suffix], num_states * len(NEXT_WORDS)).astype(np.float64)
        totals: np.ndarray = sums.reshape(num_states, -1)
        totals[:, END] += self.end_weight * equal_worlds(states, outputs, self.equality).all(1)
        return totals


def check_straight_line(suite: Suite) -> None:
    """Refuse a suite whose programs have conditionals or loops.

    Raises:
        UsageError: it has.
    """
    if isinstance(suite.recipe, ControlRecipe):
        raise UsageError(
            f"suite {suite.name}: its programs have control flow; the causal measurement needs straight-line programs, "
            "as in laptop or icml24"
        )


def equal_worlds(worlds: Worlds, expected: Worlds, equality: str) -> np.ndarray:
    """bool [...], equality of worlds under `state` or `drawn`, see `Suite.equality`."""
    return worlds.same_state(expected) if equality == "state" else worlds.same_drawing(expected)


def turn_robots(worlds: Worlds, turns: np.ndarray) -> Worlds:
    """Worlds [M, E] in which all robots of row m are turned by `turns[m]` quarter turns to the right."""
    robot = worlds.robot.copy()
    robot[..., 2] = (robot[..., 2] + turns[:, None]) % TURNS
    return Worlds(worlds.cells, robot, worlds.size)


def execute_prefixes(prefixes: np.ndarray, inputs: Worlds) -> Worlds:
    """Worlds [M, E] after the actions `prefixes`, int8 [M, K], in the worlds `inputs` [M, E]."""
    lengths = np.full(len(prefixes), prefixes.shape[1])
    from karel_env.execution.interpreter import run

    return run(Programs.straight_line(prefixes, lengths), inputs).worlds


def _repeat(worlds: Worlds, count: int) -> Worlds:
    """Worlds [count, M] from worlds [M]."""
    return Worlds(*(np.broadcast_to(part, (count, *part.shape)) for part in (worlds.cells, worlds.robot, worlds.size)))
