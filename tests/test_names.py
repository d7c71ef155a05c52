"""Names are the field's terms, and sources are pages and papers that a reader has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for name in ("benchmark", "karel_env", "baselines") for path in (ROOT / name).rglob("*.py"))
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
PLAIN_WORDS = frozenset(
    [
        "asked",
        "apart",
        "behind",
        "beside",
        "besides",
        "chosen",
        "deed",
        "done",
        "drawn",
        "each",
        "found",
        "given",
        "gone",
        "held",
        "here",
        "judged",
        "kept",
        "known",
        "lies",
        "made",
        "mine",
        "once",
        "one",
        "others",
        "place",
        "places",
        "rest",
        "room",
        "said",
        "same",
        "seen",
        "several",
        "something",
        "somebody",
        "stands",
        "stood",
        "taken",
        "things",
        "told",
        "two",
        "wanted",
        "way",
        "ways",
        "what",
        "who",
        "whole",
        "why",
    ]
)
"""Words of a sentence: as a variable they tell the role of a value, not what it holds."""
MOST_PER_1000_LINES = 1.0
MISSING_PAGES = re.compile(
    r"\b(?:"
    + "|".join(["KAREL", "PROBING", "DESIGN", "RAY", "NAMES", "CAUSAL", "EXAMPLES"])
    + r")\.md\b|\bshared/(?!runs\b)"
)


def bound_names(tree: ast.AST) -> Iterator[str]:
    """The names of variables, parameters, fields, attributes, functions and classes that a file defines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name


def plain_names(source: str) -> list[str]:
    """The defined names that are a word of a sentence alone."""
    return [name for name in bound_names(ast.parse(source)) if name.strip("_").lower() in PLAIN_WORDS]


def test_plain_names_are_counted() -> None:
    source = "def told(one, log_probs):\n    found = [each for each in one]\n    self.kept = found\n"
    assert sorted(plain_names(source)) == ["each", "found", "kept", "one", "told"]


@pytest.mark.parametrize("package", ["benchmark", "karel_env", "baselines"])
def test_names_say_what_they_hold(package: str) -> None:
    texts = {path: path.read_text() for path in SOURCES if path.is_relative_to(ROOT / package)}
    lines = sum(text.count("\n") for text in texts.values())
    names = {str(path.relative_to(ROOT)): plain_names(text) for path, text in texts.items()}
    count = sum(map(len, names.values()))
    assert 1000 * count / lines < MOST_PER_1000_LINES, {path: found for path, found in names.items() if found}


@pytest.mark.parametrize("path", [*SOURCES, *PAGES], ids=lambda p: p.relative_to(ROOT).as_posix())
def test_cited_pages_are_here(path: Path) -> None:
    text = path.read_text()
    assert not MISSING_PAGES.findall(text)
    missing = [page for page in re.findall(r"\bdocs/[\w/]+\.md\b", text) if not (ROOT / page).is_file()]
    assert not missing
