"""Schedules work items on workers that may fail: which worker computes which item, and what follows a failure.

Each worker has one call in flight and takes the next item when it is free, so a slow worker delays only its own item.
An item that

- raises, or misses its deadline, is computed once more on a new worker, then given up with the reason;
- kills its worker three times is given up;
- is lost with its node, or runs out of memory, returns to the end of the queue, at most ten times; after an
  out-of-memory failure this item and all later ones of the same affinity key get half the batch size.

Items that are given up are reported at the end; the others continue. A worker that starts slowly is kept while it reports
progress; a silent one is replaced, after a timeout that grows; if workers die repeatedly and no item completes in
between, everything stops. The pool depends neither on Ray nor on models: an `Executor` runs the workers, and a work item
says what to compute and how to commit it. Several threads may drain one pool: the thread that holds the step lock
advances it for all.
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

from benchmark.cluster.deadlines import Deadlines
from benchmark.cluster.executor import (
    EVALUATION,
    INVALID_MODEL,
    NODE_LOST,
    OUT_OF_MEMORY,
    STARTING,
    STORAGE_FAILED,
    SUCCEEDED,
    TIMED_OUT,
    WORKER_DIED,
    CallResult,
    Executor,
    WorkItem,
)
from benchmark.errors import BenchmarkError, ItemsFailed, StorageError

MAX_RAISES, MAX_CRASHES, MAX_LOSSES, MAX_FAILED_STARTS = 2, 3, 10, 3
TIMEOUT_GROWTH = 4.0
"""Factor by which the deadline of an item is longer when it is computed again after missing it."""
START_DEADLINE, PLACED_DEADLINE = 120.0, 600.0
"""Seconds without a message after which a starting worker is replaced: before its first message, and after it, when its
process is known to run. Doubled for the next worker, up to `MAX_START_GROWTH` times."""
MAX_START_GROWTH = 8
MAX_DEATHS = 30
"""Consecutive worker deaths, plus one per worker, without a completed item after which everything stops."""
TURN_SECONDS = 0.2
"""Longest time that one step waits, in seconds."""


@dataclass(eq=False)
class _PendingItem:
    item: WorkItem
    future: Future[None] = field(default_factory=Future)
    raises: int = 0
    crashes: int = 0
    losses: int = 0
    batch_scale: float = 1.0
    timeout_growth: float = 1.0


@dataclass(eq=False)
class _PoolWorker:
    kind: str
    handle: Any
    call: Any
    call_started: float
    last_message: float
    affinity_key: Hashable = None
    pending: _PendingItem | None = None
    is_ready: bool = False
    start_stage: str = ""
    timeout_growth: int = 1


class Pool:
    """At most `workers` workers of an executor at a time.

    Args:
        executor: starts the workers and runs their calls.
        workers: maximum number of workers.
        deadline: seconds per item; None derives it from the longest times so far, and is longer for an item that missed it.
        patience: seconds without a message from any worker after which a start is given up.
    """

    def __init__(
        self, executor: Executor, workers: int, deadline: float | None = None, patience: float = 600.0
    ) -> None:
        self.executor, self.size, self.patience = executor, workers, patience
        self.inbox: deque[_PendingItem] = deque()
        self.queue: deque[_PendingItem] = deque()
        self.workers: list[_PoolWorker] = []
        self.deadlines = Deadlines(deadline)
        self.batch_scales: dict[Hashable, float] = {}
        self.step_lock, self.is_stopped = Lock(), False
        self.failed_starts = self.silent_starts = self.deaths = 0
        self.timeout_growth = 1
        self.waiting_since = time.monotonic()
        self.listeners: tuple[tuple[Callable[..., None], Callable[[str], None]], ...] = ()

    def drain(self, items: Sequence[WorkItem]) -> None:
        """Compute and commit items; returns when every item is committed or given up.

        Raises:
            ItemsFailed: some items were given up, with name and reason; the others are committed.
            StorageError: a result cannot be stored.
            BenchmarkError: no worker starts.
        """
        submitted = [_PendingItem(item) for item in items]
        if not self.workers:
            self.waiting_since = time.monotonic()
        self.inbox.extend(submitted)
        for pending in submitted:
            while not pending.future.done():
                # The timeout is short, since a step of another thread may complete this thread's item.
                if self.step_lock.acquire(timeout=TURN_SECONDS):
                    try:
                        self._step()
                    finally:
                        self.step_lock.release()
        errors = {pending.item.name: pending.future.exception() for pending in submitted}
        for error in errors.values():
            if error is not None and not isinstance(error, _ItemFailed):
                raise error
        failures = {name: error for name, error in errors.items() if isinstance(error, _ItemFailed)}
        if failures:
            reasons = {name: failure.reason for name, failure in failures.items()}
            raise ItemsFailed(reasons, all(failure.status == INVALID_MODEL for failure in failures.values()))

    @contextmanager
    def reporting(self, on_event: Callable[..., None], on_message: Callable[[str], None]) -> Iterator[None]:
        """Report worker events while the context lasts.

        Args:
            on_event: called with the event name and its details.
            on_message: called with one line per event; with several listeners only the first one's is called.
        """
        listener = (on_event, on_message)
        self.listeners = (*self.listeners, listener)
        try:
            yield
        finally:
            self.listeners = tuple(entry for entry in self.listeners if entry is not listener)

    def _report(self, event: str, message: str, **details: Any) -> None:
        for position, (on_event, on_message) in enumerate(self.listeners):
            on_event(event, **details)
            if position == 0:
                on_message(message)

    def stop(self) -> None:
        """Make every thread that drains raise a `BenchmarkError` at its next step."""
        self.is_stopped = True

    def close(self) -> None:
        """Stop all workers."""
        for worker in self.workers:
            self.executor.stop_worker(worker.handle)
        self.workers = []

    def _step(self) -> None:
        """One step: start workers, dispatch items, and handle the calls that have ended."""
        while self.inbox:
            self.queue.append(self.inbox.popleft())
        try:
            if self.is_stopped:
                raise BenchmarkError("stopped; committed results are kept, run the same command again to continue")
            self._start_workers()
            self._hand_out()
            calls = [worker.call for worker in self.workers if worker.call is not None]
            for call in self.executor.wait(calls, TURN_SECONDS) if calls else []:
                self._handle_result(next(worker for worker in self.workers if worker.call == call))
            self._check_deadlines()
        except BenchmarkError as error:
            self._fail_all(error)

    def _start_workers(self) -> None:
        """Start workers for queued items; idle workers of a kind that no queued item needs are stopped for them."""
        queued_kinds = [self._worker_kind(pending.item) for pending in self.queue]
        starting_kinds = [worker.kind for worker in self.workers if not worker.is_ready]
        for kind in dict.fromkeys(queued_kinds):
            idle = [w for w in self.workers if w.kind == kind and w.is_ready and w.pending is None]
            num_needed = queued_kinds.count(kind) - len(idle) - starting_kinds.count(kind)
            while num_needed > 0:
                if len(self.workers) >= self.size:
                    unused = next((w for w in self.workers if not w.pending and w.kind not in queued_kinds), None)
                    if unused is None:
                        return
                    self._stop_worker(unused)
                handle, call = self.executor.start_worker(kind)
                now = time.monotonic()
                self.workers.append(_PoolWorker(kind, handle, call, now, now, timeout_growth=self.timeout_growth))
                num_needed -= 1

    def _worker_kind(self, item: WorkItem) -> str:
        """Kind of worker that computes an item; one kind where all workers are equal, since a start takes seconds."""
        return EVALUATION if getattr(self.executor, "serves_all_kinds", False) else item.kind

    def _hand_out(self) -> None:
        for worker in self.workers:
            if not worker.is_ready or worker.pending or not self.queue:
                continue
            candidates = [pending for pending in self.queue if self._worker_kind(pending.item) == worker.kind]
            if candidates:
                pending = next((p for p in candidates if p.item.affinity_key == worker.affinity_key), candidates[0])
                self.queue.remove(pending)
                worker.pending, worker.affinity_key = pending, pending.item.affinity_key
                worker.call_started = time.monotonic()
                pending.batch_scale = self.batch_scales.get(worker.affinity_key, 1.0)
                with self._report_late(pending):
                    worker.call = self.executor.submit(worker.handle, pending.item, pending.batch_scale)

    @contextmanager
    def _report_late(self, pending: _PendingItem) -> Iterator[None]:
        """Report an item computed in this process, where no deadline can end it, each time its deadline passes."""
        if not getattr(self.executor, "computes_in_call", False):
            yield
            return
        has_ended, timeout, name = Event(), self._timeout(pending), pending.item.name

        def watch() -> None:
            elapsed = 0.0
            while not has_ended.wait(timeout):
                elapsed += timeout
                self._report(
                    "late",
                    f"{name}: no end after {elapsed:.0f} s, and in this process (--workers 0) nothing can end it; if it hangs, "
                    "stop the command (Ctrl-C) and run it again with --workers 1, which ends the item at its --deadline",
                    piece=name,
                    seconds=round(elapsed, 1),
                )

        Thread(target=watch, daemon=True).start()
        try:
            yield
        finally:
            has_ended.set()

    def _handle_result(self, worker: _PoolWorker) -> None:
        """Commit the result of a call that has ended, or handle its failure."""
        result = self.executor.result(worker.call)
        worker.call = None
        if not worker.is_ready:
            self._handle_start(worker, result)
            return
        pending, worker.pending = worker.pending, None
        assert pending is not None
        if result.status == SUCCEEDED:
            seconds = time.monotonic() - worker.call_started
            try:
                pending.item.commit(result.value)
            except FileNotFoundError as error:
                result = CallResult(NODE_LOST, message=f"its staged result is gone: {error}")
            except BaseException as error:
                pending.future.set_exception(error)
                raise
            else:
                self.deaths = 0
                self.deadlines.add(pending.item, seconds)
                pending.future.set_result(None)
                return
        # A worker that merely raised is stopped too: its device or memory may be in a state that makes the next item fail.
        self._stop_worker(worker)
        self._retry(pending, result)

    def _handle_start(self, worker: _PoolWorker, result: CallResult) -> None:
        now = time.monotonic()
        if result.status in (STARTING, SUCCEEDED):
            worker.last_message = worker.call_started = self.waiting_since = now
        if result.status == STARTING:
            worker.start_stage = str(result.value)
            worker.call = self.executor.continue_start(worker.handle)
            return
        if result.status == SUCCEEDED:
            worker.is_ready = True
            self.failed_starts = 0
            return
        reason = " ".join(f"{result.status}: {result.message}".split())[:500]
        self._give_up_start(worker, reason)
        self.failed_starts += 1
        if result.status == STORAGE_FAILED or self.failed_starts >= MAX_FAILED_STARTS * self.size:
            raise BenchmarkError(f"workers do not start ({self.failed_starts} failed, {describe_load()}): {reason}")

    def _give_up_start(self, worker: _PoolWorker, reason: str) -> None:
        """Stop a worker that starts, and report it; the next step starts another."""
        self._stop_worker(worker)
        stage = worker.start_stage or "not placed yet"
        self._report(
            "worker given up", f"a worker ({worker.kind}, {stage}) is given up: {reason}", kind=worker.kind, stage=stage,
            why=reason, load=describe_load(),
        )  # fmt: skip

    def _check_deadlines(self) -> None:
        """Stop workers whose item is late; raises if no worker starts within `patience`."""
        now = time.monotonic()
        if not self.workers or any(worker.is_ready for worker in self.workers):
            self.waiting_since = now
        elif now - self.waiting_since > self.patience:
            message = self._no_start_message(now)
            for worker in list(self.workers):
                self._give_up_start(worker, f"no message from any worker within {self.patience:.0f} s")
            raise BenchmarkError(message)
        for worker in list(self.workers):
            if not worker.is_ready:
                self._check_start(worker, now)
            elif worker.pending and now - worker.call_started > (timeout := self._timeout(worker.pending)):
                pending, worker.pending = worker.pending, None
                pending.timeout_growth *= TIMEOUT_GROWTH
                self._stop_worker(worker)
                self._retry(pending, CallResult(TIMED_OUT, message=f"no answer within {timeout:.0f} s (--deadline)"))

    def _check_start(self, worker: _PoolWorker, now: float) -> None:
        """Replace a starting worker that has been silent for too long, or request its last result again."""
        timeout = (PLACED_DEADLINE if worker.start_stage else START_DEADLINE) * worker.timeout_growth
        if now - worker.last_message > timeout:
            self.silent_starts += 1
            self.timeout_growth = max(self.timeout_growth, min(2 * worker.timeout_growth, MAX_START_GROWTH))
            self._give_up_start(worker, f"no message within {timeout:.0f} s")
        elif worker.start_stage and now - worker.call_started > START_DEADLINE:
            # Its process runs. Either it is slow, then this call waits for the last one, or the last result was lost.
            worker.call, worker.call_started = self.executor.continue_start(worker.handle, resend=True), now

    def _no_start_message(self, now: float) -> str:
        """Describe why no worker has become ready."""
        stages = [worker.start_stage for worker in self.workers if worker.start_stage]
        num_started = len(self.workers) + self.silent_starts
        message = f"no worker started within {self.patience:.0f} s: {num_started} were started"
        if stages:
            silence = max(now - worker.last_message for worker in self.workers if worker.start_stage)
            return (
                f"{message}, {len(stages)} of the last {len(self.workers)} are still {stages[0]} after {silence:.0f} s without a "
                f"message; {describe_load()}; use fewer --workers, or run the same command again when the machine is less busy"
            )
        return f"{message}, none of them has a running process; {self.executor.capacity_message()}; {describe_load()}"

    def _timeout(self, pending: _PendingItem) -> float:
        return self.deadlines.timeout(pending.item, pending.timeout_growth)

    def _retry(self, pending: _PendingItem, result: CallResult) -> None:
        """Queue a failed item again, or give it up."""
        status, message = result.status, result.message
        if status == STORAGE_FAILED:
            pending.future.set_exception(StorageError(message))
            raise StorageError(message)
        if status == WORKER_DIED:
            pending.crashes += 1
        elif status in (NODE_LOST, OUT_OF_MEMORY):
            pending.losses += 1
        else:
            pending.raises += 1
        if status == OUT_OF_MEMORY:
            # The other items of this key, such as shards of the same model, need as much memory.
            key = pending.item.affinity_key
            self.batch_scales[key] = min(self.batch_scales.get(key, 1.0), pending.batch_scale / 2)
        if status in (WORKER_DIED, NODE_LOST):
            self.deaths += 1
            if self.deaths >= MAX_DEATHS + self.size:
                self.queue.append(pending)
                raise BenchmarkError(
                    f"workers died {self.deaths} times in a row and no work item was completed in between; last {pending.item.name}: "
                    f"{status}: {' '.join(message.split())[:300]}; committed results are kept, run the same command again to continue"
                )
        is_exhausted = pending.crashes >= MAX_CRASHES or pending.losses >= MAX_LOSSES
        if is_exhausted or pending.raises >= MAX_RAISES:
            pending.future.set_exception(_ItemFailed(status, f"{status}: {message}" if message else status))
            pending.item.on_retry("failed", f"{status}: {message}")
        else:
            pending.item.on_retry(status, message)
            self.queue.append(pending)

    def _stop_worker(self, worker: _PoolWorker) -> None:
        self.workers.remove(worker)
        self.executor.stop_worker(worker.handle)

    def _fail_all(self, error: BenchmarkError) -> None:
        """Fail every unfinished item with the error, and stop all workers."""
        unfinished = [worker.pending for worker in self.workers if worker.pending] + [*self.queue, *self.inbox]
        self.queue.clear()
        self.inbox.clear()
        self.close()
        self.failed_starts = self.silent_starts = self.deaths = 0
        for pending in unfinished:
            if not pending.future.done():
                pending.future.set_exception(error)


def describe_load() -> str:
    """Load average and CPU count of the driver's machine, as text; other nodes are not included."""
    try:
        return f"this machine's load is {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"
    except OSError:
        return f"this machine has {os.cpu_count()} CPUs"


class _ItemFailed(Exception):
    """An item that was computed as often as allowed and failed each time."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason
