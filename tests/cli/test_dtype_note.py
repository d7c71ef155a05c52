"""A dtype that this processor multiplies slowly is named before a command computes with it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from benchmark.cli import dtype_note
from benchmark.cli.dtype_note import measure_slowdown, note_slow_dtype

ROOT = Path(__file__).parents[2]
MODEL = ["--model", "path:nowhere"]
COMMANDS = {
    "benchmark/cli/run_options.py": [("benchmark.run", MODEL), ("benchmark.sweep", MODEL)],
    "benchmark/causal/command.py": [("benchmark.causal.command", MODEL)],
    "benchmark/causal/execution/command.py": [("benchmark.causal.execution.command", MODEL)],
    "benchmark/doctor/command.py": [("benchmark.doctor.command", MODEL)],
    "benchmark/emergence/command.py": [("benchmark.emergence.command", ["nowhere"])],
    "benchmark/ladder/command.py": [("benchmark.ladder.command", MODEL)],
    "benchmark/layers/command.py": [("benchmark.layers.command", MODEL)],
    "benchmark/length/command.py": [("benchmark.length.command", MODEL)],
    "benchmark/relative/command.py": [("benchmark.relative.command", MODEL)],
    "benchmark/reproduction/command.py": [("benchmark.reproduction.command", MODEL)],
    "benchmark/bench/command.py": [("benchmark.bench.command", ["generation", *MODEL])],
}
"""Modules that declare `--dtype`, with the commands that have it."""
CASES = [case for cases in COMMANDS.values() for case in cases]


def set_slowdown(monkeypatch: pytest.MonkeyPatch, slowdown: float) -> list[str]:
    """Replace the measurement; returns the dtypes that are measured from now on."""
    measured: list[str] = []

    def measure(dtype: str) -> float:
        measured.append(dtype)
        return slowdown

    monkeypatch.setattr(dtype_note, "measure_slowdown", measure)
    return measured


def test_commands_with_a_dtype_are_all_tried_here() -> None:
    with_dtype = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "benchmark").rglob("*.py")
        if "= dtype_option()" in path.read_text(encoding="utf-8")
    }
    assert with_dtype == set(COMMANDS)


@pytest.mark.parametrize(("module", "arguments"), CASES, ids=[module for module, _ in CASES])
def test_every_command_notes_a_slow_dtype(
    module: str,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    set_slowdown(monkeypatch, 38.2)
    assert importlib.import_module(module).main([*arguments, "--dtype", "bfloat16"]) != 0  # there is no such model
    note = "note: matrix products in bfloat16 take 38 times as long as in float32 on this processor; --dtype float32"
    assert capfd.readouterr().err.count(note) == 1


@pytest.mark.parametrize("slowdown", [0.5, 1.0, 2.0])
def test_a_dtype_that_is_fast_enough_is_not_noted(
    slowdown: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = set_slowdown(monkeypatch, slowdown)
    note_slow_dtype("bfloat16", "cpu")
    assert measured == ["bfloat16"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("dtype", "device", "address"),
    [("float32", "cpu", None), ("float64", "cpu", None), ("bfloat16", "cuda", None), ("float16", "cuda:1", None),
     ("bfloat16", "cpu", "127.0.0.1:6379")],
)  # fmt: skip
def test_nothing_is_measured_where_the_note_cannot_apply(
    dtype: str, device: str, address: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = set_slowdown(monkeypatch, 38.2)
    note_slow_dtype(dtype, device, address)
    assert measured == []
    assert capsys.readouterr().err == ""


def test_the_slowdown_is_one_for_float32_itself() -> None:
    assert 1 / 3 < measure_slowdown("float32") < 3
