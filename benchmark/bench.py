"""How fast and how small probing is, beside plain torch in the same run: `python -m benchmark.bench probing`.

Ours and plain torch take turns, `ROUNDS` of them, and the fastest turn counts, so that what else the machine does weighs
on all alike. All use torch's default threads. Plain torch is how the released code of Jin & Rinard 2024 trains: one
network after another (a feature, semantics and seed each), `nn.Sequential`, autograd, AdamW, float32, labels from an
execution of its own for each semantics; with our protocol's states, steps, batch, hidden width and checks, so that it
does the same work. Where it is measured on a sample and scaled, its row says so.

Floating-point operations, for a network of layers [in_i, out_i] that takes `b` states a step for `t` steps, is checked `c`
times on `V` validation states, and is tested on `T`: with A = sum of in_i * out_i over all layers, and A' the same
without the first,

    2 b t (2 A + A') + 2 (c V + T) A

forward and the weights' gradient A each, the inner layers' gradient A' (that of the input is not needed), evaluation
forward alone. Whitening, AdamW, softmax and copies are in the seconds but not among these operations. The peak is a large
square product by as many single-thread workers at a time as the engine uses.

Letters: `Q` seeds, `S` semantics, `G` groups, `F` features, `R` states, `D` width.
"""

from __future__ import annotations

import argparse
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

from benchmark import probing
from benchmark.errors import BenchmarkError
from benchmark.evaluation import BLIND, Shard, ShardResult, first_inputs
from benchmark.folder import RunFolder, write_durably
from benchmark.labels import MISSING, ProbeSet, Split, build_probe_set, with_original
from benchmark.measurement import EXTRAS, blind_probe_set
from benchmark.probing import Fit, fast_products, fit_probes, whitened
from benchmark.protocol import STANDARD, Protocol
from benchmark.recorder import recorder_states
from benchmark.semantic_content import Tested
from benchmark.suites import Suite, blind_tasks, load_suite
from karel_env.features import FEATURES, PRIMARY

ROUNDS = 2
IDENTICAL = 20
"""Networks that ours and plain torch train alike, weight for weight."""
SQUARE = 2048
"""Rows of the square product that stands for the machine's peak."""
STORED = {"rows": 100_000, "width": 1024, "shard": 5_000, "semantics": 4, "steps": 20}
"""The probing of stored states: its size, rows of a shard, and how little is trained, since that is not its point."""
ALL_LAYERS = 25
_HELD = ("facing", "absolute_x", "absolute_y")


@dataclass(frozen=True)
class Load:
    """What the standard grid probes of one source.

    Attributes:
        suite, protocol: of the blind set.
        probe_set: its labels.
        states: float32 [R, D], made by rule, see `made_states`.
    """

    suite: Suite
    protocol: Protocol
    probe_set: ProbeSet
    states: np.ndarray

    @classmethod
    def of(cls, suite: Suite, protocol: Protocol, width: int) -> Load:
        probe_set = blind_probe_set(suite, protocol)
        return cls(suite, protocol, probe_set, made_states(suite, probe_set, width))

    @cached_property
    def splits(self) -> list[Split]:
        return [self.probe_set.split(seed) for seed in self.protocol.seeds]

    @cached_property
    def inputs(self) -> list[torch.Tensor]:
        """float32 [R, D'] a seed, whitened, for plain torch."""
        ridge = self.protocol.ridge
        return [torch.from_numpy(whitened(self.states, split.train, ridge).copy()) for split in self.splits]

    @cached_property
    def semantics(self) -> np.ndarray:
        """int64 [G], of each group: the original in copies, then the others, as `sources.fit_semantics` has them."""
        return np.array([0] * self.protocol.copies + list(range(1, len(self.probe_set.classes))))

    def fit(self, products: torch.dtype) -> Fit:
        """Ours: all groups and seeds, a head a feature over a shared hidden layer, no mean over copies."""
        inits = [*range(self.protocol.copies), *[0] * (len(self.semantics) - self.protocol.copies)]
        return fit_probes(
            [self.states] * len(self.protocol.seeds), self.probe_set.classes[self.semantics], self.probe_set.counts,
            self.splits, [self.protocol.hidden], self.protocol.seeds, self.protocol, inits=inits, products=products,
        )  # fmt: skip


