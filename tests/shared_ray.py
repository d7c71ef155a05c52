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

import benchmark.cluster
from benchmark.actor import ActorBody
from benchmark.cluster import Demand, RayCrew
from benchmark.crew import DONE, Answer, Piece
from benchmark.work import EVALUATION, Desk

WORKERS = 3
"""For the largest run. Those that no run has asked for yet are not started."""


DEATHS, BEFORE, AFTER = "deaths", "before", "after"
"""Folder beside the runs' folder with a file for each shard whose worker dies once, before or after computing it."""


class _ServesAnyRun(ActorBody):
    def start(self, expected: dict[str, Any], again: bool = False) -> Answer:
        """Ready at once for the next run, with nothing held of the last one."""
        if self.desk is not None:
            self.desk = Desk()
        return super().start(expected, again)

    def compute(self, held: Hashable, work: Any, call: Any, share: float) -> Answer:
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


class SharedCrew(RayCrew):
    """Hires workers that an earlier run has left, and leaves those that are well to the next one."""

    idle: list[Any]

    def hire(self, kind: str) -> tuple[Any, Any]:
        """See `Crew`."""
        self.busy = getattr(self, "busy", {})
        if self.idle:
            handle = self.idle.pop()
            call = self.continue_start(handle)
        else:
            handle, call = super().hire(EVALUATION)
        self.busy[handle] = call
        return handle, call

    def call(self, handle: Any, piece: Piece, share: float) -> Any:
        """See `Crew`."""
        self.busy[handle] = super().call(handle, piece, share)
        return self.busy[handle]

    def answer(self, call: Any) -> Answer:
        """See `Crew`."""
        answer = super().answer(call)
        if answer.outcome == DONE:
            self.busy = {handle: other for handle, other in self.busy.items() if other != call}
        return answer

    def dismiss(self, handle: Any) -> None:
        """See `Crew`; who is in the middle of something, or failed at it, is ended."""
        if handle in self.busy:
            super().dismiss(handle)
        else:
            self.idle.append(handle)


class SharedRay:
    """Ray embedded in this process from when it is first asked for until it is stopped."""

    def __init__(self) -> None:
        self.crew: RayCrew | None = None
        self.idle: list[Any] = []

    def join(self, demand: Demand) -> SharedCrew:
        """In place of `benchmark.cluster.join`."""
        if self.crew is None:
            self.crew = _join(Demand(WORKERS))
        crew = SharedCrew(self.crew.ray, demand, demand.workers, self.crew.room, lambda: None)
        crew.idle = self.idle
        return crew

    def stop(self) -> None:
        """End it; a test may then start Ray itself."""
        if self.crew is not None:
            self.crew.leave()
        self.crew, self.idle = None, []

    def take_over(self, assign: Callable[..., object]) -> None:
        """From now on runs with `--workers` use its workers; `assign` is a patch's `setattr`."""
        from ray import cloudpickle

        # Workers do not see the folder of the tests.
        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        assign(benchmark.cluster, "join", self.join)
        assign(benchmark.cluster, "ActorBody", _ServesAnyRun)


_join = benchmark.cluster.join
