"""The documentation as a site: every page is in its navigation, every public name in the reference, every message exists."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

import benchmark as kb

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


def test_links_out_of_the_folder_lead_to_the_repository():
    spec = importlib.util.spec_from_file_location("docs_links", ROOT / ".ci" / "docs_links.py")
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
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