def made_states(suite: Suite, probe_set: ProbeSet, width: int) -> np.ndarray:
    """float32 [R, width], the record and the robot's true state through a random matrix, with a little noise."""
    tasks = blind_tasks(suite)
    heads = [FEATURES.index(name) for name in _HELD]
    true = [np.eye(probe_set.counts[f])[probe_set.classes[0, f]] for f in heads]
    whole = np.concatenate([recorder_states(tasks.programs, first_inputs(tasks), probe_set), *true], 1)
    random = np.random.default_rng(0)
    mixing = random.normal(size=(whole.shape[1], width)) / np.sqrt(whole.shape[1])
    return (whole @ mixing + 0.01 * random.normal(size=(len(whole), width))).astype(np.float32)


def fastest(actions: Mapping[str, Callable[[], Any]]) -> tuple[dict[str, float], dict[str, Any]]:
    """Seconds of the fastest of `ROUNDS` turns of each action, and what it returned."""
    seconds, found = dict.fromkeys(actions, float("inf")), dict[str, Any]()
    for _ in range(ROUNDS):
        for name, action in actions.items():
            began = time.perf_counter()
            found[name] = action()
            seconds[name] = min(seconds[name], time.perf_counter() - began)
    return seconds, found


def operations(sizes: Sequence[int], split: Split, protocol: Protocol) -> float:
    """Floating-point operations of the fit of one network with these widths from input to output, see above."""
    each = [wide * out for wide, out in pairwise(sizes)]
    trained = protocol.steps * protocol.batch * (2 * sum(each) + sum(each[1:]))
    return 2.0 * (trained + (protocol.checks * len(split.validation) + len(split.test)) * sum(each))


def plain_network(
    states: torch.Tensor, labels: np.ndarray, network: torch.nn.Sequential, split: Split, seed: int, protocol: Protocol
) -> tuple[float, np.ndarray, np.ndarray]:
    """Train one network as one writes it by hand; what `Fit` holds of it.

    Args:
        states: float32 [R, D'], whitened.
        labels: int [R].
        network: with its first weights; it is trained in place.
        split, seed, protocol: of the batches and checks.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=protocol.learning_rate, weight_decay=protocol.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, protocol.steps)
    wanted = torch.from_numpy(labels.astype(np.int64))
    entropy = partial(torch.nn.functional.cross_entropy, ignore_index=MISSING, reduction="sum")
    batches = torch.from_numpy(probing._order(split.train, protocol, seed)).split(protocol.batch)
    there = max(1, int((labels[split.validation] != MISSING).sum()))
    best, kept = float("inf"), dict[str, torch.Tensor]()
    for step, rows in enumerate(batches, start=1):
        optimizer.zero_grad()
        (entropy(network(states[rows]), wanted[rows]) / len(rows)).backward()
        optimizer.step()
        schedule.step()
        if step in {round((i + 1) * protocol.steps / protocol.checks) for i in range(protocol.checks)}:
            with torch.no_grad():
                loss = float(entropy(network(states[split.validation]), wanted[split.validation])) / there
            if loss < best:
                best, kept = loss, {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(kept)
    with torch.no_grad():
        log_prob = torch.log_softmax(network(states[split.test]), 1)
    true = wanted[split.test].clamp(min=0)[:, None]
    return best, log_prob.gather(1, true)[:, 0].numpy() * (labels[split.test] != MISSING), log_prob.argmax(1).numpy()


def new_network(width: int, classes: int, protocol: Protocol) -> torch.nn.Sequential:
    """One hidden layer, with torch's own first weights."""
    layers = torch.nn.Linear(width, protocol.hidden), torch.nn.ReLU(), torch.nn.Linear(protocol.hidden, classes)
    return torch.nn.Sequential(*layers)


