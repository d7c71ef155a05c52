"""Mutable artefacts: what was checked is exchanged afterwards.

Zhu et al., "Establishing Best Practices for Building Rigorous Agentic Benchmarks", arXiv:2507.02825, ask for setups that stay
as they are; Singh et al., "The Leaderboard Illusion", arXiv:2504.20879, show models that changed or left unseen.

The exploits move a revision, exchange files behind a status, and edit, replace or remove rows that stand on the board.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hostile import entry
from proposals import NETWORK, NGRAM, RANDOM, copy_row, make_base, merge_change

from benchmark.review.pull_request import check_pull_request
from benchmark.submit.command import main
from benchmark.submit.schema import read_status


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/1", "a" * 39, "A" * 40, "", "a" * 40 + "\n"])
def test_a_revision_that_can_move_is_refused(revision, tmp_path, capsys):
    folder = copy_row(NGRAM, tmp_path / NGRAM)
    entry("model", f"hf:org/name@{revision}")(folder)
    assert main(["verify", str(folder), "--incoming"]) == 3
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "name", ["README.md", "submission.yaml", "record.json", "samples.jsonl.gz", "model.safetensors"]
)
def test_a_status_is_of_the_bytes_that_were_checked(name, tmp_path):
    folder = copy_row(NETWORK, tmp_path / NETWORK, status=True)
    before = read_status(folder)
    assert before is not None
    assert before.status in ("validated", "reproduced")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    after = read_status(folder)
    assert after is not None
    assert after.status == "self_reported"


def exchange(submissions: Path) -> None:
    shutil.copyfile(submissions / RANDOM / "samples.jsonl.gz", submissions / NGRAM / "samples.jsonl.gz")


def swap_rows(submissions: Path) -> None:
    (submissions / NGRAM).rename(submissions / "aside")
    (submissions / RANDOM).rename(submissions / NGRAM)
    (submissions / "aside").rename(submissions / RANDOM)


CHANGES = {
    "samples exchanged": (exchange, "changes a row of the base"),
    "claims edited": (lambda s: entry("family", "openai")(s / NGRAM), "description.family"),
    "a rival removed": (lambda s: shutil.rmtree(s / NGRAM), "removes a row of the base"),
    "a rival's evidence removed": (lambda s: (s / NGRAM / "samples.jsonl.gz").unlink(), "samples.jsonl.gz deleted"),
    "rows exchanged": (swap_rows, "changes a row of the base"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_row_that_stands_is_not_changed_unseen(name, tmp_path):
    change, says = CHANGES[name]
    report = check_pull_request(merge_change(make_base(tmp_path / "change", NGRAM, RANDOM), change))
    assert report.exit_code >= 3
    assert says in report.text()
    assert ": verified" not in report.text()
