"""A proposed row whose samples and evidence are elsewhere is accepted only if all of it could be had and verifies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from proposals import NGRAM, RANDOM, copy_row, git, make_base, merge_change

from benchmark.review.pull_request import check_pull_request, main, obtain_proposed
from benchmark.submit.artifacts.cache import cache_folder
from benchmark.submit.artifacts.publish import publish
from benchmark.submit.artifacts.sources import Sources

PROPOSED = "2026-11-25_mine"


@pytest.fixture
def proposal(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """The checkout of a change that adds a light row, and the folder of its artifacts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KAREL_BENCH_ARTIFACTS", raising=False)
    source = copy_row(NGRAM, tmp_path / PROPOSED)
    published = publish(source, tmp_path / "published")
    base = make_base(tmp_path / "base", RANDOM)

    def add(submissions: Path) -> None:
        shutil.copytree(published.folder, submissions / PROPOSED)

    return merge_change(base, add), published.artifacts_folder


def test_a_row_that_could_not_be_verified_in_full_is_refused(proposal):
    checkout, _ = proposal
    report = check_pull_request(checkout)
    assert report.exit_code == 3
    assert "verified in part only: " in report.text()
    assert "samples.jsonl.gz" in report.text()


def test_with_its_artifacts_it_is_checked_like_any_other(proposal, tmp_path, capsys):
    checkout, artifacts = proposal
    words = ["--change", str(checkout), "--report", str(tmp_path / "report.txt"), "--artifacts", str(artifacts)]
    assert main(words) == 0
    assert "accuracy: every figure and interval" in capsys.readouterr().out
    assert check_pull_request(checkout).exit_code == 0, "from the cache"


def test_nothing_is_taken_for_a_folder_with_links(proposal, tmp_path):
    checkout, artifacts = proposal
    submissions = checkout / "submissions"
    git(checkout, "checkout", "-q", "change")
    (submissions / PROPOSED / "figures").symlink_to(tmp_path)
    git(checkout, "add", "-A")
    git(checkout, "commit", "-qm", "link")
    git(checkout, "checkout", "-q", "main")
    git(checkout, "reset", "-q", "--hard", "HEAD^")
    git(checkout, "merge", "-q", "--no-ff", "-m", "merge", "change")
    obtain_proposed(checkout, Sources((str(artifacts),)))
    assert not cache_folder().exists()
    assert check_pull_request(checkout).exit_code == 3
