"""Accuracy on tasks whose reference program is longer than any training program.

A long reference may have the effect of a short one, since turns and markers cancel. So the tasks that no program of a training
length solves are counted, by trying all of them, and scored by themselves.

Letters: `N` tasks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from benchmark.causal.targets import SuffixTable
from benchmark.length.long_programs import check_suite, program_length
from benchmark.models.interface import ProgramGenerator
from benchmark.statistics import Estimate, wilson
from benchmark.tasks.prompt_template import render_prompts
from benchmark.tasks.scoring import score_programs
from benchmark.tasks.suite import Suite, test_tasks
from karel_env.generation.recipe import Tasks
from karel_env.language import ACTIONS

LENGTH_STREAM = 0x6C656E677468
"""Distance between the seed of a suite and the seed of its longer tasks."""
MAX_ENUMERATED = 100_000
"""Largest number of training programs that are tried on each task."""


@dataclass(frozen=True)
class LongTaskResult:
    """Solve rates with Wilson intervals at 95%.

    Attributes:
        words: actions of the reference programs.
        shown, held_out: share of tasks solved on all shown, on all held-out examples.
        beyond: share solved, on shown examples, of the tasks that no program of a training length solves; None if there are
            none, or training programs are too many to try.
        within: the same of the other tasks.
        longer: share of valid programs with more actions than the longest training program; None if none is valid.
        mean_words: mean number of actions of valid programs; None if none is valid.
    """

    words: int
    shown: Estimate
    held_out: Estimate
    beyond: Estimate | None
    within: Estimate | None
    longer: Estimate | None
    mean_words: float | None


def draw_longer_tasks(suite: Suite, factor: int, num_tasks: int) -> Tasks:
    """Tasks whose reference is exactly `factor` times as long as the longest training program; none is a test task."""
    check_suite(suite)
    from karel_env.generation import generator

    length = program_length(suite, factor)
    recipe = replace(suite.recipe, length=(length, length))
    excluded = test_tasks(suite).key
    return generator.generate(recipe, suite.seed + LENGTH_STREAM, "audit", np.arange(num_tasks), excluded=excluded)


def needs_longer(suite: Suite, tasks: Tasks) -> np.ndarray | None:
    """bool [N], tasks that no program of a training length solves on the shown examples; None if these are too many."""
    shortest, longest = suite.train_length
    if sum(len(ACTIONS) ** length for length in range(shortest, longest + 1)) > MAX_ENUMERATED:
        return None
    table = SuffixTable.of_suite(suite, 0)
    inputs, outputs = (worlds[:, : suite.shown] for worlds in (tasks.inputs, tasks.outputs))
    return np.asarray(table.next_word_posterior(inputs, outputs).sum(1) == 0)


def score_longer_tasks(model: ProgramGenerator, suite: Suite, factor: int, num_tasks: int) -> LongTaskResult:
    """Let a model write programs for longer tasks; an answer may be `factor` times as long as the suite allows."""
    tasks = draw_longer_tasks(suite, factor, num_tasks)
    prompts = render_prompts(suite, tasks)
    texts: list[str] = []
    for start in range(0, num_tasks, suite.batch):
        batch = prompts[start : start + suite.batch]
        texts += [generation.text for generation in model.generate(batch, factor * suite.max_new_words)]
    scores = score_programs(suite, tasks, texts)
    is_valid = scores.num_tokens >= 0
    num_actions = scores.num_tokens[is_valid] - 1  # without the closing bracket
    is_beyond = needs_longer(suite, tasks)

    def rate(rows: np.ndarray | None) -> Estimate | None:
        return None if rows is None else wilson(int(scores.shown[rows].sum()), int(rows.sum()))

    everything = np.ones(num_tasks, bool)
    shown = rate(everything)
    held_out = wilson(int(scores.held_out.sum()), num_tasks)
    assert shown is not None
    assert held_out is not None
    return LongTaskResult(
        program_length(suite, factor), shown, held_out, rate(is_beyond), rate(None if is_beyond is None else ~is_beyond),
        wilson(int((num_actions > suite.train_length[1]).sum()), len(num_actions)),
        float(num_actions.mean()) if len(num_actions) else None,
    )  # fmt: skip
