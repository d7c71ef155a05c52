"""Pseudo-models of protocol 4: states whose verdict is known from what they hold.

Kind N holds words and no state: REPRESENTS would be wrong. Kind R holds the state: REPRESENTS is right. Kind M holds a
part of it or another one: RECORD-ONLY would be wrong. docs/protocol4.md lists them.

Letters: `B` programs, `R` labelled action words, `T` words of a program, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.calibrate.pseudo_models import NOISE, WIDTH
from benchmark.probing.token_history import world_features
from benchmark.probing.version4.measure_rotation import prefix_history_states
from benchmark.probing.version4.readable_record import NUM_WORDS
from benchmark.probing.version4.relative_labels import RelativeProbeSet
from benchmark.probing.version4.turn_pairs import ALL_PAIRS, NUM_ROTATIONS, ORIGINAL_PAIR, TurnPair, rotations
from karel_env.semantics import LEFT, MOVE, PICK, PUT, RIGHT
from karel_env.world import Worlds

RECORD_KIND, STATE_KIND, MIXED_KIND = "N", "R", "M"
KEEP_MILD, KEEP_STRONG = (0.95, 0.95, 0.95, 0.8, 0.8), (0.9, 0.9, 0.9, 0.6, 0.6)
KEEP_BY_FREQUENCY = (0.92, 0.87, 0.87, 0.8, 0.8)
"""Probability that a word is kept: 1 - 0.4 / weight of the word in the training programs of `laptop`."""
LAST_WORDS, DECAY, SMALL_SCALE = 3, 0.7, 1 / 30
WEAK_DIVISORS = (10, 30)
"""Scales of a record beside counts that are easier to read."""
KEEP_COUNTS = (0.9, 0.7)
"""Probability that a word is counted, in counts beside a complete record."""
ALTERNATIVE_PAIR = TurnPair(LEFT, PICK)
"""The pair whose rotation the pseudo-model of an alternative holds."""
NUM_LAYERS, PLANTED_LAYER = 4, 2
_SIMILARITY = 0.1
_STATES, _NETWORK = 90_011, 90_012


@dataclass(frozen=True)
class RotationKinds:
    """Builder of the pseudo-models of one draw.

    Attributes:
        probe_set: labels of straight-line programs.
        inputs: B first shown worlds.
        seed: seed of all draws.
    """

    probe_set: RelativeProbeSet
    inputs: Worlds
    seed: int

    def kinds(self) -> Mapping[str, tuple[str, Callable[[], Sequence[np.ndarray]]]]:
        """Kind and builder of the views (float32 [R, D] each) of every pseudo-model, by name."""
        record, state, mixed = RECORD_KIND, STATE_KIND, MIXED_KIND
        columns: dict[str, tuple[str, Callable[[], Sequence[np.ndarray]]]] = {
            "token history": (record, lambda: [self.history]),
            "token history and outputs": (record, lambda: [self.history, self.world]),
            **{f"record, {name}": (record, self._merged_record(merged)) for name, merged in _MERGED.items()},
            **{f"record, keeps {name}": (record, self._forgetful(keep)) for name, keep in _KEPT.items()},
            f"record of the last {LAST_WORDS} words": (record, lambda: [self._last_words(LAST_WORDS)]),
            **{f"bag, {name}": (record, self._bag(classes)) for name, classes in _BAGS.items()},
            "parities of lefts and of rights": (record, lambda: [self.word_counts[:, [LEFT, RIGHT]] % 2]),
            "record and lefts and rights": (record, lambda: [*self._bag([(LEFT,), (RIGHT,)])(), self.history]),
            "record and their parities": (record, lambda: [self.word_counts[:, [LEFT, RIGHT]] % 2, self.history]),
            "record and number of turns": (record, lambda: [*self._bag([(LEFT, RIGHT)])(), self.history]),
            "decaying counts": (record, lambda: [self._decaying_counts()]),
            "state of another example": (record, lambda: [self._other_heading()[0]]),
            "state and input": (state, lambda: [self.state, self.world]),
            "state and record": (state, lambda: [self.state, self.history]),
            "state and forgetful record": (state, lambda: [self.state, self.world, *self._forgetful(KEEP_STRONG)()]),
            "rotation": (state, lambda: [self.rotation]),
            "state degraded by 25%": (state, lambda: [self._degraded(0.25), self.world]),
            "state degraded by 50%": (state, lambda: [self._degraded(0.5), self.world]),
            "state of another example and its start": (state, lambda: list(self._other_heading())),
            "state before the word": (state, lambda: [self._rotation_before()]),
            "state at 1/30 of the record": (state, lambda: [SMALL_SCALE * self.state, self.history]),
            "state in an XOR code": (state, lambda: [self._xor_code()]),
            "state degraded by 75%": (mixed, lambda: [self._degraded(0.75), self.world]),
            "state in half of the programs": (mixed, lambda: [self._half(), self.world]),
            "state of an alternative and record": (mixed, lambda: [self._alternative(), self.history]),
            **{
                f"{name}, record at 1/{divisor}": (record, self._beside_weak_record(classes, divisor))
                for name, classes in _EASY_COUNTS.items()
                for divisor in WEAK_DIVISORS
            },
            "number of turns and forgetful record": (
                record,
                lambda: [*self._bag([(LEFT, RIGHT)])(), *self._forgetful(KEEP_STRONG)()],
            ),
            **{
                f"record and lefts and rights, {keep:.0%} of words counted": (
                    record,
                    self._beside_forgetful_counts(keep),
                )
                for keep in KEEP_COUNTS
            },
            "rotation modulo 2 and record": (mixed, lambda: [self._axis(), self.history]),
        }
        built = {name: (kind, self._mixed(name, parts)) for name, (kind, parts) in columns.items()}
        networks: dict[str, tuple[str, Callable[[], Sequence[np.ndarray]]]] = {
            "noise": (record, lambda: [self._random("noise").normal(size=(self.num_rows, WIDTH)).astype(np.float32)]),
            "random-init": (record, lambda: [self.random_network(self.seed)]),
            "random-init, similar markers": (record, lambda: [self.random_network(self.seed + 1, is_similar=True)]),
            "planted layer": (state, self._planted_layers),
        }
        return {**networks, **built}

    @property
    def num_rows(self) -> int:
        """R."""
        return len(self.probe_set.program)

    @property
    def history(self) -> np.ndarray:
        """float32 [R, columns], one-hot words so far and input."""
        return prefix_history_states(self.probe_set, self.inputs)

    @property
    def world(self) -> np.ndarray:
        """float32 [R, columns], the input."""
        return world_features(self.inputs)[self.probe_set.program]

    @property
    def word_counts(self) -> np.ndarray:
        """int64 [R, 5], how often each word has occurred."""
        return np.stack([(self.probe_set.prefixes == word).sum(1) for word in range(NUM_WORDS)], 1)

    @property
    def rotation(self) -> np.ndarray:
        """float64 [R, 4], one-hot rotation."""
        return np.eye(NUM_ROTATIONS)[rotations(self.probe_set.prefixes, ORIGINAL_PAIR)]

    @property
    def state(self) -> np.ndarray:
        """float64 [R, columns], one-hot heading in example 0 and displacement in the frame of the start."""
        classes = self.probe_set.classes[0]
        heading = np.eye(NUM_ROTATIONS)[(self.probe_set.start_heading + classes[0]) % NUM_ROTATIONS]
        return np.concatenate([heading, *(np.eye(self.probe_set.counts[f])[classes[f]] for f in (1, 2))], 1)

    def random_network(self, seed: int, is_similar: bool = False) -> np.ndarray:
        """float32 [R, WIDTH], states of a random recurrent network that reads the input and then word by word.

        Args:
            seed: seed of its weights.
            is_similar: whether the embeddings of the two marker words are nearly equal.
        """
        random = np.random.default_rng([_NETWORK, seed])
        world = world_features(self.inputs)
        into = random.normal(size=(world.shape[1], WIDTH)) / np.sqrt(world.shape[1])
        recurrent = random.normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH)
        embeddings = random.normal(size=(NUM_WORDS, WIDTH))
        if is_similar:
            embeddings[PUT] = embeddings[PICK] + _SIMILARITY * embeddings[PUT]
        network_state = np.tanh(3 * world @ into)
        states = np.zeros((self.num_rows, WIDTH), np.float32)
        for step in range(self.probe_set.prefixes.shape[1]):
            rows = np.flatnonzero(self.probe_set.step == step)
            program = self.probe_set.program[rows]
            words = self.probe_set.prefixes[rows, step]
            network_state[program] = np.tanh(network_state[program] @ recurrent + embeddings[words])
            states[rows] = network_state[program]
        return states

    def _random(self, name: str) -> np.random.Generator:
        return np.random.default_rng([_STATES, self.seed, *name.encode()])

    def _mixed(self, name: str, parts: Callable[[], Sequence[np.ndarray]]) -> Callable[[], Sequence[np.ndarray]]:
        return lambda: [self._mix(parts(), self._random(name))]

    def _mix(self, parts: Sequence[np.ndarray], random: np.random.Generator) -> np.ndarray:
        """float32 [R, WIDTH], all columns mixed by a random linear map, with small noise."""
        columns = np.concatenate(parts, 1).astype(np.float64)
        mixing = random.normal(size=(columns.shape[1], WIDTH)) / np.sqrt(columns.shape[1])
        return (columns @ mixing + NOISE * random.normal(size=(len(columns), WIDTH))).astype(np.float32)

    def _one_hot_words(self, words: np.ndarray) -> np.ndarray:
        """float64 [R, T * 5], one-hot words; negative values are zeros."""
        return (words[..., None] == np.arange(NUM_WORDS)).reshape(len(words), -1).astype(np.float64)

    def _merged_record(self, merged: Sequence[tuple[int, int]]) -> Callable[[], Sequence[np.ndarray]]:
        def build() -> Sequence[np.ndarray]:
            words = self.probe_set.prefixes.copy()
            for target, source in merged:
                words[words == source] = target
            return [self._one_hot_words(words), self.world]

        return build

    def _forgetful(self, keep: Sequence[float]) -> Callable[[], Sequence[np.ndarray]]:
        def build() -> Sequence[np.ndarray]:
            prefixes = self.probe_set.prefixes
            draws = self._random(f"forget {keep}").random((len(self.inputs.robot), prefixes.shape[1]))
            is_kept = draws[self.probe_set.program] < np.append(keep, 1)[prefixes]
            return [self._one_hot_words(np.where(is_kept, prefixes, -1)), self.world]

        return build

    def _last_words(self, count: int) -> np.ndarray:
        ages = self.probe_set.step[:, None] - np.arange(count)
        words = np.take_along_axis(self.probe_set.prefixes, ages.clip(0), 1)
        return self._one_hot_words(np.where(ages < 0, -1, words))

    def _bag(self, classes: Sequence[Sequence[int]]) -> Callable[[], Sequence[np.ndarray]]:
        def build() -> Sequence[np.ndarray]:
            length = self.probe_set.prefixes.shape[1]
            counts = [self.word_counts[:, list(words)].sum(1) for words in classes]
            return [np.eye(length + 1)[count] for count in counts]

        return build

    def _beside_weak_record(self, classes: Sequence[Sequence[int]], divisor: int) -> Callable[[], Sequence[np.ndarray]]:
        """Counts of classes of words beside a record of all words at a smaller scale."""
        return lambda: [*self._bag(classes)(), self.history / divisor]

    def _beside_forgetful_counts(self, keep: float) -> Callable[[], Sequence[np.ndarray]]:
        """A complete record beside counts that have missed some words."""

        def build() -> Sequence[np.ndarray]:
            prefixes = self.probe_set.prefixes
            draws = self._random(f"count {keep}").random((len(self.inputs.robot), prefixes.shape[1]))
            is_counted = draws[self.probe_set.program] < keep
            classes = np.eye(prefixes.shape[1] + 1)
            return [*(classes[((prefixes == word) & is_counted).sum(1)] for word in (LEFT, RIGHT)), self.history]

        return build

    def _axis(self) -> np.ndarray:
        """float64 [R, 2], one-hot rotation modulo 2: along or across the start heading."""
        return np.eye(2)[rotations(self.probe_set.prefixes, ORIGINAL_PAIR) % 2]

    def _decaying_counts(self) -> np.ndarray:
        ages = self.probe_set.step[:, None] - np.arange(self.probe_set.prefixes.shape[1])
        words = self._one_hot_words(self.probe_set.prefixes).reshape(*ages.shape, NUM_WORDS)
        return (np.where(ages < 0, 0, DECAY ** ages.clip(0))[..., None] * words).sum(1)

    def _other_heading(self) -> tuple[np.ndarray, np.ndarray]:
        """One-hot heading of another example, and one-hot start heading of it, float64 [R, 4] each."""
        start = self._random("other").integers(NUM_ROTATIONS, size=len(self.inputs.robot))[self.probe_set.program]
        rotation = rotations(self.probe_set.prefixes, ORIGINAL_PAIR)
        return np.eye(NUM_ROTATIONS)[(start + rotation) % NUM_ROTATIONS], np.eye(NUM_ROTATIONS)[start]

    def _degraded(self, share: float) -> np.ndarray:
        """The state, replaced by that of another row with probability `share`."""
        random = self._random(f"degraded {share}")
        is_replaced = random.random(self.num_rows) < share
        return self.state[np.where(is_replaced, random.permutation(self.num_rows), np.arange(self.num_rows))]

    def _half(self) -> np.ndarray:
        """The state in half of the programs, zeros in the others."""
        has_state = self._random("half").random(len(self.inputs.robot)) < 0.5
        return self.state * has_state[self.probe_set.program][:, None]

    def _rotation_before(self) -> np.ndarray:
        """One-hot rotation before the word."""
        earlier = self.probe_set.prefixes.copy()
        earlier[np.arange(self.num_rows), self.probe_set.step] = -1
        return np.eye(NUM_ROTATIONS)[rotations(earlier, ORIGINAL_PAIR)]

    def _xor_code(self) -> np.ndarray:
        """Two bits of rotation, each exclusive-or with a random bit, and the random bits, as -1 and 1."""
        rotation = rotations(self.probe_set.prefixes, ORIGINAL_PAIR)
        bits = np.stack([rotation % 2, rotation // 2], 1)
        masks = self._random("masks").integers(2, size=bits.shape)
        return 2.0 * np.concatenate([bits ^ masks, masks], 1) - 1

    def _alternative(self) -> np.ndarray:
        return np.eye(NUM_ROTATIONS)[rotations(self.probe_set.prefixes, ALTERNATIVE_PAIR)]

    def _planted_layers(self) -> Sequence[np.ndarray]:
        random = self._random("planted")
        return [
            self._mix([self.history, self.state] if layer == PLANTED_LAYER else [self.history], random)
            for layer in range(NUM_LAYERS)
        ]


_MERGED = {
    "pick = put": [(PICK, PUT)],
    "left = right": [(LEFT, RIGHT)],
    "move = pick": [(MOVE, PICK)],
}
_KEPT = {".95 / .80": KEEP_MILD, ".90 / .60": KEEP_STRONG, "by frequency": KEEP_BY_FREQUENCY}
_BAGS: dict[str, Sequence[Sequence[int]]] = {
    "whole": [(MOVE,), (LEFT,), (RIGHT,), (PICK,), (PUT,)],
    "pick = put": [(MOVE,), (LEFT,), (RIGHT,), (PICK, PUT)],
    "left = right": [(MOVE,), (LEFT, RIGHT), (PICK,), (PUT,)],
    "left = right, pick = put": [(MOVE,), (LEFT, RIGHT), (PICK, PUT)],
    "lefts and rights": [(LEFT,), (RIGHT,)],
    "number of turns": [(LEFT, RIGHT)],
}
_EASY_COUNTS: dict[str, Sequence[Sequence[int]]] = {
    "lefts and rights": [(LEFT,), (RIGHT,)],
    "number of turns": [(LEFT, RIGHT)],
}
assert ALL_PAIRS[0] == ORIGINAL_PAIR
