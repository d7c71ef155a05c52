"""The workflows of a public repository: their rights, and their steps run on a change in a repository made here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hostile import entry
from markdown_it import MarkdownIt
from proposals import copy_row

from benchmark.review.pull_request import report_pull_request

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yml"))}
PLAIN = "2026-11-25_n-gram"
RIVALS = (PLAIN, "2026-11-25_nearest-neighbour", "2026-11-25_random")
"""Rows of the board that a change is compared with; every row would be read for it."""
# YAML 1.1 reads the key `on` as true.
ON = True


def step(workflow: str, name: str) -> dict:
    (job,) = WORKFLOWS[workflow]["jobs"].values()
    return next(item for item in job["steps"] if item.get("name") == name)


def git(where: Path, *words: str) -> None:
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(where), *author, *words], check=True, capture_output=True)


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
    for name in ("benchmark", "karel_env", "baselines"):
        (tmp_path / "base" / name).symlink_to(ROOT / name)
    for name in RIVALS:
        shutil.copytree(ROOT / "submissions" / name, tmp_path / "base" / "submissions" / name)

    def commit() -> None:
        git(change, "checkout", "-qb", "change")
        git(change, "add", "-A")
        git(change, "commit", "-qm", "change")
        git(change, "checkout", "-q", "main")
        git(change, "merge", "-q", "--no-ff", "-m", "merge", "change")

    return tmp_path, commit


def run_step(item: dict, where: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A step as the runner runs it: bash -e, with pipefail."""
    assert "${{" not in item["run"], "an expression in a script could hold what a change says"
    path = f"{where / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", item["run"]],
        cwd=where / item.get("working-directory", "."),
        env={"PATH": path, "HOME": str(where), "OMP_NUM_THREADS": "1", **env},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def verified(where: Path) -> tuple[int, str]:
    result = run_step(step("submission", "Verify"), where)
    assert not result.stderr, result.stderr
    return result.returncode, (where / "report.txt").read_text()


def test_what_reads_a_change_can_only_read():
    verify = WORKFLOWS["submission"]
    assert set(verify[ON]) == {"pull_request"}
    assert verify["permissions"] == {"contents": "read"}
    assert "secrets" not in (FOLDER / "submission.yml").read_text().partition("jobs:")[2]
    checkouts = [item["with"] for item in verify["jobs"]["verify"]["steps"] if "checkout" in item.get("uses", "")]
    assert [item["path"] for item in checkouts] == ["base", "change"]
    assert checkouts[0]["ref"] == "${{ github.event.pull_request.base.sha }}"
    assert all(item["persist-credentials"] is False for item in checkouts)
    scripts = [item for item in verify["jobs"]["verify"]["steps"] if "run" in item]
    assert all(
        len(item["uses"].partition("@")[2]) == 40 for item in verify["jobs"]["verify"]["steps"] if "uses" in item
    )
    assert all("change" not in item["run"].replace("--change ../change", "") for item in scripts)
    assert "pull_request_target" not in (FOLDER / "submission.yml").read_text()


def test_what_may_write_takes_nothing_but_numbers():
    post = WORKFLOWS["comment"]
    assert set(post[ON]) == {"workflow_run"}
    assert post[ON]["workflow_run"]["workflows"] == [WORKFLOWS["submission"]["name"]]
    assert post["permissions"] == {"actions": "read", "contents": "read", "pull-requests": "write"}
    assert not any("uses" in item for item in post["jobs"]["post"]["steps"])
    assert ".github/workflows/submission.yml" in post["jobs"]["post"]["if"]
    scripts = "".join(item["run"] for item in post["jobs"]["post"]["steps"])
    assert "report.txt" not in scripts


def test_an_honest_submission_is_verified_and_compared(proposed):
    where, commit = proposed
    new = where / "change" / "submissions" / "2026-11-26_mine"
    copy_row(PLAIN, new)
    commit()
    code, text = verified(where)
    assert code == 0, text
    assert "2026-11-26_mine: verified" in text
    assert "->" in text
    assert "nearest-neighbour" in text


