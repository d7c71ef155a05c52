"""Cost of Ray workers: `python -m benchmark.bench cluster`.

Measures on an embedded Ray of this machine: start-up time and memory of a worker, overhead per shard, and one and two workers
(each has one thread) beside as many plain processes, in rounds of the order plain, Ray, Ray, plain, so that other processes of the
machine disturb both alike. Then simulates 1 to 1,024 workers from these figures, and checks the simulation against the runs.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from tabulate import tabulate

from benchmark.bench.command import ClusterBenchOptions
from benchmark.bench.plain_processes import PlainProcesses, Stopwatch, descendants, process_title
from benchmark.cluster.executor import EVALUATION, WorkItem
from benchmark.cluster.local_executor import ComputeFn
from benchmark.cluster.pool import Pool
from benchmark.cluster.ray_executor import ResourceRequest, connect
from benchmark.cluster.simulation import ClusterCosts, finish_time, scaling_curve
from benchmark.errors import UsageError
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.runner.jobs import EvaluationWork
from benchmark.runner.plan import Job, Shard
from benchmark.runner.store import ResultStore, StagedResult, write_atomic
from benchmark.tasks.stage import BLIND, Stage
from benchmark.tasks.suite import load_suite

NUM_EMPTY_SHARDS = 200
"""Number of shards without work, from which the overhead per shard is measured."""
WORKER_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
ACTOR_TITLE = "ray::EvaluationActor"
PLAIN, RAY = "plain", "ray"
ROUNDS = (PLAIN, RAY, RAY, PLAIN)
"""Order in which plain processes and Ray workers compute the same shards."""
SWEEP_MODELS = 50
"""Number of models in the simulated sweep."""
DEATHS_PER_SECOND = 1 / 3600
"""Failures per worker and second in the simulation: one per hour."""


@dataclass(frozen=True)
class EmptyWork:
    """Work items without computation, so that only the overhead is measured."""

    root: Path

    def prepare(self) -> ComputeFn:
        """See `EvaluationWork.prepare`."""
        store = ResultStore(self.root)

        def compute(name: str, batch_scale: float) -> list[StagedResult]:
            return [store.stage(name, {"x": np.zeros(1, np.float32)}, {"seconds": 0.0})]

        return compute


@dataclass(frozen=True)
class TimedRun:
    """One measured run.

    Attributes:
        workers: number of workers or processes.
        seconds: from the first dispatch to the last result.
        worker_seconds: processor time of the workers.
        other_seconds: processor time of what dispatches: this process, and with Ray the processes of Ray itself, which take some
            whether there is work or not.
        shards: seconds of each shard; empty for plain processes.
    """

    workers: int
    seconds: float
    worker_seconds: float
    other_seconds: float
    shards: list[float]


def _work_items(store: ResultStore, work: Any, calls: Sequence[tuple[str, Any]], spent: list[float]) -> list[WorkItem]:
    def commit(results: list[StagedResult]) -> None:
        for result in results:
            store.commit(result)
            spent.append(float(result.entry["seconds"]))

    # The affinity key is the folder, not id(work): Python reuses ids of deleted objects.
    return [WorkItem(name, EVALUATION, str(store.root), work, call, commit) for name, call in calls]


def mean_private_memory(title_prefix: str) -> float:
    """Mean private memory in bytes of the processes whose title starts with the prefix; NaN if there are none."""
    private_bytes = []
    for path in Path("/proc").glob("[0-9]*/smaps_rollup"):
        try:
            if (path.parent / "cmdline").read_bytes().decode(errors="replace").startswith(title_prefix):
                private_lines = [line for line in path.read_text().splitlines() if line.startswith("Private_")]
                private_bytes.append(1024.0 * sum(int(line.split()[1]) for line in private_lines))
        except OSError:
            continue
    return float(np.mean(private_bytes)) if private_bytes else float("nan")


class ClusterBench:
    """Measurements of Ray workers.

    Args:
        model: model spec that the workers evaluate.
        suite: suite that gives the blind set.
        count: number of shards per run.
    """

    def __init__(self, model: str, suite: str, count: int) -> None:
        job = Job(load_suite(suite), open_checkpoint(ModelSpec.parse(model)), "float32", "cpu", 0)
        size = job.suite.shard
        if count < 2 or count * size > 2 * job.suite.probe_programs:
            raise UsageError(f"--shards {count}: expected 2 to {2 * job.suite.probe_programs // size}")
        self.calls = [(f"{BLIND}-{i:06d}", Shard(Stage(BLIND), i * size, (i + 1) * size)) for i in range(count)]
        self.job = job

    def measure(self, on_stage: Any) -> dict[str, Any]:
        """Run all measurements; returns the figures that `--json` stores."""
        runs: dict[tuple[str, int], list[TimedRun]] = {}
        start_seconds: dict[str, float] = {}
        for workers in (1, 2):
            on_stage(f"{workers} workers beside as many plain processes")
            plain = PlainProcesses(self.job, workers, self.calls[0][1])
            started = time.perf_counter()
            executor = connect(ResourceRequest(workers=workers, cpus=1))
            start_seconds["cluster"] = time.perf_counter() - started
            pool = Pool(executor, workers)
            try:
                start_seconds["worker"], serial = self._empty(pool, workers)
                for kind, run in self._run_rounds(pool, plain):
                    runs.setdefault((kind, workers), []).append(run)
                memory = mean_private_memory(ACTOR_TITLE)
            finally:
                pool.close()
                executor.shutdown()
                plain.close()
        single, double = (min(runs[RAY, workers], key=lambda run: run.seconds) for workers in (1, 2))
        costs = ClusterCosts(start_seconds["worker"], serial, DEATHS_PER_SECOND)
        checks = [
            {"workers": run.workers, "measured": run.seconds, "predicted": finish_time(run.shards, run.workers, ClusterCosts(0, serial))}
            for run in (single, double)
        ]  # fmt: skip
        sweep = np.tile(single.shards, -(-SWEEP_MODELS * self._shards_per_model() // len(single.shards)))
        return {
            "start": start_seconds, "memory": memory, "serial": serial,
            "rounds": [{"kind": kind} | asdict(run) for (kind, _), parts in runs.items() for run in parts],
            "shard": {"mean": float(np.mean(single.shards)), "deviation": float(np.std(single.shards))},
            "tasks a second": [len(run.shards) * self.job.suite.shard / run.seconds for run in (single, double)],
            "checks": checks, "costs": asdict(costs), "model": scaling_curve(single.shards, WORKER_COUNTS, costs),
            "sweep": scaling_curve(sweep.tolist(), WORKER_COUNTS, costs, repeats=1), "sweep shards": len(sweep),
        }  # fmt: skip

    def _shards_per_model(self) -> int:
        """Number of evaluation shards per model on the suite: tasks, probe sets, randomly initialised copies."""
        suite = self.job.suite
        return -(-(suite.tasks + suite.probe_programs + 4 * 2 * suite.probe_programs) // suite.shard)

    def _empty(self, pool: Pool, workers: int) -> tuple[float, float]:
        """Seconds until all workers are ready, and seconds per empty shard."""
        with tempfile.TemporaryDirectory() as folder:
            store = ResultStore(Path(folder))
            work = EmptyWork(store.root)
            drain = partial(_drain, pool, store, work)
            start = drain([f"first-{i}" for i in range(workers)])
            return start, drain([f"empty-{i}" for i in range(NUM_EMPTY_SHARDS)]) / NUM_EMPTY_SHARDS

    def _run_rounds(self, pool: Pool, plain: PlainProcesses) -> Iterator[tuple[str, TimedRun]]:
        with tempfile.TemporaryDirectory() as folder:
            store = ResultStore(Path(folder))
            work = EvaluationWork(self.job, store.root)
            self._warm_up(pool, store, work)
            for kind in ROUNDS:
                yield kind, self._run(pool, plain, store, work) if kind == RAY else self._run_plain(plain)

    def _warm_up(self, pool: Pool, store: ResultStore, work: EvaluationWork) -> None:
        """Have every worker load the model and compile; on a busy machine one may start much later than another."""
        number = 0
        while sum(worker.affinity_key == str(store.root) for worker in pool.workers) < pool.size:
            calls = [(f"warm-{number}-{i}", self.calls[i][1]) for i in range(pool.size)]
            pool.drain(_work_items(store, work, calls, []))
            number += 1

    def _run(self, pool: Pool, plain: PlainProcesses, store: ResultStore, work: EvaluationWork) -> TimedRun:
        spent: list[float] = []
        calls = [(f"{uuid4().hex[:8]}-{name}", shard) for name, shard in self.calls]
        pids = descendants(os.getpid()) - set(plain.pids)
        workers = {pid for pid in pids if process_title(pid).startswith(ACTOR_TITLE)}
        stopwatch = Stopwatch(workers, pids - workers)
        pool.drain(_work_items(store, work, calls, spent))
        return TimedRun(pool.size, *stopwatch.read(), spent)

    def _run_plain(self, plain: PlainProcesses) -> TimedRun:
        stopwatch = Stopwatch(plain.pids, [os.getpid()])
        plain.compute([shard for _, shard in self.calls])
        return TimedRun(len(plain.pids), *stopwatch.read(), [])


def _drain(pool: Pool, store: ResultStore, work: EmptyWork, names: Sequence[str]) -> float:
    started = time.perf_counter()
    pool.drain(_work_items(store, work, [(name, name) for name in names], []))
    return time.perf_counter() - started


def format_rounds(rounds: Sequence[dict[str, Any]]) -> str:
    """Table of plain processes and Ray workers on the same shards: means over the rounds, and plain over Ray."""
    rows = []
    for workers in sorted({row["workers"] for row in rounds}):
        means = {
            (kind, quantity): float(
                np.mean([r[quantity] for r in rounds if (r["kind"], r["workers"]) == (kind, workers)])
            )
            for kind in (PLAIN, RAY)
            for quantity in ("seconds", "worker_seconds", "other_seconds")
        }
        cells: list[Any] = [workers]
        for quantity in ("worker_seconds", "seconds"):
            plain, ray = means[PLAIN, quantity], means[RAY, quantity]
            cells += [f"{plain:.1f}", f"{ray:.1f}", f"{plain / ray:.0%}"]
        rows.append([*cells, *(f"{means[kind, 'other_seconds']:.1f}" for kind in (PLAIN, RAY))])
    names = [
        "workers", "processor s of workers: plain", "Ray", "plain / Ray", "wall s: plain", "Ray ", "plain / Ray ",
        "other processor s: plain", "Ray  ",
    ]  # fmt: skip
    return tabulate(rows, headers=names, disable_numparse=True)


def format_report(results: dict[str, Any]) -> str:
    """Format the figures as tables."""
    start, shard = results["start"], results["shard"]
    lines = [
        f"start-up: Ray {start['cluster']:.1f} s, a worker {start['worker']:.1f} s; "
        f"{results['memory'] / 1e6:.0f} MB of private memory per worker",
        f"a shard: {shard['mean']:.2f} s of work (standard deviation {shard['deviation']:.2f}), {1000 * results['serial']:.1f} ms of "
        "dispatch, storage and commit",
        f"a worker computes {' and with another '.join(f'{rate:.0f}' for rate in results['tasks a second'])} tasks per second",
        "",
        format_rounds(results["rounds"]),
        "",
        tabulate(
            [
                [
                    c["workers"],
                    f"{c['measured']:.1f}",
                    f"{c['predicted']:.1f}",
                    f"{c['predicted'] / c['measured'] - 1:+.0%}",
                ]
                for c in results["checks"]
            ],
            headers=["workers", "measured s", "simulated s", "error"],
        ),
        "",
        tabulate(
            [
                [w, f"{s:.0f}", f"{e:.0%}", f"{sweep_seconds:.0f}", f"{share:.0%}"]
                for (w, s, e), (_, sweep_seconds, share) in zip(results["model"], results["sweep"], strict=True)
            ],
            headers=["workers", "these shards, s", "efficiency", f"{SWEEP_MODELS} models, s", "efficiency "],
        ),
    ]
    return "\n".join(lines)


def run(options: ClusterBenchOptions) -> int:
    """Measure and print; returns the exit code."""
    bench = ClusterBench(options.model, options.suite, options.shards)
    results = bench.measure(lambda stage: print(f"measuring: {stage}", file=sys.stderr))
    print(format_report(results))
    if options.json:
        write_atomic(options.json, json.dumps(results, indent=1).encode())
    return 0
