"""Pseudo-models on programs with control flow: states whose verdict is known from what they hold.

Letters: `R` labelled action words, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.calibrate.pseudo_models import NOISE, WIDTH
from benchmark.calibrate.rotation_kinds import KEEP_STRONG, MIXED_KIND, RECORD_KIND, STATE_KIND
from benchmark.probing.token_history import world_features
from benchmark.probing.version4.readable_record import NUM_WORDS
from benchmark.probing.version4.turn_pairs import NUM_ROTATIONS
from benchmark.relative.control_labels import ControlProbeSet
from benchmark.relative.measure import RelativeSuite
from karel_env.execution.first_executions import run_to_words
from karel_env.language import HEADER, WORDS
from karel_env.semantics import LEFT, MOVE, ORIGINAL, PICK, PUT, RIGHT

_STATES, _NETWORK = 90_031, 90_032
Builder = Callable[[], Sequence[np.ndarray]]


@dataclass(frozen=True)
class ControlKinds:
    """Builder of the pseudo-models of one draw.

    Attributes:
        suite: the blind set and its labels.
        seed: seed of all draws.
    """

    suite: RelativeSuite
    seed: int

    @property
    def probe_set(self) -> ControlProbeSet:
        """The labelled action words."""
        return self.suite.probe_set

    def kinds(self) -> Mapping[str, tuple[str, Builder]]:
        """Kind and builder of the columns of every pseudo-model, by name; `states` mixes them."""
        record, state, mixed = RECORD_KIND, STATE_KIND, MIXED_KIND
        return {
            "noise": (record, lambda: [self._random("noise").normal(size=(len(self.probe_set.row), WIDTH))]),
            "random network": (record, lambda: [self.random_network(0)]),
            "token history": (record, lambda: [self.suite.history_states(self.probe_set)]),
            "action words": (record, lambda: [self.words]),
            "action words, keeps .90 / .60": (record, lambda: [self._one_hot(self._forgetful())]),
            "action words, pick = put": (record, lambda: [self._one_hot(self._merged())]),
            "bag": (record, lambda: self._bag([(word,) for word in range(NUM_WORDS)])),
            "bag, pick = put": (record, lambda: self._bag([(MOVE,), (LEFT,), (RIGHT,), (PICK, PUT)])),
            "lefts and rights executed": (record, self._executed_turns),
            "rotation": (state, lambda: [np.eye(NUM_ROTATIONS)[self.probe_set.classes[0, 0]]]),
            "state": (state, lambda: [self.state]),
            "state and action words": (state, lambda: [self.state, self.words]),
            "state degraded by 25%": (state, lambda: [self._degraded(0.25)]),
            "state in half of the programs": (mixed, lambda: [self._half()]),
        }

    def states(self, name: str) -> np.ndarray:
        """float32 [R, WIDTH], the columns of a pseudo-model mixed by a random linear map, with small noise."""
        random = self._random(name)
        columns = np.concatenate(self.kinds()[name][1](), 1).astype(np.float64)
        mixing = random.normal(size=(columns.shape[1], WIDTH)) / np.sqrt(columns.shape[1])
        return (columns @ mixing + NOISE * random.normal(size=(len(columns), WIDTH))).astype(np.float32)

    @property
    def words(self) -> np.ndarray:
        """float64 [R, T * 5], one-hot action words up to each labelled one, in the order of the text."""
        return self._one_hot(self.probe_set.prefixes)

    @property
    def state(self) -> np.ndarray:
        """float64 [R, columns], one-hot rotation and displacement."""
        classes, counts = self.probe_set.classes[0], self.probe_set.counts
        return np.concatenate([np.eye(count)[labels] for labels, count in zip(classes, counts, strict=True)], 1)

    def random_network(self, number: int) -> np.ndarray:
        """float32 [R, WIDTH], states of a random recurrent network that reads the input and then every word."""
        random = np.random.default_rng([_NETWORK, self.seed, number])
        programs = self.probe_set.programs
        world = world_features(self.probe_set.inputs)
        into = random.normal(size=(world.shape[1], WIDTH)) / np.sqrt(world.shape[1])
        recurrent = random.normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH)
        embeddings = random.normal(size=(len(WORDS), WIDTH))
        network_state = np.tanh(3 * world @ into)
        states = np.zeros((len(self.probe_set.row), WIDTH), np.float32)
        for position in range(int(self.probe_set.word.max()) + 1):
            active = np.flatnonzero(programs.lengths - len(HEADER) > position)
            words = programs.words[programs.offsets[active] + len(HEADER) + position]
            network_state[active] = np.tanh(network_state[active] @ recurrent + embeddings[words])
            rows = np.flatnonzero(self.probe_set.word == position)
            states[rows] = network_state[self.probe_set.program[rows]]
        return states

    def _random(self, name: str) -> np.random.Generator:
        return np.random.default_rng([_STATES, self.seed, *name.encode()])

    def _one_hot(self, words: np.ndarray) -> np.ndarray:
        """float64 [R, T * 5], one-hot words; negative values are zeros."""
        return (words[..., None] == np.arange(NUM_WORDS)).reshape(len(words), -1).astype(np.float64)

    def _forgetful(self) -> np.ndarray:
        prefixes = self.probe_set.prefixes
        draws = self._random("forget").random((len(self.probe_set.programs), prefixes.shape[1]))
        is_remembered = draws[self.probe_set.program] < np.append(KEEP_STRONG, 1)[prefixes]
        return np.where(is_remembered, prefixes, -1)

    def _merged(self) -> np.ndarray:
        return np.where(self.probe_set.prefixes == PUT, PICK, self.probe_set.prefixes)

    def _bag(self, classes: Sequence[Sequence[int]]) -> Sequence[np.ndarray]:
        prefixes = self.probe_set.prefixes
        return [np.eye(prefixes.shape[1] + 1)[np.isin(prefixes, words).sum(1)] for words in classes]

    def _executed_turns(self) -> Sequence[np.ndarray]:
        """One-hot numbers of left and of right turns that were executed, modulo 4."""
        probe_set = self.probe_set
        rows = np.arange(len(probe_set.row))
        sums = np.eye(NUM_WORDS, dtype=np.int64)[[LEFT, RIGHT]]
        executed = run_to_words(
            probe_set.programs, probe_set.inputs, probe_set.words(rows), probe_set.prefixes.clip(0)[:, None],
            [ORIGINAL], sums.tolist(), probe_set.max_events,
        )  # fmt: skip
        return [executed.rotation[:, 1 + turn].astype(np.float64) for turn in range(2)]

    def _degraded(self, share: float) -> np.ndarray:
        """The state, replaced by that of another row with probability `share`."""
        random = self._random(f"degraded {share}")
        rows = len(self.probe_set.row)
        is_replaced = random.random(rows) < share
        return self.state[np.where(is_replaced, random.permutation(rows), np.arange(rows))]

    def _half(self) -> np.ndarray:
        """The state in half of the programs, zeros in the others."""
        has_state = self._random("half").random(len(self.probe_set.programs)) < 0.5
        return self.state * has_state[self.probe_set.program][:, None]
