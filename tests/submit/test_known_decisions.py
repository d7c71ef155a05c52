"""Decisions on inputs so small that the right one is written beside.

What counts as solved, which program is read, which verdict follows, whose fault a death is, which stored piece counts.
"""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from benchmark.cluster.executor import NODE_LOST, OUT_OF_MEMORY, WORKER_DIED
from benchmark.cluster.ray_executor import RayExecutor, ResourceRequest
from benchmark.errors import SubmissionError
from benchmark.files import read_tensor_header
from benchmark.probing.control_gap import INCONCLUSIVE, RECORD_ONLY, REPRESENTS, decide_verdict
from benchmark.probing.protocol import STANDARD
from benchmark.runner.store import CORRUPT, MISSING, VALID, ResultStore
from benchmark.statistics import Estimate, bootstrap_weights
from benchmark.tasks.extraction import extract_program
from benchmark.tasks.pass_at_k import pass_at_k
from benchmark.tasks.scoring import OUTCOMES, score_programs
from benchmark.tasks.suite import load_suite
from benchmark.tasks.suite import test_tasks as tasks_of
from karel_env.execution.interpreter import OK, TIMEOUT, run
from karel_env.features import PRIMARY
from karel_env.language import HEADER_TEXT, Programs
from karel_env.syntax.parser import parse


def test_an_execution_that_is_cut_off_is_wrong_whatever_world_it_left():
    """Of a loop without end the expected worlds are those in which the step limit stops it."""
    suite = load_suite("smoke")
    tasks = tasks_of(suite).take(np.arange(2))
    endless = " while (not markers_present()) { turn_left(); }; turn_left(); }"
    inputs = replace(tasks.inputs, cells=np.minimum(tasks.inputs.cells, 0))
    programs = Programs.of([parse(f"{HEADER_TEXT}{endless}")] * 2)
    outcome = run(programs, inputs)
    assert (outcome.status == TIMEOUT).all()
    altered = replace(tasks, inputs=inputs, outputs=outcome.worlds)
    scores = score_programs(suite, altered, [endless, endless])
    assert not scores.shown.any()
    assert not scores.held_out.any()
    assert not scores.shown_state.any()
    assert [OUTCOMES[number] for number in scores.outcome] == ["step limit", "step limit"]
    marked = replace(inputs, cells=np.abs(tasks.inputs.cells) + 1)
    assert (run(programs, marked).status == OK).all(), "it ends where there is a marker"


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        (" move(); } def run() { turn_left(); }", " move(); }"),
        ("def run() { move(); } def run() { turn_left(); }", " move(); }"),
        (" jump(); } def run() { move(); } def run() { turn_left(); } def run() { jump(); }", " move(); }"),
    ],
)
def test_of_several_programs_the_first_is_the_answer(answer, program):
    assert extract_program(answer) == program


@pytest.mark.parametrize("right", [0.1, 0.5])
def test_the_interval_of_pass_at_k_holds_95_of_100_resamples(right):
    """Of N tasks with one draw each the bootstrap of the mean is a binomial over N, whose quantiles are known."""
    n = 2_500
    estimate = pass_at_k((np.arange(n) < right * n).astype(int), 1, 1)
    low, upper = stats.binom.ppf([0.025, 0.975], n, right) / n
    half = (upper - low) / 2
    assert (estimate.low, estimate.high) == pytest.approx((low, upper), abs=0.1 * half)
    assert estimate.value == pytest.approx(right)


def test_the_bootstrap_draws_every_unit_as_often_as_any_other():
    """The mean number of draws of each unit is 1, within five standard errors."""
    units, resamples = 20, 4_000
    samples = bootstrap_weights(units, resamples, 7).mean(0)
    assert np.abs(samples - 1).max() < 5 * np.sqrt((1 - 1 / units) / resamples)


M = STANDARD.margin


def judged(low: float, reach: float, degenerate: bool = False) -> SimpleNamespace:
    """A feature whose 95% interval of delta begins at `low`, and whose 90% interval reaches as far on both sides."""
    return SimpleNamespace(delta=Estimate(0, low, 1, 9), delta90=Estimate(0, -reach, reach, 9), degenerate=degenerate)


