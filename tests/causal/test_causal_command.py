"""The command on an untrained model: a card, files that are the same again, exit codes; and what loads no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from benchmark.causal import command, measurement, pairs
from benchmark.causal.pairs import PairSettings
from benchmark.cli import result_file
from benchmark.errors import StorageError

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def small(monkeypatch):
    """So few pairs that a measurement takes seconds."""
    monkeypatch.setattr(measurement, "measure_use", partial(measurement.measure_use, settings=PairSettings(tasks=30)))
    monkeypatch.setattr(pairs, "derive_pairs", partial(pairs.derive_pairs, settings=PairSettings(tasks=30)))


def test_an_untrained_model_is_not_applicable_and_exits_with_0(tiny_folder, tmp_path, capsys, small, recorded_progress):
    contents = []
    for name in ("a", "b"):
        assert command.main(["--model", f"path:{tiny_folder}", "--output-dir", str(tmp_path / name)]) == 0
        out = capsys.readouterr().out
        assert "verdict    N/A: the model solves" in out
        assert "agreement with the exact posterior" in out
        result = json.loads(next((tmp_path / name).glob("*.json")).read_text())
        assert result["use"]["verdict"] == "N/A"
        assert result["sites"] == ["block 0", "block 1"]
        contents.append([path.read_bytes() for path in sorted((tmp_path / name).iterdir())])
    assert recorded_progress.stages
    assert contents[0] == contents[1]
    assert len(contents[0]) == 2


def test_no_result_is_written_without_its_evidence(tiny_folder, tmp_path, capsys, small, monkeypatch):
    def fail(path, content):
        raise StorageError(f"{path.name}: no space left on the device")

    monkeypatch.setattr(result_file, "write_atomic", fail)
    assert command.main(["--model", f"path:{tiny_folder}", "--output-dir", str(tmp_path / "results")]) == 1
    assert ".causal.data: no space left" in capsys.readouterr().err
    assert list((tmp_path / "results").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--model", "path:missing"], 3, "no folder at missing"),
        (["--model", "path:missing", "--suite", "control"], 2, "control flow"),
        (["--model", "nothing"], 2, "expected path:FOLDER"),
    ],
)
def test_errors_are_one_line(arguments, code, message, tmp_path, capsys):
    assert command.main([*arguments, "--output-dir", str(tmp_path)]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_model_without_states_is_not_applicable(tmp_path, capsys):
    assert command.main(["--model", "baseline:random", "--output-dir", str(tmp_path)]) == 0
    assert "verdict    N/A: the model has no states" in capsys.readouterr().out


def test_targets_and_verdict_load_no_torch():
    names = ("targets", "pairs", "verdict", "evidence", "merges", "measurement", "command")
    code = f"import importlib, sys; [importlib.import_module('benchmark.causal.' + n) for n in {names}]; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {name.split(".")[0] for name in run.stdout.split()} & {"torch", "transformers", "ray"}
