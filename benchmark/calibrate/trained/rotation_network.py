"""Transformers whose verdict under protocol 4 is known from their training objective.

The *tracker* is trained to predict rotation and displacement in the frame of the start after each action: REPRESENTS is
right. The *copiers* are trained to reproduce the words that they read and the start of the robot, on uniform words or on
words with the frequencies of a suite: REPRESENTS would be wrong. Architecture and training are those of the pair of
protocol 3 (`trained_pair`).

Letters: `B` programs, `T` actions per program, `R` labelled action words, `D` width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from benchmark.calibrate.rotation_kinds import RECORD_KIND, STATE_KIND
from benchmark.calibrate.trained_pair import (
    BATCH_SIZE,
    COPIED_FEATURES,
    LEARNING_RATE,
    NUM_STEPS,
    NUM_WARMUP_STEPS,
    WEIGHT_DECAY,
    WIDTH,
    Network,
    PairBatch,
    action_grid,
    combine_seeds,
    copied_labels,
    step_network,
)
from benchmark.probing.labels import MISSING
from benchmark.probing.token_history import world_features
from benchmark.probing.version4.relative_labels import RelativeProbeSet, relative_classes
from benchmark.probing.version4.turn_pairs import NUM_ROTATIONS
from benchmark.tasks.suite import Suite
from karel_env.execution.interpreter import run
from karel_env.features import FEATURES, class_counts, labels
from karel_env.generation import generator
from karel_env.language import ACTIONS, Programs
from karel_env.world import Worlds

TRACK, COPY = "track", "copy"
_START, _DATA, _FRESH = 90_021, 90_022, 90_023


@dataclass(frozen=True)
class TrainedKind:
    """A trained pseudo-model: its kind, its task, and whether its words have the frequencies of the suite."""

    kind: str
    task: str
    has_suite_words: bool = False


TRAINED_KINDS = {
    "trained to copy": TrainedKind(RECORD_KIND, COPY),
    "trained to copy, words of the suite": TrainedKind(RECORD_KIND, COPY, has_suite_words=True),
    "trained to track": TrainedKind(STATE_KIND, TRACK),
}


class RotationNetwork(Network):
    """The network of `trained_pair` with heads for relative features, and for words and the start."""

    def __init__(self, suite: Suite) -> None:
        super().__init__(suite)
        height, width = suite.recipe.height[1], suite.recipe.width[1]
        displacements = 2 * (max(height, width) - 3) + 1
        counts = class_counts(height, width)
        self.classes = {
            TRACK: [NUM_ROTATIONS, displacements, displacements],
            COPY: [len(ACTIONS)] * suite.blind_length + [counts[name] for name in COPIED_FEATURES],
        }
        self.heads = nn.ModuleDict({task: nn.Linear(WIDTH, sum(sizes)) for task, sizes in self.classes.items()})


def init_rotation_network(suite: Suite, seed: int) -> RotationNetwork:
    """A randomly initialised network; deterministic."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(combine_seeds(_START, seed))
        return RotationNetwork(suite)


def train_rotation_network(suite: Suite, kind: TrainedKind, seed: int, steps: int = NUM_STEPS) -> RotationNetwork:
    """Train a network on programs of `suite.blind_length` actions in the suite's worlds; deterministic, one thread.

    Args:
        suite: worlds, program length and frequencies of words.
        kind: task and frequencies.
        seed: seed of initial weights and of the programs.
        steps: number of batches.
    """
    network = init_rotation_network(suite, seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for step in range(steps):
            batch = sample_batch(suite, kind, (_DATA, seed), step * BATCH_SIZE, BATCH_SIZE)
            factor = min((step + 1) / NUM_WARMUP_STEPS, 0.5 * (1 + math.cos(math.pi * step / steps)))
            step_network(network, optimizer, kind.task, batch, LEARNING_RATE * factor)
    finally:
        torch.set_num_threads(threads)
    return network.eval()


def sample_batch(suite: Suite, kind: TrainedKind, seeds: tuple[int, ...], start: int, count: int) -> PairBatch:
    """Sample `count` programs of a kind, starting at index `start` of the stream of these seeds."""
    weights = suite.recipe.weights if kind.has_suite_words else (1,) * len(ACTIONS)
    recipe = replace(suite.recipe, length=(suite.blind_length,) * 2, weights=weights)
    tasks = generator.generate(recipe, combine_seeds(*seeds), "train", np.arange(start, start + count))
    inputs, actions = tasks.inputs[:, 0], action_grid(tasks.programs)
    targets = copied_labels(actions, inputs) if kind.task == COPY else relative_track(tasks.programs, inputs)
    return PairBatch(
        torch.from_numpy(world_features(inputs)), torch.from_numpy(actions), {kind.task: torch.from_numpy(targets)}
    )


def relative_track(programs: Programs, inputs: Worlds) -> np.ndarray:
    """int64 [3, B, T], rotation, forward and sideways after each action; programs of equal length."""
    trace = run(programs, inputs, trace=True).trace
    assert trace is not None
    height, width = inputs.cells.shape[-2:]
    robot = np.stack([trace.position // width, trace.position % width, trace.heading], 1)
    owner = np.repeat(np.arange(len(programs)), np.diff(trace.offsets))
    by_feature = labels(inputs.cells, inputs.robot, inputs.robot, robot, owner)
    classes = np.stack([by_feature[name] for name in FEATURES])
    start = inputs.robot[owner, 2].astype(np.int64)
    return relative_classes(classes, start, height, width).astype(np.int64).reshape(3, len(programs), -1)


def rotation_views(
    network: RotationNetwork, programs: Programs, inputs: Worlds, rows: RelativeProbeSet
) -> list[np.ndarray]:
    """Views float32 [R, D] at each labelled word: the mean over embeddings and layers, and the last layer.

    Args:
        network: trained or randomly initialised.
        programs: B straight-line programs of at most `suite.blind_length` actions.
        inputs: first shown world of each program, [B].
        rows: labels of the programs.
    """
    with torch.no_grad():
        layers = network(torch.from_numpy(world_features(inputs)), torch.from_numpy(action_grid(programs)))
    pooled = torch.stack(layers).mean(0), layers[-1]
    return [np.ascontiguousarray(view.numpy()[rows.program, rows.word]) for view in pooled]


def fresh_accuracy(network: RotationNetwork, kind: TrainedKind, seed: int, count: int = 2000) -> float:
    """Accuracy of the network on its task, over heads and words, on programs that it was not trained on."""
    batch = sample_batch(network.suite, kind, (_FRESH, seed), 0, count)
    with torch.no_grad():
        logits = network.logits(network(batch.world, batch.actions)[-1], kind.task)
    targets = batch.targets[kind.task]
    is_right = torch.stack([head_logits.argmax(-1) for head_logits in logits]) == targets
    return float(is_right[targets != MISSING].double().mean())
