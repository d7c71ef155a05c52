"""The blind set of protocol 4: several programs per prompt, so that a model reads each prompt once.

The programs are those of `suite.blind_tasks`, distinct and uniformly drawn; neighbouring programs form a group that shares
the examples of its first program. A suite with too few distinct programs reads each group behind several prompts, so
that enough rows have a prefix that no training program has. A group is the independent unit of folds and bootstrap: no
program and no world is in two groups.

Letters: `B` program-prompt pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmark.tasks.suite import Suite, blind_tasks
from karel_env.generation.recipe import Tasks

PROGRAMS_PER_PROMPT = 4
MIN_PAIRS = 1100
"""Smallest number of program-prompt pairs; the last words of distinct programs are unseen, and 1,000 are judged."""


@dataclass(frozen=True)
class SharedPrompts:
    """The programs of a blind set, and the prompt and group of each.

    Attributes:
        tasks: B tasks; tasks of one prompt have the same inputs, and outputs of their own program.
        prompt: int64 [B], index of the prompt of each program, ascending.
        group: int64 [B], index of the group of programs of each prompt.
    """

    tasks: Tasks
    prompt: np.ndarray
    group: np.ndarray

    @property
    def num_prompts(self) -> int:
        """Number of distinct prompts."""
        return int(self.prompt[-1]) + 1 if len(self.prompt) else 0

    def take_prompts(self, count: int) -> SharedPrompts:
        """The programs of the first `count` prompts."""
        indices = np.flatnonzero(self.prompt < count)
        return SharedPrompts(self.tasks.take(indices), self.prompt[indices], self.group[indices])


def shared_prompts(
    suite: Suite, num_pairs: int | None = None, programs_per_prompt: int = PROGRAMS_PER_PROMPT
) -> SharedPrompts:
    """The blind set of a suite with several programs per prompt.

    Args:
        suite: the suite.
        num_pairs: number of distinct programs, see `suite.blind_tasks`.
        programs_per_prompt: number of programs that share a prompt; the last group may have fewer.
    """
    tasks = blind_tasks(suite, num_pairs)
    num_programs = len(tasks)
    repeats = -(-MIN_PAIRS // num_programs)
    worlds = tasks if repeats == 1 else blind_tasks(suite, repeats * num_programs)
    num_groups = -(-num_programs // programs_per_prompt)
    program = np.tile(np.arange(num_programs), repeats)
    group = program // programs_per_prompt
    repeat = np.repeat(np.arange(repeats), num_programs)
    inputs = worlds.inputs[repeat * num_programs + group * programs_per_prompt]
    programs = tasks.programs.take(program)
    from karel_env.execution.interpreter import run

    pairs = Tasks(programs, inputs, run(programs, inputs).worlds, tasks.key[program])
    return SharedPrompts(pairs, repeat * num_groups + group, group)
