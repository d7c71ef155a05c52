"""Probes: small networks trained to read labels from arrays. They know nothing of models.

All probes of one depth and one seed train together by grouped products. A group is one network for one semantics (and
offset), with one head a label row. Groups share their input and no parameter, and the loss is a sum, so each trains
exactly as it would alone. States are kept as columns: the first layer of all groups is then one product [G * H, D] x
[D, b], whose result lies as [G, H, b] without a copy. The gradient is written out. Each seed is trained by one thread,
as many seeds at a time as torch has threads: what a step touches then stays in one core's cache, and no step waits at
the barriers of threads that share a product, which stall whenever another process takes a core.

Letters: `R` states, `D` width, `G` groups, `K` label rows (heads) of a group, `C` classes of all heads, `Q` seeds,
`b` states of a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from threading import Lock

import numpy as np
import torch

from benchmark.probing.labels import MISSING, Split
from benchmark.probing.probe_fit import ProbeFit, StateArray
from benchmark.probing.protocol import Protocol

EVAL_BATCH_SIZE = 1024
"""States of an evaluation step, and of a step of whitening."""
GROUPS_PER_CHUNK = 8
"""Groups that one thread trains together at most: the work is shared out in these, whatever the number of threads."""
MAX_LOGIT = 60.0
"""Logits are cut to this size, so that their exponentials can be summed as they are."""


def select_matmul_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it in hardware, else float32.

    Weights, their updates and what is summed over states are float32 either way; results of products are rounded to what
    their factors are.
    """
    capable = torch.cpu.get_capabilities()
    return torch.bfloat16 if capable.get("avx512_bf16") or capable.get("amx_bf16") else torch.float32


