"""The gate of protocol 4 at a small budget, and that a calibration continues where it stopped."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmark.calibrate import rotation_calibration
from benchmark.calibrate.__main__ import main
from benchmark.calibrate.rotation_calibration import FORBIDDEN, RotationDraw, to_cell
from benchmark.calibrate.rotation_kinds import WIDTH
from benchmark.probing.control_gap import INCONCLUSIVE, RECORD_ONLY, REPRESENTS
from benchmark.probing.version4.rotation_verdict import NOTHING_READ

SMALL = [
    "--protocol",
    "4",
    "--suite",
    "smoke",
    "--prompts",
    "300",
    "--folds",
    "4",
    "--probe-seeds",
    "4",
    "--networks",
    "1",
]
GATE = ["noise", "bag, left = right, pick = put", "rotation"]


@pytest.fixture(scope="module")
def gate(tmp_path_factory):
    """The folder of a small calibration, and its exit code."""
    folder = tmp_path_factory.mktemp("calibration")
    chosen = [option for name in GATE for option in ("--only", name)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            rotation_calibration, "ROTATION_STANDARD", rotation_calibration.replace(
                rotation_calibration.ROTATION_STANDARD, steps=60, hidden=24, batch=128, checks=1, resamples=200,
                random_inits=2, min_unseen=500,
            ),
        )  # fmt: skip
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
    monkeypatch.setattr(RotationDraw, "measure", lambda self, name: measured.append(name) or json.loads(stored)["cell"])
    assert main(options) == 0
    assert len(measured) == 1
    assert "corrupt" in capsys.readouterr().err
    assert (folder / "calibration_protocol4.json").read_text() == before


def test_an_unknown_pseudo_model_is_a_usage_error(tmp_path, capsys) -> None:
    assert main([*SMALL, "--only", "ghost", "--out", str(tmp_path)]) == 2
    assert "ghost" in capsys.readouterr().err


def test_every_pseudo_model_is_built(tmp_path) -> None:
    suite = rotation_calibration.load_suite("smoke")
    draw = RotationDraw(suite, rotation_calibration.ROTATION_STANDARD, 0, 60, tmp_path / "controls")
    kinds = draw.builder.kinds()
    assert {kind for kind, _ in kinds.values()} == {"N", "R", "M"}
    assert len(kinds) > 30
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
