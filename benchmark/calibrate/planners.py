"""Executable pseudo-models of the causal measurement: planners whose use of a stored rotation is known.

Every planner writes the exact most probable next word and stores features of its tokens in four layers. In one of them a
variable is written in a random subspace; what reads it differs by kind. Expected verdicts: docs/causal.md, Known answers.

Letters: `B` prefixes, `N` all prefixes of a world, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.causal.interventions import AT_PREFIX, NaturalRange
from benchmark.causal.merges import merge_pairs
from benchmark.causal.pairs import (
    STANDARD_PAIRS,
    PairSettings,
    derive_pairs,
    posterior_of_distinct,
    prefix_length,
    prefix_number,
    prefix_texts,
)
from benchmark.causal.rotation import alternative_semantics, net_rotation
from benchmark.causal.targets import END, NEXT_WORDS, TURNS, SuffixTable, execute_prefixes, turn_robots
from benchmark.tasks.prompt_template import render_prompts
from benchmark.tasks.suite import Suite

NUM_SITES, WIDTH, TASK_FEATURES = 4, 64, 8
SCALE = 3.0
"""Length of the stored code of a value."""
BIAS = 0.02
"""Weight of a plan that changes no argmax."""
PLANNER, LATE, UNREAD, ALTERNATIVE, NEXT_WORD, PUSHER, ERASER, DORMANT, NOISE = KINDS = (
    "planner", "late planner", "unread", "alternative", "next word", "pusher", "eraser", "dormant", "noise",
)  # fmt: skip
SHARE = "share"
"""Kind `share 0.25` reads the variable in a quarter of the tasks, and the tokens in the others."""


@dataclass(frozen=True)
class ScoredRows:
    """See `benchmark.causal.interventions.WordScores`."""

    log_probs: np.ndarray
    is_argmax: np.ndarray


class PlannerWorld:
    """What all planners of a suite know: exact distributions and the programs that they write.

    Args:
        suite: the suite.
        settings: number of pairs; their prefixes, mean prefixes and merge prefixes are known.
    """

    def __init__(self, suite: Suite, settings: PairSettings = STANDARD_PAIRS) -> None:
        pairs, merges = derive_pairs(suite, settings), merge_pairs(suite, settings)
        self.suite, self.pairs = suite, pairs
        task = np.concatenate([pairs.task, pairs.mean_task, merges.task])
        prefix = np.concatenate([pairs.prefix, pairs.mean_prefix, merges.prefix])
        number = task * END ** prefix.shape[1] + prefix_number(prefix)
        self.number, first = np.unique(number, return_index=True)
        self.task, self.prefix = task[first], prefix[first]
        self.posterior = self._posteriors()
        self.base_word = self.posterior[:, 0].argmax(1)
        self.rotation = net_rotation(self.prefix)
        self.text = self._complete()
        self.task_of_prompt = {prompt: i for i, prompt in enumerate(render_prompts(suite, pairs.tasks))}
        self.number_of_text = dict(zip(prefix_texts(self.prefix), prefix_number(self.prefix).tolist(), strict=True))

    def rows(self, prompts: Sequence[str], prefixes: Sequence[str]) -> np.ndarray:
        """int64 [B], index of each prefix."""
        size = END ** self.prefix.shape[1]
        numbers = [
            self.task_of_prompt[prompt] * size + self.number_of_text[prefix]
            for prompt, prefix in zip(prompts, prefixes, strict=True)
        ]
        return np.searchsorted(self.number, np.array(numbers))

    def _posteriors(self) -> np.ndarray:
        """float64 [N, 4, 6], distribution after each turn; that of the base where the turn is not completable."""
        tasks, shown = self.pairs.tasks, self.suite.shown
        table = SuffixTable.of_suite(self.suite, prefix_length(self.suite))
        reached = execute_prefixes(self.prefix, tasks.inputs[self.task, :shown])
        outputs = tasks.outputs[self.task, :shown]
        parts = [
            posterior_of_distinct(table, turn_robots(reached, np.full(len(self.task), turn)), outputs, self.task)
            for turn in range(TURNS)
        ]
        posterior = np.stack(parts, 1)
        return np.where(posterior.sum(2, keepdims=True) > 0, posterior, posterior[:, :1])

    def _complete(self) -> list[str]:
        """The most probable words after each prefix, up to the closing bracket."""
        texts = [""] * len(self.task)
        rows, prefix, words = np.arange(len(self.task)), self.prefix, self.base_word
        while len(rows):
            for row, word in zip(rows.tolist(), words.tolist(), strict=True):
                texts[row] = f"{texts[row]} {NEXT_WORDS[word]}".strip()
            is_open = words != END
            rows, prefix = rows[is_open], np.concatenate([prefix, words[:, None].astype(np.int8)], 1)[is_open]
            if not len(rows) or prefix.shape[1] >= self.suite.train_length[1]:
                break
            words = self._next_words(rows, prefix)
        for row in rows.tolist():
            texts[row] = f"{texts[row]} {NEXT_WORDS[END]}"
        return texts

    def _next_words(self, rows: np.ndarray, prefix: np.ndarray) -> np.ndarray:
        tasks, shown, task = self.pairs.tasks, self.suite.shown, self.task[rows]
        table = SuffixTable.of_suite(self.suite, prefix.shape[1])
        reached = execute_prefixes(prefix, tasks.inputs[task, :shown])
        words: np.ndarray = posterior_of_distinct(table, reached, tasks.outputs[task, :shown], task).argmax(1)
        return words


class Planner:
    """A `SteerableModel` of one kind.

    Args:
        world: what it knows.
        kind: one of `KINDS`, or `share W`.
        seed: draws its directions.
    """

    batch_rows = 4096

    def __init__(self, world: PlannerWorld, kind: str, seed: int) -> None:
        self.world, self.kind = world, kind
        self.sites = tuple(f"layer {i}" for i in range(NUM_SITES))
        self.written = 2 if kind == LATE else 1
        random = np.random.default_rng([80_001, seed])
        directions = np.linalg.qr(random.normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)
        length = world.prefix.shape[1]
        num_features = END * length + TASK_FEATURES
        num_plan = 2 * len(NEXT_WORDS) + 1
        self.feature_directions = directions[:, :num_features]
        self.code_directions = directions[:, num_features : num_features + len(NEXT_WORDS)]
        self.plan_directions = directions[:, num_features + len(NEXT_WORDS) :][:, :num_plan]
        self.simplex = np.zeros((TURNS, len(NEXT_WORDS)), np.float32)
        self.simplex[:, : TURNS - 1] = SCALE * random_simplex(random)
        one_hot = np.eye(END, dtype=np.float32)[world.prefix].reshape(len(world.prefix), -1)
        task_features = random.normal(size=(len(world.pairs.tasks), TASK_FEATURES)).astype(np.float32)
        self.features = np.concatenate([one_hot, task_features[world.task]], 1) @ self.feature_directions.T
        share = float(kind.split()[1]) if kind.startswith(SHARE) else 1.0
        # A fixed number of tasks reads the variable, so that the share itself has no sampling error.
        order = random.permutation(len(world.pairs.tasks))
        self.is_reader = order[world.task] < share * len(world.pairs.tasks)
        self.value = net_rotation(world.prefix, alternative_semantics()[0]) if kind == ALTERNATIVE else world.rotation
        self.noise = random.integers(0, len(NEXT_WORDS), len(world.task))

    def prepare(self, prompts: Sequence[str], prefixes: Sequence[str]) -> PreparedRows:
        """See `SteerableModel.prepare`."""
        return PreparedRows(self, self.world.rows(prompts, prefixes))

    def code(self, rows: np.ndarray) -> np.ndarray:
        """float32 [B, 6], what is written for each prefix."""
        if self.kind == NEXT_WORD:
            return np.eye(len(NEXT_WORDS), dtype=np.float32)[self.world.base_word[rows]] * np.float32(SCALE)
        return self.simplex[self.value[rows]]

    def plan(self, rows: np.ndarray, code: np.ndarray) -> np.ndarray:
        """float32 [B, 13], the plan, a second plan that is zero in every natural run, and whether that one replaces it."""
        world, base = self.world, self.world.posterior[rows, 0]
        stored = ((code[:, None] - self.simplex) ** 2).sum(2).argmin(1)
        turn = (stored - self.value[rows]) % TURNS
        turned = world.posterior[rows, turn]
        plan = base
        if self.kind in (PLANNER, LATE) or self.kind.startswith(SHARE):
            plan = np.where(self.is_reader[rows, None], turned, base)
        elif self.kind == ALTERNATIVE:
            plan = base + BIAS * turned
        elif self.kind == NEXT_WORD:
            plan = code / SCALE
        elif self.kind == PUSHER:
            word = world.pairs.look_up[turn, world.base_word[rows]]
            plan = np.where(((turn > 0) & (word >= 0))[:, None], np.eye(len(NEXT_WORDS))[word], base)
        elif self.kind == ERASER:
            prior = np.array([*self.world.suite.recipe.weights, 0]) / sum(self.world.suite.recipe.weights)
            plan = np.where((turn > 0)[:, None], prior, base)
        elif self.kind == NOISE:
            plan = np.eye(len(NEXT_WORDS))[self.noise[rows]]
        differs = (turn > 0) & (self.kind == DORMANT)
        second = np.where(differs[:, None], turned, 0)
        return np.concatenate([plan, second, differs[:, None]], 1).astype(np.float32)


class PreparedRows:
    """A `PreparedPrefixes` of a planner; an edit at the prompt changes nothing, since nothing is read there."""

    def __init__(self, planner: Planner, rows: np.ndarray) -> None:
        self.planner, self.rows = planner, rows

    def states(self, position: str = AT_PREFIX) -> list[np.ndarray]:
        """See `PreparedPrefixes.states`."""
        if position != AT_PREFIX:
            return [self.planner.features[self.rows] * np.float32(0.5) for _ in range(NUM_SITES)]
        return self._run(-1, None, None)

    def activations(self) -> list[np.ndarray]:
        """See `PreparedPrefixes.activations`."""
        return self._run(-1, None, None)

    def _run(self, site: int, states: np.ndarray | None, ranges: Sequence[NaturalRange] | None) -> list[np.ndarray]:
        """float32 [B, D] per layer, each computed from the one before, with an edit or a clamp."""
        planner = self.planner
        hidden = planner.features[self.rows]
        layers: list[np.ndarray] = []
        for layer in range(NUM_SITES):
            if layer == planner.written:
                hidden = hidden + planner.code(self.rows) @ planner.code_directions.T
            if layer == planner.written + 1:
                code = layers[-1] @ planner.code_directions
                hidden = hidden + planner.plan(self.rows, code) @ planner.plan_directions.T
            if states is not None and layer == site:
                hidden = states
            elif ranges is not None and layer > site:
                hidden = limit_to_range(hidden, ranges[layer])
            layers.append(hidden)
        return layers

    def score(
        self,
        site: int = 0,
        states: np.ndarray | None = None,
        position: str = AT_PREFIX,
        ranges: Sequence[NaturalRange] | None = None,
    ) -> ScoredRows:
        """See `PreparedPrefixes.score`."""
        edited = states if position == AT_PREFIX else None
        last = self._run(site, edited, ranges)[-1] @ self.planner.plan_directions
        size = len(NEXT_WORDS)
        differs = last[:, -1:].clip(0, 1)
        plan = last[:, :size] * (1 - differs) + last[:, size : 2 * size]
        return ScoredRows(np.log(plan.astype(np.float64).clip(min=1e-6)), np.ones(len(plan), bool))

    def complete(self, max_new_words: int) -> list[str]:
        """See `PreparedPrefixes.complete`."""
        if self.planner.kind == NOISE:
            return [NEXT_WORDS[word] for word in self.planner.noise[self.rows]]
        return [self.planner.world.text[row] for row in self.rows]


def random_simplex(random: np.random.Generator) -> np.ndarray:
    """float32 [4, 3], corners of a regular simplex in random orientation."""
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
    return (corners @ np.linalg.qr(random.normal(size=(3, 3)))[0]).astype(np.float32)


def limit_to_range(hidden: np.ndarray, natural: NaturalRange) -> np.ndarray:
    """float32 [B, D], states with their coordinates limited to those of unedited runs."""
    coordinates = hidden @ natural.basis
    return np.asarray(hidden + (coordinates.clip(natural.low, natural.high) - coordinates) @ natural.basis.T)