def same_network(width: int, classes: int, seed: int, protocol: Protocol) -> torch.nn.Sequential:
    """The same with the first weights that ours have."""
    first, _, last = network = new_network(width, classes, protocol)
    ours = probing._Networks([width + 1, protocol.hidden, classes], [0], seed, torch.float32)
    with torch.no_grad():
        for layer, weight, bias in (
            (first, ours.weights[0][0, :, :-1], ours.weights[0][0, :, -1]),
            (last, ours.weights[1][0], ours.biases[1][0, :, 0]),
        ):
            layer.get_parameter("weight").copy_(weight)
            layer.get_parameter("bias").copy_(bias)
    return network


def dtypes() -> dict[str, torch.dtype]:
    """The products that are measured: float32, and the fast ones where they are others."""
    return {str(dtype).removeprefix("torch."): dtype for dtype in dict.fromkeys((torch.float32, fast_products()))}


def plain_sample(load: Load, sample: int) -> None:
    """Train `sample` networks by plain torch, spread over features, semantics and seeds; on states already whitened."""
    groups, seeds = len(load.semantics), load.protocol.seeds
    for i in range(sample):
        q, f, s = i % len(seeds), i * len(FEATURES) // sample, load.semantics[i * groups // sample]
        states, count = load.inputs[q], int(load.probe_set.counts[f])
        network = new_network(states.shape[1], count, load.protocol)
        plain_network(states, load.probe_set.classes[s, f], network, load.splits[q], seeds[q], load.protocol)


def plain_labels(load: Load) -> None:
    """The labels of every semantics, each from an execution of its own; the control labels are drawn, not executed."""
    tasks = blind_tasks(load.suite)
    for one in with_original(load.protocol, EXTRAS):
        build_probe_set(tasks.programs, first_inputs(tasks), [one], load.protocol)


