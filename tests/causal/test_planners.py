"""Planners whose use of a stored rotation is known get the verdict that is right. All kinds, 20 draws: `pytest -m slow`."""

from __future__ import annotations

import numpy as np
import pytest

from benchmark.calibrate.causal import main
from benchmark.calibrate.causal_calibration import EXPECTED, SHARES, format_table, measure_planners
from benchmark.calibrate.planners import NUM_SITES, PLANNER, PUSHER, SHARE, Planner, PlannerWorld
from benchmark.causal.measurement import measure_use
from benchmark.causal.pairs import PairSettings
from benchmark.causal.shams import run_shams
from benchmark.tasks.prompt_template import render_prompts
from benchmark.tasks.suite import load_suite

LAPTOP = load_suite("laptop")
FEW = PairSettings(tasks=200)


@pytest.fixture(scope="module")
def cells():
    return measure_planners(LAPTOP, 1, FEW)


def test_every_planner_gets_its_verdict(cells):
    assert {cell["planner"] for cell in cells} == {*EXPECTED, *(f"{SHARE} {share:g}" for share in SHARES)}
    wrong = [cell for cell in cells if not cell["is_right"] and not cell["planner"].startswith(SHARE)]
    assert not wrong
    assert not any(cell["is_false_use"] for cell in cells)
    assert format_table(cells).count("\n") == len(cells) + 1


def test_the_score_is_the_share_of_tasks_that_read_the_state(cells):
    for share in SHARES:
        (cell,) = (cell for cell in cells if cell["planner"] == f"{SHARE} {share:g}")
        value, low, high = cell["use"]
        assert abs(value - share) <= 0.15, "a third of the pairs, so a wider band than the full size's"
        assert low - 0.05 <= share <= high + 0.05


def test_a_pusher_is_high_on_all_pairs_and_at_the_floor_on_strict_ones(cells):
    (cell,) = (cell for cell in cells if cell["planner"] == PUSHER)
    assert cell["every"] > 0.5
    assert cell["strict"] == 0


def test_results_are_deterministic():
    first, second = (
        measure_use(Planner(PlannerWorld(LAPTOP, FEW), PLANNER, 3), LAPTOP, settings=FEW) for _ in range(2)
    )
    assert first.use == second.use
    assert first.evidence is not None
    assert second.evidence is not None
    for name, array in first.evidence.to_arrays().items():
        assert np.array_equal(array, second.evidence.to_arrays()[name]), name


def test_shams_pass_and_find_what_is_broken(monkeypatch):
    world = PlannerWorld(LAPTOP, FEW)
    planner = Planner(world, PLANNER, 0)
    rows = slice(0, 12)
    prompts = [render_prompts(LAPTOP, world.pairs.tasks)[i] for i in world.pairs.task[rows]]
    prefixes = [" ".join(("move();", "turn_left();", "turn_right();", "pick_marker();", "put_marker();")[w] for w in row)
                for row in world.pairs.prefix[rows]]  # fmt: skip
    assert run_shams(planner, prompts, prefixes) == []
    inexact = Planner(world, PLANNER, 0)
    original = inexact.prepare

    def prepare(*arguments):
        prepared = original(*arguments)
        score = prepared.score
        prepared.score = lambda site=0, states=None, **options: score(
            site, None if states is None else states + np.float32(1e-2) * np.abs(states), **options
        )
        return prepared

    monkeypatch.setattr(inexact, "prepare", prepare)
    assert any(failure.startswith("edit by zero") for failure in run_shams(inexact, prompts, prefixes))
    assert len(planner.sites) == NUM_SITES


def test_the_command_writes_a_record(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "benchmark.calibrate.causal_calibration.measure_planners",
        lambda suite, seed: measure_planners(suite, seed, FEW, [PUSHER]),
    )
    assert main(["--seeds", "1", "--draws", "2", "--trainings", "0", "--output-dir", str(tmp_path)]) == 0
    assert "false USES: 0" in capsys.readouterr().out
    assert (tmp_path / "causal.json").is_file()


@pytest.mark.slow
def test_every_planner_in_20_draws():
    cells = [cell for seed in range(20) for cell in measure_planners(LAPTOP, seed)]
    assert not any(cell["is_false_use"] for cell in cells)
    for kind in {cell["planner"] for cell in cells}:
        assert sum(cell["is_right"] for cell in cells if cell["planner"] == kind) >= 19, kind
