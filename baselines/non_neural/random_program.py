"""Chance level: a random program from the training distribution of the suite, independent of the prompt's content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from benchmark.models.interface import Generation
from benchmark.tasks.suite import Suite
from benchmark.tasks.task_sets import TaskSets
from karel_env.language import HEADER_TEXT

SEED = 90_001
"""Seed of the sampled programs; no shipped recipe trains on it."""


class RandomProgram:
    """Answer each prompt with a random program, seeded by the prompt's digest."""

    def __init__(self, suite: Suite) -> None:
        self.task_sets = TaskSets(suite)

    def generate(self, prompts: Sequence[str], max_new_words: int) -> list[Generation]:
        """See `ProgramGenerator.generate`."""
        digests = [hashlib.sha256(prompt.encode()).digest() for prompt in prompts]
        numbers = np.array([int.from_bytes(digest[:4], "big") for digest in digests])
        programs = self.task_sets.training(numbers, SEED).programs
        return [Generation(text.removeprefix(HEADER_TEXT), len(text.split()) - 3, True) for text in programs.texts()]
