"""What a first user types: names are suggested only where they are alike, and a command without words does what is usual."""

from __future__ import annotations

import pytest

from benchmark.cli.listing import list_suites
from benchmark.cli.main import main


@pytest.mark.parametrize(
    "words",
    [["run", "--nope"], ["run", "--model", "foo"], ["run", "--model", "tiny"], ["board", "--x"], ["run", "--zzz=1"]],
)
def test_nothing_is_suggested_for_a_word_that_is_like_no_other(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "did you mean" not in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "--mdel", "x"], "(did you mean --model?)"),
        (["run", "--suit=x"], "(did you mean --suite?)"),
        (["run", "--model", "search2"], "(did you mean baseline:search?)"),
        (["submit", "validate", "--al"], "(did you mean --all?)"),
    ],
)
def test_a_word_that_is_like_another_gets_it(words, says, capsys):
    assert main(words) == 2
    assert says in capsys.readouterr().err


def test_status_reads_the_runs_of_this_folder(smoke_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["status"]) == 2
    assert "error: runs: no run folder" in capsys.readouterr().err
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / smoke_run.name).symlink_to(smoke_run)
    assert main(["status"]) == 0
    assert smoke_run.name in capsys.readouterr().out


def test_a_description_is_a_whole_sentence():
    descriptions = dict(list_suites())
    assert descriptions["control"].endswith("(Bunel et al. 2018): five shown examples and one held out.")
    assert descriptions["icml24"].endswith("success by drawing.")
