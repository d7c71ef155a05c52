"""Reach of states that are known to hold a rotation ahead, and of those that hold words and worlds only."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmark.calibrate.reach.calibration import format_reach_table, measure_reach
from benchmark.probing.protocol import STANDARD
from benchmark.probing.written.ahead import AheadFigure, reach_of
from benchmark.statistics import Estimate
from benchmark.tasks.suite import load_suite

HALF = "rotation one ahead in half of the programs"
PROTOCOL = replace(STANDARD, seeds=(0, 1), folds=3, steps=100, hidden=48, resamples=200, min_programs=50)
LONGER = replace(PROTOCOL, seeds=(0, 1, 2), steps=150, hidden=64)


@pytest.fixture(scope="module")
def cells():
    return measure_reach(replace(load_suite("laptop"), probe_programs=800), 0, PROTOCOL)


def test_every_pseudo_model_gets_its_own_reach(cells) -> None:
    # A part of the programs needs more of them, and more seeds, than a test has; see docs/reproduction.md.
    found = {cell["pseudo-model"]: cell["reach"] for cell in cells if cell["pseudo-model"] != HALF}
    expected = {cell["pseudo-model"]: cell["expected"] for cell in cells if cell["pseudo-model"] != HALF}
    assert found == expected, format_reach_table(cells)
    assert set(found.values()) == {0, 1, 2}
    assert found["token history and outputs"] == 0


def test_what_follows_from_the_state_one_word_earlier_is_no_skill(cells) -> None:
    by_name = {cell["pseudo-model"]: cell["ahead"] for cell in cells}
    assert abs(by_name["complete state now"][0]["skill"]) < 0.02
    one = by_name["rotation one ahead"]
    assert one[0]["skill"] > 0.8
    assert abs(one[1]["skill"]) < 0.02
    assert by_name["rotations one and two ahead"][1]["skill"] > 0.8


@pytest.mark.slow
def test_a_state_in_half_of_the_programs_has_a_part_of_the_skill() -> None:
    cells = measure_reach(replace(load_suite("laptop"), probe_programs=1000), 0, LONGER)
    (ahead,) = (cell["ahead"] for cell in cells if cell["pseudo-model"] == HALF)
    assert 0.05 < ahead[0]["skill"] < 0.7


def test_the_table_names_every_pseudo_model(cells) -> None:
    table = format_reach_table(cells)
    assert all(cell["pseudo-model"] in table for cell in cells)
    assert "delta +2" in table


@pytest.mark.parametrize(("lows", "expected"), [((0.1, 0.2), 2), ((0.1, 0.03), 1), ((0.03, 0.2), 0), ((-0.1, -0.1), 0)])
def test_reach_ends_at_the_first_offset_that_is_not_above_the_margin(lows, expected) -> None:
    figures = [
        AheadFigure(offset, Estimate(0, 0, 0, 1), 0.0, Estimate(0.5, low, 1.0, 9), 10)
        for offset, low in enumerate(lows, 1)
    ]
    assert reach_of(figures) == expected
    assert reach_of([]) == 0
