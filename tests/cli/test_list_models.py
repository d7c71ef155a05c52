"""`karel-bench list models` names what `--model` takes: the shipped default wherever the command is called, and what is here."""

from __future__ import annotations

from pathlib import Path

import pytest

import benchmark.installation.paths as paths
from benchmark.cli.listing import list_models
from benchmark.cli.main import main
from benchmark.cli.model_spec import DEFAULT_MODEL, read_model


def test_the_default_comes_first_and_once():
    rows = list_models()
    assert rows[0][0] == "path:submissions/2026-11-23_llama-laptop"
    assert "the default" in rows[0][1]
    names = [name.rpartition("/")[2] for name, _ in rows]
    assert len(names) == len(set(names))
    assert ("2026-11-25_search", "record only") in rows
    assert ("path:submissions/2026-11-25_gpt-laptop", "weights and record") in rows


def test_an_installed_package_lists_its_default_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "is_checkout", lambda root: False)
    shipped = paths.SOURCE_ROOT / paths.SHIPPED_FOLDER / paths.DEFAULT_MODEL
    ((spec, description),) = list_models()
    assert spec == f"path:{shipped}"
    assert "the default of --model" in description
    assert read_model(spec) == spec
    assert main(["list", "models"]) == 0
    out = capsys.readouterr().out
    assert "none here" not in out
    assert str(shipped) in out


def test_the_default_that_is_listed_is_the_one_that_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert list_models()[0][0] == DEFAULT_MODEL
