"""A first submission: what the draft fills in, what it asks, where the row would stand, and how many steps there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hostile import entry

import benchmark.installation.project as project
from benchmark.artifacts import REACH_RECORD, REPRESENTS_RECORD, USES_RECORD
from benchmark.installation.project import repository_address
from benchmark.runner.record import read_record
from benchmark.submit.command import main
from benchmark.submit.draft import known_entries, model_card, proposal
from benchmark.submit.draft.known_entries import count_models, describe_steps, read_own_training
from benchmark.submit.draft.model_card import NO_CARD, read_model_card
from benchmark.submit.draft.questions import MARK, QUESTIONS, find_questions
from benchmark.submit.draft.scaffold import name_of_model
from benchmark.submit.schema import read_submission

ROOT = Path(__file__).parents[2]
NETWORK = ROOT / "submissions" / "2026-11-25_gpt-laptop"
CARD = """---
license: apache-2.0
datasets:
- org/karel-programs
authors: [Ada, Grace]
---
# A model
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished official run of a model of one's own: nothing that this project's training writes, no description."""
    folder = tmp_path / "runs" / "run"
    shutil.copytree(NETWORK, folder)
    for name in ("submission.yaml", "README.md", "status.json", "training.json"):
        (folder / name).unlink(missing_ok=True)
    entry("model.spec", f"path:{folder}", "record.json")(folder)
    for name in (REPRESENTS_RECORD, USES_RECORD, REACH_RECORD):
        entry("model.spec", "path:run", name)(folder)
    monkeypatch.setattr(known_entries, "git_user_name", lambda: "Lin")
    return folder


@pytest.fixture
def board(tmp_path):
    """A folder of submissions with a row of another model of the same architecture."""
    folder = tmp_path / "submissions"
    shutil.copytree(ROOT / "submissions" / "2026-11-26_gpt-small-laptop", folder / "2026-11-26_gpt-small-laptop")
    return folder


def described(folder: Path) -> dict[str, Any]:
    content = yaml.safe_load((folder / "submission.yaml").read_text())
    assert isinstance(content, dict)
    return content


def test_a_first_submission_is_one_command_and_no_edit_where_the_card_tells_the_rest(run, board, capsys):
    """Before, it was two commands, `new` and `verify`, and five entries to edit."""
    (run / "README.md").write_text(CARD)
    commands = [["--submissions", str(board), "new", "mine", "--run", str(run), "--alternatives", "no"]]
    assert [main(words) for words in commands] == [0]
    out = capsys.readouterr().out
    folder = board / "2026-11-25_mine"
    edits = find_questions(described(folder))
    assert (len(commands), len(edits)) == (1, 0)
    assert f"{folder.name}: verified" in out
    submission = read_submission(folder)
    assert (submission.authors, submission.licence, submission.family) == (["Ada", "Grace"], "Apache-2.0", "gpt")
    assert submission.training.data == "org/karel-programs"
    assert str(run) not in (folder / "submission.yaml").read_text()
    assert re.search(r"licence +Apache-2\.0 +from the model card", out)
    assert "where it would stand: laptop v1" in out
    assert f"{repository_address()}/compare/main...YOU:row-mine" in out
    assert main(["--submissions", str(board), "new", "mine", "--run", str(run)]) == 2
    assert main(["--submissions", str(board), "new", "../mine", "--run", str(run)]) == 2


def test_what_no_file_tells_is_asked_and_refused_line_by_line(run, board, capsys):
    assert main(["--submissions", str(board), "new", "--run", str(run)]) == 0
    out = capsys.readouterr().out
    (folder,) = (path for path in board.iterdir() if "small" not in path.name)
    asked = ["training.data", "training.alternative_semantics_seen", "licence"]
    assert sorted(find_questions(described(folder))) == sorted(asked)
    assert all(re.search(rf"{re.escape(path)} .*\(--\w+\)", out) for path in asked)
    assert re.search(r"authors +Lin +from git config user.name", out)
    for command in ("validate", "verify"):
        assert main(["--submissions", str(board), command, folder.name]) == 3
        refused = capsys.readouterr()
        assert refused.out.splitlines()[1:] == [
            f"  {path:<35}  {QUESTIONS[path]}"
            for path in ("training.data", "training.alternative_semantics_seen", "licence")
        ]
        assert "3 entries are still a question" in refused.err


def test_nothing_that_is_not_checked_is_left_to_fill_in(run, board):
    assert main(["--submissions", str(board), "new", "mine", "--run", str(run)]) == 0
    texts = [path.read_text() for path in (board / "2026-11-25_mine").iterdir() if path.suffix in (".md", ".yaml")]
    assert len(texts) == 2
    assert not any("FILL IN" in text for text in texts)
    assert [MARK in text for text in texts].count(True) == 1
    assert not any(char.isdigit() for line in texts[0].splitlines() for char in line if "%" in line)


def test_every_question_is_refused_by_the_schema_too(run, board):
    main(["--submissions", str(board), "new", "mine", "--run", str(run)])
    folder = board / "2026-11-25_mine"
    description = described(folder)
    description["training"] |= {"data": "text", "alternative_semantics_seen": None}
    (folder / "submission.yaml").write_text(yaml.safe_dump(description))
    with pytest.raises(Exception, match="licence: still a question; write the answer"):
        read_submission(folder)


def test_the_same_weights_are_described_as_in_their_row(run, board):
    shutil.copytree(NETWORK, board / NETWORK.name)
    main(["--submissions", str(board), "new", "mine", "--run", str(run)])
    assert not find_questions(described(board / "2026-11-25_mine"))
    assert described(board / "2026-11-25_mine")["training"] == described(NETWORK)["training"]


def test_a_baseline_is_described_as_in_its_row(board, tmp_path):
    run, name = tmp_path / "runs" / "n-gram", "2026-11-25_n-gram"
    shutil.copytree(ROOT / "submissions" / name, run)
    (run / "submission.yaml").unlink()
    shutil.copytree(ROOT / "submissions" / name, board / name)
    entry("model.digest", "0" * 64, "record.json")(run)
    assert main(["--submissions", str(board), "new", "again", "--run", str(run)]) == 4
    assert described(board / "2026-11-25_again")["family"] == "symbolic"
    entry("suite.name", "control", "record.json")(run)
    assert main(["--submissions", str(board), "new", "elsewhere", "--run", str(run)]) == 4
    training = described(NETWORK.parent / name)["training"]
    assert described(board / "2026-11-25_elsewhere")["training"] == training | {"suite": "control"}


def test_own_training_was_under_the_original_meanings():
    entries = read_own_training(NETWORK)
    assert (entries["suite"], entries["seeds"], entries["alternative_semantics_seen"]) == ("laptop", [1], False)


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ("license: mit", "MIT"),
        ("license: llama3.1", "LicenseRef-llama3.1"),
        ("license: other\nlicense_name: my-licence", "LicenseRef-my-licence"),
        ("license: do what you like", ""),
        ("license: [1, 2]", ""),
    ],
)
def test_a_licence_of_a_card_becomes_an_spdx_expression(tmp_path, metadata, licence):
    (tmp_path / "README.md").write_text(f"---\n{metadata}\n---\n")
    assert read_model_card(tmp_path).licence == licence


@pytest.mark.parametrize(
    "text", ["", "# no metadata", "---\n- a list\n---\n", "---\na: *b\n---\n", "---\nopen: true\n"]
)
def test_a_card_that_cannot_be_read_tells_nothing(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    assert read_model_card(tmp_path) == NO_CARD


def test_the_card_of_a_model_of_the_hub_is_fetched(tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    requested = []
    monkeypatch.setattr(model_card, "download_card", lambda spec: requested.append(spec) or tmp_path / "README.md")
    spec = known_entries.ModelSpec("hf", "org/name", "a" * 40)
    files = known_entries.ModelFiles(spec, None)
    record = read_record(NETWORK / "record.json")
    entries = known_entries.find_known_entries(record, files, tmp_path / "none", tmp_path)
    assert requested == [spec]
    assert {path: known.value for path, known in entries.items()} == {
        "licence": "MIT",
        "authors": ["org"],
        "attempts": 1,
    }


def test_steps_and_attempts_are_counted(tmp_path, run):
    (tmp_path / "trainer_state.json").write_text(json.dumps({"global_step": 1200, "epoch": 2.5}))
    assert describe_steps(tmp_path) == "1,200 steps, 2.5 epochs"
    assert describe_steps(tmp_path / "none") == ""
    record = read_record(run / "record.json")
    other = tmp_path / "runs" / "other"
    shutil.copytree(run, other)
    assert count_models(run.parent, record) == 1
    entry("model.digest", "0" * 64, "record.json")(other)
    assert count_models(run.parent, record) == 2
    entry("official", False, "record.json")(other)
    assert count_models(run.parent, record) == 1


@pytest.mark.parametrize(
    ("name", "plain"),
    [("2026-11-23_llama-laptop", "llama-laptop"), ("org/My model", "My-model"), ("..", "model"), ("x" * 99, "x" * 69)],
)
def test_a_name_is_made_from_that_of_the_model(name, plain):
    assert name_of_model(name) == plain


def test_who_is_in_no_clone_is_told_before_anything_is_written(run, tmp_path, capsys, monkeypatch):
    assert main(["--submissions", str(tmp_path / "submissions"), "new", "mine", "--run", str(run)]) == 0
    note = capsys.readouterr().err
    assert note.startswith("note: ")
    assert f"fork {repository_address()}, git clone your fork" in note
    clone = tmp_path / "clone"
    for name in (".git", "benchmark"):
        (clone / name).mkdir(parents=True)
    shutil.copyfile(ROOT / "pyproject.toml", clone / "pyproject.toml")
    assert proposal.describe_clone(clone / "submissions") == ""


def test_an_installed_package_knows_the_address_from_its_metadata(monkeypatch):
    monkeypatch.setattr(project, "is_checkout", lambda root: False)
    monkeypatch.setattr(project, "metadata", lambda name: Metadata())
    assert repository_address() == "https://example.org/them/karel"


class Metadata:
    def get_all(self, name: str) -> list[str]:
        assert name == "Project-URL"
        return ["Issues, https://example.org/issues", "Repository, https://example.org/them/karel"]


def test_the_git_commands_do_what_they_say(tmp_path):
    """They are run in a clone, as far as no network is needed."""
    clone, folder = tmp_path / "clone", tmp_path / "clone" / "submissions" / "2026-11-25_mine"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text("{}")
    subprocess.run(["git", "init", "-q", str(clone)], check=True)
    lines = [line.partition("    #")[0].strip() for line in proposal.describe_proposal(folder).splitlines()]
    who = "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b"
    for line in (line for line in lines if line.startswith("git ") and "push" not in line):
        subprocess.run(["bash", "-ec", f"{who}; {line}"], cwd=clone, check=True, capture_output=True)
    shown = subprocess.run(
        ["git", "log", "--format=%s", "--name-only", "row-mine"], cwd=clone, check=True, capture_output=True, text=True
    )
    assert shown.stdout.split() == ["submissions:", "mine", "submissions/2026-11-25_mine/record.json"]
