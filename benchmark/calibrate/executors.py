"""Executable pseudo-models of the execution task, whose use of a stored rotation is known.

All but the last name the right heading. They store features of the program in two layers and, in the second, a code of the
program's rotation; they differ in what the answer is made from. Expected verdicts: docs/execution.md, Known answers.

Letters: `B` tasks, `D` width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from benchmark.calibrate.planners import SCALE, ScoredRows, limit_to_range, random_simplex
from benchmark.causal.execution.heading_tasks import PROGRAM_LENGTH
from benchmark.causal.interventions import AT_PREFIX, NaturalRange
from benchmark.causal.rotation import alternative_semantics, net_rotation
from benchmark.causal.targets import END, TURNS
from benchmark.tasks.prompts import INPUT
from karel_env.language import WORD_ID
from karel_env.world import HEADINGS, ROBOT_GLYPHS

EXECUTOR, FROM_TOKENS, ALTERNATIVE, POINTER, CHANCE = EXECUTOR_KINDS = (
    "executor", "from tokens", "alternative", "pointer", "chance",
)  # fmt: skip
WIDTH, NUM_SITES, WORLD_FEATURES = 48, 3, 4
WRITTEN = 1
"""Site that holds the code of the rotation first."""


class Executor:
    """A `SteerableModel` of one kind that names headings.

    Args:
        kind: `EXECUTOR` decodes the stored rotation and adds it to the world's heading; `FROM_TOKENS` stores it and counts
            the words; `ALTERNATIVE` stores an alternative's rotation and counts the words; `POINTER` names the heading that
            the stored rotation has the number of once it was edited, whatever the world; `CHANCE` names any heading.
        seed: draws its directions.
    """

    batch_rows = 4096
    sites = tuple(f"layer {i}" for i in range(NUM_SITES))

    def __init__(self, kind: str, seed: int) -> None:
        self.kind, self.seed = kind, seed
        random = np.random.default_rng([80_003, seed])
        self.directions = np.linalg.qr(random.normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)
        self.simplex = random_simplex(random) * np.float32(SCALE)

    def prepare(self, prompts: Sequence[str], prefixes: Sequence[str]) -> ExecutedRows:
        """See `SteerableModel.prepare`."""
        words = np.array([[WORD_ID[word] for word in prefix.split()[:PROGRAM_LENGTH]] for prefix in prefixes], np.int8)
        worlds = [prompt.rpartition(f"{INPUT}\n")[2] for prompt in prompts]
        start = np.array([next(ROBOT_GLYPHS.index(sign) for sign in world if sign in ROBOT_GLYPHS) for world in worlds])
        digests = [hashlib.sha256(f"{self.seed}{prompt}".encode()).digest() for prompt in prompts]
        return ExecutedRows(self, words, start, np.array([list(digest[: 1 + WORLD_FEATURES]) for digest in digests]))


class ExecutedRows:
    """A `PreparedPrefixes` of an executor.

    Args:
        executor: the model.
        words: int8 [B, K], actions.
        start: int64 [B], heading in the world.
        noise: int64 [B, 1 + WORLD_FEATURES], bytes that depend on the prompt alone.
    """

    def __init__(self, executor: Executor, words: np.ndarray, start: np.ndarray, noise: np.ndarray) -> None:
        self.executor, self.start, self.noise = executor, start, noise
        self.rotation = net_rotation(words)
        is_alternative = executor.kind == ALTERNATIVE
        self.value = net_rotation(words, alternative_semantics()[0]) if is_alternative else self.rotation
        one_hot = np.eye(END, dtype=np.float32)[words].reshape(len(words), -1)
        world = noise[:, 1:].astype(np.float32) / 255
        self.features = np.concatenate([one_hot, world], 1)

    def states(self, position: str = AT_PREFIX) -> list[np.ndarray]:
        """See `PreparedPrefixes.states`."""
        if position != AT_PREFIX:
            return [self._write(self.features * np.float32(0.5), 0) for _ in range(NUM_SITES)]
        return self._run(-1, None, None)

    def activations(self) -> list[np.ndarray]:
        """See `PreparedPrefixes.activations`."""
        return self._run(-1, None, None)

    def _write(self, values: np.ndarray, first: int) -> np.ndarray:
        """float32 [B, D], values [B, C] along directions from number `first` on."""
        directions = self.executor.directions[:, first : first + values.shape[1]]
        return np.asarray(values.astype(np.float32) @ directions.T)

    def _run(self, site: int, states: np.ndarray | None, ranges: Sequence[NaturalRange] | None) -> list[np.ndarray]:
        """float32 [B, D] per layer, each computed from the one before, with an edit or a clamp."""
        executor, num_features = self.executor, self.features.shape[1]
        hidden = self._write(self.features, 0)
        layers: list[np.ndarray] = []
        for layer in range(NUM_SITES):
            if layer == WRITTEN:
                hidden = hidden + self._write(executor.simplex[self.value], num_features)
            if layer == WRITTEN + 1:
                code = layers[-1] @ executor.directions[:, num_features : num_features + TURNS - 1]
                answer = np.eye(TURNS)[self._answer(code)]
                hidden = hidden + self._write(answer, num_features + TURNS - 1)
            if states is not None and layer == site:
                hidden = states
            elif ranges is not None and layer > site:
                hidden = limit_to_range(hidden, ranges[layer])
            layers.append(hidden)
        return layers

    def _answer(self, code: np.ndarray) -> np.ndarray:
        """int64 [B], the heading that is named."""
        kind = self.executor.kind
        stored = ((code[:, None] - self.executor.simplex) ** 2).sum(2).argmin(1)
        right = (self.start + self.rotation) % TURNS
        if kind == EXECUTOR:
            return np.asarray((self.start + stored) % TURNS)
        if kind == POINTER:
            return np.where(stored == self.value, right, stored)
        if kind == CHANCE:
            return np.asarray(self.noise[:, 0] % TURNS)
        return right

    def score(
        self,
        site: int = 0,
        states: np.ndarray | None = None,
        position: str = AT_PREFIX,
        ranges: Sequence[NaturalRange] | None = None,
    ) -> ScoredRows:
        """See `PreparedPrefixes.score`; an edit at the prompt changes nothing, since nothing is read there."""
        first = self.features.shape[1] + TURNS - 1
        last = self._run(site, states if position == AT_PREFIX else None, ranges)[-1]
        answer = last @ self.executor.directions[:, first : first + TURNS]
        return ScoredRows(np.log(answer.astype(np.float64).clip(min=1e-6)), np.ones(len(answer), bool))

    def complete(self, max_new_words: int) -> list[str]:
        """See `PreparedPrefixes.complete`; the heading that is named."""
        return [HEADINGS[i] for i in self.score().log_probs.argmax(1)]
