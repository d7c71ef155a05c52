"""Shared state of the checks of `benchmark.doctor`: the model and sampled tasks of a suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmark.models.checkpoint import Checkpoint
from benchmark.models.interface import Decoding, Generation, LanguageModel
from benchmark.runner.plan import GenerationOptions, Job
from benchmark.runner.worker import Worker
from benchmark.tasks.prompt_template import LENGTH_FACTOR, render_prompts
from benchmark.tasks.suite import Suite, test_tasks
from karel_env.syntax.dialects import KAREL, program_bodies

OK, WARN, FAIL, SKIPPED = "ok", "warn", "fail", "-"
NUM_TASKS = 2
NUM_SAMPLED_TASKS = 20
"""Number of tasks whose items are looked up in the tokenizer."""
TOLERANCE = {"float64": 1e-6, "float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
"""Largest `relative_difference` of two computations of the same states, by dtype."""


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    Attributes:
        name: name of the check.
        outcome: `OK`, `WARN`, `FAIL` or `SKIPPED`.
        message: one sentence, with what to do next if something is wrong.
    """

    name: str
    outcome: str
    message: str


class DoctorContext:
    """A model and sampled tasks of a suite with their reference programs."""

    def __init__(self, suite: Suite, checkpoint: Checkpoint, dtype: str, device: str, track: str) -> None:
        self.job = Job(suite, checkpoint, dtype, device, random_inits=2, generation=GenerationOptions(track))
        self.worker = Worker(self.job)
        self.tasks = test_tasks(suite).take(np.arange(min(NUM_SAMPLED_TASKS, suite.tasks)))

    @cached_property
    def model(self) -> LanguageModel:
        """The model under test."""
        return self.worker.model()

    @cached_property
    def prompts(self) -> list[str]:
        """Prompts of the sampled tasks."""
        return render_prompts(self.job.suite, self.tasks, template=self.worker.prompt_template)

    @cached_property
    def programs(self) -> list[str]:
        """Reference programs of the sampled tasks, without the header."""
        return program_bodies(self.tasks.programs, self.job.suite.dialect)

    @cached_property
    def uneven_prompts(self) -> list[str]:
        """The first two prompts, the second without its first half, so that a batch of them is padded."""
        first, second = self.prompts[:NUM_TASKS]
        return [first, second[len(second) // 2 :]]

    def states(self, prompts: Sequence[str], model: LanguageModel | None = None) -> np.ndarray:
        """float32 [2 * items, L, D], emit states of the items of the first programs, then their read states."""
        hidden = (model or self.model).hidden_states(prompts, self.programs[: len(prompts)])
        return np.concatenate([hidden.values[hidden.emit], hidden.values[hidden.read]])

    def generate(self, prompts: Sequence[str]) -> list[Generation]:
        """Answers to prompts, decoded greedily."""
        dialect = self.job.suite.dialect
        options = () if dialect == KAREL else (Decoding(dialect=dialect),)
        return self.model.generate(prompts, self.max_new_words, *options)

    @property
    def max_new_words(self) -> int:
        """Largest number of items of an answer."""
        return self.job.suite.max_new_words * LENGTH_FACTOR[self.job.generation.track]

    def are_close(self, first: np.ndarray, second: np.ndarray) -> bool:
        """Whether states are equal up to the tolerance of the dtype."""
        return relative_difference(first, second) <= TOLERANCE[self.job.dtype]


def relative_difference(states: np.ndarray, reference: np.ndarray) -> float:
    """Largest distance of states [..., D] relative to the norm of `reference`; infinite if a value is not finite."""
    if states.shape != reference.shape:
        return np.inf
    distances = np.linalg.norm(states - reference, axis=-1) / np.maximum(np.linalg.norm(reference, axis=-1), 1e-12)
    return float(distances.max()) if np.isfinite(distances).all() else np.inf
