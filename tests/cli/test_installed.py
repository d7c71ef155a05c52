"""Commands in a folder that has nothing: one line says what is missing, and nothing is written."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

import pytest
from quick_protocol import QUICK

import benchmark.installation.paths as paths
import karel_env.screen as screen
from benchmark import sweep
from karel_env import compiled_cache


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder is an empty one, and the packages are installed rather than a checkout."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "is_checkout", lambda root: False)
    return tmp_path


COMMANDS = [
    ("benchmark.board.tables", [], "submissions: no such folder"),
    ("benchmark.board.tables", ["--check"], "submissions: no such folder"),
    ("benchmark.board.page", [], "submissions: no such folder"),
    ("benchmark.board.comparison", ["a", "b"], "a: no record.json; give the name of a submission in "),
    ("benchmark.submit.command", ["validate", "--all"], "submissions: no such folder"),
    ("benchmark.submit.command", ["verify", "--all"], "submissions: no such folder"),
    ("benchmark.submit.command", ["pack", "a"], "'a': no such submission"),
    ("benchmark.submit.export.command", ["a", "--format", "model-index"], "a: no such submission"),
]


@pytest.mark.parametrize(("module", "arguments", "message"), COMMANDS, ids=lambda part: str(part)[:40])
def test_a_command_says_what_the_folder_lacks(elsewhere, capsys, module, arguments, message):
    assert import_module(module).main(arguments) == 2
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1
    assert message in captured.err
    assert str(elsewhere) in captured.err
    assert not captured.out
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("module", ["benchmark.board.tables", "benchmark.board.page"])
def test_no_board_is_written_of_no_submission(elsewhere, capsys, module):
    (elsewhere / "submissions").mkdir()
    assert import_module(module).main([]) == 2
    assert "submissions: has no submission" in capsys.readouterr().err
    assert [path.name for path in elsewhere.iterdir()] == ["submissions"]


def test_checking_all_of_no_submission_is_no_success(elsewhere, capsys):
    (elsewhere / "submissions").mkdir()
    assert import_module("benchmark.submit.command").main(["validate", "--all"]) == 2
    assert "has no submission" in capsys.readouterr().err


def test_rounds_are_sealed_in_the_current_folder(elsewhere, tmp_path_factory, capsys):
    secret = tmp_path_factory.mktemp("secret") / "secret.json"
    assert import_module("benchmark.submit.sealed").main(["make", "2026-12", "--secret", str(secret)]) == 0
    assert (elsewhere / "sealed" / "2026-12.yaml").is_file()


def test_the_screen_is_written_into_a_checkout_only(tmp_path, monkeypatch, capsys):
    table = tmp_path / "karel_env" / "screen.json"
    monkeypatch.setattr(screen, "TABLE", table)
    monkeypatch.setattr(screen, "DOCUMENT", tmp_path / "docs" / "alternatives.md")
    assert screen.main() == 2
    assert "run this in a checkout" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_compiled_code_of_an_installed_package_is_kept_in_the_users_cache(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "karel_env"
    package.mkdir(parents=True)
    (package / "machine.py").write_text("")
    (package.parent / "karel_semantics_benchmark-0.1.0.dist-info").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)

    def cache_of(folder: Path) -> Path:
        compiled_cache.place_cache(folder)
        place = Path(os.environ["NUMBA_CACHE_DIR"])
        monkeypatch.delenv("NUMBA_CACHE_DIR")
        return place

    try:
        first = cache_of(package)
        assert first.is_relative_to(tmp_path / "cache")
        assert cache_of(package) == first
        (package / "machine.py").write_text("edited = 1")
        assert cache_of(package) != first, "code of another source is never found"
        assert not (package / "__pycache__").exists()
        (package.parent / "karel_semantics_benchmark-0.1.0.dist-info").rmdir()
        compiled_cache.place_cache(package)
        assert "NUMBA_CACHE_DIR" not in os.environ
    finally:
        monkeypatch.undo()
        sys.modules["numba"].config.reload_config()


@pytest.mark.usefixtures("quick")
def test_a_sweep_into_a_file_names_its_runs_as_they_go(words, tmp_path, capsys):
    assert sweep.main([*words, "--model", "path:nothing", "--limit", "4", "--out", str(tmp_path)], QUICK) == 3
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "0:00:00 runs: 0 of 2 (0%)"
    starts = [line for line in lines if "run folder" in line]
    assert len(starts) == 1
    assert str(tmp_path) in starts[0]
    assert [line for line in lines if "leaderboard-eligible: no (--limit 4; " in line]
    assert [line for line in lines if line.endswith(": done")]
    assert [line for line in lines if line.startswith("path:nothing on ") and line.endswith(": failed")]
