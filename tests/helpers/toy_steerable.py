"""A small torch model that can be edited: it writes the exact most probable word from a rotation planted in a subspace.

It has the interface of a steerable model with gradients, so that trained subspaces can be compared with the planted one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from benchmark.calibrate.planners import ScoredRows
from benchmark.causal.interventions import AT_PREFIX, NaturalRange
from benchmark.causal.pairs import PairSettings, derive_pairs, posterior_of_distinct, prefix_number
from benchmark.causal.rotation import net_rotation
from benchmark.causal.targets import END, NEXT_WORDS, TURNS, SuffixTable, execute_prefixes, turn_robots
from benchmark.tasks.prompt_template import render_prompts
from benchmark.tasks.suite import Suite

WIDTH, FEATURES, LAST = 48, 40, 3
WORD_OF = {word: number for number, word in enumerate(NEXT_WORDS)}


class ToySteerable:
    """Two sites with one state: features of the last tokens, and the code of a rotation in a subspace of rank 3.

    Args:
        suite: the suite.
        settings: number of pairs, for their tasks.
        reads: whether the words follow the stored rotation, or the tokens alone.
        seed: draws the directions.
    """

    batch_rows = 4096
    sites = ("block 0", "block 1")

    def __init__(self, suite: Suite, settings: PairSettings, reads: bool = True, seed: int = 0) -> None:
        self.suite, self.tasks, self.reads, self.seed = suite, derive_pairs(suite, settings).tasks, reads, seed
        self.task_of_prompt = {prompt: i for i, prompt in enumerate(render_prompts(suite, self.tasks))}
        random = np.random.default_rng([70_001, seed])
        directions = np.linalg.qr(random.normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)
        self.code, self.features = directions[:, :3], directions[:, 3 : 3 + FEATURES]
        corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], np.float32)
        self.corners = (np.float32(np.sqrt(3)) * corners).astype(np.float32)

    def prepare(self, prompts: Sequence[str], prefixes: Sequence[str]) -> ToyPrepared:
        """See `SteerableModel.prepare`."""
        task = np.array([self.task_of_prompt[prompt] for prompt in prompts])
        return ToyPrepared(self, task, np.array([[WORD_OF[w] for w in text.split()] for text in prefixes], np.int8))

    def prepare_differentiable(
        self, prompts: Sequence[str], prefixes: Sequence[str], site: int
    ) -> tuple[ToyPrepared, np.ndarray]:
        """Prefixes with gradients, and their states."""
        prepared = self.prepare(prompts, prefixes)
        return prepared, prepared.states()[site]

    def posterior(self, task: np.ndarray, prefix: np.ndarray, turns: Sequence[int]) -> np.ndarray:
        """float64 [B, turns, 6], exact distribution after each turn; the closing bracket where no program is left."""
        bracket = np.eye(len(NEXT_WORDS))[np.full(len(task), END)]
        if prefix.shape[1] >= self.suite.train_length[1]:
            return np.stack([bracket] * len(turns), 1)
        table = SuffixTable.of_suite(self.suite, prefix.shape[1])
        reached = execute_prefixes(prefix, self.tasks.inputs[task, : self.suite.shown])
        outputs = self.tasks.outputs[task, : self.suite.shown]
        parts = []
        for turn in turns:
            part = posterior_of_distinct(table, turn_robots(reached, np.full(len(task), turn)), outputs, task)
            parts.append(np.where(part.sum(1, keepdims=True) > 0, part, bracket))
        return np.stack(parts, 1)


class ToyPrepared:
    """See `PreparedPrefixes`, and `das.DifferentiablePrefixes`."""

    def __init__(self, model: ToySteerable, task: np.ndarray, prefix: np.ndarray) -> None:
        self.model, self.task, self.prefix = model, task, prefix
        rotation = net_rotation(prefix)
        numbers = prefix_number(prefix) + task * 5 ** prefix.shape[1]
        noise = np.stack([np.random.default_rng([n, model.seed]).normal(size=FEATURES) for n in numbers.tolist()]) * 0.3
        noise[:, : END * LAST] += np.eye(END)[prefix[:, -LAST:]].reshape(len(task), -1)
        self.values = (noise.astype(np.float32) @ model.features.T + model.corners[rotation] @ model.code.T).astype(
            np.float32
        )
        self.rotation, self.by_turn = rotation, model.posterior(task, prefix, range(TURNS))
        turns = (np.arange(TURNS) - rotation[:, None]) % TURNS
        by_value = np.take_along_axis(self.by_turn, turns[:, :, None], 1).clip(1e-3)
        self.by_value = torch.from_numpy(by_value.astype(np.float32))

    def states(self, position: str = AT_PREFIX) -> list[np.ndarray]:
        """See `PreparedPrefixes.states`."""
        return [self.values] * 2

    def activations(self) -> list[np.ndarray]:
        """See `PreparedPrefixes.activations`."""
        return [self.values] * 3

    def word_scores(self, states: torch.Tensor) -> torch.Tensor:
        """See `DifferentiablePrefixes.word_scores`."""
        if not self.model.reads:
            return self.by_value[np.arange(len(self.task)), self.rotation].log() + 0 * states.sum(1, keepdim=True)
        code = states @ torch.from_numpy(self.model.code)
        weights = (0.4 * code @ torch.from_numpy(self.model.corners).T).softmax(-1)
        return (weights[:, :, None] * self.by_value).sum(1).log()

    def score(
        self,
        site: int = 0,
        states: np.ndarray | None = None,
        position: str = AT_PREFIX,
        ranges: Sequence[NaturalRange] | None = None,
    ) -> ScoredRows:
        """See `PreparedPrefixes.score`."""
        values = self.values if states is None or position != AT_PREFIX else states
        scores = self.word_scores(torch.from_numpy(np.ascontiguousarray(values)))
        return ScoredRows(scores.double().numpy(), np.ones(len(self.task), bool))

    def complete(self, max_new_words: int) -> list[str]:
        """See `PreparedPrefixes.complete`: the exact most probable words."""
        texts, rows, prefix = [""] * len(self.task), np.arange(len(self.task)), self.prefix
        words = self.by_turn[:, 0].argmax(1)
        while len(rows):
            for row, word in zip(rows.tolist(), words.tolist(), strict=True):
                texts[row] = f"{texts[row]} {NEXT_WORDS[word]}".strip()
            is_open = words != END
            rows, prefix = rows[is_open], np.concatenate([prefix, words[:, None].astype(np.int8)], 1)[is_open]
            if len(rows):
                words = self.model.posterior(self.task[rows], prefix, [0])[:, 0].argmax(1)
        return texts
