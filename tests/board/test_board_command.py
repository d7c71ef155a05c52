"""The board on a terminal: the rows of the records, with ranks that are computed unless the leaderboard's file holds them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmark.board import command, page, tables
from benchmark.board.ranking import rank_groups, read_leaderboard_rows
from benchmark.board.tables import to_json
from benchmark.installation.paths import SOURCE_ROOT

NAMES = ("2026-11-25_random", "2026-11-25_search", "2026-11-25_random-icml24")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three submissions in a folder of their own, without the leaderboard's file."""
    submissions = tmp_path_factory.mktemp("board") / "submissions"
    for name in NAMES:
        shutil.copytree((SOURCE_ROOT / "submissions") / name, submissions / name)
    return submissions


def ranks(groups):
    return {row.row.folder: row.rank for group in groups for row in group.rows}


def test_rows_are_printed_by_suite_and_rank(folder, capsys):
    assert command.main(["--submissions", str(folder)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert [line[:2] for line in lines if line[0].isdigit()] == [
        ["1", "search"],
        ["2", "random"],
        ["1", "random-icml24"],
    ]
    assert command.main(["--submissions", str(folder), "--suite", "icml24"]) == 0
    assert "search" not in capsys.readouterr().out
    assert command.main(["--submissions", str(folder), "--format", "json"]) == 0
    groups = rank_groups(read_leaderboard_rows(folder))
    assert json.loads(capsys.readouterr().out) == json.loads(to_json(groups))
    assert command.main(["--submissions", str(folder), "--format", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(NAMES)


def test_ranks_of_the_file_are_taken_only_if_all_else_is_as_the_records_say(folder):
    computed = rank_groups(read_leaderboard_rows(folder))
    file = folder.parent / "leaderboard.json"
    # Wrong on purpose, to see where ranks are from.
    file.write_text(to_json(computed).replace('"rank": 2', '"rank": 7'))
    assert ranks(command.read_groups(folder)) == ranks(computed) | {"2026-11-25_random": 7}
    for change in (("self_reported", "validated"), ('"n": 1000', '"n": 999'), ("{", ""), ('"rank"', '"rang"')):
        file.write_text(to_json(computed).replace('"reproduced"', '"self_reported"').replace(*change))
        assert ranks(command.read_groups(folder)) == ranks(computed)
    file.write_text(to_json(computed))
    shutil.copytree((SOURCE_ROOT / "submissions") / "2026-11-25_n-gram", folder / "2026-11-25_n-gram")
    assert len(ranks(command.read_groups(folder))) == len(NAMES) + 1
    shutil.rmtree(folder / "2026-11-25_n-gram")
    file.unlink()


def test_the_shipped_file_holds_the_ranks_of_the_shipped_submissions(monkeypatch):
    monkeypatch.setattr(
        command, "rank_groups", lambda entries: pytest.fail("leaderboard.json is not what the records give")
    )
    assert command.read_groups(SOURCE_ROOT / "submissions")


@pytest.mark.parametrize(("name", "says"), [(".", "has no submission"), ("nothing", "no such folder")])
def test_a_folder_without_rows_is_named_alike_by_every_command(name, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = set()
    for main, words in (
        (command.main, []),
        (command.main, ["--suite", "laptop"]),
        (tables.main, []),
        (tables.main, ["--check"]),
        (page.main, []),
    ):
        assert main(["--submissions", str(tmp_path / name), *words]) == 2
        out, err = capsys.readouterr()
        assert not out
        lines.add(err)
    (line,) = lines
    assert line.count("\n") == 1
    assert f"--submissions {tmp_path / name}: {says}; expected folders with a record.json" in line
    assert not list(tmp_path.iterdir())
