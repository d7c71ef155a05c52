"""Unlimited tries: the best of many models, or one model under many names.

Singh et al., "The Leaderboard Illusion", arXiv:2504.20879: providers tested many private variants and published the best.

What is prevented: one model as many rows, many rows in one change, rows that do not say how many models were tried, choosing
by a sealed suite before it is revealed. What is not: tries in private on the public suite that nobody declares; the audit and
sealed rounds measure what such a choice is worth (docs/security.md).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile import as_text, entry
from proposals import NGRAM, copy_row, make_base, merge_change

from benchmark.errors import UsageError, VerificationError
from benchmark.review.pull_request import MAX_FOLDERS, check_pull_request
from benchmark.submit.command import main
from benchmark.submit.sealed import check_rounds, open_secret, read_round, reveal_round, seal_round
from benchmark.tasks.suite import load_suite


def test_one_model_is_one_row(tmp_path):
    def vary(submissions: Path) -> None:
        for i in range(2):
            folder = copy_row(NGRAM, submissions / f"2026-11-26_try{i}")
            entry("name", f"try{i}")(folder)
            entry("authors", [f"author {i}"])(folder)

    report = check_pull_request(merge_change(make_base(tmp_path / "change", NGRAM), vary))
    assert report.exit_code == 3
    assert all(row.code == 3 for row in report.rows)
    assert report.text().count(f"the same weights, the same samples as '{NGRAM}'") == 2


def test_a_change_does_not_flood_the_board(tmp_path):
    def flood(submissions: Path) -> None:
        for i in range(MAX_FOLDERS + 1):
            (submissions / f"2026-11-26_try{i}").mkdir()
            (submissions / f"2026-11-26_try{i}" / "README.md").write_text(str(i))

    report = check_pull_request(merge_change(make_base(tmp_path / "change"), flood))
    assert report.exit_code == 3
    assert "6 submissions in one change" in report.text()


@pytest.mark.parametrize(
    "attempts", ["", "attempts: 0", "attempts: -1", "attempts: null", "attempts: 1.5", "attempts: one"]
)
def test_a_row_says_how_many_models_were_tried(attempts, tmp_path, capsys):
    folder = copy_row(NGRAM, tmp_path / NGRAM)
    as_text("attempts: 1", attempts)(folder)
    assert main(["verify", str(folder), "--incoming"]) == 3
    assert "attempts" in capsys.readouterr().err


def test_a_sealed_suite_is_known_to_nobody_before_and_to_anybody_after(tmp_path):
    folder, secret = tmp_path / "repository" / "sealed", tmp_path / "secret.json"
    folder.parent.mkdir()
    sealed_round = seal_round(folder, "round", "smoke", secret)
    seed = open_secret(folder, "round", secret).seed
    assert str(seed) not in (folder / "round.yaml").read_text()
    assert seed != load_suite("smoke").seed
    assert sealed_round.revealed is None
    with pytest.raises(UsageError):
        seal_round(folder, "round", "smoke", tmp_path / "other.json")
    seal_round(folder, "other", "smoke", tmp_path / "other.json")
    with pytest.raises(VerificationError):
        open_secret(folder, "round", tmp_path / "other.json")
    reveal_round(folder, "round", secret)
    assert read_round(folder, "round").revealed is not None
    text = (folder / "round.yaml").read_text().replace(str(seed), str(seed + 1))
    (folder / "round.yaml").write_text(text)
    with pytest.raises(VerificationError):
        check_rounds(folder)
