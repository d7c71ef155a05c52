"""The verdict of a stored cell follows from its figures: no calibration is fitted again for another rule."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.calibrate.__main__ import main
from benchmark.calibrate.rotation_calibration import RECORD_FILE, is_right, redecide
from benchmark.probing.control_gap import INCONCLUSIVE, RECORD_ONLY, REPRESENTS
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.probing.version4.rotation_verdict import NOTHING_READ

SHIPPED = Path(__file__).parents[2] / "docs" / RECORD_FILE


pytestmark = pytest.mark.usefixtures("few_simulated_cases")


@pytest.fixture(scope="module")
def cells() -> list[dict]:
    return json.loads(SHIPPED.read_text())["cells"]


def test_shipped_cells_have_the_verdict_of_the_frozen_rule(cells) -> None:
    for cell in cells:
        assert redecide(cell, ROTATION_STANDARD) == cell, cell["pseudo-model"]
        assert cell["right"] == is_right(cell["kind"], cell["found"])


def test_no_record_of_words_is_represents_and_nearly_every_state_is(cells) -> None:
    found = {kind: [cell["found"] for cell in cells if cell["kind"] == kind] for kind in "NRM"}
    assert REPRESENTS not in found["N"]
    assert set(found["R"]) <= {REPRESENTS, INCONCLUSIVE}
    assert found["R"].count(REPRESENTS) >= 0.95 * len(found["R"])
    assert RECORD_ONLY not in found["M"]
    assert len(cells) >= 60
    assert sum(cell["unseen_rows"] < ROTATION_STANDARD.min_unseen for cell in cells) == 0


def test_conditions_of_represents_decide_alone(cells) -> None:
    state = next(cell for cell in cells if cell["found"] == REPRESENTS)
    strict = replace(ROTATION_STANDARD, arithmetic_margin=0.999)
    assert redecide(state, strict)["found"] == INCONCLUSIVE
    assert not redecide(state, strict)["right"]
    assert redecide(redecide(state, strict), ROTATION_STANDARD) == state
    for condition in ("delta", "pose_delta", "arithmetic"):
        value, _, high = state[condition]
        weak = {**state, condition: [value, -0.001, high]}
        assert redecide(weak, ROTATION_STANDARD)["found"] == INCONCLUSIVE, condition


def test_figures_on_all_rows_decide_the_other_outcomes(cells) -> None:
    cell = next(cell for cell in cells if cell["found"] == INCONCLUSIVE)
    narrow = [0.0, -0.01, 0.01]
    equal = {
        **cell, "delta": narrow, "delta90": narrow, "delta_all": dict.fromkeys(cell["delta_all"], narrow),
        "excess": dict.fromkeys(cell["excess"], 0.0), "skill_all": 0.6, "skill_alternatives_all": 0.6,
    }  # fmt: skip
    assert redecide(equal, ROTATION_STANDARD)["found"] == RECORD_ONLY
    nothing = {**equal, "skill_all": 0.01, "skill_alternatives_all": 0.01, "head_skill": 0.01}
    assert redecide(nothing, ROTATION_STANDARD)["found"] == NOTHING_READ


def test_the_command_decides_a_record_again(cells, tmp_path, capsys) -> None:
    altered = [{**cell, "found": INCONCLUSIVE, "right": False} for cell in cells if cell["found"] == REPRESENTS][:3]
    (tmp_path / "old.json").write_text(json.dumps({"suite": "laptop", "cells": altered}))
    command = ["--protocol", "4", "--redecide", str(tmp_path / "old.json"), "--out", str(tmp_path / "new")]
    assert main(command) == 0
    assert "wrong: 0 of 3" in capsys.readouterr().out
    again = json.loads((tmp_path / "new" / RECORD_FILE).read_text())
    assert {cell["found"] for cell in again["cells"]} == {REPRESENTS}
    (tmp_path / "old.json").write_text("{}")
    assert main(command) == 2
    assert "expected the record" in capsys.readouterr().err
