"""Displacement: dead reckoning, cells that are free, differences at equal rotation, and planners of known answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from toy_steerable import ToyPrepared, ToySteerable

from benchmark.calibrate.planners import ScoredRows
from benchmark.causal.detail.displacement import (
    DIRECTIONS,
    STEPS,
    adjusted_differences,
    derive_move_pairs,
    displacement,
    displacement_code,
    mean_codes,
    move_robots,
    step_changes,
)
from benchmark.causal.detail.measure_detail import measure_detail
from benchmark.causal.interventions import AT_PREFIX
from benchmark.causal.pairs import PairSettings, derive_pairs, posterior_of_distinct
from benchmark.causal.rotation import alternative_semantics
from benchmark.causal.targets import SuffixTable, execute_prefixes
from benchmark.tasks.suite import load_suite
from karel_env.world import Worlds

LAPTOP = load_suite("laptop")
FEW = PairSettings(tasks=100)
MOVE, LEFT, RIGHT = range(3)


@pytest.mark.parametrize(
    ("words", "position"),
    [
        ([MOVE, MOVE, MOVE], (3, 0)),
        ([RIGHT, MOVE, MOVE], (0, 2)),
        ([LEFT, MOVE, MOVE], (0, -2)),
        ([MOVE, RIGHT, MOVE], (1, 1)),
        ([RIGHT, RIGHT, MOVE], (-1, 0)),
        ([3, 4, 3], (0, 0)),
    ],
)
def test_dead_reckoning(words, position):
    assert displacement(np.array([words])).tolist() == [list(position)]


def test_another_semantics_goes_elsewhere():
    prefixes = derive_pairs(LAPTOP, FEW).prefix
    assert (displacement(prefixes) != displacement(prefixes, alternative_semantics()[0])).any(1).mean() > 0.3


def test_codes_and_steps_fit():
    changes = step_changes(3)
    position = np.array([[1, -2], [3, 0]])
    for direction, step in enumerate(STEPS):
        after = displacement_code(position + step, 3)
        assert (
            changes[displacement_code(position, 3) * 4 + direction].tolist()
            == np.stack([displacement_code(position, 3), after], 1).tolist()
        )
    assert displacement_code(np.array([[4, 0]]), 3).tolist() == [-1]


def test_robots_are_moved_in_the_frame_of_their_start():
    cells = np.zeros((1, 4, 5, 5), np.int16)
    cells[..., 0, :] = cells[..., -1, :] = cells[..., :, 0] = cells[..., :, -1] = -1
    robot = np.array([[[2, 2, heading] for heading in range(4)]], np.int16)
    size = np.full((1, 4, 2), 5, np.int16)
    starts = Worlds(cells, robot, size)
    moved, is_free = move_robots(starts, starts, np.array([[1, 0]]))
    assert moved.robot[0, :, :2].tolist() == [[1, 2], [2, 3], [3, 2], [2, 1]]
    assert moved.robot[0, :, 2].tolist() == [0, 1, 2, 3]
    right, _ = move_robots(starts, starts, np.array([[0, 1]]))
    assert right.robot[0, :, :2].tolist() == [[2, 3], [3, 2], [2, 1], [1, 2]]
    assert is_free.tolist() == [True]
    assert not move_robots(starts, starts, np.array([[2, 0]]))[1].any(), "walls are not free"
    assert not move_robots(starts, starts, np.array([[9, 0]]))[1].any(), "neither is what is outside"
    blocked = cells.copy()
    blocked[0, 1, 2, 3] = -1
    walled = Worlds(blocked, robot, size)
    assert not move_robots(walled, walled, np.array([[1, 0]]))[1].any(), "a wall in one example is enough"


def test_differences_are_taken_at_equal_values_of_the_other_variable():
    random = np.random.default_rng(0)
    labels, strata = random.integers(0, 2, 4000), random.integers(0, 3, 4000)
    strata = np.where(random.random(4000) < 0.6, labels, strata)  # the variables go together
    effect, other = random.normal(size=(2, 8)), random.normal(size=(3, 8)) * 5
    states = (effect[labels] + other[strata] + random.normal(size=(4000, 8)) * 0.1).astype(np.float32)
    (difference,), (weight,) = adjusted_differences(states, labels, strata, np.array([[0, 1]]))
    np.testing.assert_allclose(difference, effect[1] - effect[0], atol=0.05)
    assert weight > 100
    plain = states[labels == 1].mean(0) - states[labels == 0].mean(0)
    assert np.abs(plain - (effect[1] - effect[0])).max() > 0.5, "without adjustment the other variable comes along"
    missing, none = adjusted_differences(states, labels, strata, np.array([[0, 7]]))
    assert none.tolist() == [0]
    assert not missing.any()


def test_pairs_are_derived_again_and_their_targets_are_exact():
    moves, pairs = derive_move_pairs(LAPTOP, FEW), derive_pairs(LAPTOP, FEW)
    derive_move_pairs.cache_clear()
    again = derive_move_pairs(LAPTOP, FEW)
    assert np.array_equal(moves.prefix, again.prefix)
    assert np.array_equal(moves.target, again.target)
    assert len(moves) > 60
    assert (moves.target != moves.base_word).all()
    assert set(moves.direction.tolist()) == set(range(len(DIRECTIONS)))
    inputs, outputs = (w[moves.task, : LAPTOP.shown] for w in (pairs.tasks.inputs, pairs.tasks.outputs))
    reached = execute_prefixes(moves.prefix, inputs)
    position = displacement(moves.prefix)
    here, is_free = move_robots(reached, inputs, position)
    assert is_free.all()
    assert np.array_equal(here.robot, reached.robot), "no move of the prefix is blocked"
    moved, is_free = move_robots(reached, inputs, position + STEPS[moves.direction])
    assert is_free.all()
    posterior = SuffixTable.of_suite(LAPTOP, moves.prefix.shape[1]).next_word_posterior(moved, outputs)
    assert np.array_equal(posterior.argmax(1), moves.target)
    assert (posterior.max(1) >= 0.5).all()
    assert (mean_codes(LAPTOP, FEW) >= 0).mean() > 0.5


class MovePlanner(ToySteerable):
    """Stores where the robot is; `reads` tells whether the words follow it, or the tokens alone."""

    def prepare(self, prompts: Sequence[str], prefixes: Sequence[str]) -> MoveRows:
        prepared = super().prepare(prompts, prefixes)
        return MoveRows(self, prepared.task, prepared.prefix)


class MoveRows(ToyPrepared):
    """States with a linear code of the displacement, and words for the cell that is stored."""

    def __init__(self, model: MovePlanner, task: np.ndarray, prefix: np.ndarray) -> None:
        super().__init__(model, task, prefix)
        self.position = displacement(prefix)
        self.code = model.code[:, :2]
        self.values = (self.values - self.values @ self.code @ self.code.T + 2.0 * self.position @ self.code.T).astype(
            np.float32
        )

    def score(self, site=0, states=None, position=AT_PREFIX, ranges=None) -> ScoredRows:
        """See `PreparedPrefixes.score`."""
        base = self.by_turn[:, 0].clip(1e-3)
        if states is None or not self.model.reads or self.prefix.shape[1] >= LAPTOP.train_length[1]:
            return ScoredRows(np.log(base), np.ones(len(base), bool))
        stored = np.rint(states @ self.code / 2).astype(int)
        inputs, outputs = (w[self.task, : LAPTOP.shown] for w in (self.model.tasks.inputs, self.model.tasks.outputs))
        reached = execute_prefixes(self.prefix, inputs)
        moved, is_free = move_robots(reached, inputs, stored)
        is_free &= (stored != self.position).any(1)
        posterior = base.copy()
        if is_free.any():
            table = SuffixTable.of_suite(LAPTOP, self.prefix.shape[1])
            part = posterior_of_distinct(table, moved[is_free], outputs[is_free], self.task[is_free])
            posterior[is_free] = np.where(part.sum(1, keepdims=True) > 0, part, base[is_free]).clip(1e-3)
        return ScoredRows(np.log(posterior), np.ones(len(base), bool))


def measure(reads: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ToySteerable, "prepare_differentiable", None)
    result = measure_detail(MovePlanner(LAPTOP, FEW, reads), LAPTOP, FEW).result
    assert result.moves is not None
    return result


def test_a_planner_that_reads_the_cell_follows_the_edit(monkeypatch):
    result = measure(True, monkeypatch)
    moves = result.moves
    assert moves.steered.value > 0.9
    assert moves.strict.value > 0.9
    assert moves.clamped.value == moves.steered.value
    assert moves.controls["no edit"].value == 0
    assert moves.controls["other value"].value < 0.2
    assert moves.controls["shuffled labels"].value < 0.2
    assert moves.controls["false semantics"].value < 0.3
    assert moves.pairs > 20
    assert all(share.value < 0.2 for edit in result.edits[:1] for share in edit.by_site["steered"]), "not by rotation"


def test_a_planner_that_stores_the_cell_and_plans_from_tokens_does_not(monkeypatch):
    moves = measure(False, monkeypatch).moves
    assert moves.steered.value == 0
    assert all(share.value == 0 for share in moves.by_site)
