"""Probes: small networks that are trained to predict labels from arrays of states, independent of any model.

All probes of one depth and one seed train together by batched matrix products. A group is one network for one semantics
(and offset), with one head per label row. Groups share their input and no parameter, and the loss is a sum, so each
trains as it would alone, up to rounding. Batches are stored as columns: the first layer of all groups is then one product
[G * H, D] x [D, b], whose result has the layout [G, H, b] without a copy. The backward pass is explicit, without
autograd. Each seed is trained by one thread, with as many seeds at a time as torch has threads: the working set of a
step then stays in the cache of one core, and no step waits at the barriers of a multi-threaded product.

Letters: `R` states, `D` width, `G` groups, `K` heads (label rows) of a group, `C` classes of all heads, `Q` seeds,
`b` states of a batch.
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
"""Number of states per batch of evaluation and of whitening."""
GROUPS_PER_CHUNK = 8
"""Largest number of groups that one thread trains together; independent of the number of threads."""
MAX_LOGIT = 60.0
"""Logits are clamped to this magnitude, so that their exponentials can be summed without overflow."""


def select_matmul_dtype() -> torch.dtype:
    """bfloat16 if the processor has bfloat16 matrix instructions, else float32.

    Weights, updates and sums over states are float32 in both cases; results of products have the dtype of their factors.
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
    with_posterior: bool = False,
) -> ProbeFit:
    """Train the probes of all groups and seeds.

    Args:
        states: states float32 [R, D] per seed.
        targets: int [G, K, R], class of each state, `MISSING` if there is none.
        counts: int64 [K], number of classes of each head; or [G, 1], if groups of one head differ.
        splits: training, validation and test rows per seed.
        widths: widths of the hidden layers, empty for linear probes.
        seeds: Q seeds, which determine initialisations and batches.
        protocol: steps, batch size, learning rate, weight decay, checks.
        on_steps: called with the steps done, one per network and batch: G * Q * steps in all.
        inits: G indices, the initialisation of the seed that each group starts from; all 0 if None, so that groups are
            paired.
        matmul_dtype: dtype of the matrix products; `select_matmul_dtype()` if None.
        with_posterior: also return the log-probabilities of all classes.

    Raises:
        ValueError: groups of several heads have different class counts.
    """
    dtype = matmul_dtype or select_matmul_dtype()
    init_index = np.broadcast_to(np.zeros(len(targets), int) if inits is None else np.array(inits), len(targets))
    counts = np.broadcast_to(counts, targets.shape[:2])
    if counts.shape[1] > 1 and (counts != counts[0]).any():
        raise ValueError(
            "counts: groups of several heads have different class counts; fit them separately, or pass [K]"
        )
    shared = [
        _SharedInputs(seed_states, split.train, protocol.ridge, dtype)
        for seed_states, split in zip(states, splits, strict=True)
    ]
    chunks = np.array_split(np.arange(len(targets)), -(-len(targets) // GROUPS_PER_CHUNK))
    heads = [_Heads(counts[chunk], targets[chunk]) for chunk in chunks]

    def train(q: int, c: int) -> tuple[np.ndarray, ...]:
        with shared[q] as inputs:
            networks = Networks(
                [inputs.shape[1], *widths, heads[c].width], init_index[chunks[c]].tolist(), seeds[q], dtype
            )
            checkpoints = _train(networks, heads[c], inputs, splits[q], seeds[q], protocol, on_steps)
            return checkpoints.result(with_posterior)

    work = [(q, c) for q in range(len(seeds)) for c in range(len(chunks))]
    for q, _ in work:
        shared[q].users += 1
    with _single_threaded_ops() as threads, ThreadPoolExecutor(min(threads, len(work))) as pool:
        results = list(pool.map(lambda item: train(*item), work))
    by_seed = [results[q * len(chunks) : (q + 1) * len(chunks)] for q in range(len(seeds))]
    validation, log_prob, predicted, *posterior = (
        [np.concatenate([part[i] for part in seed_results]) for seed_results in by_seed] for i in range(len(results[0]))
    )
    return ProbeFit(np.stack(validation), log_prob, predicted, *posterior)


class _SharedInputs:
    """The whitened states of one seed, computed by the first thread that enters and freed by the last that exits."""

    def __init__(self, states: StateArray, train: np.ndarray, ridge: float, dtype: torch.dtype) -> None:
        self.compute = lambda: _whitened_inputs(states, train, ridge, dtype)
        self.lock, self.users = Lock(), 0
        self.inputs: torch.Tensor | None = None

    def __enter__(self) -> torch.Tensor:
        with self.lock:
            if self.inputs is None:
                self.inputs = self.compute()
            return self.inputs

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.users -= 1
            if not self.users:
                self.inputs = None


@contextmanager
def _single_threaded_ops() -> Iterator[int]:
    """Limit torch to one thread per operation; yields the previous number of threads and restores it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def _whitening(states: StateArray, train: np.ndarray, ridge: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [D] and whitening matrix [D, D'] of the training states, float64.

    Sums are accumulated over batches, so that no float64 copy of all states is in memory.
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
    """float32 [R, D'], PCA-whitened states: projected on the principal axes of the training states, standard deviation 1.

    Hidden states vary mostly along a few directions (token identity); without whitening, probes learn the other
    directions so slowly that results depend on the optimiser. `ridge` times the largest variance is added to each
    variance, so that noise directions stay small; constant columns and axes without variance are dropped.
    """
    return _whitened_inputs(states, train, ridge, torch.float32)[:, :-1].numpy()


def _whitened_inputs(states: StateArray, train: np.ndarray, ridge: float, dtype: torch.dtype) -> torch.Tensor:
    """[R, D' + 1], the whitened states and a column of ones, whose weights are the biases of the first layer."""
    mean, axes = _whitening(states, train, ridge)
    inputs = torch.ones((len(states), axes.shape[1] + 1), dtype=dtype)
    for start in range(0, len(states), EVAL_BATCH_SIZE):
        part = torch.from_numpy(np.asarray(states[start : start + EVAL_BATCH_SIZE], np.float64))
        inputs[start : start + EVAL_BATCH_SIZE, :-1] = (part - mean) @ axes
    return inputs


class _Heads:
    """The output layout of the heads of a network (concatenated along the outputs), and the labels of all states.

    Args:
        counts: int64 [G, K], number of classes of each head; the largest over groups is the size of the head.
        targets: int [G, K, R], class of each state.
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

    def targets(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """int64 [G, K, b], output index of the label of each state; bool [G, K, b], whether there is a label."""
        label = self.labels[rows].T.long().view(self.groups, len(self.counts), -1)
        return label.clamp(min=0) + self.starts, label >= 0

    def _clamp(self, logits: torch.Tensor) -> torch.Tensor:
        """Clamp the logits to `MAX_LOGIT` in place; classes that a group does not have get the minimum."""
        logits.clamp_(-MAX_LOGIT, MAX_LOGIT)
        return logits.masked_fill_(self.unused, -MAX_LOGIT) if self.unused.any() else logits

    def gradient(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """[G, C, b], gradient of the mean cross-entropy with respect to the logits (float32 [G, C, b], overwritten)."""
        target, is_labelled = self.targets(rows)
        size = len(rows)
        exponentials = self._clamp(logits).exp_()
        scale = is_labelled / (torch.matmul(self.member, exponentials) * size)
        gradient = exponentials.mul_(torch.matmul(self.member.T, scale))
        return gradient.scatter_add_(1, target, is_labelled.float().mul_(-1 / size))

    def log_prob(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """float32 [G, K, b], log-probability of the true class, 0 if there is no label; overwrites the logits."""
        target, is_labelled = self.targets(rows)
        value = self._clamp(logits).gather(1, target)
        return (value - torch.matmul(self.member, logits.exp_()).log_()) * is_labelled

    def log_posterior(self, logits: torch.Tensor) -> torch.Tensor:
        """float32 [G, C, b], log-probability of each class of each head; classes that a group does not have come out
        improbable."""
        logits = self._clamp(logits).clone()
        return logits - torch.matmul(self.member.T, torch.matmul(self.member, logits.exp()).log_())

    def predict(self, logits: torch.Tensor) -> torch.Tensor:
        """int16 [G, K, b], the most probable class of each head."""
        predicted = torch.zeros((self.groups, len(self.counts), logits.shape[-1]), dtype=torch.int16)
        logits = self._clamp(logits)
        for head, columns in enumerate(self.slices):
            # A loop over classes, since torch's argmax along an axis that is not the last takes as long as the products.
            best = logits[:, columns.start].clone()
            for class_index in range(1, columns.stop - columns.start):
                value = logits[:, columns.start + class_index]
                predicted[:, head].masked_fill_(value > best, class_index)
                torch.maximum(best, value, out=best)
        return predicted


class Networks:
    """G networks of one depth. Parameters are views of one flat float32 tensor, with a copy in the dtype of the products.

    Args:
        sizes: widths of the input (with its column of ones), the hidden layers, and the output.
        inits: G indices of the seed's initialisations.
        seed: seed of the initialisations.
        dtype: dtype of the copy.
    """

    def __init__(self, sizes: Sequence[int], inits: Sequence[int], seed: int, dtype: torch.dtype) -> None:
        self.groups, self.matmul_dtype = len(inits), dtype
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
        self.matmul_parameters = self.parameters.to(dtype)
        self.weights, self.biases = self._views(self.parameters, shapes)
        self.weight_gradients, self.bias_gradients = self._views(self.gradient, shapes)
        self.matmul_weights, self.matmul_biases = self._views(self.matmul_parameters, shapes)

    @staticmethod
    def _views(flat: torch.Tensor, shapes: Sequence[tuple[int, ...]]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Weights and biases of each layer, as views of the flat tensor."""
        parts = flat.split([math.prod(shape) for shape in shapes])
        views = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
        return views[::2], views[1::2]

    def forward(self, columns: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """float32 [G, C, b], logits of inputs [D + 1, b]; and the hidden activations, [G, H, b] per layer."""
        first = self.matmul_weights[0]
        out = (first.view(-1, first.shape[-1]) @ columns).view(self.groups, first.shape[1], -1)
        hidden = []
        for weight, bias in zip(self.matmul_weights[1:], self.matmul_biases[1:], strict=True):
            hidden.append(out.relu_())
            out = torch.bmm(weight, out).add_(bias)
        return out.float(), hidden

    def backward(self, gradient: torch.Tensor, inputs: torch.Tensor, hidden: list[torch.Tensor]) -> None:
        """Compute the parameter gradients from the logit gradient [G, C, b], inputs [b, D + 1] and hidden activations."""
        for layer in range(len(hidden), 0, -1):
            self.bias_gradients[layer].copy_(gradient.sum(-1, keepdim=True))
            gradient = gradient.to(self.matmul_dtype)
            self.weight_gradients[layer].copy_(torch.bmm(gradient, hidden[layer - 1].transpose(1, 2)))
            gradient = torch.bmm(self.matmul_weights[layer].transpose(1, 2), gradient)
            gradient = torch.ops.aten.threshold_backward(gradient, hidden[layer - 1], 0)
        first = self.weight_gradients[0]
        first.view(-1, first.shape[-1]).copy_(gradient.reshape(-1, gradient.shape[-1]).to(self.matmul_dtype) @ inputs)


class _Checkpoints:
    """Validation cross-entropies and parameters at each checkpoint; test labels are not used for selection."""

    def __init__(self, networks: Networks, heads: _Heads, inputs: torch.Tensor, split: Split) -> None:
        self.networks, self.heads, self.inputs, self.split = networks, heads, inputs, split
        num_labelled = (heads.labels[torch.from_numpy(split.validation)] != MISSING).sum(0).clamp(min=1)
        self.num_labelled = num_labelled.view(networks.groups, -1)
        self.losses: list[torch.Tensor] = []
        self.snapshots: list[torch.Tensor] = []

    def take(self) -> None:
        """Evaluate the validation cross-entropy [G, K] and store a copy of the parameters."""
        total = torch.zeros(self.num_labelled.shape)
        for part in torch.from_numpy(self.split.validation).split(EVAL_BATCH_SIZE):
            logits, _ = self.networks.forward(self.inputs[part].T.contiguous())
            total -= self.heads.log_prob(logits, part).sum(-1)
        self.losses.append(total / self.num_labelled)
        self.snapshots.append(self.networks.matmul_parameters.clone())

    @torch.inference_mode()
    def result(self, with_posterior: bool) -> tuple[np.ndarray, ...]:
        """Validation cross-entropy [G, K] at the best checkpoint, and test log_prob and predicted [G, K, Rt] at it; also
        the log-probabilities [G, C, Rt] of all classes if `with_posterior`."""
        loss, best = torch.stack(self.losses).min(0)
        rows = torch.from_numpy(self.split.test)
        log_prob = torch.zeros((*loss.shape, len(rows)))
        predicted = torch.zeros(log_prob.shape, dtype=torch.int16)
        posterior = torch.zeros((len(loss), self.heads.width, len(rows) if with_posterior else 0))
        for check in best.unique().tolist():
            self.networks.matmul_parameters.copy_(self.snapshots[check])
            is_best = best == check
            for start in range(0, len(rows), EVAL_BATCH_SIZE):
                part = rows[start : start + EVAL_BATCH_SIZE]
                logits, _ = self.networks.forward(self.inputs[part].T.contiguous())
                if with_posterior:
                    is_best_class = torch.repeat_interleave(is_best, torch.from_numpy(self.heads.counts), dim=1)
                    by_class = self.heads.log_posterior(logits)
                    posterior[..., start : start + EVAL_BATCH_SIZE][is_best_class] = by_class[is_best_class]
                predicted[..., start : start + EVAL_BATCH_SIZE][is_best] = self.heads.predict(logits)[is_best]
                log_prob[..., start : start + EVAL_BATCH_SIZE][is_best] = self.heads.log_prob(logits, part)[is_best]
        parts = (loss, log_prob, predicted, posterior) if with_posterior else (loss, log_prob, predicted)
        return tuple(part.numpy() for part in parts)


def batch_order(train: np.ndarray, protocol: Protocol, seed: int) -> np.ndarray:
    """int64 [steps * batch], row indices of all batches: a new permutation of the training rows per epoch."""
    generator = np.random.Generator(np.random.Philox(7_919 * (seed + 1)))
    num_rows = protocol.steps * protocol.batch
    return np.concatenate([generator.permutation(train) for _ in range(-(-num_rows // len(train)))])[:num_rows]


@torch.inference_mode()
def _train(
    networks: Networks,
    heads: _Heads,
    inputs: torch.Tensor,
    split: Split,
    seed: int,
    protocol: Protocol,
    on_steps: Callable[[int], None],
) -> _Checkpoints:
    """Train all groups of one seed; `inputs` is [R, D + 1] with its column of ones."""
    parameters = networks.parameters.requires_grad_(False)
    parameters.grad = networks.gradient
    optimizer = torch.optim.AdamW(
        [parameters], lr=protocol.learning_rate, weight_decay=protocol.weight_decay, fused=True
    )
    order = torch.from_numpy(batch_order(split.train, protocol, seed))
    checkpoints = _Checkpoints(networks, heads, inputs, split)
    checkpoint_steps = {round((i + 1) * protocol.steps / protocol.checks) for i in range(protocol.checks)}
    for step in range(protocol.steps):
        optimizer.param_groups[0]["lr"] = protocol.learning_rate * 0.5 * (1 + math.cos(math.pi * step / protocol.steps))
        rows = order[step * protocol.batch : (step + 1) * protocol.batch]
        batch = inputs[rows]
        logits, hidden = networks.forward(batch.T.contiguous())
        networks.backward(heads.gradient(logits, rows), batch, hidden)
        optimizer.step()
        networks.matmul_parameters.copy_(networks.parameters)
        on_steps(networks.groups)
        if step + 1 in checkpoint_steps:
            checkpoints.take()
    return checkpoints
