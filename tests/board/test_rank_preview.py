"""A run before it is submitted: where its row would stand, and its page, by `karel-bench board RUN`."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmark.board.command import main
from benchmark.board.comparison import read_solved_tasks
from benchmark.board.preview import run_page
from benchmark.board.preview.standing import find_longer_suite, format_standing, read_standing
from benchmark.board.ranking import rank_groups, read_board
from benchmark.runner.record import SuiteEntry, read_record
from benchmark.tasks.suite import load_suite

ROOT = Path(__file__).parents[2]
ROWS = ("2026-11-25_n-gram", "2026-11-25_search", "2026-11-26_lstm-laptop")


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("board") / "submissions"
    for name in ROWS:
        shutil.copytree(ROOT / "submissions" / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: no description, no status."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    shutil.copytree(ROOT / "submissions" / "2026-11-25_random", folder)
    for name in ("submission.yaml", "README.md", "status.json"):
        (folder / name).unlink()
    return folder


def limited(run: Path, folder: Path, num_tasks: int) -> Path:
    """A copy of a run with its first tasks only, as `--limit` leaves them."""
    shutil.copytree(run, folder)
    lines = gzip.decompress((folder / "samples.jsonl.gz").read_bytes()).splitlines()
    lines = [line for line in lines if (row := json.loads(line))["stage"] == "test" and row["task"] < num_tasks]
    content = gzip.compress(b"\n".join(lines) + b"\n")
    (folder / "samples.jsonl.gz").write_bytes(content)
    record = json.loads((folder / "record.json").read_text())
    record |= {
        "samples_sha256": hashlib.sha256(content).hexdigest(),
        "official": False,
        "unofficial": [f"--limit {num_tasks}"],
    }
    record["suite"]["tasks"] = num_tasks
    (folder / "record.json").write_text(json.dumps(record))
    return folder


def test_a_run_stands_where_its_row_would(run, board, tmp_path):
    standing = read_standing(run, board)
    with_run = tmp_path / "submissions"
    shutil.copytree(board, with_run)
    shutil.copytree(ROOT / "submissions" / "2026-11-25_random", with_run / "2026-11-25_random")
    (group,) = rank_groups(read_board(with_run))
    ranks = {row.row.record.samples_sha256: row.rank for row in group.rows}
    assert {row.row.record.samples_sha256: row.rank for row in standing.group.rows} == ranks
    assert standing.ranked_row.rank == ranks[read_record(run / "record.json").samples_sha256]
    assert standing.num_better == standing.ranked_row.rank - 1
    text = format_standing(standing)
    assert "laptop v1, protocol v3, trained, 1,000 tasks" in text
    assert [line.split()[0] for line in text.splitlines() if "(this run)" in line] == [">"]


def test_a_limited_run_is_compared_on_its_own_tasks(run, board, tmp_path):
    standing = read_standing(limited(run, tmp_path / "few", 50), board)
    assert (standing.group.tasks, standing.board_tasks) == (50, 1000)
    assert "the first 50 of 1,000 tasks" in format_standing(standing)
    search = next(row.row for row in standing.group.rows if row.row.name == "search")
    solved = read_solved_tasks(board / search.folder, read_record(board / search.folder / "record.json"))["held_out"]
    assert np.array_equal(search.held_out, solved[:50])


def test_smoke_is_compared_with_the_suite_that_it_is_cut_from(board):
    smoke, laptop = load_suite("smoke"), load_suite("laptop")
    entry = SuiteEntry(
        name="smoke", version=smoke.version, seed=smoke.seed, sha256=smoke.sha256, tasks=20, equality=smoke.equality
    )
    longer = find_longer_suite(entry, board)
    assert longer is not None
    assert (longer.name, longer.sha256) == ("laptop", laptop.sha256)
    assert find_longer_suite(entry.model_copy(update={"sha256": "0" * 64}), board) is None


def test_a_draft_does_not_stand_beside_itself_nor_spoil_the_others(run, board, tmp_path):
    submissions = tmp_path / "submissions"
    shutil.copytree(board, submissions)
    draft = submissions / "2026-11-25_draft"
    shutil.copytree(run, draft)
    (draft / "submission.yaml").write_text("family: '? which'\n")
    assert read_standing(draft, submissions).num_rows == len(ROWS)
    assert read_standing(run, submissions).num_rows == len(ROWS)


def test_a_run_alone_has_no_rank_to_speak_of(run, tmp_path):
    assert "no other row is there to compare with" in format_standing(read_standing(run, tmp_path / "none"))


def test_the_page_of_a_run_has_its_player_and_standing(run, board, tmp_path, capsys, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr(run_page.webbrowser, "open", lambda address: bool(opened.append(address)) or True)
    assert main([str(run), "--submissions", str(board), "--open"]) == 0
    out = capsys.readouterr().out
    assert "where it would stand" in out
    assert opened == [(run / "page.html").as_uri()]
    page = (run / "page.html").read_text()
    assert "Not submitted: rank" in page
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    (tasks,) = [row["tasks"] for row in data["rows"].values()]
    assert {task["kind"] for task in tasks} >= {"wrong output"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--open"], "expected the folder of a run with them"),
        (["nowhere"], "no record.json"),
        ([ROWS[0], "--suite", "laptop"], "of the board only"),
    ],
)
def test_options_that_do_not_fit_are_refused(words, says, board, capsys):
    assert main([*words, "--submissions", str(board)]) == 2
    assert says in capsys.readouterr().err


def test_a_browser_that_does_not_start_is_told(run, board, capsys, monkeypatch):
    monkeypatch.setattr(run_page.webbrowser, "open", lambda address: False)
    assert main([str(run), "--submissions", str(board), "--open"]) == 2
    assert "no browser could be started; open" in capsys.readouterr().err
