"""Who computes the shards: this process, or actors on Ray. The only module that imports ray, and only when asked.

Plain actors with one call in flight each; the pool replaces dead ones itself and only the driver commits. A shard
that kills its worker three times, or raises twice, is given up and named; the rest goes on.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from benchmark.errors import BenchmarkError, UsageError
from benchmark.evaluation import Job, Shard, ShardResult, Worker

CRASHES_ALLOWED = 3
ERRORS_ALLOWED = 2
OBJECT_STORE_BYTES = 200_000_000
Commit = Callable[[Shard, ShardResult], None]

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no reports to anyone
    "RAY_BACKEND_LOG_LEVEL": "error",  # raylet chatter would mix with the driver's output
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # keep a GPU visible to the driver's own probes
    "TOKENIZERS_PARALLELISM": "false",  # its threads and Ray's forks do not mix
}


def timed(worker: Any, shard: Shard) -> ShardResult:
    """The result of a shard with the seconds that it took."""
    began = time.perf_counter()
    result: ShardResult = worker.evaluate(shard)
    return replace(result, seconds=round(time.perf_counter() - began, 3))


def run_serially(job: Job, shards: Sequence[Shard], commit: Commit) -> None:
    """All shards in this process, in order, without Ray."""
    worker = Worker(job)
    for shard in shards:
        commit(shard, timed(worker, shard))


def run_on_ray(job: Job, shards: Sequence[Shard], commit: Commit, workers: int, address: str | None) -> None:
    """All shards on `workers` actors of an embedded Ray, or of the cluster at `address`.

    Raises:
        UsageError: no cluster at the address.
        BenchmarkError: shards that were given up, by name and reason; the others are committed.
    """
    ray = _start(workers, address)
    try:
        _Pool(ray, job, workers).run(shards, commit)
    finally:
        ray.shutdown()


def _start(workers: int, address: str | None) -> Any:
    os.environ.update({k: v for k, v in RAY_ENVIRONMENT.items() if k not in os.environ})
    import ray

    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        else:
            # A bare init would join whatever cluster it finds on the machine.
            ray.init(
                address="local", num_cpus=max(workers, os.cpu_count() or 1), include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES, log_to_driver=False, logging_level="ERROR",
            )  # fmt: skip
    except (ConnectionError, ValueError, RuntimeError) as problem:
        raise UsageError(
            f"--address {address}: no Ray cluster there ({' '.join(str(problem).split())[:150]})"
        ) from problem
    return ray


class _RemoteWorker:
    """The body of an actor."""

    def __init__(self, job: Job) -> None:
        import torch

        torch.set_num_threads(job.threads or 1)
        self.worker = Worker(job)

    def evaluate(self, shard: Shard) -> ShardResult:
        return timed(self.worker, shard)


class _Pool:
    """Actors, their calls in flight, and what failed."""

    def __init__(self, ray: Any, job: Job, workers: int) -> None:
        self.ray, self.job, self.workers = ray, job, workers
        gpus = 1 if job.device.startswith("cuda") else 0
        self.remote = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0, max_task_retries=0)(_RemoteWorker)
        self.crashes: Counter[Shard] = Counter()
        self.errors: Counter[Shard] = Counter()
        self.failed: dict[Shard, str] = {}

    def run(self, shards: Sequence[Shard], commit: Commit) -> None:
        queue = deque(shards)
        idle = [self._actor() for _ in range(min(self.workers, len(shards)))]
        flying: dict[Any, tuple[Any, Shard]] = {}
        while queue or flying:
            while queue and idle:
                actor, shard = idle.pop(), queue.popleft()
                flying[actor.evaluate.remote(shard)] = (actor, shard)
            done, _ = self.ray.wait(list(flying), num_returns=1)
            actor, shard = flying.pop(done[0])
            try:
                commit(shard, self.ray.get(done[0]))
            except self.ray.exceptions.RayTaskError as problem:
                self.errors[shard] += 1
                self._again(queue, shard, str(problem.cause), self.errors[shard] >= ERRORS_ALLOWED)
            except self.ray.exceptions.RayError as problem:
                self.crashes[shard] += 1
                self._again(queue, shard, str(problem), self.crashes[shard] >= CRASHES_ALLOWED)
                actor = self._actor()
            idle.append(actor)
        if self.failed:
            names = "; ".join(f"{shard.name}: {' '.join(why.split())[:200]}" for shard, why in self.failed.items())
            raise BenchmarkError(
                f"{len(self.failed)} shards failed ({names}); run the same command again to retry them"
            )

    def _actor(self) -> Any:
        return self.remote.remote(self.job)

    def _again(self, queue: deque[Shard], shard: Shard, why: str, given_up: bool) -> None:
        if given_up:
            self.failed[shard] = why
        else:
            queue.append(shard)
