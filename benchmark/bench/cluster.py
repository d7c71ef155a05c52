"""Cost of Ray workers: `python -m benchmark.bench cluster`.

Measures on an embedded Ray of this machine: start-up time and memory of a worker, overhead per shard, and the speed-up of a
second worker (each has one thread), compared with the speed-up of two plain processes, since cores share caches and memory.
Then simulates 1 to 1,024 workers from these figures, and checks the simulation against the measured runs.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from benchmark.bench.command import ClusterBenchOptions
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
from benchmark.runner.worker import Worker
from benchmark.tasks.stage import BLIND, Stage
from benchmark.tasks.suite import load_suite

NUM_EMPTY_SHARDS = 200
"""Number of shards without work, from which the overhead per shard is measured."""
WORKER_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
NUM_ROUNDS = 2
"""Runs per number of workers; the fastest counts."""
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
    """One measured run: workers, seconds from the first dispatch to the last commit, and seconds of each shard."""

    workers: int
    seconds: float
    shards: list[float]


def _work_items(store: ResultStore, work: Any, calls: Sequence[tuple[str, Any]], spent: list[float]) -> list[WorkItem]:
    def commit(results: list[StagedResult]) -> None:
        for result in results:
            store.commit(result)
            spent.append(float(result.entry["seconds"]))

    # The affinity key is the folder, not id(work): Python reuses ids of deleted objects.
    return [WorkItem(name, EVALUATION, str(store.root), work, call, commit) for name, call in calls]


def _run_plain_process(job: Job, shards: Sequence[Shard], barrier: Any, elapsed: Any) -> None:
    torch.set_num_threads(1)
    worker = Worker(job)
    worker.evaluate(shards[0])
    barrier.wait()
    started = time.perf_counter()
    for shard in shards:
        worker.evaluate(shard)
    elapsed.put(time.perf_counter() - started)


def plain_process_rate(job: Job, shards: Sequence[Shard], processes: int) -> float:
    """Shards per second of plain single-thread processes without Ray, each of which computes all given shards."""
    context = get_context("spawn")
    barrier, elapsed = context.Barrier(processes), context.Queue()
    workers = [
        context.Process(target=_run_plain_process, args=(job, shards, barrier, elapsed)) for _ in range(processes)
    ]
    for process in workers:
        process.start()
    slowest = max(elapsed.get() for _ in workers)
    for process in workers:
        process.join()
    return processes * len(shards) / slowest


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
        runs: list[TimedRun] = []
        start_seconds: dict[str, float] = {}
        for workers in (1, 2):
            started = time.perf_counter()
            executor = connect(ResourceRequest(workers=workers, cpus=1))
            start_seconds["cluster"] = time.perf_counter() - started
            pool = Pool(executor, workers)
            try:
                on_stage(f"{workers} workers")
                start_seconds["worker"], serial = self._empty(pool, workers)
                runs += [min((self._run(pool, workers) for _ in range(NUM_ROUNDS)), key=lambda run: run.seconds)]
                memory = mean_private_memory("ray::EvaluationActor")
            finally:
                pool.close()
                executor.shutdown()
        single, double = runs
        on_stage("the same in plain processes")
        half_shards = [shard for _, shard in self.calls[: max(2, len(self.calls) // 2)]]
        machine = plain_process_rate(self.job, half_shards, 2) / (2 * plain_process_rate(self.job, half_shards, 1))
        efficiency = single.seconds / (2 * double.seconds)
        costs = ClusterCosts(start_seconds["worker"], serial, DEATHS_PER_SECOND)
        checks = [
            {"workers": run.workers, "measured": run.seconds, "predicted": finish_time(run.shards, run.workers, ClusterCosts(0, serial))}
            for run in runs
        ]  # fmt: skip
        sweep = np.tile(single.shards, -(-SWEEP_MODELS * self._shards_per_model() // len(single.shards)))
        return {
            "start": start_seconds, "memory": memory, "serial": serial, "efficiency": efficiency, "machine": machine,
            "shard": {"mean": float(np.mean(single.shards)), "deviation": float(np.std(single.shards))},
            "tasks a second": [len(run.shards) * self.job.suite.shard / run.seconds for run in runs],
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

    def _run(self, pool: Pool, workers: int) -> TimedRun:
        with tempfile.TemporaryDirectory() as folder:
            store = ResultStore(Path(folder))
            work = EvaluationWork(self.job, store.root)
            spent: list[float] = []
            # Warm-up: each worker loads the model and compiles on a shard that is not timed.
            pool.drain(_work_items(store, work, [(f"warm-{i}", self.calls[i][1]) for i in range(workers)], []))
            started = time.perf_counter()
            pool.drain(_work_items(store, work, self.calls, spent))
            return TimedRun(workers, time.perf_counter() - started, spent)


def _drain(pool: Pool, store: ResultStore, work: EmptyWork, names: Sequence[str]) -> float:
    started = time.perf_counter()
    pool.drain(_work_items(store, work, [(name, name) for name in names], []))
    return time.perf_counter() - started


def format_report(results: dict[str, Any]) -> str:
    """Format the figures as tables."""
    start, shard = results["start"], results["shard"]
    lines = [
        f"start-up: Ray {start['cluster']:.1f} s, a worker {start['worker']:.1f} s; "
        f"{results['memory'] / 1e6:.0f} MB of private memory per worker",
        f"a shard: {shard['mean']:.2f} s of work (standard deviation {shard['deviation']:.2f}), {1000 * results['serial']:.1f} ms of "
        "dispatch, storage and commit",
        f"two workers: {100 * results['efficiency']:.0f}% of twice one, where two plain processes reach "
        f"{100 * results['machine']:.0f}%, so {100 * results['efficiency'] / results['machine']:.0f}% of the scaling of plain processes; "
        + " and ".join(f"{rate:.0f}" for rate in results["tasks a second"])
        + " tasks per second",
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
