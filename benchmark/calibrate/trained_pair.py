"""The trained pair: two small transformers whose verdict is known from their training objective.

Both share architecture, initialisation and training tasks. The *tracker* is trained to predict the robot's state after
each action and must be REPRESENTS; the *copier* is trained to reproduce its input (past actions and the start of the
robot) and must be RECORD-ONLY. (Without the start, facing could not be decoded under any semantics.) Randomly
initialised copies with other weights are the random-init controls. See docs/probing.md, Known answers.

Letters: `B` programs, `T` actions per program, `L` positions (world, then actions), `D` width, `R` labelled tokens.
Source: pre-norm decoder as in Radford et al. 2019.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmark.probing.labels import MISSING, ProbeSet
from benchmark.probing.token_history import world_features
from benchmark.tasks.suite import Suite
from karel_env.execution.interpreter import run
from karel_env.features import class_counts, labels
from karel_env.generation import generator
from karel_env.language import ACTIONS, HEADER, Programs
from karel_env.world import Worlds

TASKS = ("track", "copy")
LAYERS, WIDTH, HEADS = 2, 64, 4
NUM_WORLD_TOKENS = 2
TRACKED_FEATURES = ("facing", "absolute_x", "absolute_y", "obstacle")
"""Features that the tracker predicts, under the original semantics."""
COPIED_FEATURES = ("facing", "absolute_x", "absolute_y")
"""Features of the robot's start that the copier predicts, in addition to past actions."""
NUM_STEPS, BATCH_SIZE = 1000, 128
LEARNING_RATE, WEIGHT_DECAY, NUM_WARMUP_STEPS = 4e-3, 0.01, 100
_INITIAL, _UNTRAINED, _TRAINING, _FRESH = 90_003, 90_004, 90_005, 90_006


