"""Ray workers are measured beside plain processes: what counts as whose processor time, and how rounds are summed."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from benchmark.bench.cluster import PLAIN, RAY, format_rounds
from benchmark.bench.plain_processes import PlainProcesses, Stopwatch, descendants, processor_seconds
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.runner.plan import Job, Shard
from benchmark.tasks.stage import BLIND, Stage
from benchmark.tasks.suite import load_suite


def test_rounds_are_averaged_and_plain_is_divided_by_ray() -> None:
    rounds = [
        {
            "kind": kind,
            "workers": 2,
            "seconds": seconds,
            "worker_seconds": processor,
            "other_seconds": 1.0,
            "shards": [],
        }
        for kind, seconds, processor in ((PLAIN, 8.0, 15.0), (RAY, 10.0, 20.0), (RAY, 10.0, 20.0), (PLAIN, 10.0, 17.0))
    ]
    row = format_rounds(rounds).splitlines()[-1].split()
    assert row == ["2", "16.0", "20.0", "80%", "9.0", "10.0", "90%", "1.0", "1.0"]


def test_processor_time_of_a_group_of_processes() -> None:
    busy = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert process.pid in descendants(os.getpid())
        assert 0.1 < processor_seconds([process.pid]) < 10
        idle = Stopwatch([process.pid])
        time.sleep(0.05)
        assert idle.read()[1] == 0
        process.communicate(b"\n")
    assert processor_seconds([process.pid]) == 0


@pytest.mark.slow  # two processes that import torch
def test_plain_processes_compute_shards_that_are_dealt_out(tiny_folder) -> None:
    job = Job(load_suite("smoke"), open_checkpoint(ModelSpec.parse(f"path:{tiny_folder}")), "float32", "cpu", 0)
    shards = [Shard(Stage(BLIND), i, i + 1) for i in range(3)]
    processes = PlainProcesses(job, 2, shards[0])
    assert processor_seconds(processes.pids) > 1
    processes.compute(shards)
    processes.close()
    assert not any(process.is_alive() for process in processes.processes)
