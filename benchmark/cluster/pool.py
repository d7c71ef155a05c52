"""Pieces of work handed out to workers that may die: who computes what next, and what follows when it does not come back.

One call in flight a worker; whoever is free takes the next piece, so that slow workers hold nobody up. A piece that

- raises, or misses its deadline, is tried once more on a new worker, then given up with its reason;
- kills its worker three times is given up;
- is lost with its node, or runs out of memory, goes to the back of the queue, ten times at most; after running out of
  memory this and all later pieces of the same work have half the batch.

What is given up is reported at the end; the rest goes on. A worker that takes long to start is left alone while it says how
far it is; one that says nothing is replaced, after a time that grows; where workers die again and again and nothing is done
in between, everything stops. The pool knows neither Ray nor models: a `Crew` has the
workers, and a piece says by itself what to compute and how to commit it. Several threads may drain one pool; whichever
of them has the turn moves it on for all.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from typing import Any

from benchmark.cluster.executor import (
    CALL_STATUSES,
    WORKER_DIED,
    SUCCEEDED,
    INVALID_MODEL,
    TIMED_OUT,
    NODE_LOST,
    OUT_OF_MEMORY,
    RAISED,
    STARTING,
    STORAGE_FAILED,
    CallResult,
    Executor,
    WorkItem,
)  # fmt: skip
from benchmark.errors import BenchmarkError, ShardsFailed, StorageError

MAX_RAISES, MAX_CRASHES, MAX_LOSSES, MAX_FAILED_STARTS = 2, 3, 10, 3
FIRST_DEADLINE, MIN_DEADLINE, DEADLINE_FACTOR = 1800.0, 120.0, 20.0
"""Seconds for the first piece of a kind of work; at least, later; and times the slowest that is done."""
START_DEADLINE, PLACED_DEADLINE = 120.0, 600.0
"""Seconds without a word from a worker that starts, until another is started in its place: before its first word, and
after it, when its process is known to run. Doubled for the next one, up to `LONGEST_START` times."""
MAX_START_GROWTH = 8
MAX_DEATHS = 30
"""Workers that die in a row, beside one a worker, without a piece being done in between."""
TURN_SECONDS = 0.2
"""Seconds that one turn waits at most."""


@dataclass(eq=False)
class _PendingItem:
    item: WorkItem
    future: Future[None] = field(default_factory=Future)
    raises: int = 0
    crashes: int = 0
    losses: int = 0
    batch_scale: float = 1.0


@dataclass(eq=False)
class _PoolWorker:
    kind: str
    handle: Any
    call: Any
    began: float
    last_sign: float
    affinity_key: Hashable = None
    pending: _PendingItem | None = None
    ready: bool = False
    stage: str = ""
    growth: int = 1


class Pool:
    """At most `workers` workers of a crew at a time.

    Args:
        crew: has them.
        workers: how many.
        deadline: seconds a piece may take; by the slowest so far unless given.
        patience: seconds without a sign of life of any worker, after which nothing is waited for.
    """

    def __init__(self, executor: Executor, workers: int, deadline: float | None = None, patience: float = 600.0) -> None:
        self.executor, self.size, self.deadline, self.patience = crew, workers, deadline, patience
        self.inbox: deque[_PendingItem] = deque()
        self.queue: deque[_PendingItem] = deque()
        self.workers: list[_PoolWorker] = []
        self.slowest: dict[Hashable, float] = {}
        self.batch_scales: dict[Hashable, float] = {}
        self.turn, self.stopped = Lock(), False
        self.failed_starts = self.silent_starts = self.deaths = 0
        self.growth = 1
        self.waiting_since = time.monotonic()
        self.listeners: tuple[tuple[Callable[..., None], Callable[[str], None]], ...] = ()

    def drain(self, pieces: Sequence[WorkItem]) -> None:
        """Compute and commit pieces; returns when none is left.

        Raises:
            ShardsFailed: some were given up, by name and reason; the others are committed.
            StorageError: what is computed cannot be stored.
            BenchmarkError: no worker starts.
        """
        mine = [_PendingItem(piece) for piece in pieces]
        if not self.workers:
            self.waiting_since = time.monotonic()
        self.inbox.extend(mine)
        for pending in mine:
            while not pending.future.done():
                # The turn is not waited for long, since another thread's turn may end this thread's wait.
                if self.turn.acquire(timeout=TURN_SECONDS):
                    try:
                        self._step()
                    finally:
                        self.turn.release()
        problems = {pending.item.name: pending.future.exception() for pending in mine}
        for problem in problems.values():
            if problem is not None and not isinstance(problem, _Abandoned):
                raise problem
        given_up = {name: problem for name, problem in problems.items() if isinstance(problem, _Abandoned)}
        if given_up:
            reasons = {name: problem.why for name, problem in given_up.items()}
            raise ShardsFailed(reasons, all(problem.cause == INVALID_MODEL for problem in given_up.values()))

    @contextmanager
    def reporting(self, log: Callable[..., None], say: Callable[[str], None]) -> Iterator[None]:
        """Within, what happens to workers is logged as an event with details, and said in a line (once, if many listen)."""
        listener = (log, say)
        self.listeners = (*self.listeners, listener)
        try:
            yield
        finally:
            self.listeners = tuple(known for known in self.listeners if known is not listener)

    def _report(self, event: str, message: str, **details: Any) -> None:
        for position, (log, say) in enumerate(self.listeners):
            log(event, **details)
            if position == 0:
                say(message)

    def stop(self) -> None:
        """Every thread that drains gets a `BenchmarkError` at its next turn."""
        self.stopped = True

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers:
            self.executor.stop_worker(worker.handle)
        self.workers = []

    def _step(self) -> None:
        """One turn: start workers, hand out pieces, take what has ended."""
        while self.inbox:
            self.queue.append(self.inbox.popleft())
        try:
            if self.stopped:
                raise BenchmarkError("stopped; what is committed is kept, run the same command again to continue")
            self._staff()
            self._hand_out()
            calls = [worker.call for worker in self.workers if worker.call is not None]
            for call in self.executor.wait(calls, TURN_SECONDS) if calls else []:
                self._take(next(worker for worker in self.workers if worker.call == call))
            self._overdue()
        except BenchmarkError as problem:
            self._abandon(problem)

    def _staff(self) -> None:
        """Start workers for what waits; idle ones of a kind that nothing waits for make room."""
        wanted = [pending.item.kind for pending in self.queue]
        starting = [worker.kind for worker in self.workers if not worker.ready]
        for kind in dict.fromkeys(wanted):
            free = [w for w in self.workers if w.kind == kind and w.ready and w.pending is None]
            short = wanted.count(kind) - len(free) - starting.count(kind)
            while short > 0:
                if len(self.workers) >= self.size:
                    other = next((w for w in self.workers if not w.pending and w.kind not in wanted), None)
                    if other is None:
                        return
                    self._end(other)
                handle, call = self.executor.start_worker(kind)
                now = time.monotonic()
                self.workers.append(_PoolWorker(kind, handle, call, now, now, growth=self.growth))
                short -= 1

    def _hand_out(self) -> None:
        for worker in self.workers:
            if not worker.ready or worker.pending or not self.queue:
                continue
            fitting = [pending for pending in self.queue if pending.item.kind == worker.kind]
            if fitting:
                pending = next((p for p in fitting if p.item.affinity_key == worker.affinity_key), fitting[0])
                self.queue.remove(pending)
                worker.pending, worker.affinity_key, worker.began = pending, pending.item.affinity_key, time.monotonic()
                pending.batch_scale = self.batch_scales.get(worker.affinity_key, 1.0)
                with self._watched(pending.item):
                    worker.call = self.executor.submit(worker.handle, pending.item, pending.batch_scale)

    @contextmanager
    def _watched(self, item: WorkItem) -> Iterator[None]:
        """Within, a piece that is computed in this process, where nothing can end it, is reported when it is late."""
        if not getattr(self.executor, "computes_in_call", False):
            yield
            return
        ended, allowed = Event(), self._allowed(piece)

        def watch() -> None:
            late = 0.0
            while not ended.wait(allowed):
                late += allowed
                self._report(
                    "late",
                    f"{item.name}: no end after {late:.0f} s, and in this process (--workers 0) nothing can end it; if it hangs, "
                    "stop it (Ctrl-C) and run the same command with --workers 1, where it is ended at its --deadline",
                    piece=item.name,
                    seconds=round(late, 1),
                )

        Thread(target=watch, daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    def _take(self, worker: _PoolWorker) -> None:
        """What follows from a call that has ended."""
        answer = self.executor.result(worker.call)
        worker.call = None
        if not worker.ready:
            self._started(worker, answer)
            return
        pending, worker.pending = worker.pending, None
        assert pending is not None
        if answer.status == SUCCEEDED:
            spent = time.monotonic() - worker.began
            try:
                pending.item.commit(answer.value)
            except FileNotFoundError as problem:
                answer = CallResult(NODE_LOST, message=f"what it wrote is gone: {problem}")
            except BaseException as problem:
                pending.future.set_exception(problem)
                raise
            else:
                self.deaths = 0
                self.slowest[pending.item.affinity_key] = max(spent, self.slowest.get(pending.item.affinity_key, 0.0))
                pending.future.set_result(None)
                return
        # Also one that merely raised: it may hold a device or memory in a state that makes the next piece fail.
        self._end(worker)
        self._again(pending, answer)

    def _started(self, worker: _PoolWorker, answer: CallResult) -> None:
        now = time.monotonic()
        if answer.status in (STARTING, SUCCEEDED):
            worker.last_sign = worker.began = self.waiting_since = now
        if answer.status == STARTING:
            worker.stage = str(answer.value)
            worker.call = self.executor.continue_start(worker.handle)
            return
        if answer.status == SUCCEEDED:
            worker.ready = True
            self.failed_starts = 0
            return
        why = " ".join(f"{answer.status}: {answer.message}".split())[:500]
        self._replace(worker, why)
        self.failed_starts += 1
        if answer.status == STORAGE_FAILED or self.failed_starts >= MAX_FAILED_STARTS * self.size:
            raise BenchmarkError(f"workers do not start ({self.failed_starts} failed, {describe_load()}): {why}")

    def _replace(self, worker: _PoolWorker, message: str) -> None:
        """Give up a worker that starts, and say so; the next turn starts another."""
        self._end(worker)
        stage = worker.stage or "not placed yet"
        self._report(
            "worker given up", f"a worker ({worker.kind}, {stage}) is given up: {why}", kind=worker.kind, stage=stage, why=why,
            load=describe_load(),
        )  # fmt: skip

    def _overdue(self) -> None:
        """Ends workers whose piece is late, and gives up if none ever starts."""
        now = time.monotonic()
        if not self.workers or any(worker.ready for worker in self.workers):
            self.waiting_since = now
        elif now - self.waiting_since > self.patience:
            problem = self._standstill(now)
            for worker in list(self.workers):
                self._replace(worker, f"no sign of life of any worker within {self.patience:.0f} s")
            raise BenchmarkError(problem)
        for worker in list(self.workers):
            if not worker.ready:
                self._hasten(worker, now)
            elif worker.pending and now - worker.began > (allowed := self._allowed(worker.pending.item)):
                pending, worker.pending = worker.pending, None
                self._end(worker)
                self._again(pending, CallResult(TIMED_OUT, message=f"no answer within {allowed:.0f} s (--deadline)"))

    def _hasten(self, worker: _PoolWorker, now: float) -> None:
        """What follows when a worker that starts has not been heard of for long."""
        allowed = (PLACED_DEADLINE if worker.stage else START_DEADLINE) * worker.growth
        if now - worker.last_sign > allowed:
            self.silent_starts += 1
            self.growth = max(self.growth, min(2 * worker.growth, MAX_START_GROWTH))
            self._replace(worker, f"no sign of life within {allowed:.0f} s")
        elif worker.stage and now - worker.began > START_DEADLINE:
            # Its process runs. Either it is slow, then this call waits behind the last, or the last answer was lost.
            worker.call, worker.began = self.executor.continue_start(worker.handle, resend=True), now

    def _standstill(self, now: float) -> str:
        """Why no worker has become ready, in words."""
        stages = [worker.stage for worker in self.workers if worker.stage]
        started = len(self.workers) + self.silent_starts
        message = f"no worker started within {self.patience:.0f} s: {started} were started"
        if stages:
            silent = max(now - worker.last_sign for worker in self.workers if worker.stage)
            return (
                f"{message}, {len(stages)} of the last {len(self.workers)} are still {stages[0]} after {silent:.0f} s without a "
                f"sign of life; {describe_load()}; use fewer --workers, or run the same command again when the machine is less busy"
            )
        return f"{message}, none of them was given a running process; {self.executor.capacity_message()}; {describe_load()}"

    def _allowed(self, item: WorkItem) -> float:
        if self.deadline is not None:
            return self.deadline
        slowest = self.slowest.get(item.affinity_key)
        return FIRST_DEADLINE if slowest is None else max(MIN_DEADLINE, DEADLINE_FACTOR * slowest)

    def _again(self, pending: _PendingItem, answer: CallResult) -> None:
        """Queue a piece once more, or give it up."""
        status, message = answer.status, answer.message
        if cause == STORAGE_FAILED:
            pending.future.set_exception(StorageError(why))
            raise StorageError(why)
        if cause == WORKER_DIED:
            pending.crashes += 1
        elif cause in (NODE_LOST, OUT_OF_MEMORY):
            pending.losses += 1
        else:
            pending.raises += 1
        if cause == OUT_OF_MEMORY:
            # What is too much for one piece of a model is too much for the next.
            key = pending.item.affinity_key
            self.batch_scales[key] = min(self.batch_scales.get(key, 1.0), pending.batch_scale / 2)
        if cause in (WORKER_DIED, NODE_LOST):
            self.deaths += 1
            if self.deaths >= MAX_DEATHS + self.size:
                self.queue.append(pending)
                raise BenchmarkError(
                    f"workers died {self.deaths} times in a row and no piece of work was done in between; last {pending.item.name}: "
                    f"{cause}: {' '.join(why.split())[:300]}; what is committed is kept, run the same command again to continue"
                )
        spent = pending.crashes >= MAX_CRASHES or pending.losses >= MAX_LOSSES
        if spent or pending.raises >= MAX_RAISES:
            pending.future.set_exception(_Abandoned(cause, f"{cause}: {why}" if why else cause))
            pending.item.on_retry("failed", f"{cause}: {why}")
        else:
            pending.item.on_retry(cause, why)
            self.queue.append(pending)

    def _end(self, worker: _PoolWorker) -> None:
        self.workers.remove(worker)
        self.executor.stop_worker(worker.handle)

    def _abandon(self, problem: BenchmarkError) -> None:
        """Nothing can go on: every piece ends with the problem."""
        left = [worker.pending for worker in self.workers if worker.pending] + [*self.queue, *self.inbox]
        self.queue.clear()
        self.inbox.clear()
        self.close()
        self.failed_starts = self.silent_starts = self.deaths = 0
        for pending in left:
            if not pending.future.done():
                pending.future.set_exception(problem)


def describe_load() -> str:
    """How busy the driver's machine is, in words; where workers run elsewhere it says nothing of theirs."""
    try:
        return f"this machine's load is {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"
    except OSError:
        return f"this machine has {os.cpu_count()} CPUs"


class _Abandoned(Exception):
    """A piece that was tried as often as it may be."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(why)
        self.cause, self.why = cause, why