def fit_probes(
    states: Sequence[StateArray],
    targets: np.ndarray,
    counts: np.ndarray,
    splits: Sequence[Split],
    widths: Sequence[int],
    seeds: Sequence[int],
    protocol: Protocol,
    on_steps: Callable[[int], None] = lambda steps: None,
    inits: Sequence[int] | None = None,
    matmul_dtype: torch.dtype | None = None,
) -> ProbeFit:
    """Train all groups and seeds.

    Args:
        states: a seed, the states that it reads, float32 [R, D].
        targets: int [G, K, R], class of each state, `MISSING` where there is none.
        counts: int64 [K], number of classes of each head; or [G, 1], where groups of one head differ.
        splits: a seed, the states that it is trained on, chooses by, and is tested on.
        widths: of the hidden layers; empty for linear probes.
        seeds: Q; each draws its initialisations and its batches.
        protocol: steps, batch, rates, checks.
        progress: is told of the steps done, one a network: G * Q * steps in all.
        inits: G numbers, which of a seed's initialisations each group starts from; all from the same unless given, so
            that groups are paired.
        products: of the matrix products, `fast_products()` unless given.
    """
    dtype = matmul_dtype or select_matmul_dtype()
    init_index = np.broadcast_to(np.zeros(len(targets), int) if inits is None else np.array(inits), len(targets))
    counts = np.broadcast_to(counts, targets.shape[:2])
    if counts.shape[1] > 1 and (counts != counts[0]).any():
        raise ValueError("counts: groups of several heads differ in their classes; fit them one by one, or give [K]")
    shared = [
        _SharedInputs(seed_states, split.train, protocol.ridge, dtype)
        for seed_states, split in zip(states, splits, strict=True)
    ]
    chunks = np.array_split(np.arange(len(targets)), -(-len(targets) // GROUPS_PER_CHUNK))
    heads = [_Heads(counts[chunk], targets[chunk]) for chunk in chunks]

    def train(q: int, c: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        with shared[q] as inputs:
            networks = _Networks(
                [inputs.shape[1], *widths, heads[c].width], init_index[chunks[c]].tolist(), seeds[q], dtype
            )
            return _train(networks, heads[c], inputs, splits[q], seeds[q], protocol, on_steps)

    work = [(q, c) for q in range(len(seeds)) for c in range(len(chunks))]
    for q, _ in work:
        shared[q].users += 1
    with _single_threaded_ops() as threads, ThreadPoolExecutor(min(threads, len(work))) as pool:
        results = list(pool.map(lambda one: train(*one), work))
    each = [results[q * len(chunks) : (q + 1) * len(chunks)] for q in range(len(seeds))]
    validation, log_prob, predicted = ([np.concatenate([part[i] for part in one]) for one in each] for i in range(3))
    return ProbeFit(np.stack(validation), log_prob, predicted)


class _SharedInputs:
    """The whitened states of one seed, made by the first thread that enters and dropped by the last that leaves."""

    def __init__(self, states: StateArray, train: np.ndarray, ridge: float, dtype: torch.dtype) -> None:
        self.make = lambda: _whitened_inputs(states, train, ridge, dtype)
        self.lock, self.users = Lock(), 0
        self.inputs: torch.Tensor | None = None

    def __enter__(self) -> torch.Tensor:
        with self.lock:
            if self.inputs is None:
                self.inputs = self.make()
            return self.inputs

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.users -= 1
            if not self.users:
                self.inputs = None


@contextmanager
def _single_threaded_ops() -> Iterator[int]:
    """Within, every product takes one thread; gives how many torch had, and gives them back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def _whitening(states: StateArray, train: np.ndarray, ridge: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [D] and axes [D, D'] of the training states, float64.

    Sums are over parts of the states, so that a float64 copy of all of them is never held.
    """
    parts = np.array_split(train, max(1, len(train) // EVAL_BATCH_SIZE))
    mean = sum(states[rows].sum(0, dtype=np.float64) for rows in parts) / len(train)
    square = sum(((states[rows] - mean) ** 2).sum(0) for rows in parts) / len(train)
    used = np.sqrt(square) > 1e-6
    scale = np.divide(1, np.sqrt(square), out=np.zeros_like(square), where=used)
    covariance = torch.zeros((len(scale), len(scale)), dtype=torch.float64)
    for rows in parts:
        centred = torch.from_numpy((states[rows] - mean) * scale)
        covariance += centred.T @ centred
    variances, axes = torch.linalg.eigh(covariance / len(train))
    largest = variances.max() if len(variances) else torch.zeros(())
    is_kept = variances > 1e-7 * largest.clamp(min=1e-30)
    axes = torch.from_numpy(scale)[:, None] * axes[:, is_kept] / torch.sqrt(variances[is_kept] + ridge * largest)
    return torch.from_numpy(np.asarray(mean)), axes


def whiten(states: StateArray, train: np.ndarray, ridge: float) -> np.ndarray:
    """float32 [R, D'], the states along the principal axes of the training states, each scaled to deviation 1.

    Hidden states vary mostly along a few directions (token identity); without this, what lies in the others is
    learnt so slowly that a probe measures the optimiser. `ridge` times the largest variance is added to each, so
    that directions of noise stay small; constant columns and empty axes are left out.
    """
    return _whitened_inputs(states, train, ridge, torch.float32)[:, :-1].numpy()


def _whitened_inputs(states: StateArray, train: np.ndarray, ridge: float, dtype: torch.dtype) -> torch.Tensor:
    """[R, D' + 1], the whitened states and a column of ones, whose weights are the first layer's biases."""
    mean, axes = _whitening(states, train, ridge)
    inputs = torch.ones((len(states), axes.shape[1] + 1), dtype=dtype)
    for start in range(0, len(states), EVAL_BATCH_SIZE):
        part = torch.from_numpy(np.asarray(states[start : start + EVAL_BATCH_SIZE], np.float64))
        inputs[start : start + EVAL_BATCH_SIZE, :-1] = (part - mean) @ axes
    return inputs


class _Heads:
    """The classes of all heads among a network's outputs, and the labels of all states.

    Args:
        counts: int64 [G, K], classes of each head; the widest group sets a head's size, one head behind the other.
        targets: int [G, K, R].
    """

    def __init__(self, counts: np.ndarray, targets: np.ndarray) -> None:
        by_row = np.ascontiguousarray(targets.reshape(-1, targets.shape[-1]).T, np.int16)
        self.groups, self.labels, group_counts = len(counts), torch.from_numpy(by_row), counts
        counts = self.counts = group_counts.max(0)
        self.width = int(counts.sum())
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        self.slices = [slice(a, a + n) for a, n in zip(starts.tolist(), counts.tolist(), strict=True)]
        self.starts = torch.from_numpy(starts)[:, None]
        owner = np.repeat(np.arange(len(counts)), counts)
        self.member = torch.from_numpy((owner == np.arange(len(counts))[:, None]).astype(np.float32))
        class_index = np.arange(self.width) - starts[owner]
        self.unused = torch.from_numpy(class_index >= group_counts[:, owner])[..., None]

    def of(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """int64 [G, K, b], the output that the label of each state stands for; bool, whether there is a label."""
        label = self.labels[rows].T.long().view(self.groups, len(self.counts), -1)
        return label.clamp(min=0) + self.starts, label >= 0

    def _cut(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits within `LARGEST_LOGIT`, in place; those of classes that a group does not have at its least."""
        logits.clamp_(-MAX_LOGIT, MAX_LOGIT)
        return logits.masked_fill_(self.unused, -MAX_LOGIT) if self.unused.any() else logits

    def gradient(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """[G, C, b], gradient of the summed cross-entropy over b by the logits (float32 [G, C, b], overwritten)."""
        target, is_labelled = self.of(rows)
        size = len(rows)
        exponentials = self._cut(logits).exp_()
        scale = is_labelled / (torch.matmul(self.member, exponentials) * size)
        gradient = exponentials.mul_(torch.matmul(self.member.T, scale))
        return gradient.scatter_add_(1, target, is_labelled.float().mul_(-1 / size))

    def log_prob(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """float32 [G, K, b], log-probability of the true class, 0 without a label (logits overwritten)."""
        target, is_labelled = self.of(rows)
        value = self._cut(logits).gather(1, target)
        return (value - torch.matmul(self.member, logits.exp_()).log_()) * is_labelled

    def likely(self, logits: torch.Tensor) -> torch.Tensor:
        """int16 [G, K, b], the most probable class of each head."""
        predicted = torch.zeros((self.groups, len(self.counts), logits.shape[-1]), dtype=torch.int16)
        logits = self._cut(logits)
        for head, columns in enumerate(self.slices):
            # Class by class, since an argmax along an axis that is not the last one takes as long as the products.
            best = logits[:, columns.start].clone()
            for class_index in range(1, columns.stop - columns.start):
                value = logits[:, columns.start + class_index]
                predicted[:, head].masked_fill_(value > best, class_index)
                torch.maximum(best, value, out=best)
        return predicted


class _Networks:
    """G networks of one depth. Parameters lie one behind the other in one float32 array, and in a copy for products.

    Args:
        sizes: widths of input (with its ones), hidden layers, and outputs.
        inits: G numbers, of the seed's initialisations.
        seed: of them.
        products: what the copy is rounded to.
    """

    def __init__(self, sizes: Sequence[int], inits: Sequence[int], seed: int, dtype: torch.dtype) -> None:
        self.groups, self.products = len(inits), dtype
        shapes: list[tuple[int, ...]] = []
        initial: list[torch.Tensor] = []
        generators = {i: torch.Generator().manual_seed(1_000_003 * (seed + 1) + i) for i in set(inits)}
        for depth, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            bound = 1 / math.sqrt(fan_in)
            by_init = {
                i: torch.rand(fan_out, fan_in, generator=g) * (2 * bound) - bound for i, g in sorted(generators.items())
            }
            weights = torch.stack([by_init[i] for i in inits])
            if depth == 0:
                weights[..., -1] = 0
            bias = torch.zeros(self.groups, 0 if depth == 0 else fan_out, 1)
            initial += [weights, bias]
            shapes += [tuple(weights.shape), tuple(bias.shape)]
        self.parameters = torch.cat([part.reshape(-1) for part in initial])
        self.gradient = torch.zeros_like(self.parameters)
        self.rounded = self.parameters.to(dtype)
        self.weights, self.biases = self._views(self.parameters, shapes)
        self.weight_gradients, self.bias_gradients = self._views(self.gradient, shapes)
        self.factors, self.shifts = self._views(self.rounded, shapes)

    @staticmethod
    def _views(flat: torch.Tensor, shapes: Sequence[tuple[int, ...]]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Weights and biases of each layer, as views of the one array."""
        parts = flat.split([math.prod(shape) for shape in shapes])
        views = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
        return views[::2], views[1::2]

    def forward(self, columns: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """float32 [G, C, b] logits of inputs [D + 1, b]; and what the hidden layers gave, [G, H, b] each."""
        first = self.factors[0]
        out = (first.view(-1, first.shape[-1]) @ columns).view(self.groups, first.shape[1], -1)
        hidden = []
        for factor, shift in zip(self.factors[1:], self.shifts[1:], strict=True):
            hidden.append(out.relu_())
            out = torch.bmm(factor, out).add_(shift)
        return out.float(), hidden

    def backward(self, gradient: torch.Tensor, inputs: torch.Tensor, hidden: list[torch.Tensor]) -> None:
        """Fill the gradient, from that of the logits [G, C, b], the inputs [b, D + 1] and the hidden layers."""
        for layer in range(len(hidden), 0, -1):
            self.bias_gradients[layer].copy_(gradient.sum(-1, keepdim=True))
            gradient = gradient.to(self.products)
            self.weight_gradients[layer].copy_(torch.bmm(gradient, hidden[layer - 1].transpose(1, 2)))
            gradient = torch.bmm(self.factors[layer].transpose(1, 2), gradient)
            gradient = torch.ops.aten.threshold_backward(gradient, hidden[layer - 1], 0)
        first = self.weight_gradients[0]
        first.view(-1, first.shape[-1]).copy_(gradient.reshape(-1, gradient.shape[-1]).to(self.products) @ inputs)


class _Checkpoints:
    """Validation at each check, and what the networks were then; the test labels decide nothing."""

    def __init__(self, networks: _Networks, heads: _Heads, inputs: torch.Tensor, split: Split) -> None:
        self.networks, self.heads, self.inputs, self.split = networks, heads, inputs, split
        num_labelled = (heads.labels[torch.from_numpy(split.validation)] != MISSING).sum(0).clamp(min=1)
        self.there = num_labelled.view(networks.groups, -1)
        self.losses: list[torch.Tensor] = []
        self.kept: list[torch.Tensor] = []

    def take(self) -> None:
        """Cross-entropy [G, K] on validation now; the networks are kept."""
        total = torch.zeros(self.there.shape)
        for part in torch.from_numpy(self.split.validation).split(EVAL_BATCH_SIZE):
            logits, _ = self.networks.forward(self.inputs[part].T.contiguous())
            total -= self.heads.log_prob(logits, part).sum(-1)
        self.losses.append(total / self.there)
        self.kept.append(self.networks.rounded.clone())

    def result(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cross-entropy on validation [G, K] at the best check, and log_prob and predicted [G, K, Rt] at that check."""
        loss, best = torch.stack(self.losses).min(0)
        rows = torch.from_numpy(self.split.test)
        log_prob = torch.zeros((*loss.shape, len(rows)))
        predicted = torch.zeros(log_prob.shape, dtype=torch.int16)
        for check in best.unique().tolist():
            self.networks.rounded.copy_(self.kept[check])
            is_best = best == check
            for start in range(0, len(rows), EVAL_BATCH_SIZE):
                part = rows[start : start + EVAL_BATCH_SIZE]
                logits, _ = self.networks.forward(self.inputs[part].T.contiguous())
                predicted[..., start : start + EVAL_BATCH_SIZE][is_best] = self.heads.likely(logits)[is_best]
                log_prob[..., start : start + EVAL_BATCH_SIZE][is_best] = self.heads.log_prob(logits, part)[is_best]
        return loss.numpy(), log_prob.numpy(), predicted.numpy()


def _batch_order(train: np.ndarray, protocol: Protocol, seed: int) -> np.ndarray:
    """int64 [steps * batch], the states of all steps: the training states in a new order each time round."""
    generator = np.random.Generator(np.random.Philox(7_919 * (seed + 1)))
    num_rows = protocol.steps * protocol.batch
    return np.concatenate([generator.permutation(train) for _ in range(-(-num_rows // len(train)))])[:num_rows]


@torch.inference_mode()
def _train(
    networks: _Networks,
    heads: _Heads,
    inputs: torch.Tensor,
    split: Split,
    seed: int,
    protocol: Protocol,
    on_steps: Callable[[int], None],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All groups of one seed, see `_Checks.result`; `inputs` is [R, D + 1] with its ones."""
    parameters = networks.parameters.requires_grad_(False)
    parameters.grad = networks.gradient
    optimizer = torch.optim.AdamW(
        [parameters], lr=protocol.learning_rate, weight_decay=protocol.weight_decay, fused=True
    )
    order = torch.from_numpy(_batch_order(split.train, protocol, seed))
    checks = _Checkpoints(networks, heads, inputs, split)
    check_at = {round((i + 1) * protocol.steps / protocol.checks) for i in range(protocol.checks)}
    for step in range(protocol.steps):
        optimizer.param_groups[0]["lr"] = protocol.learning_rate * 0.5 * (1 + math.cos(math.pi * step / protocol.steps))
        rows = order[step * protocol.batch : (step + 1) * protocol.batch]
        batch = inputs[rows]
        logits, hidden = networks.forward(batch.T.contiguous())
        networks.backward(heads.gradient(logits, rows), batch, hidden)
        optimizer.step()
        networks.rounded.copy_(networks.parameters)
        on_steps(networks.groups)
        if step + 1 in check_at:
            checks.take()
    return checks.result()
