"""The workflows of a public repository: their rights, and their steps run on a change in a repository made here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hostile import entry

from benchmark.incoming import report

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yml"))}
PLAIN = "2026-11-25_n-gram"
# YAML 1.1 reads the key `on` as true.
ON = True


def step(workflow: str, name: str) -> dict:
    (job,) = WORKFLOWS[workflow]["jobs"].values()
    return next(one for one in job["steps"] if one.get("name") == name)


def git(where: Path, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(where), *who, *words], check=True, capture_output=True)


@pytest.fixture
def proposed(tmp_path):
    """(folder of both checkouts, call to commit what was put into the change as its merge)."""
    change = tmp_path / "change"
    (change / "submissions").mkdir(parents=True)
    (change / "README.md").write_text("base")
    git(change, "init", "-q", "-b", "main")
    git(change, "add", "-A")
    git(change, "commit", "-qm", "base")
    (tmp_path / "base").mkdir()
    for name in ("benchmark", "karel_env", "baselines", "submissions"):
        (tmp_path / "base" / name).symlink_to(ROOT / name)

    def commit() -> None:
        git(change, "checkout", "-qb", "change")
        git(change, "add", "-A")
        git(change, "commit", "-qm", "change")
        git(change, "checkout", "-q", "main")
        git(change, "merge", "-q", "--no-ff", "-m", "merge", "change")

    return tmp_path, commit


def run_step(one: dict, where: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A step as the runner runs it: bash -e, with pipefail."""
    assert "${{" not in one["run"], "an expression in a script could hold what a change says"
    path = f"{where / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", one["run"]],
        cwd=where / one.get("working-directory", "."),
        env={"PATH": path, "HOME": str(where), "OMP_NUM_THREADS": "1", **env},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def verified(where: Path) -> tuple[int, str]:
    done = run_step(step("submission", "Verify"), where)
    assert not done.stderr, done.stderr
    return done.returncode, (where / "report.txt").read_text()


def test_what_reads_a_change_can_only_read():
    verify = WORKFLOWS["submission"]
    assert set(verify[ON]) == {"pull_request"}
    assert verify["permissions"] == {"contents": "read"}
    assert "secrets" not in (FOLDER / "submission.yml").read_text().partition("jobs:")[2]
    checkouts = [one["with"] for one in verify["jobs"]["verify"]["steps"] if "checkout" in one.get("uses", "")]
    assert [one["path"] for one in checkouts] == ["base", "change"]
    assert checkouts[0]["ref"] == "${{ github.event.pull_request.base.sha }}"
    assert all(one["persist-credentials"] is False for one in checkouts)
    scripts = [one for one in verify["jobs"]["verify"]["steps"] if "run" in one]
    assert all(len(one["uses"].partition("@")[2]) == 40 for one in verify["jobs"]["verify"]["steps"] if "uses" in one)
    assert all("change" not in one["run"].replace("--change ../change", "") for one in scripts)


def test_what_may_write_takes_nothing_but_the_report():
    post = WORKFLOWS["comment"]
    assert set(post[ON]) == {"workflow_run"}
    assert post[ON]["workflow_run"]["workflows"] == [WORKFLOWS["submission"]["name"]]
    assert post["permissions"] == {"actions": "read", "pull-requests": "write"}
    assert not any("uses" in one for one in post["jobs"]["post"]["steps"])


def test_an_honest_submission_is_verified_and_compared(proposed):
    where, commit = proposed
    new = where / "change" / "submissions" / "2026-11-26_mine"
    shutil.copytree(ROOT / "submissions" / PLAIN, new, ignore=shutil.ignore_patterns("status.json"))
    commit()
    code, text = verified(where)
    assert code == 0, text
    assert "2026-11-26_mine: verified" in text
    assert "->" in text
    assert "nearest-neighbour" in text


def test_an_edited_number_does_not_land(proposed):
    where, commit = proposed
    new = where / "change" / "submissions" / "2026-11-26_mine"
    shutil.copytree(ROOT / "submissions" / PLAIN, new, ignore=shutil.ignore_patterns("status.json"))
    entry("accuracy.shown.value", 0.99, "record.json")(new)
    commit()
    text, code = report(where / "change")
    assert code == 4
    assert "accuracy.shown.value" in text


@pytest.mark.parametrize(
    ("path", "says"),
    [("benchmark/run.py", "outside of submissions"), ("submissions/x/run.py", "no file of a submission"),
     ("submissions/README.md", "outside of submissions"), ("submissions/`x`/a", "letters, digits")],
)  # fmt: skip
def test_other_files_are_refused(proposed, path, says):
    where, commit = proposed
    (where / "change" / path).parent.mkdir(parents=True, exist_ok=True)
    (where / "change" / path).write_text("import os\n")
    commit()
    text, code = report(where / "change")
    assert code == 3
    assert says in text


FAKE = """#!/usr/bin/env bash
printf '%s\\n' "$*" >> "$HOME/calls"
case "$1" in
  run) mkdir -p report; cp "$HOME/given.txt" report/report.txt ;;
  api) cat "$HOME/number" ;;
esac
"""
"""Stands for the command of GitHub, which is not here: notes what it is asked."""


@pytest.mark.parametrize(("number", "posted"), [("17\n", True), ("null\n", False), ("", False), ("1; id\n", False)])
def test_the_report_is_posted_as_plain_code(tmp_path, number, posted):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gh").write_text(FAKE)
    (tmp_path / "bin" / "gh").chmod(0o755)
    (tmp_path / "number").write_text(number)
    (tmp_path / "given.txt").write_bytes(b"row <b>\x1b[31m\xe2\x80\xae\n~~~\n@all " + b"x" * 60_000)
    names = {"RUN": "5", "SHA": "a" * 40, "OWNER": "o", "BRANCH": "b$(id)", "GH_REPO": "o/r", "GH_TOKEN": "t"}
    for one in WORKFLOWS["comment"]["jobs"]["post"]["steps"]:
        done = run_step(one, tmp_path, **names)
        assert done.returncode == 0, done.stderr
    comment = (tmp_path / "comment.md").read_text()
    assert comment.startswith("~~~text\nrow <b>[31m\n")
    assert comment.count("~~~") == 2
    assert comment.isascii()
    assert len(comment) < 51_000
    calls = (tmp_path / "calls").read_text()
    assert "head=o:b$(id)" in calls
    assert ("pr comment 17 --body-file comment.md" in calls) == posted
    assert ("pr comment" in calls) == posted
