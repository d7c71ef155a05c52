"""A worker that can serve every kind of item is not stopped and started again between evaluation and fits."""

from __future__ import annotations

import pytest
from test_pool import ScriptedExecutor, work_items

from benchmark.cluster.pool import Pool
from benchmark.cluster.process_executor import ProcessExecutor
from benchmark.cluster.ray_executor import RayExecutor, ResourceRequest


class EqualWorkers(ScriptedExecutor):
    serves_all_kinds = True


def test_equal_workers_are_started_once_for_all_kinds() -> None:
    executor, committed = EqualWorkers(), []
    pool = Pool(executor, 2)
    for kind in ("tasks", "evaluation", "fit", "evaluation", "fit"):
        pool.drain(work_items("abcd", kind=kind, affinity_key=kind, committed=committed))
    assert len(executor.kinds) == 2
    assert executor.alive == {0, 1}
    assert sorted(committed) == sorted("abcd" * 5)


def test_kinds_with_other_resources_have_workers_of_their_own() -> None:
    executor = ScriptedExecutor()
    pool = Pool(executor, 2)
    for kind in ("evaluation", "fit", "evaluation"):
        pool.drain(work_items("abcd", kind=kind, affinity_key=kind))
    assert len(executor.kinds) == 6


@pytest.mark.parametrize(("cpus", "gpus", "expected"), [(1, 0.0, True), (4, 0.0, False), (1, 1.0, False)])
def test_workers_of_ray_are_equal_if_evaluation_takes_one_cpu_and_no_gpu(cpus, gpus, expected) -> None:
    demand = ResourceRequest(2, None, cpus, gpus)
    executor = RayExecutor(None, demand, 2, 2, lambda: None)
    assert executor.serves_all_kinds == expected
    assert ProcessExecutor(2).serves_all_kinds
