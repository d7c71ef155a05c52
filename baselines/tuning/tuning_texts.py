"""The texts that a model is fine-tuned on: prompts as a measurement asks them, and the right answers.

Task n of a seed is the same in every run, and no pair of world and program is asked by a measurement.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from baselines.tuning.prefix_tree import Text
from benchmark.causal.execution.heading_tasks import ANSWERS, draw_tasks, heading_prompts
from benchmark.causal.pairs import prefix_texts
from benchmark.ladder.ladder_tasks import draw_asked, draw_executed, pose_questions
from benchmark.ladder.questions import Executions
from benchmark.models.token_alignment import align_tokens
from benchmark.tasks.prompt_template import render_prompts
from benchmark.tasks.prompts import INPUT, OUTPUT, PROGRAM, prompt_ids
from benchmark.tasks.suite import Suite
from benchmark.tasks.task_sets import TaskSets
from karel_env.execution.interpreter import run
from karel_env.generation.recipe import ControlRecipe, Tasks
from karel_env.language import CLOSE, HEADER, Programs
from karel_env.syntax.dialects import KAREL, program_bodies, program_texts
from karel_env.world import Worlds, world_texts

WRITE = "write"
NUM_ASKED = 1000
"""Tasks of each stream of a measurement that are not trained on: of each program length of the ladder, which asks about 60 by
default, and of the execution task, whose measurement draws 404."""
QUESTIONS_PER_PROGRAM = 1
LADDER_EVERY = 4
SENTENCE = "heading sentence"
"""The name of the sentence of `benchmark.causal.execution` among the questions."""

_OUTPUT_WORLD = re.compile(rf"^{OUTPUT}\n(.*?)\n(?={INPUT}$|{PROGRAM}$)", re.DOTALL | re.MULTILINE)


class TuningTexts(Protocol):
    """Texts by the numbers of their tasks.

    Attributes:
        have_beginnings: whether the texts of a group begin alike.
    """

    have_beginnings: bool

    def groups(self, numbers: Sequence[int]) -> list[list[Text]]:
        """Groups of texts, each of which should be in one row of tokens."""
        ...


@dataclass(frozen=True)
class Encoder:
    """Makes texts of a model's tokens.

    Attributes:
        tokenizer: a transformers tokenizer.
    """

    tokenizer: Any

    def encode(self, question: str, prompt: str, answer: str, num_given_words: int = 0) -> Text:
        """A prompt and what follows it after a space, and the end-of-sequence token; the answer's first words have no loss.

        Raises:
            ModelError: see `align_tokens`.
        """
        alignment = align_tokens(self.tokenizer, prompt, answer)
        ids = prompt_ids(self.tokenizer, prompt)
        end = self.tokenizer.eos_token_id
        num_given = len(ids) + int(alignment.first[num_given_words]) - 1
        return Text((*ids, *alignment.ids, *(() if end is None else (end,))), num_given, question)


class WriteTexts:
    """Prompts of the trained track, and the programs.

    The output worlds of the prompts have a loss too, as in `baselines.train`: the second and third follow from what happened
    in the first. Input worlds are random.
    """

    have_beginnings = False

    def __init__(self, suite: Suite, tokenizer: Any, seed: int) -> None:
        self.encoder, self.seed = Encoder(tokenizer), seed
        self.task_sets = TaskSets(suite)

    def groups(self, numbers: Sequence[int]) -> list[list[Text]]:
        """See `TuningTexts.groups`; each text is a group."""
        tasks = self.task_sets.training(np.asarray(numbers), self.seed)
        prompts, programs = render_prompts(self.task_sets.suite, tasks), program_bodies(tasks.programs)
        return [[self._text(prompt, program)] for prompt, program in zip(prompts, programs, strict=True)]

    def _text(self, prompt: str, program: str) -> Text:
        offsets = np.array(self.encoder.tokenizer(prompt, return_offsets_mapping=True)["offset_mapping"])
        outputs = [
            np.flatnonzero((offsets[:, 0] >= start) & (offsets[:, 1] <= end) & (offsets[:, 1] > offsets[:, 0]))
            for start, end in (match.span(1) for match in _OUTPUT_WORLD.finditer(prompt))
        ]
        return replace(self.encoder.encode(WRITE, prompt, program), outputs=tuple(np.concatenate(outputs).tolist()))


class ExecuteTexts:
    """Questions of the ladder and, for straight-line programs, the sentence of `benchmark.causal.execution`.

    A straight-line program is asked about after each of its actions. Description, world and the actions so far are the
    beginning of all texts of a task.

    Args:
        suite, tokenizer, seed, dialect: see `open_texts`.
        ladder_every: every N-th task has the questions, which take three times as many tokens as the sentence; 0 for none.
            All have the sentence. Without the sentence (control flow, or Python) all tasks have the questions.
    """

    have_beginnings = True

    def __init__(
        self, suite: Suite, tokenizer: Any, seed: int, dialect: str = KAREL, ladder_every: int = LADDER_EVERY
    ) -> None:
        self.suite, self.encoder, self.seed, self.dialect = suite, Encoder(tokenizer), seed, dialect
        self.has_control = isinstance(suite.recipe, ControlRecipe)
        self.has_sentence = not self.has_control and dialect == KAREL
        self.ladder_every = ladder_every if self.has_sentence else 1
        self.asked = asked_pairs(suite)

    def groups(self, numbers: Sequence[int]) -> list[list[Text]]:
        """See `TuningTexts.groups`; the groups of the questions come first, then those of the sentence."""
        executions, task_of = self.executions(numbers)
        every = self.ladder_every
        with_questions = np.flatnonzero([every and numbers[task] % every == 0 for task in task_of])
        groups = self._questions(executions.take(with_questions), task_of[with_questions], numbers)
        if self.has_sentence:
            groups += self._sentences(executions, task_of, len(numbers))
        return [group for group in groups if group]

    def _questions(self, executions: Executions, task_of: np.ndarray, numbers: Sequence[int]) -> list[list[Text]]:
        tasks = pose_questions(self.suite, executions, executions.take(np.zeros(0, np.int64)), executions, self.dialect)
        questions = tasks.questions
        prompts = [tasks.prompts(question) for question in questions]
        answers = [question.answer(executions) for question in questions]
        groups: list[list[Text]] = [[] for _ in numbers]
        for i, task in enumerate(task_of.tolist()):
            rng = np.random.default_rng([self.seed, numbers[task], len(groups[task])])
            for q in rng.permutation(len(questions))[:QUESTIONS_PER_PROGRAM].tolist():
                answer = questions[q].choices[answers[q][i]]
                groups[task].append(self.encoder.encode(questions[q].name, prompts[q][i], answer))
        return groups

    def _sentences(self, executions: Executions, task_of: np.ndarray, num_tasks: int) -> list[list[Text]]:
        worlds = world_texts(executions.inputs, self.suite.show_under_robot)
        headings = executions.outputs.robot[:, 2].tolist()
        groups: list[list[Text]] = [[] for _ in range(num_tasks)]
        for i, prompt in enumerate(heading_prompts(worlds)):
            (actions,) = prefix_texts(executions.actions[i][None])
            answer = f"{actions} {ANSWERS[headings[i]]}"
            groups[task_of[i]].append(self.encoder.encode(SENTENCE, prompt, answer, len(answer.split(" ")) - 1))
        return groups

    def executions(self, numbers: Sequence[int]) -> tuple[Executions, np.ndarray]:
        """Executions that no measurement asks about, and int64 [N] the index of the task of each."""
        shortest, longest = self.suite.recipe.length
        lengths = (shortest, longest) if self.has_control else (longest, longest)
        tasks = draw_executed(self.suite, lengths, self.seed, "train", np.asarray(numbers))
        stops = [[] if self.has_control else range(shortest, longest) for _ in numbers]
        words, task_of = [], []
        for task in range(len(tasks)):
            program = tasks.programs.program(task)
            words += [[*program[: len(HEADER) + stop].tolist(), CLOSE] for stop in stops[task]] + [program]
            task_of += [task] * (len(stops[task]) + 1)
        index = np.array(task_of)
        programs, inputs = (
            Programs.of(words),
            Worlds(*(a[index, 0] for a in (tasks.inputs.cells, tasks.inputs.robot, tasks.inputs.size))),
        )
        executions = Executions(programs, programs.lengths, inputs, run(programs, inputs).worlds)
        pairs = pair_texts(programs, inputs)
        free = np.array([i for i, pair in enumerate(pairs) if pair not in self.asked], np.int64)
        return executions.take(free), index[free]


def asked_pairs(suite: Suite) -> frozenset[str]:
    """The pairs of world and program that the ladder and the measurement of use on the execution task ask about."""
    parts: list[Tasks] = list(draw_asked(suite, NUM_ASKED))
    if not isinstance(suite.recipe, ControlRecipe):
        parts.append(draw_tasks(suite, NUM_ASKED))
    return frozenset(pair for tasks in parts for pair in pair_texts(tasks.programs, tasks.inputs[:, 0]))


def pair_texts(programs: Programs, inputs: Worlds) -> list[str]:
    """World and program of each execution as one text."""
    return [f"{world}\n{program}" for world, program in zip(world_texts(inputs), program_texts(programs), strict=True)]


def open_texts(task: str, suite: Suite, tokenizer: Any, seed: int, dialect: str, ladder_every: int) -> TuningTexts:
    """The texts of a tuning task, `execute` or `write`."""
    if task == WRITE:
        return WriteTexts(suite, tokenizer, seed)
    return ExecuteTexts(suite, tokenizer, seed, dialect, ladder_every)
