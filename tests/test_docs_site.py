"""The documentation as a site: every page is in its navigation, every public name in the reference, every message exists."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml

import benchmark as kb
from benchmark.cli.main import SUBCOMMANDS
from benchmark.cli.main import main as cli
from benchmark.errors import ModelError, VerificationError

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
ERRORS = DOCS / "errors"


def navigation() -> list[str]:
    """The pages of `mkdocs.yml`, in order."""
    pages: list[str] = []
    for entry in yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]:
        pages += [entry] if isinstance(entry, str) else [page for part in entry.values() for page in part]
    return pages


def test_every_page_is_in_the_navigation_once():
    assert sorted(navigation()) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_every_public_name_is_in_the_reference():
    names = re.findall(r"^::: ([\w.]+)$", (DOCS / "reference.md").read_text(), re.MULTILINE)
    public = {name for name in kb.__all__ if not name.startswith("_")}
    assert {name.rpartition(".")[2] for name in names} == public
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert getattr(importlib.import_module(module), attribute) is getattr(kb, attribute)


def load_hook(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    return hook


@pytest.fixture(scope="module")
def messages():
    return load_hook("docs_messages")


def test_every_kind_of_error_is_on_the_page_with_its_exit_code(messages):
    """A class of errors that is added without an entry fails here."""
    text = (ERRORS / "index.md").read_text().partition("## Kinds of errors")[2]
    rows = [row.split(" | ") for row in re.findall(r"^\| (`.*) \|$", text, re.MULTILINE)]
    assert all(len(row) == 5 and all(row) for row in rows), "kind, exit code, symptom, cause, remedy"
    listed = {name: int(row[1][0]) for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert listed == messages.error_kinds(list(messages.sources().values()))
    assert listed["ModelError"] == ModelError.exit_code
    assert listed["VerificationError"] == VerificationError.exit_code


def test_every_message_is_on_one_page_and_every_page_has_messages_of_the_program(messages):
    """What fails here says which line to add, and where."""
    known = messages.literals()
    raised = messages.messages()
    assert len(raised) > 450
    assert messages.problems(raised, messages.sections(), lambda text: text in known) == []


def test_every_situation_has_messages_a_cause_and_a_remedy(messages):
    entries = messages.sections()
    assert {section.page for section in entries} == {path.name for path in ERRORS.glob("*.md")} - {"index.md"}
    for section in entries:
        assert section.messages, section.title
        assert re.search(r"^- `.*^\*\*Cause\.\*\* .*^\*\*Remedy\.\*\* ", section.text, re.DOTALL | re.MULTILINE), (
            section.title
        )


def test_a_message_without_a_page_or_on_two_is_named_with_what_to_do(messages, tmp_path):
    (tmp_path / "benchmark").mkdir()
    (tmp_path / "benchmark" / "new.py").write_text(
        'WHY = "why"\nclass NewError(UsageError):\n    exit_code = 2\nclass UsageError(BenchmarkError):\n    exit_code = 2\n'
        'def f(x):\n    raise NewError(f"{x}: {WHY}; " "do | this")\ndef g(reason):\n    raise UsageError(reason)\n'
    )
    (message,) = messages.messages(tmp_path)
    assert message == ("NewError", 2, "benchmark.new", "...: why; do | this")
    (missing,) = messages.problems([message], [], lambda text: False)
    assert "add the line\n- `...: why; do | this`\nto the section" in missing
    (tmp_path / "a.md").write_text(
        "# A\n\n## One\n\n- `...: why; do | this`\n- `gone`\n\n## Two\n\n- `...: why; do | this`\n"
    )
    twice, gone = messages.problems([message], messages.sections(tmp_path), lambda text: False)
    assert "is on several pages, keep one: docs/errors/a.md, One; docs/errors/a.md, Two" in twice
    assert gone == "docs/errors/a.md, One: no source has `gone`; correct it, or remove the line"


PRINTED = {
    "--suite lap: no such suite; use one of laptop, or the path of a .yaml file (did you mean laptop?)": "options.md",
    "--model path:/nope: no such folder; expected path:FOLDER": "options.md",
    "hf:org/x: no such model on the hub, or a private one; check the name, or set HF_TOKEN": "hub.md",
    "path:/m: /m: no config.json; give a folder that save_pretrained wrote": "model-files.md",
    "m: no tokenizer: /m has no tokenizer.json that splits texts (the word run has no tokens); save": "tokenizer.md",
    "m: context of 192 tokens, but suite smoke needs 150 for the prompt (0 solved examples) and 60 for the program; "
    "choose a suite with smaller worlds or a model with a longer context": "memory.md",
    "/runs: No space left on device; make room, and run the same command again: what is committed is kept": "run-folder.md",
    "--address 10.0.0.1:6379: no Ray cluster there (ConnectionError); see docs/cluster.md": "workers.md",
    "line 1, column 5: found moo, expected an action": "karel.md",
}


@pytest.mark.parametrize("printed", PRINTED)
def test_a_printed_message_leads_to_its_page(messages, printed):
    section = messages.find_page(f"error: {printed}", messages.sections())
    assert section is not None
    assert section.page == PRINTED[printed]


def test_what_the_commands_print_leads_to_a_page(messages, capsys, tmp_path):
    """Real calls that fail."""
    calls = {
        ("run", "--suite", "lap"): "options.md",
        ("run", "--no-such", "x"): "options.md",
        ("status", str(tmp_path)): "run-folder.md",
        ("compare", str(tmp_path), str(tmp_path)): "run-folder.md",
        ("submit", "validate", "no-such"): "submission-folder.md",
    }
    for words, page in calls.items():
        assert cli(list(words)) != 0
        section = messages.find_page(capsys.readouterr().err, messages.sections())
        assert section is not None, words
        assert section.page == page, words


def test_commands_of_the_pages_have_the_options_that_they_show(messages, capsys):
    lines = [
        line for section in messages.sections() for line in re.findall(r"^    .*(karel-bench .*)", section.text, re.M)
    ]
    by_command: dict[tuple[str, ...], set[str]] = {}
    for line in lines:
        words = [word for word in line.split() if word != "--help"]
        if words[1:]:
            assert words[1] in SUBCOMMANDS, line
        nested = tuple(words[1 : 3 if "submit" in words else 2])
        by_command.setdefault(nested, set()).update(re.findall(r"--[a-z-]+", line))
    for nested, options in by_command.items():
        if nested:
            with pytest.raises(SystemExit):
                cli([*nested, "--help"])
        else:
            assert cli(["--help"]) == 0
        printed = capsys.readouterr().out
        assert [option for option in options if option not in printed] == [], nested


def test_the_site_gets_what_pasted_messages_are_looked_up_in(messages, tmp_path):
    (tmp_path / "errors").mkdir()
    messages.on_post_build({"site_dir": str(tmp_path)})
    text = (tmp_path / "errors" / "messages.js").read_text()
    entries = json.loads(text.removeprefix("window.errorMessages = ").removesuffix(";\n"))
    entry = next(entry for entry in entries if entry["title"].startswith("The suite does not exist"))
    assert entry["address"] == "options/#the-suite-does-not-exist-or-its-file-cannot-be-read"
    assert ["--suite", ": no such suite; use one of", ", or the path of a .yaml file"] in entry["messages"]


def test_links_out_of_the_folder_lead_to_the_repository():
    hook = load_hook("docs_links")
    page, nested = (SimpleNamespace(file=SimpleNamespace(src_uri=uri)) for uri in ("a.md", "errors/a.md"))
    text, config = "[a](../leaderboard.md), [b](board.md#x), [c](../a/b.py)", {"repo_url": "https://host/x"}
    expected = "[a](https://host/x/blob/main/leaderboard.md), [b](board.md#x), [c](https://host/x/blob/main/a/b.py)"
    assert hook.on_page_markdown(text, page, config) == expected
    text = "[a](../models.md), [b](../../leaderboard.md)"
    assert (
        hook.on_page_markdown(text, nested, config) == "[a](../models.md), [b](https://host/x/blob/main/leaderboard.md)"
    )


@pytest.mark.slow
@pytest.mark.skipif("mkdocs" not in packages_distributions(), reason="needs the extra docs")
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "site" / "reference" / "index.html").is_file()
    data = (tmp_path / "site" / "errors" / "messages.js").read_text().removeprefix("window.errorMessages = ")
    for entry in json.loads(data.removesuffix(";\n")):
        page, _, anchor = entry["address"].partition("#")
        assert f'id="{anchor}"' in (tmp_path / "site" / "errors" / page / "index.html").read_text()
