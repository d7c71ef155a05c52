"""Exact targets: the posterior of the next word against an enumeration by the slow machine, one program at a time."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from benchmark.causal.pairs import causal_tasks, posterior_of_distinct
from benchmark.causal.targets import END, SuffixTable, execute_prefixes, turn_robots
from benchmark.errors import UsageError
from benchmark.tasks.suite import load_suite
from karel_env.execution.stepping import play
from karel_env.language import CLOSE, HEADER

LAPTOP = load_suite("laptop")


def enumerated(task_inputs, task_outputs, prefix, turn, suite, same) -> np.ndarray:
    """Weights of the next word: every suffix is executed word by word after the robots are turned."""
    weights = np.array(suite.recipe.weights) / sum(suite.recipe.weights)
    totals = np.zeros(END + 1)
    for length in range(suite.train_length[1] - len(prefix) + 1):
        for suffix in product(range(END), repeat=length):
            if not suite.train_length[0] <= len(prefix) + length:
                continue
            words = [*HEADER, *prefix, *suffix, CLOSE]
            if all(
                same(run_turned(words, w, len(prefix), turn), o) for w, o in zip(task_inputs, task_outputs, strict=True)
            ):
                totals[suffix[0] if suffix else END] += np.prod(weights[list(suffix)])
    return totals / totals.sum() if totals.sum() else totals


def run_turned(words, world, after, turn):
    """The final world of a program whose robot is turned after `after` actions."""
    count = 0

    def observe(state) -> bool:
        nonlocal count
        count += 1
        if count == after:
            state.heading = (state.heading + turn) % 4
        return False

    return play(np.array(words), world, observe).world


@pytest.mark.parametrize("index", [0, 3, 8])
def test_the_posterior_is_that_of_all_programs(index):
    tasks = causal_tasks(LAPTOP, np.array([index]))
    inputs, outputs = (worlds[0, : LAPTOP.shown] for worlds in (tasks.inputs, tasks.outputs))
    start = tuple(tasks.programs.program(0)[3:6].tolist())
    start = tuple(word if word < END else 1 for word in (*start, 1, 1, 1)[:3])
    table = SuffixTable.of_suite(LAPTOP, 3)
    reached = execute_prefixes(np.array([start], np.int8), tasks.inputs[:, : LAPTOP.shown])
    some = 0
    for turn in range(4):
        turned = turn_robots(reached, np.array([turn]))
        posterior = table.next_word_posterior(turned, tasks.outputs[:, : LAPTOP.shown])[0]
        expected = enumerated(
            [inputs[e] for e in range(3)],
            [outputs[e] for e in range(3)],
            start,
            turn,
            LAPTOP,
            lambda a, b: bool(a.same_state(b)),
        )
        np.testing.assert_allclose(posterior, expected, atol=1e-12)
        some += bool(posterior.sum())
    assert some


def test_the_equality_of_the_suite_decides():
    """A marker under the robot is hidden in a drawing, so more programs are right."""
    suite = load_suite("icml24")
    tasks = causal_tasks(suite, np.arange(12))
    prefix = np.stack([tasks.programs.program(i)[3:8] for i in range(12)]).astype(np.int8)
    reached = execute_prefixes(prefix, tasks.inputs[:, : suite.shown])
    drawn = SuffixTable.of_suite(suite, 5)
    assert drawn.equality == "drawn"
    assert drawn.end_weight == 0, "six actions are the shortest program"
    assert len(drawn.lengths) == 5 + 25 + 125 + 625 + 3125
    posterior = drawn.next_word_posterior(reached, tasks.outputs[:, : suite.shown])
    np.testing.assert_allclose(posterior.sum(1), 1)
    put = suite.recipe.weights[4] / sum(suite.recipe.weights)
    assert drawn.weights[(drawn.lengths == 1) & (drawn.actions[:, 0] == 4)] == pytest.approx(put)


def test_distinct_states_are_computed_once_with_the_same_result():
    tasks = causal_tasks(LAPTOP, np.arange(4))
    task = np.repeat(np.arange(4), 25)
    prefix = np.array([(1, a, b) for _ in range(4) for a in range(5) for b in range(5)], np.int8)
    reached = execute_prefixes(prefix, tasks.inputs[task, :3])
    table = SuffixTable.of_suite(LAPTOP, 3)
    distinct = posterior_of_distinct(table, reached, tasks.outputs[task, :3], task)
    assert np.array_equal(distinct, table.next_word_posterior(reached, tasks.outputs[task, :3]))


def test_control_flow_is_refused():
    with pytest.raises(UsageError, match="control flow"):
        SuffixTable.of_suite(load_suite("control"), 3)
    with pytest.raises(UsageError, match="expected fewer than its longest program"):
        SuffixTable.of_suite(LAPTOP, 6)
