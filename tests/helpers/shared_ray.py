"""One Ray of the whole session, whose workers serve every run and every kind of work, one run after the other.

A worker takes 4 to 6 s of processor time to start, and what most tests of runs on Ray look at comes later. Everything but
the start is the real thing: calls, deaths, and the pool's dealing with both.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Hashable
from typing import Any

import benchmark.cluster.ray_executor
from benchmark.cluster.executor import EVALUATION, SUCCEEDED, CallResult, WorkItem
from benchmark.cluster.local_executor import WorkerSession
from benchmark.cluster.ray_actor import RayActor
from benchmark.cluster.ray_executor import RayExecutor, ResourceRequest

WORKERS = 3
"""For the largest run. Those that no run has asked for yet are not started."""


DEATHS, BEFORE, AFTER = "deaths", "before", "after"
"""Folder beside the runs' folder with a file for each shard whose worker dies once, before or after computing it."""


class _ServesAnyRun(RayActor):
    def start(self, expected: dict[str, Any], resend: bool = False) -> CallResult:
        """Be ready at once for the next run, with a new session."""
        if self.session is not None:
            self.session = WorkerSession()
        return super().start(expected, resend)

    def compute(self, affinity_key: Hashable, work: Any, payload: Any, batch_scale: float) -> CallResult:
        """Compute, unless the test kills this worker."""
        death_file = work.root.parents[2] / DEATHS / getattr(payload, "name", "")
        if not death_file.is_file():
            return super().compute(affinity_key, work, payload, batch_scale)
        when = death_file.read_text()
        death_file.unlink()
        if when == AFTER:
            super().compute(affinity_key, work, payload, batch_scale)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")


class SharedExecutor(RayExecutor):
    """Reuses the idle workers of earlier runs."""

    idle: list[Any]

    def start_worker(self, kind: str) -> tuple[Any, Any]:
        """See `Executor`."""
        self.busy = getattr(self, "busy", {})
        if self.idle:
            handle = self.idle.pop()
            call = self.continue_start(handle)
        else:
            handle, call = super().start_worker(EVALUATION)
        self.busy[handle] = call
        return handle, call

    def submit(self, handle: Any, item: WorkItem, batch_scale: float) -> Any:
        """See `Executor`."""
        self.busy[handle] = super().submit(handle, item, batch_scale)
        return self.busy[handle]

    def result(self, call: Any) -> CallResult:
        """See `Executor`."""
        result = super().result(call)
        if result.status == SUCCEEDED:
            self.busy = {handle: busy_call for handle, busy_call in self.busy.items() if busy_call != call}
        return result

    def stop_worker(self, handle: Any) -> None:
        """See `Executor`; a worker that is busy or failed is ended, any other becomes idle."""
        if handle in self.busy:
            super().stop_worker(handle)
        else:
            self.idle.append(handle)


class SharedRay:
    """Ray embedded in this process from when it is first asked for until it is stopped."""

    def __init__(self) -> None:
        self.executor: RayExecutor | None = None
        self.idle: list[Any] = []

    def connect(self, demand: ResourceRequest) -> SharedExecutor:
        """In place of `benchmark.cluster.ray_executor.connect`."""
        if self.executor is None:
            self.executor = _connect(ResourceRequest(WORKERS))
        executor = SharedExecutor(self.executor.ray, demand, demand.workers, self.executor.capacity, lambda: None)
        executor.idle = self.idle
        return executor

    def stop(self) -> None:
        """End it; a test may then start Ray itself."""
        if self.executor is not None:
            self.executor.shutdown()
        self.executor, self.idle = None, []

    def take_over(self, assign: Callable[..., object]) -> None:
        """From now on runs with `--workers` use its workers; `assign` is a patch's `setattr`."""
        from ray import cloudpickle

        # Workers do not see the folder of the tests.
        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        assign(benchmark.cluster.ray_executor, "connect", self.connect)
        assign(benchmark.cluster.ray_executor, "RayActor", _ServesAnyRun)


_connect = benchmark.cluster.ray_executor.connect
