"""The executor that runs items in forked processes of this machine, without Ray.

A process is forked from the driver, so that it has every module loaded, computes on one thread, and ends with the driver.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pickle import UnpicklingError
from typing import ClassVar

from benchmark.cluster.executor import SUCCEEDED, WORKER_DIED, CallResult, WorkItem
from benchmark.cluster.local_executor import WorkerSession

MAX_PROCESSES = 4
"""Largest number that `default_processes` gives: each process holds a copy of the model."""


@dataclass(eq=False)
class ForkedWorker:
    """A process and the driver's end of its pipe; as it has one call at a time, it stands for the call too."""

    process: ForkProcess
    connection: Connection


@dataclass
class ProcessExecutor:
    """Runs items in forked processes.

    The first `processes` workers are forked by `fork_workers`, before the driver starts any thread that may hold a lock.

    Attributes:
        processes: number of workers that the pool may have at a time.
    """

    processes: int
    serves_all_kinds: ClassVar[bool] = True
    _idle: list[ForkedWorker] = field(default_factory=list)
    _open: list[ForkedWorker] = field(default_factory=list)

    def fork_workers(self) -> None:
        """Fork the first workers; `start_worker` hands them out."""
        while len(self._idle) < self.processes:
            self._idle.append(self._fork())

    def _fork(self) -> ForkedWorker:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        inherited = [worker.connection for worker in self._open]
        process = context.Process(target=_serve, args=(theirs, [*inherited, ours]), daemon=True)
        process.start()
        theirs.close()
        worker = ForkedWorker(process, ours)
        self._open.append(worker)
        return worker

    def start_worker(self, kind: str) -> tuple[ForkedWorker, ForkedWorker]:
        """See `Executor`."""
        worker = self._idle.pop() if self._idle else self._fork()
        return worker, worker

    def continue_start(self, handle: ForkedWorker, resend: bool = False) -> ForkedWorker:
        """See `Executor`; a start has one part."""
        return handle

    def submit(self, handle: ForkedWorker, item: WorkItem, batch_scale: float) -> ForkedWorker:
        """See `Executor`."""
        with suppress(BrokenPipeError, ConnectionResetError):  # it died; its result tells
            handle.connection.send((item.affinity_key, item.work, item.payload, batch_scale))
        return handle

    def wait(self, calls: Sequence[ForkedWorker], seconds: float) -> list[ForkedWorker]:
        """See `Executor`."""
        ready = wait([worker.connection for worker in calls], seconds)
        return [worker for worker in calls if worker.connection in ready]

    def result(self, call: ForkedWorker) -> CallResult:
        """See `Executor`."""
        try:
            result: CallResult = call.connection.recv()
        except (EOFError, OSError, UnpicklingError):
            call.process.join(1)
            return CallResult(WORKER_DIED, message=f"its process ended ({_describe_end(call.process.exitcode)})")
        return result

    def stop_worker(self, handle: ForkedWorker) -> None:
        """See `Executor`."""
        if handle in self._open:
            self._open.remove(handle)
        handle.process.kill()
        handle.process.join()
        handle.connection.close()

    def shutdown(self) -> None:
        """Stop every worker that is left."""
        for worker in [*self._open]:
            self.stop_worker(worker)
        self._idle.clear()

    def capacity_message(self) -> str:
        """See `Executor`."""
        return f"{self.processes} processes of this machine are the workers"


def default_processes(device: str, model_bytes: int, available_bytes: int) -> int:
    """Number of processes for a run on this machine: one per core, as far as memory allows; 0 where forking does not help.

    Args:
        device: device of the forward pass; a GPU is not shared by processes.
        model_bytes: memory per process, 0 if unknown.
        available_bytes: free memory.
    """
    # Elsewhere system libraries may not survive a fork.
    if device != "cpu" or sys.platform != "linux":
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    fitting = available_bytes // (2 * model_bytes) if model_bytes else cores
    processes = min(cores, MAX_PROCESSES, fitting)
    return processes if processes > 1 else 0


def _serve(connection: Connection, inherited: Sequence[Connection]) -> None:
    """Compute what the driver sends, until it is gone."""
    # Ctrl-C is the driver's to handle, which ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for other in inherited:
        # Otherwise a worker would hold the pipes of its siblings open after the driver has died.
        other.close()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch

    # The threads of the driver's products do not exist here, and waiting for them would never end.
    torch.set_num_threads(1)
    connection.send(CallResult(SUCCEEDED))
    session = WorkerSession()
    with suppress(EOFError, BrokenPipeError):
        while True:
            connection.send(session.run(*connection.recv()))


def _describe_end(exit_code: int | None) -> str:
    """An exit code in words."""
    if exit_code is not None and exit_code < 0:
        with suppress(ValueError):
            return f"signal {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"
