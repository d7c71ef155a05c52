"""Speed: benchmarks (`pytest --benchmark-enable tests/bench/test_speed.py`), and the command that prints the table.

Ratios are taken side by side in one run; no test looks at absolute time.
"""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from benchmark.tasks.suite import load_suite
from karel_env import bench, speed
from karel_env.execution.interpreter import run
from karel_env.extras.lockstep import run_lockstep
from karel_env.generation.control_flow import generate as generate_control
from karel_env.generation.generator import generate

CLASSES = ("straight-line", *speed.KINDS)
REGRESSION = 100
"""Times `karel-for-synthesis` below which something broke; docs/karel_env.md has what is reached."""


@pytest.fixture(scope="module")
def loads():
    return {load.name: load for load in speed.loads(500)}


def test_the_recipe_is_that_of_the_suite():
    assert load_suite("icml24").recipe == speed.ICML24


@pytest.mark.parametrize("name", CLASSES)
def test_the_three_machines_do_the_same_work(loads, name):
    load = loads[name]
    ours = run(load.code, load.tasks.inputs, max_markers=speed.CAP)
    assert ours.worlds.same_state(run_lockstep(load.code, load.tasks.inputs, max_markers=speed.CAP).worlds).all()
    planes = speed.corner_planes(ours.worlds)[..., :15, :, :]
    for i, results in enumerate(speed.foreign(load, False)()):
        assert all(np.array_equal(result, planes[i, e]) for e, result in enumerate(results))


@pytest.mark.slow
@pytest.mark.parametrize("trace", [False, True], ids=["plain", "traced"])
@pytest.mark.parametrize("name", CLASSES)
def test_ours_is_hundreds_of_times_faster(loads, name, trace):
    """A ratio of times, so no part of the default suite, which must pass on a busy machine."""
    row = speed.execution_rows(loads[name], trace, rounds=2)
    assert row["ours / karel-for-synthesis"] > REGRESSION
    assert row["ours / lock-step"] > 1


@pytest.mark.parametrize("trace", [False, True], ids=["plain", "traced"])
@pytest.mark.parametrize("name", CLASSES)
def test_execution(benchmark, loads, name, trace):
    load = loads[name]
    done = benchmark(run, load.code, load.tasks.inputs, trace=trace)
    benchmark.extra_info["executions"] = load.pairs
    assert (done.status == 0).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_generation(benchmark, threads):
    tasks = benchmark(generate, speed.ICML24, 1, "train", np.arange(4096), threads=threads)
    benchmark.extra_info["tasks"] = len(tasks)
    assert tasks.outputs.same_state(run(tasks.programs, tasks.inputs).worlds).all()


def test_generation_with_control_flow(benchmark):
    tasks = benchmark(generate_control, load_suite("control").recipe, 1, "train", np.arange(64))
    benchmark.extra_info["tasks"] = len(tasks)
    assert len(tasks) == 64


@pytest.mark.slow
def test_first_calls_are_those_of_new_processes():
    """Twenty seconds of compiling; what is compiled is found again."""
    first, again = speed.start_rows()
    assert first["first calls, s"] > again["first calls, s"] > 0
    assert min(first["import, s"], again["import, s"]) > 0


def test_the_command_prints_its_tables(monkeypatch, capsys):
    """Without the compiling of `start_rows`, whose process is replaced; its lines and its code are checked."""
    started = []

    def run_short(command, **options):
        started.append(command)
        compile(command[-1], "start", "exec")
        return subprocess.CompletedProcess(command, 0, "0.5 0.25\n", "")

    monkeypatch.setattr(speed.subprocess, "run", run_short)
    monkeypatch.setattr(speed, "GENERATED", 2048)
    monkeypatch.setattr(speed, "FOREIGN", 5)
    assert bench.main(["--programs", "20", "--rounds", "1"]) == 0
    out = capsys.readouterr().out
    for heading in (
        "ours / karel-for-synthesis",
        "ours / lock-step",
        "tasks/s",
        "dependent load and branch",
        "first calls, s",
    ):
        assert heading in out
    assert len(started) == 2
    assert "with cache" in out
    assert bench.main(["--rounds", "0"]) == 2