def grid_rows(load: Load, sample: int) -> tuple[list[dict[str, Any]], dict[str, float], dict[str, Fit]]:
    """The standard grid's probing of one view by ours and by plain torch; and seconds and fits of ours."""
    protocol = load.protocol
    seeds, heads = len(protocol.seeds), len(load.semantics) * len(FEATURES) * len(protocol.seeds)
    sample = min(sample, heads)
    _ = load.inputs
    ours = {name: partial(load.fit, dtype) for name, dtype in dtypes().items()}
    others: dict[str, Callable[[], Any]] = {
        "labels": partial(blind_probe_set, load.suite, protocol),
        "sample": partial(plain_sample, load, sample),
        "plain labels": partial(plain_labels, load),
        "whitening": partial(whitened, load.states, load.splits[0].train, protocol.ridge),
    }
    seconds, found = fastest({**ours, **others})
    fit = seconds["sample"] / sample * heads + seconds["whitening"] * seeds
    told = (
        f"plain torch, one by one, SCALED from {sample} of {heads} networks ({seconds['sample'] / sample:.2f} s each)"
    )
    given = [(f"ours, {name}, shared heads", heads // len(FEATURES), seconds["labels"], seconds[name]) for name in ours]
    given.append((told, heads, seconds["plain labels"], fit))
    rows = [
        {
            "probing of one view": name, "networks": networks, "heads": heads, "labels, s": labels, "fit, s": trained,
            "both, s": labels + trained, "times as fast": (seconds["plain labels"] + fit) / (labels + trained),
        }
        for name, networks, labels, trained in given
    ]  # fmt: skip
    return rows, {name: seconds[name] for name in ours}, {name: found[name] for name in ours}


def identical_rows(load: Load) -> list[dict[str, Any]]:
    """The same networks of the primary feature, one head each, by ours and by plain torch, and how far they differ."""
    protocol, split, inputs = load.protocol, load.splits[0], load.inputs[0]
    seed, f = protocol.seeds[0], FEATURES.index(PRIMARY)
    labels = load.probe_set.classes[np.arange(IDENTICAL) % len(load.probe_set.classes), f]
    count = load.probe_set.counts[[f]]

    def ours(products: torch.dtype) -> np.ndarray:
        given = ([load.states], labels[:, None], count, [split], [protocol.hidden], [seed], protocol)
        return fit_probes(*given, products=products).log_prob[0][:, 0]

    def plain() -> np.ndarray:
        states = torch.from_numpy(whitened(load.states, split.train, protocol.ridge))
        networks = [same_network(inputs.shape[1], int(count[0]), seed, protocol) for _ in labels]
        each = zip(labels, networks, strict=True)
        return np.stack([plain_network(states, one, network, split, seed, protocol)[1] for one, network in each])

    names = {f"ours, {name}": partial(ours, dtype) for name, dtype in dtypes().items()}
    seconds, found = fastest({**names, "plain torch": plain})
    prior = np.log(load.probe_set.counts[f])
    skills = {name: 1 + log_prob.mean(1) / prior for name, log_prob in found.items()}
    return [
        {
            f"{IDENTICAL} identical networks": name, "s": seconds[name],
            "times as fast": seconds["plain torch"] / seconds[name],
            "largest difference of skill": float(abs(skills[name] - skills["plain torch"]).max()),
            "of a log-probability": float(abs(found[name] - found["plain torch"]).max()),
        }
        for name in found
    ]  # fmt: skip


def precision_rows(load: Load, seconds: Mapping[str, float], fits: Mapping[str, Fit]) -> list[dict[str, Any]]:
    """How far the products' precision moves the skills of the grid's fits, over semantics (copies apart) and features."""
    prior = Tested.of(load.probe_set, load.protocol).totals.sum(0)[load.semantics]
    told = prior > 0
    skills = {
        name: 1 - np.divide(-sum(one.sum(-1) for one in fit.log_prob), prior, out=np.zeros_like(prior), where=told)
        for name, fit in fits.items()
    }
    primary = FEATURES.index(PRIMARY)
    rows = []
    for name, skill in skills.items():
        moved = abs(skill - skills["float32"])[told]
        rows.append(
            {
                "products": name, "fit, s": seconds[name], "times as fast": seconds["float32"] / seconds[name],
                "facing, original": float(skill[0, primary]), "facing, others": float(skill[2:, primary].mean()),
                "largest difference of skill": float(moved.max()), "mean difference": float(moved.mean()),
            }
        )  # fmt: skip
    return rows


def peak(products: torch.dtype) -> float:
    """Operations a second of a large square product, by as many single-thread workers as torch has threads."""
    factors = [torch.randn(SQUARE, SQUARE).to(products) for _ in range(2)]
    with probing._one_thread_each() as threads, ThreadPoolExecutor(threads) as pool:

        def turn() -> None:
            list(pool.map(lambda _: torch.mm(*factors), range(2 * threads)))

        turn()
        return 2 * threads * 2.0 * SQUARE**3 / fastest({"turn": turn})[0]["turn"]


def throughput_rows(load: Load, seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    """What share of the machine's matrix throughput the grid's fit reaches, all its seconds counted."""
    protocol, rows = load.protocol, []
    for name, dtype in dtypes().items():
        done = 0.0
        for inputs, split in zip(load.inputs, load.splits, strict=True):
            sizes = [inputs.shape[1] + 1, protocol.hidden, int(load.probe_set.counts.sum())]
            done += len(load.semantics) * operations(sizes, split, protocol)
        reached, most = done / seconds[name] / 1e9, peak(dtype) / 1e9
        one = {"10^12 operations": done / 1e12, "fit, s": seconds[name], "10^9/s": reached, "peak, 10^9/s": most}
        rows.append({"products": name, **one, "share": reached / most})
    return rows


def peak_memory() -> float:
    """GB that this process had in memory at most, pages of mapped files among them.

    Linux carries `ru_maxrss` over from the process that started this one, so what the kernel keeps of this program alone
    comes first.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return (found[0] if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024 / 1e9


def stored_shards(rows: int) -> list[Shard]:
    """The shards of the states that `memory_rows` stores."""
    starts = range(0, rows, STORED["shard"])
    return [Shard(BLIND, start, min(start + STORED["shard"], rows)) for start in starts]


def probe_stored(folder: str, rows: int, layers: int) -> None:
    """In a process of its own: probe stored layers one after the other; prints its peaks in GB as JSON."""
    peaks, random = [peak_memory()], np.random.default_rng(0)
    counts = random.integers(2, 8, len(FEATURES))
    labels = (random.random((STORED["semantics"], len(counts), rows)) * counts[:, None]).astype(np.int16)
    seeds = STANDARD.seeds[: max(1, torch.get_num_threads())]
    protocol = replace(STANDARD, seeds=seeds, steps=STORED["steps"], checks=1)
    parts = np.split(np.arange(rows), [rows * 3 // 5, rows * 4 // 5])
    splits, run = [Split(*parts)] * len(seeds), RunFolder(Path(folder))
    for layer in range(layers):
        states = run.states(stored_shards(rows), BLIND, f"read.layer {layer}")
        fit_probes([states] * len(seeds), labels, counts, splits, [protocol.hidden], seeds, protocol)
        peaks.append(peak_memory())
    print(json.dumps(peaks))


def memory_rows(rows: int, layers: int) -> list[dict[str, Any]]:
    """The peak memory of probing states that are stored as a run stores them, beside all of them in memory."""
    width, random = STORED["width"], np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for shard in stored_shards(rows):
            shape = (shard.stop - shard.start, width)
            states = {f"read.layer {i}": random.standard_normal(shape, np.float32) for i in range(layers)}
            RunFolder(Path(folder)).commit(shard, ShardResult([], states))
        code = f"from benchmark.bench import probe_stored; probe_stored({folder!r}, {rows}, {layers})"
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        spent = time.perf_counter() - began
    if done.returncode:
        raise BenchmarkError(f"bench: the probing of stored states ended with {done.returncode}: {done.stderr[-500:]}")
    imports, *peaks = json.loads(done.stdout)
    one = rows * width * 4 / 1e9
    return [
        {
            f"stored states, {rows:,} x {width:,}": f"{layers} layers, one after the other", "s": spent,
            "imports, GB": imports, "peak after the first layer": peaks[0], "after the last": peaks[-1],
            "last less imports": peaks[-1] - imports, "these layers held": layers * one,
            f"{ALL_LAYERS} layers held": ALL_LAYERS * one,
        }
    ]  # fmt: skip


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that the command prints, by table."""
    suite = load_suite(options.suite)
    if options.programs:
        suite = replace(suite, probe_programs=options.programs)
    memory = memory_rows(options.rows, options.layers)
    load = Load.of(suite, STANDARD, options.width)
    grid, seconds, fits = grid_rows(load, options.sample)
    return {
        "grid": grid,
        "identical": identical_rows(load),
        "precision": precision_rows(load, seconds, fits),
        "throughput": throughput_rows(load, seconds),
        "memory": memory,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.bench", description="speed and memory of probing")
    add = parser.add_argument
    add("what", choices=["probing"], help="what is measured")
    add("--suite", default="laptop", help="whose blind set (default: %(default)s)")
    add("--programs", type=int, metavar="N", help="that a probe is trained on (default: the suite's)")
    add("--sample", type=int, default=6, metavar="K", help="networks of plain torch that are measured (default: 6)")
    add("--width", type=int, default=128, metavar="D", help="of the states (default: %(default)s)")
    add("--layers", type=int, default=3, metavar="N", help="stored and probed for memory (default: 3; all: 25)")
    add("--rows", type=int, default=STORED["rows"], metavar="N", help="of each of them (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="store the figures")
    options = parser.parse_args(arguments)
    if min(options.sample, options.width, options.layers, options.programs or 1) < 1 or options.rows < 100:
        parser.error("--sample, --width, --layers and --programs: expected at least 1; --rows: at least 100")
    try:
        tables = measured(options)
    except BenchmarkError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return problem.exit_code
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    given = {"suite": options.suite, "programs": options.programs, "width": options.width, "protocol": STANDARD.version}
    print(", ".join(f"{name} {value}" for name, value in (machine | given).items()), end="\n\n")
    for rows in tables.values():
        print(tabulate(rows, headers="keys", floatfmt=",.3g", tablefmt="github"), end="\n\n")
    if options.json:
        write_durably(options.json, json.dumps(machine | given | tables, indent=1).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