@pytest.mark.parametrize(
    ("primary", "second", "expected"),
    [
        (judged(M + 1e-9, 1), judged(-1, 1), REPRESENTS),
        (judged(M, 1), judged(-1, 0), INCONCLUSIVE),
        (judged(M / 2, 1), judged(M + 1, 0), INCONCLUSIVE),
        (judged(-1, M), judged(-1, M), RECORD_ONLY),
        (judged(-1, M), judged(-1, M + 1e-9), INCONCLUSIVE),
        (judged(-1, M), judged(-1, 1, degenerate=True), RECORD_ONLY),
        (judged(-1, M + 1e-9, degenerate=True), judged(-1, 0), INCONCLUSIVE),
    ],
)
def test_the_verdict_needs_the_whole_margin_on_either_side(primary, second, expected):
    assert decide_verdict({PRIMARY: primary, "another": second}, STANDARD) == expected


@pytest.mark.parametrize(
    ("message", "kills", "address", "outcome"),
    [
        ("The actor died because its node has died. Node Id: 4f", 0, None, NODE_LOST),
        ("The actor is dead because its node was terminated expectedly", 0, "auto", NODE_LOST),
        ("The actor's Node Is Dead", 0, None, NODE_LOST),
        ("The actor never ran - it was cancelled before it started running", 0, None, NODE_LOST),
        ("spot instance preempted", 0, "auto", NODE_LOST),
        ("its node has died", 1, None, NODE_LOST),
        ("The worker died unexpectedly: SIGSEGV", 0, None, WORKER_DIED),
        ("The worker died unexpectedly: SIGKILL", 1, None, OUT_OF_MEMORY),
        ("The worker died unexpectedly: SIGKILL", 1, "auto", WORKER_DIED),
    ],
)
def test_whose_fault_a_death_is(message, kills, address, outcome, monkeypatch):
    """A node's end is nobody's fault; kills of this machine's kernel tell of workers on this machine only."""
    monkeypatch.setattr("benchmark.cluster.ray_executor.count_oom_kills", lambda: 5 + kills)
    executor = RayExecutor(
        None, ResourceRequest(address=address), 1, 1, lambda: None, num_oom_kills=5, expected_versions={}
    )
    assert executor._classify_death(RuntimeError(message)).status == outcome
    # The kill was taken into account, so the next death is not another's.
    assert executor._classify_death(RuntimeError("The worker died unexpectedly")).status == (
        OUT_OF_MEMORY if outcome == NODE_LOST and kills else WORKER_DIED
    )


def test_a_stored_result_counts_if_it_is_complete_and_of_what_is_expected(tmp_path):
    shards = ResultStore(tmp_path)
    assert shards.status("a") == MISSING
    shards.commit(shards.stage("a", {"values": np.arange(3.0)}, {"stop": 5, "seconds": 1.0}))
    assert [shards.status("a", **options) for options in ({}, {"stop": 5}, {"stop": 6}, {"stop": 5, "start": 0})] == [
        VALID, VALID, CORRUPT, CORRUPT,
    ]  # fmt: skip
    content = bytearray(shards.arrays_path("a").read_bytes())
    content[-1] ^= 1
    shards.arrays_path("a").write_bytes(content)
    assert shards.status("a", stop=5) == CORRUPT
    shards.arrays_path("a").unlink()
    assert shards.status("a", stop=5) == CORRUPT, "its entry is there"


@pytest.mark.parametrize(
    ("spans", "size", "fits"),
    [
        ([(0, 4), (4, 8)], 8, True),
        ([(0, 4), (5, 9)], 9, False),
        ([(1, 5), (5, 9)], 9, False),
        ([(0, 4), (3, 7)], 7, False),
        ([(0, 4), (4, 8)], 9, False),
        ([(0, 4), (4, 8)], 7, False),
    ],
)
def test_tensors_fill_their_file_to_the_byte(spans, size, fits, tmp_path):
    entries = {
        f"t{i}": {"dtype": "U8", "shape": [stop - start], "data_offsets": [start, stop]}
        for i, (start, stop) in enumerate(spans)
    }
    header = json.dumps(entries).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))
    if fits:
        assert read_tensor_header(path) == entries
        return
    with pytest.raises(SubmissionError, match=r"tensors overlap or leave a gap|tensors of \d bytes in \d bytes"):
        read_tensor_header(path)
