"""Speed and memory of probing compared with plain torch in the same run: `python -m benchmark.bench probing`.

Ours and plain torch alternate for `NUM_ROUNDS` rounds and the fastest round counts, so that other load on the machine
affects both alike. Plain torch trains as the released code of Jin & Rinard 2024 does: one network after another (one per
feature, semantics and seed), `nn.Sequential`, autograd, AdamW, float32, labels from a separate execution per
semantics; with our states, steps, batch, hidden width and checks, so that it does the same work. Figures extrapolated
from a sample are marked. All use torch's threads, and ratios are to that; threads that share small products wait for
each other on a busy machine, so plain torch on one thread is listed too (divide by the cores for as many processes).

Floating-point operations of a network of layers [in_i, out_i], trained for `t` steps of `b` states, checked `c` times on
`V` states and tested on `T`; A = sum of in_i * out_i over all layers, A' without the first:

    2 b t (2 A + A') + 2 (c V + T) A

forward and the weights' gradient A each, the inner layers' gradient A' (the input's is not needed), evaluation forward
alone. Whitening, AdamW and softmax take seconds but are not among these operations. The peak is a large square product
by as many single-thread workers at a time as the engine uses.

Letters: `Q` seeds, `S` semantics, `G` groups, `F` features, `R` states, `D` width.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from benchmark.bench.command import ProbingBenchOptions
from benchmark.probing import probes as probing
from benchmark.probing.control_gap import PriorBaseline, skill_score
from benchmark.probing.labels import MISSING, ProbeSet, Split, build_probe_set, list_semantics
from benchmark.probing.prior import PRESENT_FEATURES
from benchmark.probing.probe_fit import ProbeFit
from benchmark.probing.probes import fit_probes, select_matmul_dtype, whiten
from benchmark.probing.protocol import STANDARD, Protocol
from benchmark.probing.token_history import token_history_states
from benchmark.probing.verdict import EXTRA_SEMANTICS, blind_probe_set
from benchmark.runner.folder import RunFolder
from benchmark.runner.plan import Shard, ShardResult
from benchmark.runner.store import write_atomic
from benchmark.tasks.probe_sets import first_inputs
from benchmark.tasks.stage import BLIND, Stage
from benchmark.tasks.suite import Suite, blind_tasks, load_suite
from karel_env.features import FEATURES, PRIMARY

NUM_ROUNDS = 2
NUM_IDENTICAL_NETWORKS, PEAK_MATRIX_SIZE = 20, 2048
"""Number of networks that ours and plain torch train identically; size of the matrix product that measures the peak."""
STORED_WORKLOAD = {"rows": 100_000, "width": 1024, "shard": 5_000, "semantics": 4, "steps": 20, "most layers": 25}
"""Workload that measures memory of probing stored states; training is short because it does not affect memory."""


@dataclass(frozen=True)
class ProbingWorkload:
    """Probing workload of the standard grid for one source: a suite's blind set, and synthetic states of a given width."""

    suite: Suite
    protocol: Protocol
    width: int

    @cached_property
    def probe_set(self) -> ProbeSet:
        return blind_probe_set(self.suite, self.protocol)

    @cached_property
    def states(self) -> np.ndarray:
        """float32 [R, D], token history and true robot state, mixed by a random matrix, with small noise."""
        tasks, probe_set, random = blind_tasks(self.suite), self.probe_set, np.random.default_rng(0)
        one_hot = [np.eye(probe_set.counts[f])[probe_set.classes[0, f]] for f in map(FEATURES.index, PRESENT_FEATURES)]
        columns = np.concatenate([token_history_states(tasks.programs, first_inputs(tasks), probe_set), *one_hot], 1)
        mixed = columns @ random.normal(size=(columns.shape[1], self.width)) / np.sqrt(columns.shape[1])
        return (mixed + 0.01 * random.normal(size=mixed.shape)).astype(np.float32)

    @cached_property
    def splits(self) -> list[Split]:
        return [self.probe_set.split(seed) for seed in self.protocol.seeds]

    def whitened_for(self, q: int) -> torch.Tensor:
        """float32 [R, D'], the whitened states that the probes of seed q read, for plain torch."""
        return torch.from_numpy(whiten(self.states, self.splits[q].train, self.protocol.ridge))

    @cached_property
    def inputs(self) -> list[torch.Tensor]:
        return [self.whitened_for(q) for q in range(len(self.splits))]

    @cached_property
    def semantics(self) -> np.ndarray:
        """int64 [G], semantics index of each group: the original's restarts, then the alternatives."""
        return np.array([0] * self.protocol.copies + list(range(1, len(self.probe_set.classes))))

    def fit(self, products: torch.dtype) -> ProbeFit:
        """Fit all groups and seeds by ours, one head per feature over a shared hidden layer."""
        probe_set, protocol, seeds = self.probe_set, self.protocol, self.protocol.seeds
        inits = [*range(protocol.copies), *[0] * (len(self.semantics) - protocol.copies)]
        labels, states = probe_set.classes[self.semantics], [self.states] * len(seeds)
        arguments = (states, labels, probe_set.counts, self.splits, [protocol.hidden], seeds, protocol)
        return fit_probes(*arguments, inits=inits, matmul_dtype=products)


