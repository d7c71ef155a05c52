"""Probes on another device than the processor: the same networks, steps and batches as `probes`, with tensors moved once.

States, labels and row indices are moved once per fit, the training states of all seeds are summed once per part that they share
(`whitening_sums`), and all groups of a seed train in one batch of products.

Letters: see `benchmark.probing.probes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from benchmark.probing.device.whitening_sums import Whitening, whiten_seeds
from benchmark.probing.labels import MISSING, Split
from benchmark.probing.probe_fit import ProbeFit, StateArray
from benchmark.probing.probes import EVAL_BATCH_SIZE, Networks, _Heads, batch_order
from benchmark.probing.protocol import Protocol


def device_matmul_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 if the device has such products, else float32."""
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if has_bfloat16 else torch.float32


def fit_probes_on(
    device: torch.device,
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
    """Train the probes of all groups and seeds on a device; arguments and result of `fit_probes`."""
    dtype = matmul_dtype or device_matmul_dtype(device)
    init_index = np.broadcast_to(np.zeros(len(targets), int) if inits is None else np.array(inits), len(targets))
    heads = DeviceHeads(np.broadcast_to(counts, targets.shape[:2]), targets, device)
    moved: dict[int, torch.Tensor] = {}
    for array in states:
        if id(array) not in moved:
            moved[id(array)] = torch.from_numpy(np.asarray(array[:], np.float32)).to(device)
    whitenings = whiten_seeds([moved[id(array)] for array in states], splits, protocol.ridge)
    results = []
    for q, seed in enumerate(seeds):
        inputs = _inputs(moved[id(states[q])], whitenings[q], dtype)
        sizes = [inputs.shape[1], *widths, heads.width]
        networks = DeviceNetworks(sizes, init_index.tolist(), seed, dtype, device)
        training = _DeviceTraining(networks, heads, inputs, splits[q], with_posterior)
        results.append(training.run(seed, protocol, on_steps))
    validation, log_prob, predicted, *posterior = zip(*results, strict=True)
    return ProbeFit(np.stack(validation), list(log_prob), list(predicted), *map(list, posterior))


class DeviceHeads(_Heads):
    """The heads of all groups, with the labels of all states on the device."""

    def __init__(self, counts: np.ndarray, targets: np.ndarray, device: torch.device) -> None:
        super().__init__(counts, targets)
        self.labels, self.starts, self.member, self.unused, self.class_counts = (
            tensor.to(device)
            for tensor in (self.labels, self.starts, self.member, self.unused, torch.from_numpy(self.counts))
        )

    def predict(self, logits: torch.Tensor) -> torch.Tensor:
        """int16 [G, K, b], the most probable class of each head."""
        logits = self._clamp(logits)
        return torch.stack([logits[:, columns].argmax(1) for columns in self.slices], 1).to(torch.int16)


class DeviceNetworks(Networks):
    """Networks with the initialisation of `Networks`, moved to the device."""

    def __init__(
        self, sizes: Sequence[int], inits: Sequence[int], seed: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__(sizes, inits, seed, dtype)
        shapes = [
            tuple(part.shape) for pair in zip(self.weights, self.biases, strict=True) for part in pair
        ]  # fmt: skip
        self.parameters = self.parameters.to(device)
        self.gradient = torch.zeros_like(self.parameters)
        self.matmul_parameters = self.parameters.to(dtype)
        if self.matmul_parameters.data_ptr() == self.parameters.data_ptr():
            self.matmul_parameters = self.parameters.clone()
        self.weights, self.biases = self._views(self.parameters, shapes)
        self.weight_gradients, self.bias_gradients = self._views(self.gradient, shapes)
        self.matmul_weights, self.matmul_biases = self._views(self.matmul_parameters, shapes)


class _DeviceTraining:
    """Training of the networks of one seed, with its checkpoints; test labels are not used for selection."""

    def __init__(
        self, networks: DeviceNetworks, heads: DeviceHeads, inputs: torch.Tensor, split: Split, with_posterior: bool
    ) -> None:
        self.networks, self.heads, self.inputs, self.with_posterior = networks, heads, inputs, with_posterior
        self.train_rows = split.train
        self.validation, self.test = (
            torch.from_numpy(rows).to(inputs.device) for rows in (split.validation, split.test)
        )
        self.losses: list[torch.Tensor] = []
        self.snapshots: list[torch.Tensor] = []

    @torch.inference_mode()
    def run(self, seed: int, protocol: Protocol, on_steps: Callable[[int], None]) -> tuple[np.ndarray, ...]:
        """Validation cross-entropy [G, K], log_prob and predicted [G, K, Rt], and [G, C, Rt] if requested."""
        parameters = self.networks.parameters.requires_grad_(False)
        parameters.grad = self.networks.gradient
        optimizer = torch.optim.AdamW(
            [parameters], lr=protocol.learning_rate, weight_decay=protocol.weight_decay, fused=True
        )
        order = torch.from_numpy(batch_order(self.train_rows, protocol, seed)).to(self.inputs.device)
        checkpoint_steps = {round((i + 1) * protocol.steps / protocol.checks) for i in range(protocol.checks)}
        for step in range(protocol.steps):
            cosine = 0.5 * (1 + math.cos(math.pi * step / protocol.steps))
            optimizer.param_groups[0]["lr"] = protocol.learning_rate * cosine
            rows = order[step * protocol.batch : (step + 1) * protocol.batch]
            batch = self.inputs[rows]
            logits, hidden = self.networks.forward(batch.T.contiguous())
            self.networks.backward(self.heads.gradient(logits, rows), batch, hidden)
            optimizer.step()
            self.networks.matmul_parameters.copy_(self.networks.parameters)
            on_steps(self.networks.groups)
            if step + 1 in checkpoint_steps:
                self._take()
        return self._result()

    def _take(self) -> None:
        """Evaluate the validation cross-entropy [G, K] and store a copy of the parameters."""
        num_labelled = (self.heads.labels[self.validation] != MISSING).sum(0).clamp(min=1)
        total = torch.zeros(num_labelled.shape, device=self.inputs.device).view(self.networks.groups, -1)
        for part in self.validation.split(EVAL_BATCH_SIZE):
            total -= self.heads.log_prob(self._logits(part), part).sum(-1)
        self.losses.append(total / num_labelled.view(self.networks.groups, -1))
        self.snapshots.append(self.networks.matmul_parameters.clone())

    def _logits(self, rows: torch.Tensor) -> torch.Tensor:
        return self.networks.forward(self.inputs[rows].T.contiguous())[0]

    def _result(self) -> tuple[np.ndarray, ...]:
        loss, best = torch.stack(self.losses).min(0)
        shape = (*loss.shape, len(self.test))
        device = self.inputs.device
        log_prob = torch.zeros(shape, device=device)
        predicted = torch.zeros(shape, dtype=torch.int16, device=device)
        num_tested = len(self.test) if self.with_posterior else 0
        posterior = torch.zeros((len(loss), self.heads.width, num_tested), device=device)
        for check in best.unique().tolist():
            self.networks.matmul_parameters.copy_(self.snapshots[check])
            is_best = best == check
            is_best_class = torch.repeat_interleave(is_best, self.heads.class_counts, dim=1)
            for start in range(0, len(self.test), EVAL_BATCH_SIZE):
                rows = self.test[start : start + EVAL_BATCH_SIZE]
                columns = slice(start, start + EVAL_BATCH_SIZE)
                logits = self._logits(rows)
                if self.with_posterior:
                    posterior[..., columns][is_best_class] = self.heads.log_posterior(logits)[is_best_class]
                predicted[..., columns][is_best] = self.heads.predict(logits)[is_best]
                log_prob[..., columns][is_best] = self.heads.log_prob(logits, rows)[is_best]
        parts = (loss, log_prob, predicted, posterior) if self.with_posterior else (loss, log_prob, predicted)
        return tuple(part.cpu().numpy() for part in parts)


def _inputs(states: torch.Tensor, whitening: Whitening, dtype: torch.dtype) -> torch.Tensor:
    """[R, D' + 1], the whitened states and a column of ones, whose weights are the biases of the first layer."""
    inputs = torch.ones((len(states), whitening.axes.shape[1] + 1), dtype=dtype, device=states.device)
    for start in range(0, len(states), EVAL_BATCH_SIZE):
        rows = slice(start, start + EVAL_BATCH_SIZE)
        inputs[rows, :-1] = ((states[rows].double() - whitening.mean).float() @ whitening.axes.float()).to(dtype)
    return inputs
