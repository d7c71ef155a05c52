"""The gate of protocol 4 at a small budget, and that a calibration continues where it stopped."""

from __future__ import annotations

import json

import numpy as np
import pytest
from worlds import WORLDS_SUITE

from benchmark.calibrate import rotation_calibration
from benchmark.calibrate.__main__ import main
from benchmark.calibrate.rotation_calibration import CellStore, cell_key, pseudo_model_names
from benchmark.calibrate.rotation_draw import FORBIDDEN, RotationDraw, to_cell
from benchmark.calibrate.rotation_kinds import WIDTH
from benchmark.calibrate.trained import rotation_trainings
from benchmark.calibrate.trained.rotation_network import train_rotation_network
from benchmark.probing.control_gap import INCONCLUSIVE, RECORD_ONLY, REPRESENTS
from benchmark.probing.version4.rotation_verdict import NOTHING_READ

SMALL = [
    "--protocol",
    "4",
    "--suite",
    WORLDS_SUITE,
    "--prompts",
    "300",
    "--folds",
    "4",
    "--probe-seeds",
    "4",
    "--networks",
    "1",
]
SMALL_PROTOCOL = rotation_calibration.replace(
    rotation_calibration.ROTATION_STANDARD, steps=60, hidden=24, batch=128, checks=1, resamples=200, random_inits=2,
    min_unseen=500,
)  # fmt: skip
GATE = ["noise", "bag, left = right, pick = put", "rotation"]


pytestmark = pytest.mark.usefixtures("few_simulated_cases")


@pytest.fixture(scope="module")
def gate(tmp_path_factory):
    """The folder of a small calibration, and its exit code."""
    folder = tmp_path_factory.mktemp("calibration")
    chosen = [option for name in GATE for option in ("--only", name)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rotation_calibration, "ROTATION_STANDARD", SMALL_PROTOCOL)
        code = main([*SMALL, *chosen, "--out", str(folder)])
        yield folder, code, [*SMALL, *chosen, "--out", str(folder)]


def test_kinds_n_are_never_represents_and_kinds_r_are(gate) -> None:
    folder, code, _ = gate
    assert code == 0
    cells = {
        cell["pseudo-model"]: cell for cell in json.loads((folder / "calibration_protocol4.json").read_text())["cells"]
    }
    found = {name: cell["found"] for name, cell in cells.items()}
    assert all(cell["right"] for cell in cells.values()), found
    assert found["rotation"] == REPRESENTS
    assert found["noise"] == NOTHING_READ
    assert cells["rotation"]["delta"][0] > 0.2


def test_a_finished_cell_is_not_measured_again(gate, monkeypatch, capsys) -> None:
    folder, _, options = gate
    before = (folder / "calibration_protocol4.json").read_text()
    cell = next(path for path in folder.glob("*-00?-??.json"))
    stored = cell.read_text()
    cell.write_text(stored.replace('"kind": "', '"kind": "x'))
    measured = []
    monkeypatch.setattr(
        RotationDraw, "measure", lambda self, name, controls: measured.append(name) or json.loads(stored)["cell"]
    )
    assert main(options) == 0
    assert len(measured) == 1
    assert "corrupt" in capsys.readouterr().err
    assert (folder / "calibration_protocol4.json").read_text() == before


