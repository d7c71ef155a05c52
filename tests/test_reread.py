"""Readings computed afterwards are those that the run stored, and are refused where they would be another's."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from benchmark.folder import PROBES, RunFolder, read_probes
from benchmark.leaderboard import ROOT
from benchmark.reread import main
from benchmark.submission import READINGS


@pytest.fixture
def copied(smoke_run, tmp_path):
    """A finished run of the tiny model without its readings."""
    shutil.copytree(smoke_run, tmp_path / "run")
    (tmp_path / "run" / READINGS).unlink()
    return tmp_path / "run"


def test_a_finished_run_gets_the_readings_that_it_would_have_stored(copied, smoke_run, capsys):
    assert main([str(copied)]) == 0
    assert (copied / READINGS).read_bytes() == (smoke_run / READINGS).read_bytes()
    assert READINGS in capsys.readouterr().out


def test_probes_that_do_not_give_what_is_stored_are_refused(copied, capsys):
    arrays = read_probes(copied)
    RunFolder(copied).write_probes({**arrays, "model.totals": arrays["model.totals"] * np.float32(1.05)})
    assert main([str(copied)]) == 4
    assert "cross-entropies differ" in capsys.readouterr().err
    assert (copied / PROBES).is_file()
    assert not (copied / READINGS).exists()


def test_another_model_is_refused(copied, capsys):
    record = json.loads((copied / "record.json").read_text())
    record["model"]["digest"] = "0" * 64
    (copied / "record.json").write_text(json.dumps(record))
    assert main([str(copied)]) == 4
    assert "digest" in capsys.readouterr().err


def test_where_nothing_can_be_read_it_says_so(tmp_path, capsys):
    assert main([str(ROOT / "submissions" / "2026-11-25_search")]) == 2
    assert "has no hidden states" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2
    assert "no record.json" in capsys.readouterr().err
