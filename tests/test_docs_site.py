"""The documentation as a site: every page is in its navigation, every public name in the reference, every message exists."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml

import benchmark as kb
from benchmark.errors import ModelError, VerificationError

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
MESSAGES = re.findall(r"^### `(.+)`$", (DOCS / "errors.md").read_text(), re.MULTILINE)
SOURCES = [path.read_text() for package in ("benchmark", "karel_env") for path in (ROOT / package).rglob("*.py")]
LITERALS = "\n".join(re.sub(r'"\s*\n\s*f?"', "", source) for source in SOURCES)
"""The sources, with neighbouring literals joined."""


def navigation() -> list[str]:
    """The pages of `mkdocs.yml`, in order."""
    pages: list[str] = []
    for entry in yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]:
        pages += [entry] if isinstance(entry, str) else [page for part in entry.values() for page in part]
    return pages


def test_every_page_is_in_the_navigation_once():
    assert sorted(navigation()) == sorted(path.name for path in DOCS.glob("*.md"))


def test_every_public_name_is_in_the_reference():
    names = re.findall(r"^::: ([\w.]+)$", (DOCS / "reference.md").read_text(), re.MULTILINE)
    public = {name for name in kb.__all__ if not name.startswith("_")}
    assert {name.rpartition(".")[2] for name in names} == public
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert getattr(importlib.import_module(module), attribute) is getattr(kb, attribute)


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_is_one_of_the_program(message):
    assert message in LITERALS


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
    text = (DOCS / "errors.md").read_text().partition("## Kinds of errors")[2].partition("\n## ")[0]
    rows = [row.split(" | ") for row in re.findall(r"^\| (`.*) \|$", text, re.MULTILINE)]
    assert all(len(row) == 5 and all(row) for row in rows), "kind, exit code, symptom, cause, remedy"
    listed = {name: int(row[1][0]) for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert listed == messages.error_kinds(list(messages.sources().values()))
    assert listed["ModelError"] == ModelError.exit_code
    assert listed["VerificationError"] == VerificationError.exit_code


def test_the_site_lists_every_message(messages, tmp_path):
    """Also one that is added: the list is taken from the source."""
    (tmp_path / "benchmark").mkdir()
    (tmp_path / "benchmark" / "new.py").write_text(
        'WHY = "why"\nclass NewError(UsageError):\n    exit_code = 2\nclass UsageError(BenchmarkError):\n    exit_code = 2\n'
        'def f(x):\n    raise NewError(f"{x}: {WHY}; " "do | this")\ndef g(reason):\n    raise UsageError(reason)\n'
    )
    (message,) = messages.messages(tmp_path)
    assert message == ("NewError", 2, "benchmark.new", "...: why; do | this")
    assert "| ...: why; do \\| this | NewError | 2 |" in messages.message_list(tmp_path)
    assert len(messages.messages()) > 450
    page = SimpleNamespace(file=SimpleNamespace(src_uri="errors.md"))
    text = messages.on_page_markdown("# Errors", page=page)
    assert "no such suite" in text
    assert "## All messages" in text
    assert messages.on_page_markdown("x", page=SimpleNamespace(file=SimpleNamespace(src_uri="api.md"))) == "x"


def test_links_out_of_the_folder_lead_to_the_repository():
    hook = load_hook("docs_links")
    text = hook.on_page_markdown(
        "[a](../leaderboard.md), [b](board.md#x), [c](../a/b.py)", {"repo_url": "https://host/x"}
    )
    assert text == "[a](https://host/x/blob/main/leaderboard.md), [b](board.md#x), [c](https://host/x/blob/main/a/b.py)"


@pytest.mark.slow
@pytest.mark.skipif("mkdocs" not in packages_distributions(), reason="needs the extra docs")
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "site" / "reference" / "index.html").is_file()
