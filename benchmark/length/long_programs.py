"""Blind programs that are several times as long as those of the suite, and the rotation after each of their words.

A causal model's state at a word depends on nothing after it, so the programs of the largest factor serve the smaller ones:
their first words are programs of that length.

Letters: `B` programs, `T` words of a program, `R` = B * T words in order, `P` prompts, `K` labels (0 is the original).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from benchmark.errors import UsageError
from benchmark.probing.labels import Split
from benchmark.probing.token_history import world_features
from benchmark.probing.version4.readable_record import NUM_WORDS
from benchmark.probing.version4.turn_pairs import MARKER_PAIRS, ORIGINAL_PAIR, rotations
from benchmark.tasks.shared_prompts import PROGRAMS_PER_PROMPT, SharedPrompts, shared_prompts
from benchmark.tasks.suite import Suite
from karel_env.generation.recipe import ControlRecipe
from karel_env.language import HEADER

LABELS = (ORIGINAL_PAIR, *MARKER_PAIRS)
"""The labels that are probed: rotation, and rotation under the marker alternatives."""


def program_length(suite: Suite, factor: int) -> int:
    """Actions of a program that is `factor` times as long as the longest training program."""
    return factor * suite.train_length[1]


def check_suite(suite: Suite) -> None:
    """Refuse a suite whose programs have conditionals or loops, which have no length in actions.

    Raises:
        UsageError: it has.
    """
    if isinstance(suite.recipe, ControlRecipe):
        raise UsageError(
            f"--suite {suite.name}: its programs have control flow, and no length in actions; expected straight-line "
            "programs, as in laptop or icml24"
        )


@dataclass(frozen=True)
class LongPrograms:
    """Blind programs of one length.

    Attributes:
        blind: the programs and their prompts.
        words: int8 [B, T], actions.
    """

    blind: SharedPrompts
    words: np.ndarray

    @property
    def num_words(self) -> int:
        """T."""
        return self.words.shape[1]

    @cached_property
    def step(self) -> np.ndarray:
        """int64 [R], position of each word, from 0."""
        return np.tile(np.arange(self.num_words), len(self.words))

    @cached_property
    def prefixes(self) -> np.ndarray:
        """int8 [R, T], the words up to and including each, -1 after it."""
        is_read = np.tri(self.num_words, dtype=bool)
        return np.where(is_read, self.words[:, None], -1).reshape(-1, self.num_words).astype(np.int8)

    @cached_property
    def labels(self) -> np.ndarray:
        """int16 [K, R], rotation after each word under each of `LABELS`."""
        return np.stack([rotations(self.prefixes, pair) for pair in LABELS]).astype(np.int16)

    def history_states(self) -> np.ndarray:
        """float32 [R, columns], the words so far, one-hot, and the input: the token history of protocol 4."""
        words = (self.prefixes[..., None] == np.arange(NUM_WORDS)).reshape(len(self.prefixes), -1)
        inputs = world_features(self.blind.tasks.inputs[:, 0])
        return np.concatenate([words, np.repeat(inputs, self.num_words, 0)], 1).astype(np.float32)

    def split(self, seed: int, folds: int, num_words: int) -> Split:
        """The first `num_words` words of programs: of one fold of prompts for testing, of the next for validation, else
        for training."""
        fold = np.repeat(self.blind.group % folds, self.num_words)
        is_used = self.step < num_words
        test, validation = fold == seed % folds, fold == (seed + 1) % folds
        return Split(*(np.flatnonzero(part & is_used) for part in (~test & ~validation, validation, test)))


def draw_long_programs(suite: Suite, factor: int, num_prompts: int) -> LongPrograms:
    """Draw uniform programs of one length, four behind each prompt.

    Raises:
        UsageError: the suite has control flow.
    """
    check_suite(suite)
    longer = replace(suite, blind_length=program_length(suite, factor))
    blind = shared_prompts(longer, num_prompts * PROGRAMS_PER_PROMPT).take_prompts(num_prompts)
    programs = blind.tasks.programs
    rows = programs.words.reshape(len(programs), -1)
    return LongPrograms(blind, rows[:, len(HEADER) : len(HEADER) + longer.blind_length])
