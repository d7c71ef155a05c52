"""The blind probe set of a suite: programs of uniformly drawn actions after prompts that hide their outputs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from benchmark.api.inputs import InputError
from benchmark.probing.labels import ProbeSet
from benchmark.probing.protocol import STANDARD, Protocol
from benchmark.tasks.probe_sets import first_inputs
from benchmark.tasks.prompt_template import render_prompts
from benchmark.tasks.suite import Suite, blind_tasks, load_suite
from karel_env.generation.recipe import Tasks
from karel_env.language import FIRST_CONDITION, HEADER, HEADER_TEXT, WORDS, Programs
from karel_env.world import Worlds

SEPARATOR = " "
"""Text between a prompt and its program."""
TRIAL = replace(
    STANDARD, version=0, alternatives=4, copies=1, seeds=(0, 1, 2), random_inits=1, folds=3, hidden=32, steps=20, checks=2,
    resamples=200,
)  # fmt: skip
"""Settings that take seconds, for trying things out and for tests; figures and verdicts under it mean nothing."""


@dataclass(frozen=True)
class BlindProbeSet:
    """What a model reads for the verdict: B program-world pairs with R rows, one per action word, in order.

    Row r belongs to program `row_program[r]` and to its word `row_word[r]`. The state to read is that of the last token
    of the word (`read`), in the text `prompt + " " + program`. Source: docs/probing.md, "How to read a verdict".

    Attributes:
        suite: the suite, with the label budget and the seed of this set.
        protocol: settings of the probes, which determine the semantics and the folds.
    """

    suite: Suite
    protocol: Protocol = STANDARD

    def __len__(self) -> int:
        """B, number of programs."""
        return len(self.tasks)

    @property
    def num_rows(self) -> int:
        """R, number of rows."""
        return len(self.row_program)

    @property
    def tasks(self) -> Tasks:
        """The B programs with their worlds, as arrays."""
        return blind_tasks(self.suite)

    @property
    def worlds(self) -> Worlds:
        """Worlds [B], the first input of each prompt, in which the program is executed for labels."""
        return first_inputs(self.tasks)

    @cached_property
    def prompts(self) -> tuple[str, ...]:
        """B prompts, which end with the header of a program and show the inputs in place of the outputs."""
        return tuple(render_prompts(self.suite, self.tasks, self.tasks.inputs))

    @cached_property
    def programs(self) -> tuple[str, ...]:
        """B programs in canonical text, without the header that ends the prompt."""
        return tuple(text.removeprefix(HEADER_TEXT).lstrip() for text in self.tasks.programs.texts())

    @cached_property
    def _action_words(self) -> tuple[np.ndarray, np.ndarray]:
        programs: Programs = self.tasks.programs
        owner = np.repeat(np.arange(len(programs)), programs.lengths)
        position = np.arange(len(programs.words)) - programs.offsets[owner] - len(HEADER)
        is_action = programs.words < FIRST_CONDITION
        return owner[is_action], position[is_action]

    @property
    def row_program(self) -> np.ndarray:
        """int64 [R], index of the program of each row."""
        return self._action_words[0]

    @property
    def row_word(self) -> np.ndarray:
        """int64 [R], index of the word of each row in its program, which is split at spaces."""
        return self._action_words[1]

    @cached_property
    def row_span(self) -> np.ndarray:
        """int64 [R, 2], first character and end of the word of each row in `prompt + " " + program`."""
        programs = self.tasks.programs
        words = programs.words[programs.offsets[self.row_program] + len(HEADER) + self.row_word]
        lengths = np.array([len(word) for word in WORDS])
        starts = np.array(
            [
                len(prompt) + len(SEPARATOR) + start
                for prompt, program in zip(self.prompts, self.programs, strict=True)
                for start in _word_starts(program)
            ],
            np.int64,
        )
        first_word = np.concatenate([[0], np.cumsum(programs.lengths - len(HEADER))])
        start = starts[first_word[self.row_program] + self.row_word]
        return np.stack([start, start + lengths[words]], 1)

    @cached_property
    def labels(self) -> ProbeSet:
        """Classes of each feature at each row under every semantics, int16 [S, F, R] in `classes`, and the folds."""
        from benchmark.probing.verdict import blind_probe_set

        return blind_probe_set(self.suite, self.protocol)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all prompts and programs in their order, which determine the rows."""
        digest = hashlib.sha256()
        for prompt, program in zip(self.prompts, self.programs, strict=True):
            digest.update(f"{prompt}\0{program}\0".encode())
        return digest.hexdigest()


def _word_starts(program: str) -> list[int]:
    lengths = [len(word) + 1 for word in program.split(" ")]
    return [sum(lengths[:i]) for i in range(len(lengths))]


def blind_probe_set(
    suite: Suite | str = "laptop",
    programs: int | None = None,
    seed: int | None = None,
    *,
    protocol: Protocol = STANDARD,
) -> BlindProbeSet:
    """The blind probe set of a suite.

    Args:
        suite: a suite of `load_suite`, or the name or file of one.
        programs: label budget, the number of programs that a probe is trained on; the set has B = 2 x `programs`, at
            most the number of distinct programs, so that this number remains for training with every test fold. None:
            the suite's own, as in a run.
        seed: seed of programs and worlds; None: the suite's own, as in a run.
        protocol: settings of the probes.

    Returns:
        The prompts, programs, worlds and rows; labels are computed when they are first used.

    Raises:
        InputError: a budget with fewer programs than the protocol has folds, or a suite without a blind set.
        UsageError: no such suite.

    Source: docs/probing.md, "How to read a verdict" and "Folds, seeds and intervals".
    """
    probed_suite = load_suite(suite) if isinstance(suite, str) else suite
    budget = probed_suite.probe_programs if programs is None else programs
    if probed_suite.blind_length < 1 or probed_suite.probe_programs < 1:
        raise InputError(f"suite {probed_suite.name}: it has no blind probe set; choose another, such as laptop")
    if budget < protocol.folds:
        raise InputError(f"programs: {budget}; expected at least {protocol.folds}, the number of folds of the protocol")
    if seed is not None and not 0 <= seed < 2**63:
        raise InputError(f"seed: {seed}; expected at least 0 and below 2^63")
    own_seed = probed_suite.seed if seed is None else seed
    if (budget, own_seed) != (probed_suite.probe_programs, probed_suite.seed):
        probed_suite = replace(probed_suite, probe_programs=budget, seed=own_seed, sha256="", official=False)
    return BlindProbeSet(probed_suite, protocol)
