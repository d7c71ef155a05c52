"""Of states that no suffix can bring to the outputs, none is executed; what is executed decides alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmark.causal.pairs import candidate_prefixes, causal_tasks
from benchmark.causal.targets import TURNS, SuffixTable, execute_prefixes, turn_robots
from benchmark.tasks.suite import load_suite
from karel_env.world import Worlds

LAPTOP = load_suite("laptop")


def states_of(count: int, shown: int = LAPTOP.shown) -> tuple[Worlds, Worlds]:
    """Worlds after all prefixes of some tasks, turned by all turns, and their outputs."""
    tasks = causal_tasks(LAPTOP, np.arange(count))
    task, prefix = candidate_prefixes(tasks, np.arange(count), 3)
    reached = execute_prefixes(prefix, tasks.inputs[task, :shown])
    turned = [turn_robots(reached, np.full(len(task), turn)) for turn in range(TURNS)]
    states = Worlds(*(np.concatenate([getattr(w, name) for w in turned]) for name in ("cells", "robot", "size")))
    return states, tasks.outputs[np.tile(task, TURNS), :shown]


@pytest.mark.parametrize("equality", ["state", "drawn"])
def test_states_that_are_too_far_have_no_suffix(equality):
    """Exactly: the weights without the limit are those with it, of one shown example and of all."""
    table = replace(SuffixTable.of_suite(LAPTOP, 3), equality=equality)
    for shown in (1, LAPTOP.shown):
        states, outputs = states_of(6, shown)
        is_near, totals = table._are_near(states, outputs), table._total_weights(states, outputs)
        assert not totals[~is_near].any()
        assert totals[is_near].any()
        assert 0.05 < is_near.mean() < 0.95
        sums = totals.sum(1, keepdims=True)
        expected = np.divide(totals, sums, out=np.zeros_like(totals), where=sums > 0)
        np.testing.assert_array_equal(table.next_word_posterior(states, outputs), expected)


def test_the_limit_is_the_number_of_actions():
    """At the limit in each of the three things that an action changes; one more is too far."""
    cells = np.full((1, 1, 9, 9), -1, np.int16)
    cells[..., 1:-1, 1:-1] = 0
    state = Worlds.of(cells, np.array([[[4, 2, 0]]]))
    table = SuffixTable.of_suite(LAPTOP, 3)
    longest = int(table.lengths.max())
    assert longest == 3
    for rows, columns, turn, markers in ((0, 3, 0, 0), (-2, 1, 0, 0), (0, 1, 3, 1), (1, 0, 2, 0), (0, 0, 0, 3)):
        for more in (0, 1):
            goal = cells.copy()
            goal[0, 0, 1, 1] = markers + more
            outputs = Worlds.of(goal, np.array([[[4 + rows, 2 + columns, turn]]]))
            assert table._are_near(state, outputs).tolist() == [not more]


def test_what_the_robot_hides_is_no_difference_of_drawings():
    cells = np.zeros((1, 1, 5, 5), np.int16)
    cells[..., [0, -1], :] = cells[..., :, [0, -1]] = -1
    robot = np.array([[[2, 2, 0]]])
    below = cells.copy()
    below[0, 0, 2, 2] = 9
    state, outputs = Worlds.of(cells, robot), Worlds.of(below, robot)
    table = SuffixTable.of_suite(LAPTOP, 3)
    assert not replace(table, equality="state")._are_near(state, outputs)[0]
    assert replace(table, equality="drawn")._are_near(state, outputs)[0]
