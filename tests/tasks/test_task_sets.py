"""Task sets as values: drawn once per holder, equal to those drawn apart, and equal after they travelled as arrays."""

from __future__ import annotations

from dataclasses import replace
from threading import Barrier, Thread

import numpy as np
import pytest

import benchmark.tasks.task_sets
from benchmark.errors import VerificationError
from benchmark.tasks.probe_sets import CROSSED_ALTERNATIVES
from benchmark.tasks.stage import BLIND, CROSSED, GENERATED, SAMPLED, TEST, WIDE, Stage
from benchmark.tasks.suite import (
    blind_tasks,
    hash_tasks,
    load_suite,
    probe_tasks,
    shot_tasks,
    training_tasks,
)
from benchmark.tasks.suite import (
    test_tasks as tasks_of,
)
from benchmark.tasks.task_sets import TASK_SETS, TaskSets, num_stage_tasks, tasks_to_arrays

SUITE = replace(load_suite("smoke"), tasks=30, probe_programs=50, sha256="")
STAGES = [
    Stage(TEST), Stage(SAMPLED), Stage(GENERATED), Stage(GENERATED, random_init=1), Stage(BLIND),
    Stage(BLIND, random_init=0), Stage(WIDE), Stage(CROSSED, alternative=CROSSED_ALTERNATIVES[0]),
]  # fmt: skip


def test_a_set_is_drawn_once_per_holder_and_never_shared_between_holders(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    for name in ("test_tasks", "probe_tasks", "shot_tasks", "blind_tasks"):
        real = getattr(benchmark.tasks.task_sets, name)

        def counted(*arguments: object, real: object = real, name: str = name) -> object:
            drawn.append(name)
            return real(*arguments)  # type: ignore[operator]

        monkeypatch.setattr(benchmark.tasks.task_sets, name, counted)
    first, second = TaskSets(SUITE), TaskSets(SUITE)
    for _ in range(2):
        assert first.shots is first.get("shots")
        first.training(np.arange(3), 1)
    assert sorted(drawn) == ["blind_tasks", "probe_tasks", "shot_tasks", "test_tasks"]
    assert second.test is not first.test
    assert hash_tasks(second.test) == hash_tasks(first.test)


def test_sets_equal_those_that_are_drawn_apart() -> None:
    task_sets = TaskSets(SUITE)
    apart = {
        "test": tasks_of(SUITE),
        "probe": probe_tasks(SUITE),
        "shots": shot_tasks(SUITE),
        "blind": blind_tasks(SUITE),
    }
    for name, tasks in apart.items():
        assert hash_tasks(task_sets.get(name)) == hash_tasks(tasks), name
    indices = np.arange(20)
    assert hash_tasks(task_sets.training(indices, 5)) == hash_tasks(training_tasks(SUITE, indices, 5))


def test_sets_travel_as_arrays() -> None:
    task_sets = TaskSets(SUITE)
    arrays = {name: tasks_to_arrays(task_sets.get(name)) for name in TASK_SETS}
    received = TaskSets.from_arrays(SUITE, arrays)
    for name in TASK_SETS:
        assert hash_tasks(received.get(name)) == hash_tasks(task_sets.get(name)), name
        assert np.array_equal(received.get(name).key, task_sets.get(name).key)


def test_a_received_test_set_is_checked_against_the_pinned_digest() -> None:
    arrays = {"test": tasks_to_arrays(TaskSets(SUITE).test)}
    with pytest.raises(VerificationError, match="SHA-256"):
        TaskSets.from_arrays(replace(SUITE, sha256="0" * 64), arrays)


@pytest.mark.parametrize("stage", STAGES, ids=str)
def test_tasks_of_a_stage_are_counted_without_drawing_them(stage: Stage) -> None:
    assert num_stage_tasks(SUITE, stage) == len(TaskSets(SUITE).of_stage(stage)) > 0


def test_threads_get_one_set() -> None:
    task_sets, barrier, received = TaskSets(SUITE), Barrier(4), []

    def ask() -> None:
        barrier.wait()
        received.append(task_sets.probe)

    threads = [Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(tasks) for tasks in received}) == 1
