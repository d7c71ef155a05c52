"""The board is what the records give, and only official ones enter."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from benchmark.folder import PROBES, RunFolder, read_probes
from benchmark.leaderboard import ROOT, board, card, main, official_records, row
from benchmark.record import read_record

SUBMISSIONS = ROOT / "submissions"


@pytest.fixture
def copied(tmp_path):
    for record in SUBMISSIONS.glob("*/record.json"):
        (tmp_path / record.parent.name).mkdir()
        for name in ("record.json", PROBES):
            if (record.parent / name).is_file():
                shutil.copy(record.parent / name, tmp_path / record.parent.name)
    return tmp_path


def alter(copied, change):
    """Change the record of a copied submission."""
    path = min(copied.glob("*/record.json"))
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def test_the_shipped_board_is_up_to_date():
    assert main(["--check"]) == 0
    assert (ROOT / "leaderboard.md").read_text() == board(official_records(SUBMISSIONS))


def test_every_column_stands_in_the_row_and_on_the_card():
    name, record = official_records(SUBMISSIONS)[0]
    cells = row(record)
    assert all(value in card(record) for value in cells.values())
    assert name in board([(name, record)])


def test_an_altered_board_is_found(copied, tmp_path, capsys):
    out = tmp_path / "leaderboard.md"
    assert main(["--submissions", str(copied), "--out", str(out)]) == 0
    assert main(["--submissions", str(copied), "--out", str(out), "--check"]) == 0
    out.write_text(out.read_text().replace("92.6", "99.9"))
    assert main(["--submissions", str(copied), "--out", str(out), "--check"]) == 4
    assert "python -m benchmark.leaderboard" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r.update(official=False, unofficial=["--limit 5"]), "--limit 5"),
        (lambda r: r["accuracy"]["shown"].pop("n"), "accuracy.shown.n"),
        (lambda r: r.update(extra=1), "extra"),
        (lambda r: r["model"].update(parameters="many"), "model.parameters"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(copied, tmp_path, capsys, change, says):
    alter(copied, change)
    assert main(["--submissions", str(copied), "--out", str(tmp_path / "x.md")]) != 0
    message = capsys.readouterr().err
    assert says in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r["meaning"]["features"]["facing"]["delta"].update(low=0.06), "facing.delta"),
        (lambda r: r["meaning"]["features"]["obstacle"].update(p_rand=0.5), "obstacle.p_rand"),
        (lambda r: r["meaning"].update(verdict="INCONCLUSIVE"), "gives REPRESENTS"),
    ],
)
def test_a_record_that_its_arrays_do_not_give_is_found(copied, tmp_path, capsys, change, says):
    alter(copied, change)
    where = ["--submissions", str(copied), "--out", str(tmp_path / "leaderboard.md")]
    assert main(where) == 0
    assert main([*where, "--check"]) == 4
    assert says in capsys.readouterr().err


def test_altered_or_missing_arrays_are_found(copied, tmp_path, capsys):
    where = ["--submissions", str(copied), "--out", str(tmp_path / "leaderboard.md")]
    assert main(where) == 0
    folder = min(copied.glob("*/record.json")).parent
    arrays = read_probes(folder)
    RunFolder(folder).write_probes({**arrays, "model.totals": arrays["model.totals"] * 0.99})
    assert main([*where, "--check"]) == 4
    (folder / PROBES).unlink()
    assert main([*where, "--check"]) == 4
    assert "run the model again" in capsys.readouterr().err


def test_arrays_are_stored_as_they_are_read_whatever_their_order(tmp_path):
    whole = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
    arrays = {"plain": whole, "turned": np.moveaxis(whole, 2, 0), "strided": whole[:, ::2]}
    RunFolder(tmp_path).write_probes(arrays)
    for name, array in read_probes(tmp_path).items():
        np.testing.assert_array_equal(array, arrays[name])


def test_records_survive_a_round_trip():
    path = next(SUBMISSIONS.glob("*/record.json"))
    assert read_record(path).to_json() == path.read_text()
