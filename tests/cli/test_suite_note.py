"""A model that was trained on prompts of another suite than it is measured on is named before a command computes with it."""

from __future__ import annotations

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.cli.suite_note import note_trained_suite
from benchmark.models.checkpoint import Checkpoint, open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.models.json_files import TRAINING_FILE
from benchmark.tasks.suite import load_suite

COMMANDS = {
    "benchmark.run": ["--model", "path:model", "--dry-run"],
    "benchmark.causal.command": ["--model", "path:model"],
    "benchmark.emergence.command": ["path:model"],
    "benchmark.layers.command": ["--model", "path:model"],
    "benchmark.length.command": ["--model", "path:model"],
}
NOTE = (
    "note: model was trained on the suite icml24 (training.json) and is measured on laptop, whose prompts differ; "
    "--suite icml24 measures it on its own\n"
)


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, which a test may change."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def open_trained(folder: Path, suite: object) -> Checkpoint:
    """The model as one that was trained on a suite."""
    (folder / TRAINING_FILE).write_text(json.dumps({"recipe": {"suite": suite}, "step": 8}))
    return open_checkpoint(ModelSpec.parse(f"path:{folder}"))


@pytest.mark.parametrize(("module", "arguments"), COMMANDS.items(), ids=COMMANDS)
def test_every_command_that_measures_on_laptop_unless_told_notes_it(
    module: str,
    arguments: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    class Reached(Exception):
        """What ends the command at the note."""

    def note_and_stop(*positional: object) -> None:
        note_trained_suite(*positional)
        raise Reached

    open_trained(folder, "icml24")
    monkeypatch.chdir(folder.parent)
    loaded = importlib.import_module(
        "benchmark.emergence.evaluation" if module == "benchmark.emergence.command" else module
    )
    monkeypatch.setattr(loaded, "note_trained_suite", note_and_stop)
    with pytest.raises(Reached):
        importlib.import_module(module).main(arguments)
    assert capfd.readouterr().err.count(NOTE) == 1


@pytest.mark.parametrize(
    ("trained", "measured"),
    [("laptop", "laptop"), ("laptop", "smoke"), ("icml24", "colm24"), ("no-such-suite", "laptop"),
     ("../suites/icml24", "laptop"), (None, "laptop"), (["icml24"], "laptop")],
)  # fmt: skip
def test_prompts_of_the_same_kind_and_unknown_suites_are_not_noted(
    trained: object, measured: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note_trained_suite(open_trained(folder, trained), load_suite(measured))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "change",
    [{"shown": 5}, {"equality": "drawn"}, {"recipe": load_suite("icml24").recipe}],
    ids=lambda c: next(iter(c)),
)
def test_each_difference_between_prompts_is_noted(
    change: dict[str, object], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note_trained_suite(open_trained(folder, "laptop"), replace(load_suite("laptop"), **change))
    assert "whose prompts differ" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[]", '{"recipe": "laptop"}', "{" * 100_000])
def test_a_file_that_tells_no_suite_is_left_alone(
    content: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / TRAINING_FILE).write_text(content)
    note_trained_suite(open_checkpoint(ModelSpec.parse(f"path:{folder}")), load_suite("icml24"))
    assert capsys.readouterr().err == ""


def test_a_linked_file_as_in_the_cache_of_the_hub_is_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = open_trained(folder, "icml24")
    (folder / TRAINING_FILE).rename(folder.parent / "blob")
    (folder / TRAINING_FILE).symlink_to(folder.parent / "blob")
    note_trained_suite(checkpoint, load_suite("laptop"))
    assert capsys.readouterr().err == NOTE
