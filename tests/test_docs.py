"""What the documents show is what happens: their Python runs, and the command's example gives its answer."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from karel_env.run import Options, results

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    (page.name, block) for page in PAGES for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
]


def test_there_are_examples():
    assert len(BLOCKS) >= 5


@pytest.mark.parametrize(("page", "block"), BLOCKS, ids=[f"{page}-{i}" for i, (page, _) in enumerate(BLOCKS)])
def test_the_examples_run(page, block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, page, "exec"), {})


def test_the_commands_example_gives_what_is_said():
    page = (ROOT / "docs" / "karel_env.md").read_text()
    given = re.search(r'\{"id": 1, "program".*?\}\}', page, re.DOTALL)
    said = re.search(r'`(\{"id":1,.*?)`', page)
    assert given
    assert said
    assert list(results([given[0].replace("\n", " ")], Options())) == [json.loads(said[1])]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, heading = target.partition("#")
        assert path.startswith("http") or (page.parent / path).exists(), target
        titles = {re.sub(r"[^a-z0-9 -]", "", t.lower()).replace(" ", "-") for t in re.findall(r"^#+ (.*)$", text, re.M)}
        assert path or heading in titles, target
