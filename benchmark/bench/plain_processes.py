"""Plain processes without Ray that compute shards, beside which Ray workers are measured, and the processor time of both."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from benchmark.runner.plan import Job, Shard
from benchmark.runner.worker import Worker


class PlainProcesses:
    """Processes of one thread that hold a model each and wait for shards.

    Args:
        job: the model and the suite.
        count: number of processes.
        warm_up: a shard that each computes before it is ready.
    """

    def __init__(self, job: Job, count: int, warm_up: Shard) -> None:
        context = get_context("spawn")
        pipes = [context.Pipe() for _ in range(count)]
        self.connections = [ours for ours, _ in pipes]
        self.processes = [
            context.Process(target=_serve, args=(job, warm_up, theirs), daemon=True) for _, theirs in pipes
        ]
        for process in self.processes:
            process.start()
        self._wait()

    @property
    def pids(self) -> list[int]:
        """Ids of the processes."""
        return [process.pid for process in self.processes if process.pid is not None]

    def compute(self, shards: Sequence[Shard]) -> None:
        """Compute shards, dealt out in turn; returns when all are computed."""
        for number, connection in enumerate(self.connections):
            connection.send(shards[number :: len(self.connections)])
        self._wait()

    def close(self) -> None:
        """End the processes."""
        for connection in self.connections:
            connection.close()
        for process in self.processes:
            process.join()

    def _wait(self) -> None:
        for connection in self.connections:
            connection.recv()


def _serve(job: Job, warm_up: Shard, connection: Connection) -> None:
    torch.set_num_threads(1)
    worker = Worker(job)
    worker.evaluate(warm_up)
    with suppress(EOFError):
        connection.send(None)
        while True:
            for shard in connection.recv():
                worker.evaluate(shard)
            connection.send(None)


def descendants(pid: int) -> set[int]:
    """Ids of a process and of all processes below it."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            children.setdefault(int(_stat_fields(path)[1]), []).append(int(path.parent.name))
    pids, waiting = set(), [pid]
    while waiting:
        current = waiting.pop()
        pids.add(current)
        waiting += children.get(current, [])
    return pids


def processor_seconds(pids: Iterable[int]) -> float:
    """Processor time of processes so far, of those that still run."""
    ticks = 0
    for pid in pids:
        with suppress(OSError):
            fields = _stat_fields(Path(f"/proc/{pid}/stat"))
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _stat_fields(path: Path) -> list[str]:
    """Fields of a `stat` file after the name of the process, which may hold spaces."""
    return path.read_text(errors="replace").rpartition(")")[2].split()


def process_title(pid: int) -> str:
    """The command line of a process, which it may have replaced by a title; empty if it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    return ""


class Stopwatch:
    """Wall time, and processor time of two groups of processes, since it was made."""

    def __init__(self, workers: Iterable[int], others: Iterable[int] = ()) -> None:
        self.groups = list(workers), list(others)
        self.started = time.perf_counter()
        self.used = [processor_seconds(group) for group in self.groups]

    def read(self) -> tuple[float, float, float]:
        """Seconds of wall time, and of processor time of each group."""
        workers, others = (processor_seconds(group) - used for group, used in zip(self.groups, self.used, strict=True))
        return time.perf_counter() - self.started, workers, others
