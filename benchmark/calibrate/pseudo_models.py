"""Pseudo-models: synthetic states with a known verdict.

Each has a defined content, mixed by a random linear map into the width of a small model, so that a probe reads it like
hidden states. All draws come from seeds that no control uses. The list is explained in docs/probing.md, Known answers.

Letters: `B` programs, `R` labelled tokens, `D` width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmark.probing.labels import MISSING, ProbeSet
from benchmark.probing.token_history import token_history_states, world_features
from karel_env.features import FEATURES
from karel_env.language import HEADER, WORDS, Programs
from karel_env.world import Worlds

WIDTH = 128
NOISE = 0.01
DEGRADED_SHARES = (0.25, 0.5, 0.75)
"""Probabilities with which a degraded oracle's state is replaced by that of another row."""
FUTURE_OFFSET = 1
"""Number of program states by which the future oracle is ahead of the token."""
NUM_LAYERS, PLANTED_LAYER = 4, 2
"""Number of layers of the planted model, and the layer that contains the oracle."""
_STATE = ("facing", "absolute_x", "absolute_y")
_DRAW, _UNTRAINED = 90_001, 90_002


@dataclass(frozen=True)
class PseudoModelInputs:
    """Inputs from which the pseudo-models are built.

    Attributes:
        programs, inputs: B programs and their first shown worlds [B].
        probe_set: labels of the programs.
        seed: seed of all draws.
    """

    programs: Programs
    inputs: Worlds
    probe_set: ProbeSet
    seed: int

    def pseudo_models(self) -> Mapping[str, np.ndarray]:
        """States of each pseudo-model (float32 [R, D]), by name."""
        random = np.random.default_rng([_DRAW, self.seed])
        rows = len(self.probe_set.program)
        recorder = token_history_states(self.programs, self.inputs, self.probe_set)
        world = world_features(self.inputs)[self.probe_set.program]
        oracle = self._oracle(0)
        parts_by_name = {
            "recorder": [recorder],
            # Outputs are hidden in the blind set: what is shown in their place is the input.
            "recorder + outputs": [recorder, world],
            "oracle": [oracle, world],
            "oracle + recorder": [oracle, recorder],
            f"oracle of {self.probe_set.semantics[1]}": [self._oracle(1), world],
        }
        for share in DEGRADED_SHARES:
            is_replaced = random.random(rows) < share
            source = np.where(is_replaced, random.permutation(rows), np.arange(rows))
            parts_by_name[f"oracle degraded {share:.0%}"] = [oracle[source], world]
        mixed = {name: _mix_columns(parts, random) for name, parts in parts_by_name.items()}
        noise = random.normal(size=(rows, WIDTH)).astype(np.float32)
        return {"noise": noise, "random-init": self.random_init(self.seed), **mixed}

    def future_oracle(self) -> np.ndarray:
        """float32 [R, WIDTH], the state `FUTURE_OFFSET` program states ahead, and the input."""
        world = world_features(self.inputs)[self.probe_set.program]
        ahead = self.probe_set.at_offset(FUTURE_OFFSET).classes[0]
        return _mix_columns([self._one_hot(ahead), world], np.random.default_rng([_DRAW, self.seed, FUTURE_OFFSET]))

    def planted_layers(self) -> list[np.ndarray]:
        """States float32 [R, WIDTH] per layer: token history in all, and the true state in layer `PLANTED_LAYER`."""
        random = np.random.default_rng([_DRAW, self.seed, NUM_LAYERS])
        recorder = token_history_states(self.programs, self.inputs, self.probe_set)
        oracle = self._oracle(0)
        return [
            _mix_columns([recorder, oracle] if i == PLANTED_LAYER else [recorder], random) for i in range(NUM_LAYERS)
        ]

    def random_init(self, seed: int) -> np.ndarray:
        """float32 [R, WIDTH], states of a randomly initialised recurrent network at each labelled token.

        It starts from the input world and reads one token at a time (an echo state network, Jaeger 2001).
        """
        random = np.random.default_rng([_UNTRAINED, seed])
        world = world_features(self.inputs)
        into = random.normal(size=(world.shape[1], WIDTH)) / np.sqrt(world.shape[1])
        recurrent = random.normal(size=(WIDTH, WIDTH)) / np.sqrt(WIDTH)
        embeddings = random.normal(size=(len(WORDS), WIDTH))
        state = np.tanh(3 * world @ into)
        longest = int(self.programs.lengths.max()) - len(HEADER)
        states = np.zeros((len(self.programs), longest, WIDTH), np.float32)
        for position in range(longest):
            active = np.flatnonzero(self.programs.lengths - len(HEADER) > position)
            tokens = self.programs.words[self.programs.offsets[active] + len(HEADER) + position]
            state[active] = np.tanh(state[active] @ recurrent + embeddings[tokens])
            states[active, position] = state[active]
        return states[self.probe_set.program, self.probe_set.word]

    def _oracle(self, semantics: int) -> np.ndarray:
        """float64 [R, columns], one-hot heading, column and row of the robot under one semantics."""
        return self._one_hot(self.probe_set.classes[semantics])

    def _one_hot(self, classes: np.ndarray) -> np.ndarray:
        """float64 [R, columns] of the heading, column and row in labels [F, R]; zeros where there is no label."""
        heads = [FEATURES.index(name) for name in _STATE]
        columns = [np.eye(self.probe_set.counts[f])[classes[f]] * (classes[f] != MISSING)[:, None] for f in heads]
        return np.concatenate(columns, 1)


def _mix_columns(parts: list[np.ndarray], random: np.random.Generator) -> np.ndarray:
    """Mix the columns of all parts by a random linear map and add small noise; float32 [R, WIDTH]."""
    columns = np.concatenate(parts, 1)
    mixing = random.normal(size=(columns.shape[1], WIDTH)) / np.sqrt(columns.shape[1])
    return (columns @ mixing + NOISE * random.normal(size=(len(columns), WIDTH))).astype(np.float32)
