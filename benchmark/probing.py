"""Probes: small networks trained to read labels from arrays. They know nothing of models.

All probes of a depth train together: one batched product over seeds whose columns are the groups of networks. A
group is one network for one semantics, with one head a label row. Groups share no parameter and the loss is a sum,
so each trains exactly as it would alone.

Letters: `R` states, `D` width, `G` groups, `K` label rows (heads) of a group, `C` classes, `Q` seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmark.labels import MISSING, Split
from benchmark.protocol import Protocol


@dataclass(frozen=True)
class Fit:
    """What the probes of one source of states predict.

    Attributes:
        validation: float32 [Q, G, K], cross-entropy in nats on validation, at the best check.
        log_prob: a seed, float32 [G, K, Rt], log-probability of the true class of each of its test states, at that
            check; 0 where the label is missing.
        correct: a seed, bool [G, K, Rt], whether the most probable class is the true one.
    """

    validation: np.ndarray
    log_prob: list[np.ndarray]
    correct: list[np.ndarray]


class _Networks(torch.nn.Module):
    """Q x G networks of one depth over inputs [Q, b, D]; returns logits [Q, G, b, C]."""

    def __init__(self, seeds: Sequence[int], groups: int, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        self.groups = groups
        self.weights = torch.nn.ParameterList()
        self.biases = torch.nn.ParameterList()
        generators = [torch.Generator().manual_seed(1_000_003 * (seed + 1)) for seed in seeds]
        for depth, (fan_in, fan_out) in enumerate(zip(widths, [*widths[1:], classes], strict=True)):
            bound = 1 / math.sqrt(fan_in)
            drawn = torch.stack([torch.rand(fan_in, fan_out, generator=g) for g in generators]) * (2 * bound) - bound
            one_each = drawn.unsqueeze(1).repeat(1, groups, 1, 1)
            bias = torch.zeros(len(generators), groups, 1, fan_out)
            if depth == 0:
                one_each = one_each.permute(0, 2, 1, 3).reshape(len(generators), fan_in, groups * fan_out)
                bias = bias.view(len(generators), 1, groups * fan_out)
            self.weights.append(torch.nn.Parameter(one_each.contiguous()))
            self.biases.append(torch.nn.Parameter(bias))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        wide = torch.baddbmm(self.biases[0], states, self.weights[0])
        if len(self.weights) > 1:
            wide = wide.relu_()
        # A seed at a time: its groups are then a strided view, where all seeds at once would need a copy.
        return torch.stack([self._deeper(seed, one) for seed, one in enumerate(wide)])

    def of_seed(self, seed: int, states: torch.Tensor) -> torch.Tensor:
        """Logits [G, b, C] of one seed's networks over inputs [b, D]."""
        wide = torch.addmm(self.biases[0][seed], states, self.weights[0][seed])
        return self._deeper(seed, wide.relu_() if len(self.weights) > 1 else wide)

    def _deeper(self, seed: int, wide: torch.Tensor) -> torch.Tensor:
        """[G, b, C] from the first layer's [b, G * width] of one seed."""
        out = wide.unflatten(-1, (self.groups, -1)).transpose(0, 1)
        for depth in range(1, len(self.weights)):
            out = torch.baddbmm(self.biases[depth][seed], out, self.weights[depth][seed])
            if depth + 1 < len(self.weights):
                out = out.relu_()
        return out


def fit_probes(
    states: np.ndarray,
    targets: np.ndarray,
    counts: np.ndarray,
    splits: Sequence[Split],
    widths: Sequence[int],
    seeds: Sequence[int],
    protocol: Protocol,
    progress: Callable[[int], None] = lambda steps: None,
) -> Fit:
    """Train all groups and seeds on one source of states.

    Args:
        states: float32 [R, D].
        targets: int64 [G, K, R], class of each state, `MISSING` where there is none.
        counts: int64 [G, K], number of classes of each head.
        splits: a seed, the states that it is trained on, chooses by, and is tested on.
        widths: of the hidden layers; empty for linear probes, which are as many groups of one product.
        seeds: Q; each draws its initialisation (the same for every group, so groups are paired) and its batches.
        protocol: steps, batch, rates, checks.
        progress: is told of each step done.
    """
    inputs = _whitened_each(states, splits, protocol.ridge)
    labels = torch.from_numpy(targets)
    heads = _Heads(counts)
    networks = _Networks(seeds, len(targets), [inputs[0].shape[1], *widths], heads.width)
    optimizer = torch.optim.AdamW(
        networks.parameters(), lr=protocol.learning_rate, weight_decay=protocol.weight_decay, fused=True
    )
    orders = [np.random.Generator(np.random.Philox(7_919 * (seed + 1))) for seed in seeds]
    best = _Best(targets.shape[:2], [len(split.test) for split in splits])
    check_at = {round((i + 1) * protocol.steps / protocol.checks) for i in range(protocol.checks)}
    for step in range(protocol.steps):
        for group in optimizer.param_groups:
            group["lr"] = protocol.learning_rate * 0.5 * (1 + math.cos(math.pi * step / protocol.steps))
        drawn = [order.choice(split.train, protocol.batch) for order, split in zip(orders, splits, strict=True)]
        chosen = torch.from_numpy(np.stack(drawn))
        batch = torch.stack([one[rows] for one, rows in zip(inputs, chosen, strict=True)])
        log_prob = heads.log_prob(networks(batch), labels[:, :, chosen].permute(2, 0, 3, 1))
        (-log_prob.sum() / protocol.batch).backward()
        optimizer.step()
        optimizer.zero_grad()
        progress(1)
        if step + 1 in check_at:
            for seed, split in enumerate(splits):
                parts = (split.validation, split.test)
                best.update(seed, *(_evaluate(networks, seed, heads, inputs[seed], labels, part) for part in parts))
    return Fit(best.validation, best.log_prob, best.correct)