class _Block(nn.Module):
    """One pre-norm decoder layer, [B, L, D] to the same."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.into, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        parts = self.into(self.before_attention(states)).unflatten(-1, (3, HEADS, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        states = states + self.out(mixed.transpose(1, 2).flatten(2))
        return states + self.down(functional.gelu(self.up(self.before_mlp(states))))


class Network(nn.Module):
    """A causal transformer over the input world and the actions of a suite, with heads for both tasks.

    Attributes:
        suite: suite that determines the world size and the program length T.
        classes: number of classes of each head, by task.
    """

    def __init__(self, suite: Suite) -> None:
        super().__init__()
        self.suite = suite
        height, width = suite.recipe.height[1], suite.recipe.width[1]
        counts, length = class_counts(height, width), suite.blind_length
        self.classes = {
            "track": [counts[name] for name in TRACKED_FEATURES],
            "copy": [len(ACTIONS)] * length + [counts[name] for name in COPIED_FEATURES],
        }
        columns = 2 * (height - 2) * (width - 2) + height + width + 4
        self.world = nn.Linear(columns, NUM_WORLD_TOKENS * WIDTH)
        self.action = nn.Embedding(len(ACTIONS), WIDTH)
        self.position_embedding = nn.Parameter(torch.randn(NUM_WORLD_TOKENS + length, WIDTH))
        self.blocks = nn.ModuleList(_Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.heads = nn.ModuleDict({task: nn.Linear(WIDTH, sum(self.classes[task])) for task in TASKS})

    def forward(self, world: torch.Tensor, actions: torch.Tensor) -> list[torch.Tensor]:
        """States [B, T, D] at the actions, for the embeddings and each layer; the last is after the final norm.

        Args:
            world: float32 [B, columns].
            actions: int64 [B, T], indices in `ACTIONS`.
        """
        embeddings = torch.cat([self.world(world).unflatten(-1, (NUM_WORLD_TOKENS, WIDTH)), self.action(actions)], 1)
        states = [embeddings + self.position_embedding[: embeddings.shape[1]]]
        for block in self.blocks:
            states.append(block(states[-1]))
        states[-1] = self.norm(states[-1])
        return [layer_states[:, NUM_WORLD_TOKENS:] for layer_states in states]

    def logits(self, states: torch.Tensor, task: str) -> list[torch.Tensor]:
        """Logits [B, T, classes] of each head of `task`, from the last states [B, T, D]."""
        return list(self.heads[task](states).split(self.classes[task], -1))


@dataclass(frozen=True)
class TrainedPair:
    """The two trained models, with the same architecture and initialisation."""

    tracker: Network
    copier: Network

    def random_init(self, seed: int) -> Network:
        """A randomly initialised model of the same architecture, with weights that no pair starts from."""
        return _init_network(self.tracker.suite, _UNTRAINED, seed)


@dataclass(frozen=True)
class PairBatch:
    """One batch of training tasks.

    Attributes:
        world: float32 [B, columns].
        actions: int64 [B, T].
        targets: int64 [heads, B, T] by task, `MISSING` where undefined. "track": `TRACKED_FEATURES` after the action.
            "copy": the action 0, 1, 2 ... positions back, then `COPIED_FEATURES` before the first action.
    """

    world: torch.Tensor
    actions: torch.Tensor
    targets: dict[str, torch.Tensor]


def train_pair(suite: Suite, seed: int, steps: int = NUM_STEPS) -> TrainedPair:
    """Train both models on programs of `suite.blind_length` uniform actions in the suite's worlds; deterministic.

    Training uses one thread, so that the weights do not depend on the number of cores.
    """
    start = _init_network(suite, _INITIAL, seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return TrainedPair(*_train([copy.deepcopy(start) for _ in TASKS], seed, steps))
    finally:
        torch.set_num_threads(threads)


def pooled_states(model: Network, programs: Programs, inputs: Worlds, probe_set: ProbeSet) -> np.ndarray:
    """Pooled states float32 [R, 2, D] at each labelled token, in the order of `protocol.POOLS`.

    The first pool is the mean over embeddings and all layers (the last after the final norm), the second the last layer.

    Args:
        model: trained or randomly initialised model.
        programs: B straight-line programs.
        inputs: first shown world of each program, [B].
        probe_set: labels of the programs; gives the order of rows.

    Raises:
        ValueError: A program has control flow or is longer than the model supports.
    """
    actions, world = torch.from_numpy(action_grid(programs)), torch.from_numpy(world_features(inputs))
    longest, max_actions = actions.shape[1], model.suite.blind_length
    if longest > max_actions:
        raise ValueError(
            f"trained pair: a program of {longest} actions; expected at most {max_actions}, take the blind set"
        )
    with torch.no_grad():
        layers = torch.stack(model(world, actions))
    pooled = torch.stack([layers.mean(0), layers[-1]], 2).numpy()
    return np.ascontiguousarray(pooled[probe_set.program, probe_set.word])


def head_accuracies(model: Network, seed: int, task: str, count: int = 2000) -> np.ndarray:
    """float64 [heads], accuracy of each head of `PairBatch.targets[task]` on `count` fresh programs."""
    batch = _sample_batch(model.suite, [_FRESH, seed], 0, count)
    with torch.no_grad():
        logits = model.logits(model(batch.world, batch.actions)[-1], task)
    is_labelled = batch.targets[task] != MISSING
    is_right = torch.stack([head_logits.argmax(-1) for head_logits in logits]) == batch.targets[task]
    return ((is_right & is_labelled).sum((1, 2)) / is_labelled.sum((1, 2))).double().numpy()


def combine_seeds(*seeds: int) -> int:
    """Combine seeds into one 63-bit seed."""
    return int(np.random.default_rng(seeds).integers(2**63 - 1))


def _init_network(suite: Suite, purpose: int, seed: int) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(combine_seeds(purpose, seed))
        return Network(suite)


def _train(models: list[Network], seed: int, steps: int) -> list[Network]:
    """Train one model per task of `TASKS`, all on the same batches."""
    optimizers = [
        torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
        for model in models
    ]
    for step in range(steps):
        batch = _sample_batch(models[0].suite, [_TRAINING, seed], step * BATCH_SIZE, BATCH_SIZE)
        lr_factor = min((step + 1) / NUM_WARMUP_STEPS, 0.5 * (1 + math.cos(math.pi * step / steps)))
        for model, optimizer, task in zip(models, optimizers, TASKS, strict=True):
            step_network(model, optimizer, task, batch, LEARNING_RATE * lr_factor)
    return [model.eval() for model in models]


def step_network(
    model: Network, optimizer: torch.optim.Optimizer, task: str, batch: PairBatch, learning_rate: float
) -> None:
    """Train a network on one batch of a task."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    logits = model.logits(model(batch.world, batch.actions)[-1], task)
    losses = [
        functional.cross_entropy(head_logits.flatten(0, 1), head_targets.flatten(), ignore_index=MISSING)
        for head_logits, head_targets in zip(logits, batch.targets[task], strict=True)
    ]
    torch.stack(losses).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def _sample_batch(suite: Suite, seeds: list[int], start: int, count: int) -> PairBatch:
    """Sample `count` tasks, starting at index `start` of the stream of these seeds."""
    recipe = replace(suite.recipe, length=(suite.blind_length,) * 2, weights=(1,) * len(ACTIONS))
    tasks = generator.generate(recipe, combine_seeds(*seeds), "train", np.arange(start, start + count))
    inputs = tasks.inputs[:, 0]
    actions = action_grid(tasks.programs)
    copied = torch.from_numpy(copied_labels(actions, inputs))
    targets = {"track": torch.from_numpy(_tracked_labels(tasks.programs, inputs)), "copy": copied}
    return PairBatch(torch.from_numpy(world_features(inputs)), torch.from_numpy(actions), targets)


