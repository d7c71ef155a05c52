"""Decisions on inputs so small that the right one is written beside: what counts as solved, and which program is read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from benchmark.answers import pass_at
from benchmark.extraction import answered
from benchmark.scoring import OUTCOMES, score
from benchmark.statistics import bootstrap_weights
from benchmark.suites import load_suite
from benchmark.suites import test_tasks as tasks_of
from karel_env.interpreter import OK, TIMEOUT, run
from karel_env.language import HEADER_TEXT, Programs
from karel_env.parser import parse


def test_an_execution_that_is_cut_off_is_wrong_whatever_world_it_left():
    """Of a loop without end the expected worlds are those in which the step limit stops it."""
    suite = load_suite("smoke")
    tasks = tasks_of(suite).take(np.arange(2))
    endless = " while (not markers_present()) { turn_left(); }; turn_left(); }"
    inputs = replace(tasks.inputs, cells=np.minimum(tasks.inputs.cells, 0))
    programs = Programs.of([parse(f"{HEADER_TEXT}{endless}")] * 2)
    done = run(programs, inputs)
    assert (done.status == TIMEOUT).all()
    altered = replace(tasks, inputs=inputs, outputs=done.worlds)
    scores = score(suite, altered, [endless, endless])
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
    assert answered(answer) == program


@pytest.mark.parametrize("right", [0.1, 0.5])
def test_the_interval_of_pass_at_k_holds_95_of_100_resamples(right):
    """Of N tasks with one draw each the bootstrap of the mean is a binomial over N, whose quantiles are known."""
    n = 2_500
    estimate = pass_at((np.arange(n) < right * n).astype(int), 1, 1)
    low, high = stats.binom.ppf([0.025, 0.975], n, right) / n
    half = (high - low) / 2
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.1 * half)
    assert estimate.value == pytest.approx(right)


def test_the_bootstrap_draws_every_unit_as_often_as_any_other():
    """The mean number of draws of each unit is 1, within five standard errors."""
    units, resamples = 20, 4_000
    drawn = bootstrap_weights(units, resamples, 7).mean(0)
    assert np.abs(drawn - 1).max() < 5 * np.sqrt((1 - 1 / units) / resamples)
