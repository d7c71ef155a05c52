"""The screen of a suite: how much of each alternative rotation follows from the robot's true state, on the judged rows.

An alternative whose label can be derived from the true state is no control. Derivability is 1 - CE(step, state) / CE(step)
with the state in the frame of the start (rotation, forward, sideways), from frequency tables that are filled with one half
of a sample and tested on the other.

Letters: `K` labels, `T` word positions, `R` rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmark.probing.control_gap import skill_score
from benchmark.probing.version4.relative_labels import (
    RELATIVE_FEATURES,
    ROTATION,
    RelativeProbeSet,
    build_relative_probe_set,
)
from benchmark.probing.version4.rotation_protocol import RotationProtocol
from benchmark.probing.version4.turn_pairs import ALL_PAIRS, MARKER_PAIRS, NUM_ROTATIONS, POSE_PAIRS, TurnPair
from benchmark.tasks.suite import Suite
from karel_env.language import ACTIONS

SAMPLE = 40_000
SEED = 1
_CHUNK = 4_000
_SMOOTHING = 2.0


def screen_sample(suite: Suite, protocol: RotationProtocol, sample: int = SAMPLE) -> RelativeProbeSet:
    """Labels of uniformly drawn programs of the suite's blind length, drawn apart from the blind set."""
    from karel_env.generation.generator import generate

    recipe = replace(suite.recipe, length=(suite.blind_length,) * 2, weights=(1,) * len(ACTIONS))
    parts = []
    for start in range(0, sample, _CHUNK):
        tasks = generate(recipe, SEED, "audit", np.arange(start, min(start + _CHUNK, sample)))
        cluster = np.arange(len(tasks))
        parts.append(build_relative_probe_set(tasks.programs, tasks.inputs[:, 0], cluster, protocol, sample))

    def join(field: Callable[[RelativeProbeSet], np.ndarray]) -> np.ndarray:
        return np.concatenate([field(part) for part in parts], -1)

    return replace(
        parts[0],
        program=join(lambda part: part.program),
        word=join(lambda part: part.word),
        step=join(lambda part: part.step),
        classes=join(lambda part: part.classes),
        start_heading=join(lambda part: part.start_heading),
        cluster=join(lambda part: part.cluster),
        prefixes=np.concatenate([part.prefixes for part in parts]),
    )


def derivability_losses(sample: RelativeProbeSet) -> np.ndarray:
    """float64 [2, K, T], cross-entropy per row of rotation under each label: given the step, and given the state too."""
    num_steps = int(sample.step.max()) + 1
    rotation, forward, sideways = sample.classes[0].astype(np.int64)
    state = (rotation * sample.counts[1] + forward) * sample.counts[2] + sideways
    num_states = NUM_ROTATIONS * int(sample.counts[1] * sample.counts[2])
    is_filling = sample.program % 2 == 0
    losses = np.zeros((2, len(ALL_PAIRS), num_steps))
    for k, step in np.ndindex(len(ALL_PAIRS), num_steps):
        at_step = sample.step == step
        label = sample.classes[k, RELATIVE_FEATURES.index(ROTATION)].astype(np.int64)
        filling, tested = np.flatnonzero(at_step & is_filling), np.flatnonzero(at_step & ~is_filling)
        prior = np.bincount(label[filling], minlength=NUM_ROTATIONS) + 1.0
        prior /= prior.sum()
        table = np.bincount(state[filling] * NUM_ROTATIONS + label[filling], minlength=num_states * NUM_ROTATIONS)
        counts = table.reshape(num_states, NUM_ROTATIONS) + _SMOOTHING * prior
        table_probs = counts / counts.sum(1, keepdims=True)
        losses[0, k, step] = -np.log(prior[label[tested]]).mean()
        losses[1, k, step] = -np.log(table_probs[state[tested], label[tested]]).mean()
    return losses


def judged_derivability(losses: np.ndarray, rows_by_step: np.ndarray) -> dict[str, float]:
    """Derivability of each alternative on rows with this number at each word position, by name of the pair."""
    by_step, by_state = losses @ rows_by_step
    return {pair.name: float(skill_score(by_state[k], by_step[k])) for k, pair in enumerate(ALL_PAIRS) if k}


def screened_pairs(
    derivability: dict[str, float], threshold: float
) -> tuple[tuple[TurnPair, ...], tuple[TurnPair, ...]]:
    """The marker alternatives and the pose-word alternatives whose derivability is below the threshold."""
    marker, pose = (
        tuple(pair for pair in pairs if derivability[pair.name] < threshold) for pairs in (MARKER_PAIRS, POSE_PAIRS)
    )
    return marker, pose