def copied_labels(actions: np.ndarray, inputs: Worlds) -> np.ndarray:
    """int64 [heads, B, T], the action 0, 1, 2 ... positions back, then `COPIED_FEATURES` before the first action.

    Args:
        actions: int64 [B, T], indices in `ACTIONS`.
        inputs: worlds [B].
    """
    count, length = actions.shape
    earlier = np.full((length, count, length), MISSING)
    for offset in range(length):
        earlier[offset, :, offset:] = actions[:, : length - offset]
    input_labels = labels(inputs.cells, inputs.robot, inputs.robot, inputs.robot, np.arange(count))
    start_labels = np.stack([input_labels[name] for name in COPIED_FEATURES])[..., None].repeat(length, 2)
    return np.concatenate([earlier, start_labels])


def _tracked_labels(programs: Programs, inputs: Worlds) -> np.ndarray:
    """int64 [heads, B, T], class of each of `TRACKED_FEATURES` after each action; programs of equal length."""
    execution = run(programs, inputs, trace=True)
    assert execution.trace is not None
    width = inputs.cells.shape[-1]
    position = execution.trace.position
    robot = np.stack([position // width, position % width, execution.trace.heading], 1)
    owner = np.repeat(np.arange(len(programs)), np.diff(execution.trace.offsets))
    step_labels = labels(inputs.cells, inputs.robot, execution.worlds.robot, robot, owner)
    return np.stack([step_labels[name].reshape(len(programs), -1) for name in TRACKED_FEATURES])


def action_grid(programs: Programs) -> np.ndarray:
    """int64 [B, T], actions of straight-line programs, padded with action 0."""
    lengths = programs.lengths - len(HEADER) - 1
    grid = np.zeros((len(programs), int(lengths.max(initial=0))), np.int64)
    owner = np.repeat(np.arange(len(programs)), lengths)
    position = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    tokens = programs.words[programs.offsets[owner] + len(HEADER) + position]
    if (tokens >= len(ACTIONS)).any():
        raise ValueError("trained pair: a program with control flow; expected actions only, take the blind set")
    grid[owner, position] = tokens
    return grid
