"""A model under examination by `benchmark.doctor.command`: two tasks of a suite, and what the checks share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmark.models.checkpoint import Checkpoint
from benchmark.models.interface import LanguageModel
from benchmark.runner.plan import GenerationOptions, Job
from benchmark.runner.worker import Worker
from benchmark.tasks.prompt_template import LENGTH_FACTOR, render_prompts
from benchmark.tasks.stage import TEST
from benchmark.tasks.suite import Suite, test_tasks
from karel_env.language import HEADER_TEXT

OK, WARN, FAIL, SKIPPED = "ok", "warn", "fail", "-"
NUM_TASKS = 2
NUM_SAMPLED_TASKS = 20
"""Tasks whose words are looked up in the tokenizer."""
TOLERANCE = {"float64": 1e-6, "float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
"""Largest difference (see `difference`) of two computations of the same states, by precision."""


@dataclass(frozen=True)
class CheckResult:
    """What one check found, in one sentence that says what to do where there is something to do."""

    name: str
    outcome: str
    message: str


class DoctorContext:
    """A model, two tasks of a suite with their own programs, and what the checks share."""

    def __init__(self, suite: Suite, checkpoint: Checkpoint, dtype: str, device: str, track: str) -> None:
        self.job = Job(suite, checkpoint, dtype, device, random_inits=2, generation=GenerationOptions(track))
        self.worker = Worker(self.job)
        self.tasks = test_tasks(suite).take(np.arange(min(NUM_SAMPLED_TASKS, suite.tasks)))

    @cached_property
    def model(self) -> LanguageModel:
        """The model under test."""
        return self.worker.model(TEST)

    @cached_property
    def prompts(self) -> list[str]:
        """Of the sampled tasks."""
        return render_prompts(self.job.suite, self.tasks, template=self.worker.prompt_template)

    @cached_property
    def programs(self) -> list[str]:
        """Of the sampled tasks, behind the header."""
        return [text.removeprefix(HEADER_TEXT).lstrip() for text in self.tasks.programs.texts()]

    @cached_property
    def uneven_prompts(self) -> list[str]:
        """The first prompts, of which the second lacks its first half, so that a batch of them is padded."""
        first, second = self.prompts[:NUM_TASKS]
        return [first, second[len(second) // 2 :]]

    def states(self, prompts: Sequence[str], model: LanguageModel | None = None) -> np.ndarray:
        """float32 [2 words, L, D], those that emit each word of the first programs, then those that have read it."""
        hidden = (model or self.model).hidden_states(prompts, self.programs[: len(prompts)])
        return np.concatenate([hidden.values[hidden.emit], hidden.values[hidden.read]])

    @property
    def max_new_words(self) -> int:
        """Words that an answer may have."""
        return self.job.suite.max_new_words * LENGTH_FACTOR[self.job.generation.track]

    def are_close(self, first: np.ndarray, second: np.ndarray) -> bool:
        """Whether states are equal as far as the precision goes."""
        return relative_difference(first, second) <= TOLERANCE[self.job.dtype]


def relative_difference(states: np.ndarray, reference: np.ndarray) -> float:
    """Largest distance of two states [..., D] over the length of the second; infinite where one is not a number."""
    if states.shape != reference.shape:
        return np.inf
    distances = np.linalg.norm(states - reference, axis=-1) / np.maximum(np.linalg.norm(reference, axis=-1), 1e-12)
    return float(distances.max()) if np.isfinite(distances).all() else np.inf
