"""Draw the tasks of the ladder and write their prompts: a description, solved examples, a world, a program, a question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmark.ladder.questions import Executions, Question, list_questions
from benchmark.tasks.prompt_template import apply_chat_template
from benchmark.tasks.suite import Suite
from karel_env.generation.recipe import ControlRecipe, Tasks
from karel_env.language import CONDITIONS, Programs
from karel_env.semantics import MOVE
from karel_env.syntax.dialects import KAREL, PYTHON, program_texts
from karel_env.world import Worlds, world_texts

TASKS_VERSION = 1
LADDER_STREAM = 15_485_863
"""Added to the suite's seed, so that no task of the ladder is one of the suite's."""
NUM_FITTED = 4000
"""Tasks from which the last-action heuristic is learned; they are never asked."""
WORLD, PROGRAM, QUESTION, ANSWER = "World:", "Program:", "Question:", "Answer:"
_PLACEHOLDER = "\x00"


@dataclass(frozen=True)
class LadderTasks:
    """The tasks of one ladder.

    Attributes:
        questions: the ladder, easiest first.
        tests: N executions that are asked about, of all lengths in equal numbers.
        shots: the executions of the solved examples.
        fitted: further executions, for the last-action heuristic.
        texts, shot_texts: world and program of each execution, as in a prompt.
        description: of worlds and programs.
        tokenizer: a transformers tokenizer whose chat template renders the prompts; None for plain text.
    """

    questions: Sequence[Question]
    tests: Executions
    shots: Executions
    fitted: Executions
    texts: Sequence[str]
    shot_texts: Sequence[str]
    description: str
    tokenizer: Any = None

    def frame(self, question: Question) -> tuple[str, str]:
        """What every prompt of a question begins with, and what it has after the question.

        With a chat template, each solved example is a question of the user and an answer of the assistant.

        Raises:
            ModelError: see `apply_chat_template`.
        """
        answers = [question.choices[answer] for answer in question.answer(self.shots)]
        asked = [f"{text}{QUESTION} {question.text}" for text in self.shot_texts]
        if self.tokenizer is None:
            pairs = zip(asked, answers, strict=True)
            examples = [f"{text}\n{ANSWER} {answer}\n\n" for text, answer in pairs]
            return f"{self.description}\n\n{''.join(examples)}", f"\n{ANSWER}"
        messages = []
        for text, answer in zip(asked, answers, strict=True):
            messages += [{"role": "user", "content": text}, {"role": "assistant", "content": f"{ANSWER} {answer}"}]
        messages.append({"role": "user", "content": _PLACEHOLDER})
        messages[0]["content"] = f"{self.description}\n\n{messages[0]['content']}"
        before, after = apply_chat_template(self.tokenizer, messages, _PLACEHOLDER)
        return before, after + ANSWER

    def prompts(self, question: Question) -> list[str]:
        """The N prompts of a question; an answer follows after a space."""
        before, after = self.frame(question)
        return [f"{before}{text}{QUESTION} {question.text}{after}" for text in self.texts]


def draw_ladder(
    suite: Suite, per_length: int, num_shots: int, dialect: str = KAREL, tokenizer: Any = None
) -> LadderTasks:
    """Draw the tasks: worlds and frequencies of statements of a suite, programs of each length that it has.

    The worlds of programs with control flow have the smallest size of the suite, so that prompts fit short contexts.

    Args:
        suite: the suite.
        per_length: number of tasks per program length.
        num_shots: number of solved examples.
        dialect: one of `karel_env.syntax.dialects.DIALECTS`.
        tokenizer: a transformers tokenizer whose chat template renders the prompts; None for plain text.
    """
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
    parts = [_executions(part, lengths) for part in (tests, shots, fitted)]
    shown = parts[1].take(mixed)
    return pose_questions(suite, parts[0], shown, parts[2], dialect, tokenizer)


def pose_questions(
    suite: Suite, tests: Executions, shots: Executions, fitted: Executions, dialect: str = KAREL, tokenizer: Any = None
) -> LadderTasks:
    """The ladder of a suite about executions; for the arguments see `LadderTasks` and `draw_ladder`."""
    height, width = tests.inputs.cells.shape[1:]
    most_moves = max(int(part.count(MOVE).max(initial=0)) for part in (tests, shots, fitted))
    has_control = isinstance(suite.recipe, ControlRecipe)
    # Straight-line programs have up to as many moves as statements.
    questions = list_questions(height, width, most_moves if has_control else suite.recipe.length[1], has_control)
    under = suite.show_under_robot
    return LadderTasks(
        questions, tests, shots, fitted, _render(tests, dialect, under), _render(shots, dialect, under),
        describe(dialect, under, has_control), tokenizer,
    )  # fmt: skip


def _draw(suite: Suite, length: int, seed: int, count: int) -> Tasks:
    return draw_executed(suite, (length, length), seed + length, "audit", np.arange(count))


def draw_executed(suite: Suite, lengths: tuple[int, int], seed: int, purpose: str, indices: np.ndarray) -> Tasks:
    """Draw tasks whose first example is executed: worlds and statements of a suite, programs of other lengths.

    Args:
        suite: the suite.
        lengths: (shortest, longest) program in statements.
        seed, purpose, indices: see `karel_env.generation.generator.generate`.
    """
    from karel_env.generation import control_flow, generator

    recipe = replace(suite.recipe, length=lengths)
    if isinstance(recipe, ControlRecipe):
        smallest = replace(recipe, height=(recipe.height[0],) * 2, width=(recipe.width[0],) * 2)
        return control_flow.generate(smallest, seed, purpose, indices)
    return generator.generate(replace(recipe, examples=1), seed, purpose, indices)


def draw_asked(suite: Suite, per_length: int) -> Iterator[Tasks]:
    """The first tasks of each program length that ladders of any size ask about, show solved, or fit floors to."""
    for length in range(suite.recipe.length[0], suite.recipe.length[1] + 1):
        yield _draw(suite, length, suite.seed + LADDER_STREAM + TASKS_VERSION, per_length)


def _executions(parts: Sequence[Tasks], lengths: Sequence[int]) -> Executions:
    """The first example of each task; part i has programs of `lengths[i]` statements."""
    programs = Programs.of([part.programs.program(i) for part in parts for i in range(len(part))])
    inputs, outputs = (
        Worlds.of(
            np.concatenate([getattr(part, side).cells[:, 0] for part in parts]),
            np.concatenate([getattr(part, side).robot[:, 0] for part in parts]),
        )
        for side in ("inputs", "outputs")
    )
    return Executions(programs, np.repeat(np.array(lengths), [len(part) for part in parts]), inputs, outputs)


def _render(executions: Executions, dialect: str, show_under_robot: bool) -> list[str]:
    worlds = world_texts(executions.inputs, show_under_robot)
    programs = program_texts(executions.programs, dialect)
    return [f"{WORLD}\n{world}\n{PROGRAM}\n{program}\n" for world, program in zip(worlds, programs, strict=True)]


def describe(dialect: str, show_under_robot: bool, has_control_flow: bool = False) -> str:
    """The description of worlds and programs."""
    under = ", with a number behind it where it stands on markers" if show_under_robot else ""
    form = "a Python function run that calls" if dialect == PYTHON else "written def run() { ... } with"
    control = []
    if has_control_flow:
        forms = (
            "if, else, while and for _ in range(N)" if dialect == PYTHON else "if, ifelse, else, while and repeat (N)"
        )
        control = [
            f"There are also {forms}. Conditions are {', '.join(CONDITIONS)}, each also with not;",
            "the first three are of the cell ahead, to the left and to the right of the robot, the others of its own cell.",
        ]
    return "\n".join(
        [
            "A robot is on a grid. Each cell is one sign: . is free, # is a wall, a number counts markers,",
            f"and ^ > v < is the robot, facing north, east, south or west{under}.",
            f"A program is {form} one action after another: move goes one cell ahead, turn_left and turn_right turn",
            "on the spot, pick_marker takes one marker from the robot's cell, put_marker puts one there.",
            *control,
            "A move into a wall or a pick from an empty cell does nothing.",
            "The program is run in the world. Answer the question with one word.",
        ]
    )