def time_fastest(actions: Mapping[str, Callable[[], Any]]) -> tuple[dict[str, float], dict[str, Any]]:
    """Seconds of the fastest of `NUM_ROUNDS` rounds of each action, and its last return value."""
    seconds, outputs = dict.fromkeys(actions, float("inf")), dict[str, Any]()
    for _ in range(NUM_ROUNDS):
        for name, action in actions.items():
            started = time.perf_counter()
            outputs[name] = action()
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    return seconds, outputs


def count_operations(sizes: Sequence[int], split: Split, protocol: Protocol) -> float:
    """Floating-point operations to fit one network with these layer widths, see the module docstring."""
    layer_products = [in_width * out_width for in_width, out_width in pairwise(sizes)]
    training = protocol.steps * protocol.batch * (2 * sum(layer_products) + sum(layer_products[1:]))
    return 2.0 * (training + (protocol.checks * len(split.validation) + len(split.test)) * sum(layer_products))


def train_plain_network(
    states: torch.Tensor, labels: np.ndarray, classes: int, split: Split, seed: int, protocol: Protocol
) -> np.ndarray:
    """Train one network in plain torch, from our initial weights and with our batches.

    Takes whitened states [R, D'] and labels [R]; returns float32 [Rt], log-probability of each test label at the best check.
    """
    sizes = [states.shape[1] + 1, protocol.hidden, classes]
    linears = torch.nn.Linear(states.shape[1], protocol.hidden), torch.nn.Linear(protocol.hidden, classes)
    network = torch.nn.Sequential(linears[0], torch.nn.ReLU(), linears[1])
    ours = probing.Networks(sizes, [0], seed, torch.float32)
    initial = [ours.weights[0][0, :, :-1], ours.weights[0][0, :, -1], ours.weights[1][0], ours.biases[1][0, :, 0]]
    network.load_state_dict(dict(zip(network.state_dict(), initial, strict=True)))
    optimizer = torch.optim.AdamW(network.parameters(), protocol.learning_rate, weight_decay=protocol.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, protocol.steps)
    targets = torch.from_numpy(labels.astype(np.int64))
    entropy = partial(torch.nn.functional.cross_entropy, ignore_index=MISSING, reduction="sum")
    batches = torch.from_numpy(probing.batch_order(split.train, protocol, seed)).split(protocol.batch)
    best, best_state = float("inf"), network.state_dict()
    for step, rows in enumerate(batches, start=1):
        optimizer.zero_grad()
        (entropy(network(states[rows]), targets[rows]) / len(rows)).backward()
        optimizer.step()
        schedule.step()
        if step in {round((i + 1) * protocol.steps / protocol.checks) for i in range(protocol.checks)}:
            with torch.no_grad():
                loss = float(entropy(network(states[split.validation]), targets[split.validation]))
            if loss < best:
                best, best_state = loss, {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(best_state)
    with torch.no_grad():
        return -entropy(network(states[split.test]), targets[split.test], reduction="none").numpy()


def dtypes() -> dict[str, torch.dtype]:
    """Matmul dtypes to measure: float32, and the fast dtype if different."""
    return {str(dtype).removeprefix("torch."): dtype for dtype in dict.fromkeys((torch.float32, select_matmul_dtype()))}


def with_one_thread_variant(action: Callable[[], Any]) -> dict[str, Callable[[], Any]]:
    """A plain torch action with all of torch's threads, and with one thread."""
    return {"plain torch": action, "plain torch, one thread": probing._single_threaded_ops()(action)}


def train_plain_sample(workload: ProbingWorkload, inputs: Sequence[torch.Tensor], sample: int) -> None:
    """Train `sample` networks by plain torch, spread over features, semantics and seeds; on states already whitened."""
    groups, seeds = len(workload.semantics), workload.protocol.seeds
    for i in range(sample):
        q, f, s = i % len(seeds), i * len(FEATURES) // sample, workload.semantics[i * groups // sample]
        arguments = (workload.probe_set.classes[s, f], int(workload.probe_set.counts[f]), workload.splits[q], seeds[q])
        train_plain_network(inputs[q], *arguments, workload.protocol)


def grid_rows(
    workload: ProbingWorkload, sample: int
) -> tuple[list[dict[str, Any]], dict[str, float], dict[str, ProbeFit]]:
    """Time the standard grid's probing of one view by ours and by plain torch; also returns seconds and fits of ours."""
    protocol, tasks = workload.protocol, blind_tasks(workload.suite)
    build = partial(build_probe_set, tasks.programs, first_inputs(tasks))
    heads = len(workload.semantics) * len(FEATURES) * len(protocol.seeds)
    ours = {name: partial(workload.fit, dtype) for name, dtype in dtypes().items()}
    plain = with_one_thread_variant(partial(train_plain_sample, workload, workload.inputs, sample))
    setup_actions: dict[str, Callable[[], Any]] = {
        "labels": partial(blind_probe_set, workload.suite, protocol),
        "plain labels": lambda: [
            build([semantics], protocol) for semantics in list_semantics(protocol, EXTRA_SEMANTICS)
        ],
        "whitening": lambda: workload.whitened_for(0),
    }
    seconds, outputs = time_fastest({**ours, **setup_actions, **plain})
    timings = [
        (f"ours, {name}, shared heads", heads // len(FEATURES), seconds["labels"], seconds[name]) for name in ours
    ]
    for name in plain:
        description = f"{name}, SCALED from {sample} of {heads} networks, {seconds[name] / sample:.2f} s each"
        fit = seconds[name] / sample * heads + seconds["whitening"] * len(protocol.seeds)
        timings.append((description, heads, seconds["plain labels"], fit))
    rows = [
        {
            "probing of one view": name, "networks": networks, "labels, s": labels, "fit, s": fit,
            "both, s": labels + fit, "times as fast": sum(timings[-2][2:]) / (labels + fit),
        }
        for name, networks, labels, fit in timings
    ]  # fmt: skip
    return rows, {name: seconds[name] for name in ours}, {name: outputs[name] for name in ours}


def identical_rows(workload: ProbingWorkload) -> list[dict[str, Any]]:
    """Time identical networks of the primary feature, one head each, by ours and plain torch; compare their outputs."""
    protocol, split, seed, f = (
        workload.protocol,
        workload.splits[0],
        workload.protocol.seeds[0],
        FEATURES.index(PRIMARY),
    )
    labels = workload.probe_set.classes[np.arange(NUM_IDENTICAL_NETWORKS) % len(workload.probe_set.classes), f]
    count = workload.probe_set.counts[[f]]

    def ours(products: torch.dtype) -> np.ndarray:
        arguments = ([workload.states], labels[:, None], count, [split], [protocol.hidden], [seed], protocol)
        return fit_probes(*arguments, matmul_dtype=products).log_prob[0][:, 0]

    def plain() -> np.ndarray:
        states = workload.whitened_for(0)
        return np.stack(
            [train_plain_network(states, head_labels, int(count[0]), split, seed, protocol) for head_labels in labels]
        )

    names = {f"ours, {name}": partial(ours, dtype) for name, dtype in dtypes().items()}
    seconds, outputs = time_fastest({**names, **with_one_thread_variant(plain)})
    differences = {name: outputs[name] - outputs["plain torch"] for name in outputs}
    return [
        {
            f"{NUM_IDENTICAL_NETWORKS} identical networks": name, "s": spent, "times as fast": seconds["plain torch"] / spent,
            "largest difference of skill (prior: uniform)": float(abs(differences[name].mean(1) / np.log(count)).max()),
            "of a log-probability": float(abs(differences[name]).max()),
        }
        for name, spent in seconds.items()
    ]  # fmt: skip


def peak_rate(products: torch.dtype) -> float:
    """Operations per second of a large square product, by as many single-thread workers as torch has threads."""
    factors = [torch.randn(PEAK_MATRIX_SIZE, PEAK_MATRIX_SIZE).to(products) for _ in range(2)]
    with probing._single_threaded_ops() as threads, ThreadPoolExecutor(threads) as pool:
        turn = {"turn": lambda: list(pool.map(lambda _: torch.mm(*factors), range(4 * threads)))}
        return 4 * threads * 2.0 * PEAK_MATRIX_SIZE**3 / time_fastest(turn)[0]["turn"]


def product_rows(
    workload: ProbingWorkload, seconds: Mapping[str, float], fits: Mapping[str, ProbeFit]
) -> list[dict[str, Any]]:
    """Effect of matmul precision on the skills of the grid, and the share of peak throughput."""
    sizes = [
        [row.shape[1] + 1, workload.protocol.hidden, int(workload.probe_set.counts.sum())] for row in workload.inputs
    ]
    seed_operations = [
        count_operations(*sizes_and_split, workload.protocol)
        for sizes_and_split in zip(sizes, workload.splits, strict=True)
    ]
    giga_operations = len(workload.semantics) * sum(seed_operations) / 1e9
    prior = PriorBaseline.from_probe_set(workload.probe_set, workload.protocol).totals.sum(0)[workload.semantics]
    prior[prior == 0] = np.nan
    skills = {name: skill_score(-sum(row.sum(-1) for row in fit.log_prob), prior) for name, fit in fits.items()}
    rows = []
    for name, dtype in dtypes().items():
        differences, facing = abs(skills[name] - skills["float32"]), skills[name][:, FEATURES.index(PRIMARY)]
        rate, max_rate = giga_operations / seconds[name], peak_rate(dtype) / 1e9
        row = {"products": name, "fit, s": seconds[name], "times as fast": seconds["float32"] / seconds[name]}
        row |= {f"skill, {PRIMARY}": float(facing[0]), "others": float(facing[workload.semantics > 0].mean())}
        row |= {"largest difference": float(np.nanmax(differences)), "mean": float(np.nanmean(differences))}
        rows.append(
            row
            | {"10^9 operations": giga_operations, "10^9/s": rate, "peak, 10^9/s": max_rate, "share": rate / max_rate}
        )
    return rows


def peak_memory() -> float:
    """Peak resident memory of this process in GB, including pages of mapped files."""
    # On Linux, `ru_maxrss` starts at the value of the parent process, so VmHWM of this process is preferred.
    status = Path("/proc/self/status")
    peak_lines = (
        [line for line in status.read_text().splitlines() if line.startswith("VmHWM")] if status.exists() else []
    )
    peak_kib = int(peak_lines[0].split()[1]) if peak_lines else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak_kib * 1024 / 1e9


def probe_stored_layers(folder: str, shards: Sequence[tuple[int, int]], layers: int) -> None:
    """In a separate process: probe stored layers one after another; prints peak memory in GB as JSON."""
    peaks, random, rows = [peak_memory()], np.random.default_rng(0), shards[-1][1]
    counts = random.integers(2, 8, len(FEATURES))
    labels = (random.random((STORED_WORKLOAD["semantics"], len(counts), rows)) * counts[:, None]).astype(np.int16)
    seeds = STANDARD.seeds[: max(1, torch.get_num_threads())]
    protocol = replace(STANDARD, seeds=seeds, steps=STORED_WORKLOAD["steps"], checks=1)
    parts = np.split(np.arange(rows), [rows * 3 // 5, rows * 4 // 5])
    splits, run = [Split(*parts)] * len(seeds), RunFolder(Path(folder))
    for layer in range(layers):
        states = run.states([Shard(Stage(BLIND), *shard) for shard in shards], Stage(BLIND), f"read.layer {layer}")
        fit_probes([states] * len(seeds), labels, counts, splits, [protocol.hidden], seeds, protocol)
        peaks.append(peak_memory())
    print(json.dumps(peaks))


def memory_rows(layers: int) -> list[dict[str, Any]]:
    """Peak memory of probing stored states, compared with the size of all states in memory."""
    rows, width, random = STORED_WORKLOAD["rows"], STORED_WORKLOAD["width"], np.random.default_rng(0)
    shards = [
        (start, min(start + STORED_WORKLOAD["shard"], rows)) for start in range(0, rows, STORED_WORKLOAD["shard"])
    ]
    with tempfile.TemporaryDirectory() as folder:
        for start, stop in shards:
            layer_states = random.standard_normal((layers, stop - start, width), np.float32)
            states = {f"read.layer {i}": part for i, part in enumerate(layer_states)}
            RunFolder(Path(folder)).commit(Shard(Stage(BLIND), start, stop), ShardResult([], states))
        code = f"from benchmark.bench.probing import probe_stored_layers; probe_stored_layers({folder!r}, {shards}, {layers})"
        started = time.perf_counter()
        process = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
        spent, (imports, *peaks) = time.perf_counter() - started, json.loads(process.stdout)
    in_memory = {
        f"{count} layers in memory": count * rows * width * 4 / 1e9
        for count in sorted({layers, STORED_WORKLOAD["most layers"]})
    }
    row = {f"{rows:,} x {width:,}, stored": f"{layers} layers, one after another", "s": spent, "imports, GB": imports}
    row |= {"peak after the first": peaks[0], "after the last": peaks[-1], "less imports": peaks[-1] - imports}
    return [row | in_memory]


def run_benchmark(options: ProbingBenchOptions, protocol: Protocol) -> dict[str, Any]:
    """Run all measurements with a protocol; rows by table."""
    suite = load_suite(options.suite)
    workload = ProbingWorkload(
        replace(suite, probe_programs=options.programs or suite.probe_programs), protocol, options.width
    )
    memory = memory_rows(options.layers)
    grid, seconds, fits = grid_rows(workload, options.sample)
    other_tables = {
        "identical": identical_rows(workload),
        "products": product_rows(workload, seconds, fits),
        "memory": memory,
    }
    return {"grid": grid, **other_tables}


def run(options: ProbingBenchOptions, protocol: Protocol = STANDARD) -> int:
    """Measure with a protocol and print; returns the exit code."""
    tables = run_benchmark(options, protocol)
    settings: dict[str, Any] = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    settings |= {
        "suite": options.suite,
        "programs": options.programs,
        "width": options.width,
        "protocol": protocol.version,
    }
    print(", ".join(f"{name} {value}" for name, value in settings.items()), end="\n\n")
    for rows in tables.values():
        print(tabulate(rows, headers="keys", floatfmt=",.3g", tablefmt="github"), end="\n\n")
    if options.json:
        write_atomic(options.json, json.dumps(settings | tables, indent=1).encode())
    return 0
