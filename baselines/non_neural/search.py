"""Enumerative search: the shortest straight-line program that is correct on the shown examples, the symbolic baseline.

Programs are tried in order of length, then of `ACTIONS`. Of programs that leave every shown world in the same state,
only the first is extended (observational equivalence: Albarghouthi, Gulwani & Kincaid 2013). Not covered: conditionals
and loops.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from baselines.non_neural.prompt_reading import read_prompt
from benchmark.models.interface import Generation
from benchmark.tasks.suite import Suite
from karel_env.execution.interpreter import run
from karel_env.language import ACTIONS, CLOSE, Programs, text_of
from karel_env.world import Worlds

BUDGET = 200_000
"""Largest number of programs tried per task; beyond it the answer is empty."""


class EnumerativeSearch:
    """Answer each prompt with the shortest program that turns every shown input into its output.

    Args:
        suite: defines which worlds count as equal.
        budget: largest number of programs tried per task.
    """

    def __init__(self, suite: Suite, budget: int = BUDGET) -> None:
        self.compares_drawings, self.budget = suite.equality == "drawn", budget

    def generate(self, prompts: Sequence[str], max_new_words: int) -> list[Generation]:
        """See `ProgramGenerator.generate`."""
        return [self._answer(prompt, max_new_words - 1) for prompt in prompts]

    def _answer(self, prompt: str, max_length: int) -> Generation:
        actions = self.find_shortest(*read_prompt(prompt), max_length)
        if actions is None:
            return Generation("", 0, False)
        words = [*actions, CLOSE]
        return Generation(" " + text_of(words), len(words), True)

    def find_shortest(self, inputs: Worlds, outputs: Worlds, max_length: int) -> list[int] | None:
        """Actions of the shortest program for worlds [E], at least one action; None if the budget is exceeded."""
        num_actions = len(ACTIONS)
        reached, num_tried = inputs[None], 0
        seen_hashes = _hash_states(reached)
        paths = np.zeros((1, 0), np.int8)
        for _ in range(max_length):
            num_tried += num_actions * len(paths)
            if num_tried > self.budget:
                return None
            actions = np.tile(np.arange(num_actions, dtype=np.int8), len(paths))[:, None]
            steps = Programs.straight_line(actions, np.ones(len(actions), np.int64))
            reached = run(steps, reached[np.repeat(np.arange(len(paths)), num_actions)]).worlds
            paths = np.concatenate([np.repeat(paths, num_actions, 0), actions], 1)
            goal = outputs[None][np.zeros(len(paths), int)]
            is_equal = reached.same_drawing(goal) if self.compares_drawings else reached.same_state(goal)
            solutions = np.flatnonzero(is_equal.all(1))
            if len(solutions):
                return [int(a) for a in paths[solutions[0]]]
            hashes = _hash_states(reached)
            _, first = np.unique(hashes, return_index=True)
            new = np.sort(first)
            new = new[~np.isin(hashes[new], seen_hashes)]
            seen_hashes = np.concatenate([seen_hashes, hashes[new]])
            reached, paths = reached[new], paths[new]
        return None


def _hash_states(worlds: Worlds) -> np.ndarray:
    """uint64 [N], hash of the joint state of worlds [N, E]; two different states collide with probability 2^-64."""
    flat = np.concatenate([worlds.cells.reshape(len(worlds), -1), worlds.robot.reshape(len(worlds), -1)], 1)
    factors = np.random.default_rng(0).integers(1, 2**63, flat.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return (flat.astype(np.uint64) * factors).sum(1, dtype=np.uint64)
