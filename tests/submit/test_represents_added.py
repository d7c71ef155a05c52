"""Measurements are added to the folder of a run: figures, evidence and card; other files stay as they are."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace

import pytest
from whole_runs import only

from benchmark.artifacts import REPRESENTS_RECORD, ROTATION_EVIDENCE
from benchmark.probing.control_gap import INCONCLUSIVE
from benchmark.probing.version4 import suite_controls
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.runner.measurement_record import RepresentsRecord, read_measurement
from benchmark.runner.measurements import registry
from benchmark.runner.measurements.represents import RepresentsMeasurement
from benchmark.runner.record import read_record
from benchmark.runner.run import Run
from benchmark.submit.measurements.command import main

SMALL = replace(
    ROTATION_STANDARD, folds=3, seeds=(0, 1, 2), random_inits=2, steps=4, checks=1, hidden=4, batch=64, units=12,
    resamples=50, prompts=30, read_skill=0.0,
)  # fmt: skip
ALL_MEASUREMENTS = Run.measurements


@pytest.fixture
def small(quick, monkeypatch, tmp_path) -> None:
    """Protocol 4 with settings that take a moment, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(suite_controls, "SCREEN_SAMPLE", 1000)
    monkeypatch.setitem(registry.MEASUREMENTS, "represents", RepresentsMeasurement(SMALL))
    monkeypatch.setattr(Run, "measurements", ALL_MEASUREMENTS)


def test_protocol_4_is_added_to_a_run(small, smoke_run, tiny_folder, tmp_path, capsys) -> None:
    folder = tmp_path / "run"
    shutil.copytree(smoke_run, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    out = tmp_path / "measured"
    command = [str(folder), "--only", "represents", "--model", f"path:{tiny_folder}", "--output-dir", str(out)]
    assert main(command) == 0
    record = read_measurement(RepresentsRecord, folder)
    assert record is not None
    assert record.rotation.verdict == INCONCLUSIVE
    assert record.evidence_sha256 == hashlib.sha256((folder / ROTATION_EVIDENCE).read_bytes()).hexdigest()
    assert record.model.digest == read_record(folder / "record.json").model.digest
    assert any("settings of protocol 4" in reason for reason in record.unofficial)
    added = {path.name for path in folder.iterdir() if path.is_file()} - set(before)
    assert added == {REPRESENTS_RECORD, ROTATION_EVIDENCE}
    assert all((folder / name).read_bytes() == content for name, content in before.items())
    card = capsys.readouterr().out
    assert "verdict    INCONCLUSIVE: " in card
    assert "by word" in card
    # The same command again finds what is measured.
    evidence = (folder / ROTATION_EVIDENCE).stat().st_mtime_ns
    inner = (only(out) / ROTATION_EVIDENCE).stat().st_mtime_ns
    assert main(command) == 0
    assert (only(out) / ROTATION_EVIDENCE).stat().st_mtime_ns == inner
    assert (folder / ROTATION_EVIDENCE).stat().st_mtime_ns >= evidence


def test_a_folder_without_a_run_is_refused(tmp_path, capsys) -> None:
    assert main([str(tmp_path), "--output-dir", str(tmp_path / "out")]) != 0
    assert "record.json" in capsys.readouterr().err