def test_an_edited_number_does_not_land(proposed):
    where, commit = proposed
    new = where / "change" / "submissions" / "2026-11-26_mine"
    copy_row(PLAIN, new)
    entry("accuracy.shown.value", 0.11, "record.json")(new)
    commit()
    text, code = report_pull_request(where / "change")
    assert code == 4
    assert "accuracy.shown.value" in text


@pytest.mark.parametrize(
    ("path", "says"),
    [("benchmark/run.py", "outside of submissions"), ("submissions/2026-11-26_x/run.py", "no file of a submission"),
     ("submissions/README.md", "outside of submissions"), ("submissions/`x`/a", "letters, digits")],
)  # fmt: skip
def test_other_files_are_refused(proposed, path, says):
    where, commit = proposed
    (where / "change" / path).parent.mkdir(parents=True, exist_ok=True)
    (where / "change" / path).write_text("import os\n")
    commit()
    text, code = report_pull_request(where / "change")
    assert code == 3
    assert says in text


@pytest.mark.parametrize(
    ("association", "is_own"),
    [("OWNER", True), ("MEMBER", True), ("COLLABORATOR", False), ("CONTRIBUTOR", False), ("NONE", False), ("", False),
     ("--maintainer", False), ("MEMBER --x", False), ("x) own=(--maintainer)", False)],
)  # fmt: skip
def test_only_whom_github_names_a_maintainer_is_one(tmp_path, association, is_own):
    (tmp_path / "bin").mkdir()
    (tmp_path / "base").mkdir()
    (tmp_path / "bin" / "python").write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@" > "$HOME/words"\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    assert run_step(step("submission", "Verify"), tmp_path, ASSOCIATION=association).returncode == 0
    assert ("--maintainer" in (tmp_path / "words").read_text().splitlines()) == is_own


def test_the_summary_of_a_run_shows_the_report_as_one_block_of_code(tmp_path):
    (tmp_path / "report.txt").write_text("~~~\n```\n<b>@all</b>\n\n# x\n")
    result = run_step(step("submission", "Show the report"), tmp_path, GITHUB_STEP_SUMMARY=str(tmp_path / "summary.md"))
    assert result.returncode == 0, result.stderr
    (token,) = MarkdownIt("gfm-like", {"linkify": False}).parse((tmp_path / "summary.md").read_text())
    assert token.type == "code_block"


FAKE = """#!/usr/bin/env bash
printf '%s\\n' "$*" >> "$HOME/calls"
case "$*" in
  run\\ *) mkdir -p report; cp "$HOME/summary.json" report/; cp "$HOME/report.txt" report/ ;;
  *pulls*) cat "$HOME/pull" ;;
  *compare*) cat "$HOME/files" ;;
esac
"""
"""Stands for the command of GitHub, which is not here: notes what it is asked."""
COUNTS = {"exit_code": 0, "new": 1, "changed": 0, "removed": 0, "renamed": 0, "refused": 0}
PULL = f"17 {'b' * 40}\n"
FILES = "submissions/2026-11-26_mine/record.json\nsubmissions/2026-11-26_mine/figures/a.svg\n"
TEXT = "@all <b>SPAM</b> https://evil.example"


