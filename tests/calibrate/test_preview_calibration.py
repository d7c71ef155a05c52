"""The rule of a preview on pseudo-models with a known answer, at a small budget."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmark.calibrate.__main__ import main
from benchmark.calibrate.preview import calibration
from benchmark.calibrate.preview.calibration import format_summary, summarize
from benchmark.probing.control_gap import INCONCLUSIVE, REPRESENTS
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.probing.version4.rotation_verdict import NOTHING_READ

SMALL = replace(
    ROTATION_STANDARD, steps=60, hidden=24, batch=128, checks=1, resamples=200, random_inits=2, min_unseen=300,
    folds=7, seeds=tuple(range(7)),
)  # fmt: skip


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """A small calibration, run twice: the second run measures nothing."""
    folder = tmp_path_factory.mktemp("preview")
    words = [
        "preview",
        "--suite",
        "smoke",
        "--prompts",
        "280",
        "--only",
        "noise",
        "--only",
        "rotation",
        "--out",
        str(folder),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "ROTATION_STANDARD", SMALL)
        assert main(words) == 0
        first = (folder / calibration.RECORD_FILE).read_text()
        patch.setattr(calibration, "measure_preview_cell", None)
        assert main(words) == 0
    assert (folder / calibration.RECORD_FILE).read_text() == first
    return json.loads(first)


@pytest.mark.slow
def test_what_is_clear_is_decided_at_the_first_look(record) -> None:
    cells = {cell["pseudo-model"]: cell for cell in record["cells"]}
    assert cells["rotation"]["preview"] == cells["rotation"]["all_seeds"] == REPRESENTS
    assert cells["noise"]["preview"] == cells["noise"]["all_seeds"] == NOTHING_READ
    assert [cell["preview_seeds"] for cell in cells.values()] == [record["looks"][0]["seeds"]] * 2
    assert all(cell["agrees"] and cell["right"] and cell["preview_right"] for cell in cells.values())
    assert record["summary"]["disagree"] == 0


def cell(kind: str, preview: str, final: str, seeds: int = 3) -> dict:
    return {"kind": kind, "preview": preview, "all_seeds": final, "agrees": preview == final, "preview_seeds": seeds}


def test_errors_of_the_rule_are_counted() -> None:
    cells = [
        cell("N", REPRESENTS, INCONCLUSIVE), cell("N", INCONCLUSIVE, INCONCLUSIVE, 5), cell("R", INCONCLUSIVE, REPRESENTS),
        cell("R", REPRESENTS, REPRESENTS, 7),
    ]  # fmt: skip
    summary = summarize(cells)
    assert summary["by_seeds"] == {"3": 2, "5": 1, "7": 1}
    assert (summary["disagree"], summary["cells"]) == (2, 4)
    assert (summary["false_represents"], summary["without_state"], summary["false_represents_all_seeds"]) == (1, 2, 0)
    text = format_summary(summary)
    assert "another verdict than all seeds: 2 of 4 (50.0% [15.0%, 85.0%])" in text
    assert "false REPRESENTS among 2 without a state: 1 of 2" in text


def test_unknown_names_are_refused(capsys, tmp_path) -> None:
    assert main(["preview", "--only", "nobody", "--out", str(tmp_path)]) == 2
    assert "no such pseudo-model" in capsys.readouterr().err
