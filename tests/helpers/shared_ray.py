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
from benchmark.cluster.executor import SUCCEEDED, EVALUATION, CallResult, WorkItem
from benchmark.cluster.local_executor import WorkerSession
from benchmark.cluster.ray_actor import RayActor
from benchmark.cluster.ray_executor import ResourceRequest, RayExecutor

WORKERS = 4
"""For the largest run. Those that no run has asked for yet are not started."""


DEATHS, BEFORE, AFTER = "deaths", "before", "after"
"""Folder beside the runs' folder with a file for each shard whose worker dies once, before or after computing it."""


class _ServesAnyRun(RayActor):
    def start(self, expected: dict[str, Any], resend: bool = False) -> CallResult:
        """Ready at once for the next run, with nothing held of the last one."""
        if self.session is not None:
            self.session = WorkerSession()
        return super().start(expected, again)

    def compute(self, held: Hashable, work: Any, call: Any, batch_scale: float) -> CallResult:
        """The answer, unless the test wants this worker dead."""
        wish = work.root.parents[2] / DEATHS / getattr(call, "name", "")
        if not wish.is_file():
            return super().compute(held, work, call, share)
        moment = wish.read_text()
        wish.unlink()
        if moment == AFTER:
            super().compute(held, work, call, share)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")


class SharedCrew(RayExecutor):
    """Hires workers that an earlier run has left, and leaves those that are well to the next one."""

    idle: list[Any]

    def start_worker(self, kind: str) -> tuple[Any, Any]:
        """See `Crew`."""
        self.busy = getattr(self, "busy", {})
        if self.idle:
            handle = self.idle.pop()
            call = self.continue_start(handle)
        else:
            handle, call = super().start_worker(EVALUATION)
        self.busy[handle] = call
        return handle, call

    def submit(self, handle: Any, item: WorkItem, batch_scale: float) -> Any:
        """See `Crew`."""
        self.busy[handle] = super().submit(handle, item, batch_scale)
        return self.busy[handle]

    def result(self, call: Any) -> CallResult:
        """See `Crew`."""
        answer = super().result(call)
        if answer.status == SUCCEEDED:
            self.busy = {handle: other for handle, other in self.busy.items() if other != call}
        return answer

    def stop_worker(self, handle: Any) -> None:
        """See `Crew`; who is in the middle of something, or failed at it, is ended."""
        if handle in self.busy:
            super().stop_worker(handle)
        else:
            self.idle.append(handle)


class SharedRay:
    """Ray embedded in this process from when it is first asked for until it is stopped."""

    def __init__(self) -> None:
        self.executor: RayExecutor | None = None
        self.idle: list[Any] = []

    def join(self, demand: ResourceRequest) -> SharedCrew:
        """In place of `benchmark.cluster.ray_executor.join`."""
        if self.executor is None:
            self.executor = _join(ResourceRequest(WORKERS))
        crew = SharedCrew(self.executor.ray, demand, demand.workers, self.executor.room, lambda: None)
        crew.idle = self.idle
        return crew

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
        assign(benchmark.cluster.ray_executor, "connect", self.join)
        assign(benchmark.cluster.ray_executor, "ActorBody", _ServesAnyRun)


_join = benchmark.cluster.ray_executor.connect