def posted(
    tmp_path: Path, summary: str = json.dumps(COUNTS), pull: str = PULL, files: str = FILES, **env: str
) -> str | None:
    """The comment that the steps post, None where they post none; no step fails."""
    shutil.rmtree(tmp_path, ignore_errors=True)
    (tmp_path / "bin").mkdir(parents=True)
    (tmp_path / "bin" / "gh").write_text(FAKE)
    (tmp_path / "bin" / "gh").chmod(0o755)
    for name, content in (("pull", pull), ("files", files), ("summary.json", summary), ("report.txt", TEXT)):
        (tmp_path / name).write_text(content)
    names = {"RUN": "5", "SHA": "a" * 40, "OWNER": "o", "BRANCH": "b$(id)", "GH_REPO": "o/r", "GH_TOKEN": "t",
             "SERVER": "https://github.com", "CONCLUSION": "success"} | env  # fmt: skip
    for item in WORKFLOWS["comment"]["jobs"]["post"]["steps"]:
        result = run_step(item, tmp_path, **names)
        assert result.returncode == 0, result.stderr
    calls = (tmp_path / "calls").read_text()
    assert "head=o:b$(id)" in calls
    if "pr comment" not in calls:
        return None
    assert "pr comment 17 --body-file comment.md" in calls
    assert f"compare/{'b' * 40}...{'a' * 40}" in calls
    return (tmp_path / "comment.md").read_text()


@pytest.mark.parametrize(
    ("code", "conclusion", "verdict"),
    [
        (0, "success", "verified"),
        (3, "failure", "refused"),
        (2, "failure", "refused"),
        (4, "failure", "figures differ"),
    ],
)
def test_a_comment_is_fixed_words_and_numbers(tmp_path, code, conclusion, verdict):
    comment = posted(tmp_path / "x", json.dumps(COUNTS | {"exit_code": code, "new": 12}), CONCLUSION=conclusion)
    assert comment is not None
    assert f"**{verdict}**" in comment
    assert "| 12 | 0 | 0 | 0 | 0 |" in comment
    assert "https://github.com/o/r/actions/runs/5" in comment
    assert "SPAM" not in comment


SUMMARIES = [
    "", "{}", "null", TEXT, json.dumps(COUNTS) + TEXT, TEXT + json.dumps(COUNTS), json.dumps(COUNTS | {"new": TEXT}),
    json.dumps(COUNTS | {"new": -1}), json.dumps(COUNTS | {"new": 100}), json.dumps(COUNTS | {"new": True}),
    json.dumps(COUNTS | {"exit_code": 5}), json.dumps(COUNTS | {"more": TEXT}), json.dumps(COUNTS)[:-1],
    json.dumps(COUNTS) + "\n" + TEXT, json.dumps(COUNTS).replace("1", "$(id)"), json.dumps(COUNTS, indent=1),
    json.dumps(COUNTS | {"exit_code": 3}), json.dumps(COUNTS).replace(": 0", ": \u0660"),
]  # fmt: skip


@pytest.mark.parametrize("summary", SUMMARIES)
def test_numbers_of_another_form_are_not_posted(tmp_path, summary):
    assert posted(tmp_path / "x", summary) is None


@pytest.mark.parametrize(
    "files",
    ["", FILES + ".github/workflows/submission.yml\n", "benchmark/review/pull_request.py\n" + FILES, "submissions/README.md\n",
     "submissions/../.github/x\n", "Submissions/a/b\n", "x/submissions/a/b\n", FILES + "evil\n" + FILES, FILES * 150,
     "submissions/a/\u202e\n", FILES + "pyproject.toml"],
)  # fmt: skip
def test_no_comment_where_a_change_touches_more_than_submissions(tmp_path, files):
    """The run of such a change may have been edited by it."""
    assert posted(tmp_path / "x", files=files) is None


@pytest.mark.parametrize(
    "pull", ["null null\n", "", "1; id\n", f"17 {'b' * 39}\n", f"17\n{'b' * 40}\n", f"{'9' * 10} {'b' * 40}\n"]
)
def test_no_comment_without_the_pull_request_of_the_commit(tmp_path, pull):
    assert posted(tmp_path / "x", pull=pull) is None


@pytest.mark.parametrize("conclusion", ["failure", "cancelled", "timed_out", "", "success) echo"])
def test_numbers_must_be_those_of_the_runs_end(tmp_path, conclusion):
    assert posted(tmp_path / "x", CONCLUSION=conclusion) is None
