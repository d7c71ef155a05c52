"""The blind set of protocol 4: several programs per prompt, so that a model reads each prompt once.

The programs are those of `suite.blind_tasks`, distinct and uniformly drawn; each group of neighbouring programs has the
examples of its first one. The worlds are then the independent units of the bootstrap and of the folds.

Letters: `B` programs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmark.tasks.suite import Suite, blind_tasks
from karel_env.generator import Tasks
from karel_env.interpreter import run

PROGRAMS_PER_PROMPT = 4


@dataclass(frozen=True)
class SharedPrompts:
    """The programs of a blind set and the prompt of each.

    Attributes:
        tasks: B tasks; tasks of one prompt have the same inputs, and outputs of their own program.
        prompt: int64 [B], index of the prompt of each program, ascending.
    """

    tasks: Tasks
    prompt: np.ndarray

    @property
    def num_prompts(self) -> int:
        """Number of distinct prompts."""
        return int(self.prompt[-1]) + 1 if len(self.prompt) else 0

    def take_prompts(self, count: int) -> SharedPrompts:
        """The programs of the first `count` prompts."""
        indices = np.flatnonzero(self.prompt < count)
        return SharedPrompts(self.tasks.take(indices), self.prompt[indices])


def shared_prompts(suite: Suite, num_pairs: int = 0, programs_per_prompt: int = PROGRAMS_PER_PROMPT) -> SharedPrompts:
    """The blind set of a suite with several programs per prompt.

    Args:
        suite: the suite.
        num_pairs: number of programs, see `suite.blind_tasks`; 0 is twice the label budget.
        programs_per_prompt: number of programs that share a prompt; the last prompt may have fewer.
    """
    tasks = blind_tasks(suite, num_pairs)
    prompt = np.arange(len(tasks)) // programs_per_prompt
    inputs = tasks.inputs[prompt * programs_per_prompt]
    return SharedPrompts(Tasks(tasks.programs, inputs, run(tasks.programs, inputs).worlds, tasks.key), prompt)
