"""Row 0: a program drawn from the distribution that models of the suite are trained on, whatever the prompt says."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from benchmark.models.interface import Generation
from benchmark.tasks.suite import Suite, training_tasks
from karel_env.language import HEADER_TEXT

SEED = 90_001
"""Of the stream that programs are drawn from; no shipped recipe trains on it."""


class RandomProgram:
    """Answers each prompt with a program of its own, chosen by the prompt's digest."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite

    def generate(self, prompts: Sequence[str], max_new_words: int) -> list[Generation]:
        """See `Writer.generate`."""
        digests = [hashlib.sha256(prompt.encode()).digest() for prompt in prompts]
        numbers = np.array([int.from_bytes(digest[:4], "big") for digest in digests])
        programs = training_tasks(self.suite, numbers, SEED).programs
        return [Generation(text.removeprefix(HEADER_TEXT), len(text.split()) - 3, True) for text in programs.texts()]
