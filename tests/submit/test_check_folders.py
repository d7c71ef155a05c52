"""Many submissions are checked suite by suite in several processes, and printed as if one after the other."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from benchmark.errors import BenchmarkError, SubmissionError, VerificationError
from benchmark.submit import command
from benchmark.submit.check_folders import PIECE_ROWS, check_by_suite, check_in_order, split_by_suite


@pytest.fixture
def folders(tmp_path) -> list[Path]:
    """Thirty rows of three suites in turn, and one without a record."""
    made = []
    for i in range(30):
        folder = tmp_path / f"row-{i:02d}"
        folder.mkdir()
        suite = ("laptop", "icml24", "control")[i % 3]
        (folder / "record.json").write_text(json.dumps({"suite": {"name": suite}}))
        made.append(folder)
    (tmp_path / "row-30").mkdir()
    return [*made, tmp_path / "row-30"]


def check(folder: Path) -> str:
    """A check that prints, warns, fails in three ways, and takes longer for the first rows."""
    number = int(folder.name.partition("-")[2])
    time.sleep(0.02 if number < 3 else 0)
    if number % 7 == 1:
        print(f"a table of {folder.name}")
        raise VerificationError("2 entries differ")
    if number % 7 == 2:
        raise SubmissionError("record.json: no record")
    if number % 7 == 3:
        raise ZeroDivisionError("1 / 0")
    if number % 7 == 4:
        print(f"note of {folder.name}", file=sys.stderr)
    return f"verified in {'this' if os.getpid() == PROCESS else 'another'} process"


PROCESS = os.getpid()


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_output_and_exit_code_are_those_of_one_after_the_other(folders, workers, capfd):
    assert check_in_order(folders, check) == VerificationError.exit_code
    expected = capfd.readouterr()
    assert check_by_suite(folders, check, workers) == VerificationError.exit_code
    shown = capfd.readouterr()
    where = "this" if workers == 1 else "another"
    assert shown.out == expected.out.replace("this process", f"{where} process")
    assert shown.err == expected.err
    assert expected.out.count("verified") == 31 - expected.err.count("error: ")


def test_a_piece_has_rows_of_one_suite(folders):
    pieces = split_by_suite(folders)
    assert sorted(index for piece in pieces for index in piece) == list(range(31))
    for piece in pieces[:-1]:
        assert len({index % 3 for index in piece}) == 1
        assert PIECE_ROWS / 2 <= len(piece) <= 2 * PIECE_ROWS
    assert pieces[-1] == [30], "without a record it is of no suite"
    suites = [piece[0] % 3 for piece in pieces[:-1]]
    assert suites == sorted(suites), "all pieces of a suite come before those of the next"


def test_a_process_that_is_killed_ends_the_command(folders, capsys):
    def check_or_die(folder: Path) -> str:
        if folder.name == "row-20":
            os.kill(os.getpid(), signal.SIGKILL)
        return "verified"

    with pytest.raises(BenchmarkError, match=r"killed, perhaps for memory; [0-9]+ of 31 are left, use --workers 1"):
        check_by_suite(folders, check_or_die, 2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [folder.name for folder in folders[: len(lines)]]


@pytest.mark.parametrize(("words", "workers"), [(["--workers", "3"], 3), ([], None)])
def test_the_command_checks_all_in_processes(folders, words, workers, monkeypatch):
    used = []
    monkeypatch.setattr(command, "check_by_suite", lambda folders, check, workers: used.append(workers) or 0)
    where = ["--submissions", str(folders[0].parent)]
    assert command.main([*where, "verify", "--all", *words]) == 0
    assert used == [workers or len(os.sched_getaffinity(0))]


def test_a_rerun_has_the_machine_to_itself(folders, monkeypatch):
    monkeypatch.setattr(command, "check_by_suite", lambda *_: pytest.fail("a rerun is not made in parallel"))
    monkeypatch.setattr(command, "check_in_order", lambda folders, check: len(folders))
    where = ["--submissions", str(folders[0].parent)]
    assert command.main([*where, "verify", "--all", "--rerun", "0.1"]) == len(folders)
    assert command.main([*where, "verify", str(folders[0])]) == 1
