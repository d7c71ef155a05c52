"""The questions, from what a program says to where the robot ends, each with the answers that it may have.

Letters: `N` tasks, `H W` grid with border.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from karel_env.execution.interpreter import run
from karel_env.features import labels
from karel_env.language import ACTIONS, CLOSE, FIRST_CONDITION, HEADER, Programs
from karel_env.semantics import MOVE
from karel_env.world import HEADINGS, Worlds

MAJORITY, BEFORE, LAST_ACTION, IN_ORDER = "majority", "before", "last action", "in order"
"""The most frequent answer; that before the program; the most frequent one after the same last action and answer before; and,
of programs with control flow, that after their actions once each, in the order in which they are written."""
OF_PROGRAM, OF_STATE = (MAJORITY, LAST_ACTION), (MAJORITY, BEFORE, LAST_ACTION)


@dataclass(frozen=True)
class Executions:
    """Executions of programs.

    Attributes:
        programs: N programs.
        lengths: int64 [N], number of statements.
        inputs, outputs: worlds [N] before and after.
    """

    programs: Programs
    lengths: np.ndarray
    inputs: Worlds
    outputs: Worlds

    def __len__(self) -> int:
        return len(self.programs)

    @cached_property
    def actions(self) -> list[np.ndarray]:
        """The actions of each program, in the order in which they are written."""
        words = [self.programs.program(i) for i in range(len(self))]
        return [program[program < FIRST_CONDITION] for program in words]

    @property
    def last_action(self) -> np.ndarray:
        """int64 [N], the action that is written last."""
        return np.array([actions[-1] for actions in self.actions], np.int64)

    @property
    def has_control_flow(self) -> bool:
        """Whether there are words besides actions, header and closing bracket."""
        return bool((self.programs.lengths != [len(a) + len(HEADER) + 1 for a in self.actions]).any())

    def not_executed(self) -> Executions:
        """The same programs as if nothing had happened."""
        return replace(self, outputs=self.inputs)

    def in_order(self) -> Executions:
        """The same programs, their actions executed once each in the order in which they are written."""
        straight = Programs.of([[*HEADER, *actions.tolist(), CLOSE] for actions in self.actions])
        return replace(self, outputs=run(straight, self.inputs).worlds)

    def count(self, action: int) -> np.ndarray:
        """int64 [N], how often an action is written."""
        return np.array([(actions == action).sum() for actions in self.actions], np.int64)

    def take(self, indices: np.ndarray) -> Executions:
        """The executions at `indices`, in that order."""
        return Executions(
            self.programs.take(indices), self.lengths[indices], self.inputs[indices], self.outputs[indices]
        )


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
    before, after = (worlds.robot[:, 2].astype(np.int64) for worlds in (executions.inputs, executions.outputs))
    return np.asarray((after - before) % len(HEADINGS))


def _heading(executions: Executions) -> np.ndarray:
    return executions.outputs.robot[:, 2].astype(np.int64)


def _is_wall_ahead(executions: Executions) -> np.ndarray:
    inputs, outputs = executions.inputs, executions.outputs
    return labels(outputs.cells, inputs.robot, outputs.robot, outputs.robot, np.arange(len(executions)))["obstacle"]


def list_questions(height: int, width: int, most_moves: int, has_control_flow: bool = False) -> list[Question]:
    """The ladder, easiest first.

    Args:
        height, width: size of the grid, border included.
        most_moves: largest number of moves in a program.
        has_control_flow: whether there are programs with control flow, which have another floor.
    """

    def coordinate(axis: int) -> Callable[[Executions], np.ndarray]:
        return lambda executions: executions.outputs.robot[:, axis].astype(np.int64) - 1

    def numbers(count: int, first: int) -> tuple[str, ...]:
        return tuple(str(first + i) for i in range(count))

    of_turn, of_state = ((*floors, IN_ORDER) if has_control_flow else floors for floors in (OF_PROGRAM, OF_STATE))
    return [
        Question("last action", "Which action stands last in the program?", ACTIONS, lambda e: e.last_action, (MAJORITY,)),
        Question(
            "moves", "How often does move stand in the program?", numbers(most_moves + 1, 0), lambda e: e.count(MOVE), OF_PROGRAM
        ),
        Question(
            "net turn",
            "In all, has the robot turned right, around, left, or not at all?",
            ("none", "right", "around", "left"),
            _net_turn,
            of_turn,
        ),
        Question("heading", "Which way does the robot face after the program?", tuple(HEADINGS), _heading, of_state),
        Question(
            "row", "In which row is the robot after the program, counted from 1 at the top?", numbers(height - 2, 1), coordinate(0), of_state
        ),
        Question(
            "column", "In which column is the robot after the program, counted from 1 at the left?", numbers(width - 2, 1), coordinate(1),
            of_state,
        ),
        Question("wall ahead", "Is there a wall right in front of the robot after the program?", ("no", "yes"), _is_wall_ahead, of_state),
    ]  # fmt: skip
