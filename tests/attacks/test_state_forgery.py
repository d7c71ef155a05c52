"""Forging the state of a row: a status that nobody gave it.

Wang, Mang, Cheung, Sen and Song (UC Berkeley RDI), "How We Broke Top AI Agent Benchmarks: And What Comes Next", April 2026,
report OSWorld's state as open to manipulation; here the state is `status.json`, by which a row is ranked, flagged or withdrawn.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hostile import GOOD_STATUS, entry, write
from proposals import NGRAM, RANDOM, copy_row, git, make_base, merge_change

from benchmark.board.ranking import rank_groups, read_leaderboard_rows
from benchmark.review.pull_request import check_pull_request
from benchmark.submit.command import main
from benchmark.submit.folder import files_digest
from benchmark.submit.schema import read_status


def flagged_base(folder: Path) -> Path:
    base = make_base(folder, NGRAM, RANDOM)
    path = base / "submissions" / NGRAM / "status.json"
    status = json.loads(path.read_text()) | {
        "status": "flagged",
        "reason": "better on the public tasks than on fresh ones",
    }
    path.write_text(json.dumps(status))
    git(base, "commit", "-qam", "flagged")
    return base


def set_status(status: str):
    def change(submissions: Path) -> None:
        path = submissions / NGRAM / "status.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"status": status, "reason": None}))

    return change


def move_away(submissions: Path) -> None:
    (submissions / NGRAM / "status.json").unlink()
    (submissions / NGRAM).rename(submissions / "2026-11-26_again")
    entry("name", "again")(submissions / "2026-11-26_again")


def copy_aside(submissions: Path) -> None:
    copy_row(NGRAM, submissions / "2026-11-26_again")
    entry("name", "again")(submissions / "2026-11-26_again")
    entry("authors", ["Somebody"])(submissions / "2026-11-26_again")


def link_away(submissions: Path) -> None:
    (submissions / NGRAM / "status.json").unlink()
    (submissions / NGRAM / "status.json").symlink_to(f"../{RANDOM}/status.json")


FORGERIES = {
    "deleted": lambda s: (s / NGRAM / "status.json").unlink(),
    "raised": set_status("reproduced"),
    "lowered to nothing": set_status("self_reported"),
    "emptied": lambda s: (s / NGRAM / "status.json").write_text(""),
    "moved away from": move_away,
    "copied without it": copy_aside,
    "linked to another's": link_away,
    "another case": lambda s: (s / NGRAM / "status.json").rename(s / NGRAM / "Status.json"),
    "made a program": lambda s: (s / NGRAM / "status.json").chmod(0o755),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_flagged_row_does_not_become_a_ranked_one(name, tmp_path):
    report = check_pull_request(merge_change(flagged_base(tmp_path / "change"), FORGERIES[name]))
    assert report.exit_code >= 3, report.text()
    assert any(row.refusals for row in report.rows) or report.refusals
    assert ": verified" not in report.text()


def test_a_new_row_brings_no_status(tmp_path, capsys):
    folder = copy_row(NGRAM, tmp_path / NGRAM)
    write("status.json", GOOD_STATUS.replace("0" * 64, files_digest(folder)))(folder)
    assert main(["verify", str(folder), "--incoming"]) == 3
    assert "only the verification writes it" in capsys.readouterr().err


def test_a_status_of_other_bytes_ranks_nothing_higher(tmp_path):
    folder = copy_row(NGRAM, tmp_path / NGRAM)
    write("status.json", GOOD_STATUS)(folder)
    status = read_status(folder)
    assert status is not None
    assert status.status == "self_reported"


def test_a_flagged_row_stays_unranked_whatever_else_is_edited(tmp_path):
    base = flagged_base(tmp_path / "base")
    entry("attempts", 7)(base / "submissions" / NGRAM)
    (group,) = rank_groups(read_leaderboard_rows(base / "submissions"))
    assert {row.row.folder: row.rank for row in group.rows} == {RANDOM: 1, NGRAM: None}
