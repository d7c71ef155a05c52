"""Forked processes compute what this process would, and their death is one of the failures that a pool knows."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmark.cluster.executor import EVALUATION, TIMED_OUT, WORKER_DIED, WorkItem
from benchmark.cluster.pool import Pool
from benchmark.cluster.process_executor import ProcessExecutor, default_processes
from benchmark.errors import ItemsFailed


@dataclass(frozen=True)
class Work:
    """Computes (process, payload squared); a payload that is callable is called."""

    scale: int = 1

    def prepare(self) -> Callable[[Any, float], list[Any]]:
        def compute(payload: Any, batch_scale: float) -> list[Any]:
            return [os.getpid(), payload() if callable(payload) else self.scale * payload**2]

        return compute


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    time.sleep(600)


def fail() -> None:
    raise MemoryError("out of memory")


@dataclass(frozen=True)
class DieOnce:
    mark: Path

    def __call__(self) -> str:
        if not self.mark.exists():
            self.mark.touch()
            die()
        return "second"


@pytest.fixture
def executor():
    executor = ProcessExecutor(2)
    executor.fork_workers()
    yield executor
    executor.shutdown()


def drain(executor: ProcessExecutor, payloads: list[Any], deadline: float | None = None) -> tuple[dict[int, Any], list]:
    """Values by number of the item, and (item, status) of each retry."""
    values: dict[int, Any] = {}
    retries: list[tuple[int, str]] = []
    items = [
        WorkItem(
            f"item {n}", EVALUATION, "key", Work(3), payload, lambda value, n=n: values.__setitem__(n, value),
            lambda status, message, n=n: retries.append((n, status)),
        )
        for n, payload in enumerate(payloads)
    ]  # fmt: skip
    pool = Pool(executor, executor.processes, deadline)
    try:
        pool.drain(items)
    finally:
        pool.close()
    return values, retries


def test_items_are_computed_by_the_processes(executor):
    started = {worker.process.pid for worker in executor._open}
    values, retries = drain(executor, list(range(20)))
    assert [values[n][1] for n in range(20)] == [3 * n**2 for n in range(20)]
    assert {process for process, _ in values.values()} <= started
    assert os.getpid() not in started
    assert retries == []


def test_a_process_that_dies_is_replaced_and_its_item_computed_again(executor, tmp_path):
    values, retries = drain(executor, [1, DieOnce(tmp_path / "mark"), 2])
    assert [values[n][1] for n in range(3)] == [3, "second", 12]
    assert retries == [(1, WORKER_DIED)]


def test_an_item_that_kills_every_process_is_given_up_with_the_signal(executor):
    with pytest.raises(ItemsFailed) as caught:
        drain(executor, [die, 2])
    assert "SIGKILL" in caught.value.reasons["item 0"]
    assert list(caught.value.reasons) == ["item 0"]


def test_a_deadline_ends_an_item(executor):
    with pytest.raises(ItemsFailed) as caught:
        drain(executor, [hang, 2], deadline=0.5)
    assert TIMED_OUT in caught.value.reasons["item 0"]


def test_short_memory_is_told_from_other_errors(executor):
    with pytest.raises(ItemsFailed) as caught:
        drain(executor, [fail])
    assert "out of memory" in caught.value.reasons["item 0"]


def test_no_process_is_left():
    executor = ProcessExecutor(2)
    executor.fork_workers()
    processes = [worker.process for worker in executor._open]
    drain(executor, [1, 2, 3])
    executor.shutdown()
    assert not any(process.is_alive() for process in processes)


def test_processes_end_with_a_driver_that_is_killed(tmp_path):
    ours, theirs = os.pipe()
    driver = os.fork()
    if driver == 0:
        try:
            executor = ProcessExecutor(3)
            executor.fork_workers()
            os.write(theirs, " ".join(str(worker.process.pid) for worker in executor._open).encode())
            signal.pause()
        finally:
            os._exit(1)
    os.close(theirs)
    processes = [int(word) for word in os.read(ours, 200).split()]
    assert len(processes) == 3
    os.kill(driver, signal.SIGKILL)
    os.waitpid(driver, 0)
    while any(is_running(process) for process in processes):
        time.sleep(0.01)


def is_running(process: int) -> bool:
    """Whether a process exists and is no zombie, which another process is to wait for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_default_number_is_that_of_the_cores_as_far_as_memory_allows(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(3)), raising=False)
    assert default_processes("cpu", 10**9, 10**11) == 3
    assert default_processes("cpu", 10**9, 4 * 10**9) == 2
    assert default_processes("cpu", 10**9, 3 * 10**9) == 0
    assert default_processes("cpu", 0, 0) == 3
    assert default_processes("cuda", 10**9, 10**11) == 0
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "darwin")
        assert default_processes("cpu", 10**9, 10**11) == 0
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    assert default_processes("cpu", 10**9, 10**12) == 4