def _whitened_each(states: np.ndarray, splits: Sequence[Split], ridge: float) -> list[torch.Tensor]:
    """A seed, the states as its training states whiten them; all of one width, the narrower ones followed by zeros."""
    found: dict[bytes, np.ndarray] = {}
    keys = [split.train.tobytes() for split in splits]
    for key, split in zip(keys, splits, strict=True):
        if key not in found:
            found[key] = whitened(states, split.train, ridge)
    width = max(one.shape[1] for one in found.values())
    padded = {k: torch.from_numpy(np.pad(one, ((0, 0), (0, width - one.shape[1])))) for k, one in found.items()}
    return [padded[key] for key in keys]


def whitened(states: np.ndarray, train: np.ndarray, ridge: float) -> np.ndarray:
    """float32 [R, D'], the states along the principal axes of the training states, each scaled to deviation 1.

    Hidden states vary mostly along a few directions (token identity); without this, what lies in the others is
    learnt so slowly that a probe measures the optimiser. `ridge` times the largest variance is added to each, so
    that directions of noise stay small; constant columns and empty axes are left out.
    """
    centred = states.astype(np.float64) - states[train].mean(0, dtype=np.float64)
    spread = centred[train].std(0)
    centred = centred[:, spread > 1e-6] / spread[spread > 1e-6]
    variances, axes = np.linalg.eigh(centred[train].T @ centred[train] / len(train))
    largest = variances.max(initial=0.0)
    used = variances > 1e-7 * largest
    return (centred @ (axes[:, used] / np.sqrt(variances[used] + ridge * largest))).astype(np.float32)


class _Heads:
    """Where the classes of each head lie among the logits of its group: heads of one size side by side.

    Args:
        counts: int64 [G, K], number of classes of each head; the widest group sets a head's size.
    """

    def __init__(self, counts: np.ndarray) -> None:
        sizes = counts.max(0)
        self.order = np.argsort(sizes, kind="stable")
        self.blocks: list[tuple[int, int, int]] = []
        unused = np.zeros((len(counts), int(sizes.sum())), np.float32)
        start = 0
        for size in np.unique(sizes):
            heads = np.flatnonzero(sizes == size)
            self.blocks.append((start, len(heads), int(size)))
            for i, head in enumerate(heads):
                for g, count in enumerate(counts[:, head]):
                    unused[g, start + i * size + count : start + (i + 1) * size] = -1e9
            start += len(heads) * int(size)
        self.width = start
        self.mask = torch.from_numpy(unused)[:, None, :] if unused.any() else None

    def all_log_prob(self, logits: torch.Tensor) -> list[torch.Tensor]:
        """For each block the log-probabilities [..., G, b, heads, classes], heads in `order`."""
        if self.mask is not None:
            logits = logits + self.mask
        return [
            logits[..., start : start + n * size].unflatten(-1, (n, size)).log_softmax(-1)
            for start, n, size in self.blocks
        ]

    def log_prob(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Log-probability [Q, G, b, K] of the true classes, 0 where missing, heads in `order`.

        Args:
            logits: [Q, G, b, C].
            labels: int64 [Q, G, b, K].
        """
        return self._of_labels(self.all_log_prob(logits), labels)

    def judge(self, logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability of the true classes and whether they are the most probable, [..., G, K, b], heads as given."""
        every = self.all_log_prob(logits)
        back = torch.from_numpy(np.argsort(self.order))
        best = torch.cat([block.argmax(-1) for block in every], -1)[..., back]
        value = self._of_labels(every, labels)[..., back]
        return value.transpose(-1, -2), (best == labels).transpose(-1, -2)

    def _of_labels(self, every: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        ordered = labels[..., torch.from_numpy(self.order)]
        parts = ordered.split([n for _, n, _ in self.blocks], -1)
        values = torch.cat(
            [v.gather(-1, part.clamp(min=0)[..., None])[..., 0] for v, part in zip(every, parts, strict=True)], -1
        )
        return values * (ordered != MISSING)


@torch.no_grad()
def _evaluate(
    networks: _Networks, seed: int, heads: _Heads, inputs: torch.Tensor, labels: torch.Tensor, rows: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of one seed: log-probabilities and hits [G, K, rows], and whether labels are there [G, K, rows]."""
    values, hits = [], []
    for part in np.array_split(rows, max(1, len(rows) // 2048)):
        chosen = torch.from_numpy(part)
        wanted = labels[:, :, chosen].transpose(1, 2)
        value, hit = heads.judge(networks.of_seed(seed, inputs[chosen]), wanted)
        values.append(value)
        hits.append(hit)
    return torch.cat(values, -1), torch.cat(hits, -1), labels[:, :, torch.from_numpy(rows)] != MISSING


class _Best:
    """The predictions at the best check on validation, a seed, group and head."""

    def __init__(self, heads: tuple[int, ...], tests: Sequence[int]) -> None:
        self.validation = np.full((len(tests), *heads), np.inf, np.float32)
        self.log_prob = [np.zeros((*heads, count), np.float32) for count in tests]
        self.correct = [np.zeros((*heads, count), bool) for count in tests]

    def update(
        self,
        seed: int,
        validation: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        test: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    ) -> None:
        """Keep the test predictions wherever validation improved; the test labels decide nothing."""
        there = validation[2].sum(-1).clamp(min=1)
        loss = (-validation[0].sum(-1) / there).numpy()
        better = loss < self.validation[seed]
        self.validation[seed][better] = loss[better]
        self.log_prob[seed][better] = test[0].numpy()[better]
        self.correct[seed][better] = test[1].numpy()[better]
