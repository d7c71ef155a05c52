"""The questions, from what a program says to where the robot ends, each with the answers that it may have. NumPy only.

Letters: `N` tasks, `K` actions of the longest program, `H W` grid with border.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from karel_env.features import labels
from karel_env.language import ACTIONS
from karel_env.semantics import LEFT, MOVE, RIGHT
from karel_env.world import HEADINGS, Worlds

NO_ACTION = -1
MAJORITY, BEFORE, LAST_ACTION = "majority", "before", "last action"
"""The most frequent answer; that before the program; the most frequent one after the same last action and answer before."""
OF_PROGRAM, OF_STATE = (MAJORITY, LAST_ACTION), (MAJORITY, BEFORE, LAST_ACTION)


@dataclass(frozen=True)
class Executions:
    """Executions of straight-line programs.

    Attributes:
        actions: int8 [N, K], `NO_ACTION` after the last one.
        inputs, outputs: worlds [N] before and after.
    """

    actions: np.ndarray
    inputs: Worlds
    outputs: Worlds

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def lengths(self) -> np.ndarray:
        """int64 [N], number of actions."""
        return (self.actions != NO_ACTION).sum(1)

    @property
    def last_action(self) -> np.ndarray:
        """int64 [N], the last action."""
        return self.actions[np.arange(len(self)), self.lengths - 1].astype(np.int64)

    def not_executed(self) -> Executions:
        """The same programs as if nothing had happened."""
        return replace(self, outputs=self.inputs)

    def count(self, action: int) -> np.ndarray:
        """int64 [N], how often an action occurs."""
        return (self.actions == action).sum(1)


@dataclass(frozen=True)
class Question:
    """A question about an execution.

    Attributes:
        name: its name in tables.
        text: as it stands in prompts.
        choices: the answers, one word each.
        answer: int64 [N], indices of the right answers.
        floors: answers that need no execution and that it is compared with.
    """

    name: str
    text: str
    choices: tuple[str, ...]
    answer: Callable[[Executions], np.ndarray]
    floors: tuple[str, ...]


def _net_turn(executions: Executions) -> np.ndarray:
    return (executions.count(RIGHT) - executions.count(LEFT)) % len(HEADINGS)


def _heading(executions: Executions) -> np.ndarray:
    return executions.outputs.robot[:, 2].astype(np.int64)


def _is_wall_ahead(executions: Executions) -> np.ndarray:
    inputs, outputs = executions.inputs, executions.outputs
    return labels(outputs.cells, inputs.robot, outputs.robot, outputs.robot, np.arange(len(executions)))["obstacle"]


def list_questions(height: int, width: int, longest: int) -> list[Question]:
    """The ladder, easiest first.

    Args:
        height, width: size of the grid, border included.
        longest: number of actions of the longest program.
    """

    def coordinate(axis: int) -> Callable[[Executions], np.ndarray]:
        return lambda executions: executions.outputs.robot[:, axis].astype(np.int64) - 1

    def numbers(count: int, first: int) -> tuple[str, ...]:
        return tuple(str(first + i) for i in range(count))

    return [
        Question("last action", "Which action stands last in the program?", ACTIONS, lambda e: e.last_action, (MAJORITY,)),
        Question(
            "moves", "How often does move stand in the program?", numbers(longest + 1, 0), lambda e: e.count(MOVE), OF_PROGRAM
        ),
        Question(
            "net turn",
            "In all, has the robot turned right, around, left, or not at all?",
            ("none", "right", "around", "left"),
            _net_turn,
            OF_PROGRAM,
        ),
        Question("heading", "Which way does the robot face after the program?", tuple(HEADINGS), _heading, OF_STATE),
        Question(
            "row", "In which row is the robot after the program, counted from 1 at the top?", numbers(height - 2, 1), coordinate(0), OF_STATE
        ),
        Question(
            "column", "In which column is the robot after the program, counted from 1 at the left?", numbers(width - 2, 1), coordinate(1),
            OF_STATE,
        ),
        Question("wall ahead", "Is there a wall right in front of the robot after the program?", ("no", "yes"), _is_wall_ahead, OF_STATE),
    ]  # fmt: skip