def test_slices_of_draws_are_combined_into_a_record(gate, monkeypatch, capsys, tmp_path) -> None:
    folder, _, options = gate
    first = json.loads((folder / "calibration_protocol4.json").read_text())
    later = {**first["cells"][0], "pseudo-model": "rotation", "kind": "R", "found": REPRESENTS, "seconds": 1.0}
    later |= {name: first["cells"][-1][name] for name in ("delta", "pose_delta", "arithmetic", "skill", "gap")}
    monkeypatch.setattr(
        RotationDraw, "measure", lambda self, name, controls: {**later, "pseudo-model": name, "seed": self.seed}
    )
    monkeypatch.setattr(CellStore, "controls", lambda self, draw: {})
    slice_options = [*SMALL, "--only", "rotation", "--first-draw", "1", "--draws", "2", "--out", str(folder)]
    assert main([*slice_options, "--planned-draws", "5"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("draw ")]
    models = len(pseudo_model_names())
    assert [line.partition(",")[0] for line in lines] == [
        f"draw {draw}: rotation: REPRESENTS (1 s); slice {draw} of 2" for draw in (1, 2)
    ]
    assert f"all 5 of {5 * models}, about " in lines[-1]

    record = tmp_path / "record.json"
    old = {**first["cells"][0], "seed": 7, "source": "older"}
    replaced = {**first["cells"][0], "skill": 0.9, "source": "older"}
    record.write_text(json.dumps({**first, "cells": [old, replaced], "note": "kept"}))
    assert main([*options, "--combine", str(record)]) == 0
    combined = json.loads(record.read_text())
    cells = {(cell["pseudo-model"], cell["seed"]): cell for cell in combined["cells"]}
    assert sorted(seed for name, seed in cells if name == "rotation") == [0, 1, 2]
    assert {seed for name, seed in cells if name == old["pseudo-model"]} == {0, 7}
    assert cells[replaced["pseudo-model"], 0]["skill"] == first["cells"][0]["skill"]
    assert cells[old["pseudo-model"], 7]["source"] == "older"
    assert len(cells["rotation", 2]["source"]) == 12
    assert (combined["draws"], combined["note"]) == (4, "kept")


def test_cells_of_other_settings_are_not_combined(gate, tmp_path, capsys) -> None:
    folder, _, options = gate
    record = tmp_path / "record.json"
    other = json.loads((folder / "calibration_protocol4.json").read_text()) | {"probe_seeds": 3}
    record.write_text(json.dumps(other))
    assert main([*options, "--combine", str(record)]) == 2
    assert "has probe_seeds 3, the cells have 4" in capsys.readouterr().err
    assert json.loads(record.read_text()) == other
    assert main([*SMALL, "--prompts", "301", "--combine", str(record), "--out", str(folder)]) == 2
    assert "no finished cell" in capsys.readouterr().err


def test_the_key_of_a_cell_has_suite_and_settings() -> None:
    suite = rotation_calibration.load_suite(WORLDS_SUITE)
    key = cell_key(suite, SMALL_PROTOCOL, 300)
    assert cell_key(rotation_calibration.load_suite(WORLDS_SUITE), SMALL_PROTOCOL, 300) == key
    changed = rotation_calibration.replace
    others = [
        cell_key(changed(suite, seed=suite.seed + 1), SMALL_PROTOCOL, 300),
        cell_key(suite, changed(SMALL_PROTOCOL, steps=61), 300),
        cell_key(suite, SMALL_PROTOCOL, 301),
    ]
    assert len({key, *others}) == 4


def test_stored_cells_are_read_without_drawing_programs(gate, monkeypatch) -> None:
    _, _, options = gate
    monkeypatch.setattr(RotationDraw, "builder", property(lambda self: pytest.fail("every cell is stored")))
    assert main(options) == 0


def test_an_unknown_pseudo_model_is_a_usage_error(tmp_path, capsys) -> None:
    assert main([*SMALL, "--only", "ghost", "--out", str(tmp_path)]) == 2
    assert "ghost" in capsys.readouterr().err


def test_every_pseudo_model_is_built() -> None:
    suite = rotation_calibration.load_suite(WORLDS_SUITE)
    draw = RotationDraw(suite, rotation_calibration.ROTATION_STANDARD, 0, 60)
    kinds = draw.builder.kinds()
    assert {kind for kind, _ in kinds.values()} == {"N", "R", "M"}
    assert len(kinds) > 30
    assert list(kinds) == pseudo_model_names()
    for name, (_, views) in kinds.items():
        for view in views():
            assert view.shape == (draw.builder.num_rows, WIDTH), name
            assert view.dtype == np.float32, name
            assert np.isfinite(view).all(), name
        again = kinds[name][1]()
        assert (again[0] == views()[0]).all(), name


@pytest.mark.parametrize(
    ("kind", "verdict", "right"),
    [("N", REPRESENTS, False), ("N", RECORD_ONLY, True), ("R", REPRESENTS, True), ("R", INCONCLUSIVE, False),
     ("M", RECORD_ONLY, False), ("M", REPRESENTS, True)],
)  # fmt: skip
def test_which_verdict_is_right(kind: str, verdict: str, right: bool) -> None:
    class Figures:
        value, low, high = 0.0, 0.0, 0.0

        def __getattr__(self, name: str):
            return {"verdict": verdict, "delta90_all": {}}.get(name, self)

    assert to_cell("a model", kind, 0, Figures())["right"] is right
    assert set(FORBIDDEN) == {"N", "M"}


def test_trained_networks_are_pseudo_models_of_their_own(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(rotation_calibration, "ROTATION_STANDARD", SMALL_PROTOCOL)
    monkeypatch.setattr(rotation_trainings, "train_rotation_network", lambda *args: train_rotation_network(*args, 2))
    options = [*SMALL, "--prompts", "60", "--trained", "--only", "trained to track", "--out", str(tmp_path)]
    assert main(options) == 0
    cells = json.loads((tmp_path / "calibration_protocol4.json").read_text())["cells"]
    assert [(cell["pseudo-model"], cell["kind"], cell["seed"]) for cell in cells] == [("trained to track", "R", 0)]
    assert 0 < cells[0]["task_accuracy"] < 0.9
    assert {"token-history", "random-init"} <= set(cells[0]["controls"])
    assert main([*SMALL, "--trained", "--only", "rotation", "--out", str(tmp_path)]) == 2
