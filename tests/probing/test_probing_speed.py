"""Speed and memory of probing: benchmarks (`--benchmark-enable`), a relative speed, and the tables of the command."""

from __future__ import annotations

import io
import json
import subprocess
import time
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from benchmark.bench import command as bench_command
from benchmark.bench import probing as bench
from benchmark.probing.labels import Split
from benchmark.probing.probes import fit_probes, select_matmul_dtype
from benchmark.probing.protocol import STANDARD
from benchmark.probing.state_source import fit_view
from benchmark.tasks.suite import load_suite

GROUPS, HEADS = 8, np.array([4, 7, 2])
QUICK = replace(STANDARD, steps=40, checks=1, hidden=64, seeds=(0, 1), copies=1)
SPLIT = Split(np.arange(3000), np.arange(3000, 4000), np.arange(4000, 5000))


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(5000, 64)).astype(np.float32)
    return states, np.stack([[rng.integers(0, n, 5000) for n in HEADS] for _ in range(GROUPS)])


@pytest.mark.parametrize("widths", [[], [64], [64, 128]], ids=["linear", "mlp1", "mlp2"])
def test_fit(benchmark, problem, widths):
    states, targets = problem
    fit = benchmark(fit_probes, [states] * 2, targets, HEADS, [SPLIT] * 2, widths, [0, 1], QUICK)
    benchmark.extra_info["networks"] = 2 * GROUPS
    assert np.isfinite(fit.log_prob[0]).all()


@pytest.mark.slow
def test_grouped_training_is_faster_than_sequential(problem):
    """Side by side, the networks of one seed with shared heads against one a head by plain torch; far more in use."""
    states, targets = problem
    began = time.process_time()
    fit_probes([states], targets, HEADS, [SPLIT], [64], [0], QUICK)
    ours = time.process_time() - began
    inputs = torch.from_numpy(states)
    began = time.process_time()
    for group, head in np.ndindex(GROUPS, len(HEADS)):
        bench.train_plain_network(inputs, targets[group, head], int(HEADS[head]), SPLIT, 0, QUICK)
    assert time.process_time() - began > 2 * ours


def test_the_grid_that_is_measured_is_the_one_in_use():
    """The bench calls the engine itself, to choose the products; a source's fit must be the same."""
    load = bench.ProbingWorkload(
        replace(load_suite("smoke"), probe_programs=150), replace(QUICK, copies=2, alternatives=3), 16
    )
    ours = load.fit(select_matmul_dtype())
    used = fit_view(load.probe_set, [load.states], load.protocol, [load.protocol.hidden])
    for q in range(len(load.protocol.seeds)):
        assert np.array_equal(ours.log_prob[q][:2].mean(0), used.log_prob[q][0])
        assert np.array_equal(ours.log_prob[q][2:], used.log_prob[q][1:])
        assert np.array_equal(ours.predicted[q][1:], used.predicted[q])


def test_operation_count_matches_the_formula():
    """One hidden layer: forward 2 b (D H + H C), gradients the same, and b H C again for the hidden layer's slope."""
    b, d, h, c = QUICK.batch, 65, 64, 13
    training = QUICK.steps * 2 * b * (2 * (d * h + h * c) + h * c)
    judging = 2 * (1000 + 1000) * (d * h + h * c)
    assert bench.count_operations([d, h, c], SPLIT, QUICK) == training + judging


def test_the_command_prints_and_stores_its_tables(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "PEAK_MATRIX_SIZE", 64)
    monkeypatch.setattr(bench, "NUM_ROUNDS", 1)
    monkeypatch.setattr(bench, "STORED_WORKLOAD", {**bench.STORED_WORKLOAD, "rows": 2000, "steps": 5})

    def run_here(command, **options):
        """In this process instead of one that imports everything anew; `-m slow` starts it."""
        out = io.StringIO()
        with redirect_stdout(out):
            exec(command[-1], {})
        return subprocess.CompletedProcess(command, 0, out.getvalue())

    monkeypatch.setattr(bench.subprocess, "run", run_here)
    words = ["--suite", "smoke", "--programs", "150", "--sample", "2", "--width", "16", "--layers", "2"]
    command = ["probing", *words, "--json", str(tmp_path / "bench.json")]
    monkeypatch.setattr(bench, "run", partial(bench.run, protocol=replace(QUICK, alternatives=3)))
    assert bench_command.main(command) == 0
    out = capsys.readouterr().out
    assert "SCALED from 2 of" in out
    stored = json.loads((tmp_path / "bench.json").read_text())
    assert {"grid", "identical", "products", "memory"} <= set(stored)
    exact, *_, plain, alone = stored["identical"]
    assert exact["of a log-probability"] < 1e-3
    assert plain["of a log-probability"] == 0
    assert alone["of a log-probability"] < 1e-3
    assert all(row["share"] > 0 for row in stored["products"])
    assert bench_command.main(["probing", "--sample", "0"]) == 2


@pytest.mark.slow
def test_a_hundred_thousand_wide_states_are_probed_in_less_than_three_gigabytes():
    (row,) = bench.memory_rows(layers=2)
    assert row["after the last"] < 3
