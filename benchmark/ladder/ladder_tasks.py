"""Draw the tasks of the ladder and write their prompts: a description, solved examples, a world, a program, a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmark.causal.targets import check_straight_line
from benchmark.ladder.dialects import KAREL, PYTHON
from benchmark.ladder.questions import NO_ACTION, Executions, Question, list_questions
from benchmark.tasks.suite import Suite
from karel_env.language import CLOSE, HEADER
from karel_env.language import text_of as karel_text
from karel_env.python_syntax import python_text
from karel_env.recipe import Tasks
from karel_env.world import Worlds, world_texts

TASKS_VERSION = 1
LADDER_STREAM = 15_485_863
"""Added to the suite's seed, so that no task of the ladder is one of the suite's."""
NUM_FITTED = 4000
"""Tasks from which the last-action heuristic is learned; they are never asked."""
WORLD, PROGRAM, QUESTION, ANSWER = "World:", "Program:", "Question:", "Answer:"


@dataclass(frozen=True)
class LadderTasks:
    """The tasks of one ladder.

    Attributes:
        questions: the ladder, easiest first.
        tests: N executions that are asked about, of all lengths in equal numbers.
        shots: the executions of the solved examples.
        fitted: further executions, for the last-action heuristic.
        texts, shot_texts: world and program of each execution, as in a prompt.
        dialect: one of `DIALECTS`.
        show_under_robot: whether worlds show the markers under the robot.
    """

    questions: Sequence[Question]
    tests: Executions
    shots: Executions
    fitted: Executions
    texts: Sequence[str]
    shot_texts: Sequence[str]
    dialect: str
    show_under_robot: bool

    def preamble(self, question: Question) -> str:
        """What every prompt of a question begins with."""
        answers = question.answer(self.shots)
        examples = [
            f"{text}{QUESTION} {question.text}\n{ANSWER} {question.choices[answer]}\n\n"
            for text, answer in zip(self.shot_texts, answers, strict=True)
        ]
        return f"{describe(self.dialect, self.show_under_robot)}\n\n{''.join(examples)}"

    def prompts(self, question: Question) -> list[str]:
        """The N prompts of a question; an answer follows after a space."""
        preamble = self.preamble(question)
        return [f"{preamble}{text}{QUESTION} {question.text}\n{ANSWER}" for text in self.texts]


def draw_ladder(suite: Suite, per_length: int, num_shots: int, dialect: str = KAREL) -> LadderTasks:
    """Draw the tasks: worlds and frequencies of actions of a suite, programs of each length that it has.

    Args:
        suite: a suite of straight-line programs.
        per_length: number of tasks per program length.
        num_shots: number of solved examples.
        dialect: one of `DIALECTS`.

    Raises:
        UsageError: the suite has control flow.
    """
    check_straight_line(suite)
    shortest, longest = suite.recipe.length
    lengths = range(shortest, longest + 1)
    seed = suite.seed + LADDER_STREAM + TASKS_VERSION
    tests, shots, fitted = [], [], []
    per_fit, per_shot = -(-NUM_FITTED // len(lengths)), -(-num_shots // len(lengths))
    for length in lengths:
        tasks = _draw(suite, length, seed, per_length + per_shot + per_fit)
        shots.append(tasks.take(np.arange(per_shot)))
        tests.append(tasks.take(per_shot + np.arange(per_length)))
        fitted.append(tasks.take(per_shot + per_length + np.arange(per_fit)))
    # The shots are of all lengths, in an order that says nothing.
    mixed = np.random.default_rng(seed).permutation(per_shot * len(lengths))[:num_shots]
    parts = [_executions(part, longest) for part in (tests, shots, fitted)]
    shown = _take(parts[1], mixed)
    height, width = shown.inputs.cells.shape[1:]
    under = suite.show_under_robot
    return LadderTasks(
        list_questions(height, width, longest), parts[0], shown, parts[2],
        _render(parts[0], dialect, under), _render(shown, dialect, under), dialect, under,
    )  # fmt: skip


def _draw(suite: Suite, length: int, seed: int, count: int) -> Tasks:
    from karel_env import generator

    recipe = replace(suite.recipe, length=(length, length), examples=1)
    return generator.generate(recipe, seed + length, "audit", np.arange(count))


def _executions(parts: Sequence[Tasks], longest: int) -> Executions:
    rows = [part.programs.program(i)[len(HEADER) : -1] for part in parts for i in range(len(part))]
    actions = np.full((len(rows), longest), NO_ACTION, np.int8)
    for row, program in zip(actions, rows, strict=True):
        row[: len(program)] = program
    inputs, outputs = (
        Worlds.of(
            np.concatenate([getattr(part, side).cells[:, 0] for part in parts]),
            np.concatenate([getattr(part, side).robot[:, 0] for part in parts]),
        )
        for side in ("inputs", "outputs")
    )
    return Executions(actions, inputs, outputs)


def _take(executions: Executions, indices: np.ndarray) -> Executions:
    return Executions(executions.actions[indices], executions.inputs[indices], executions.outputs[indices])


def _render(executions: Executions, dialect: str, show_under_robot: bool) -> list[str]:
    worlds = world_texts(executions.inputs, show_under_robot)
    to_text = python_text if dialect == PYTHON else karel_text
    programs = [
        to_text([*HEADER, *row[:length].tolist(), CLOSE])
        for row, length in zip(executions.actions, executions.lengths, strict=True)
    ]
    return [f"{WORLD}\n{world}\n{PROGRAM}\n{program}\n" for world, program in zip(worlds, programs, strict=True)]


def describe(dialect: str, show_under_robot: bool) -> str:
    """The description of worlds and programs."""
    under = ", with a number behind it where it stands on markers" if show_under_robot else ""
    form = "a Python function run that calls" if dialect == PYTHON else "written def run() { ... } with"
    return "\n".join(
        [
            "A robot is on a grid. Each cell is one sign: . is free, # is a wall, a number counts markers,",
            f"and ^ > v < is the robot, facing north, east, south or west{under}.",
            f"A program is {form} one action after another: move goes one cell ahead, turn_left and turn_right turn",
            "on the spot, pick_marker takes one marker from the robot's cell, put_marker puts one there.",
            "A move into a wall or a pick from an empty cell does nothing.",
            "The program is run in the world. Answer the question with one word.",
        ]
    )
