"""Hook of mkdocs: the page on errors ends with every message that the sources can raise, so that none is forgotten."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("benchmark", "karel_env")
PAGE = "errors.md"
ROOTS = {"BenchmarkError": 1, "UsageExit": 2, "OutputError": 1, "LeakError": 1, "ParseError": 2, "WorldError": 2}
"""Classes from which all errors that a user meets descend, with their exit codes."""
GAP = "..."
"""Stands for what differs from one occurrence to the next."""


class Message(NamedTuple):
    """One message: its class and exit code, the module that raises it, and its text."""

    kind: str
    exit_code: int
    module: str
    text: str


@cache
def sources(root: Path = ROOT) -> dict[str, ast.Module]:
    """Syntax trees of all modules, by name."""
    files = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    return {
        ".".join(path.relative_to(root).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
        for path in files
    }


def error_kinds(trees: Sequence[ast.Module]) -> dict[str, int]:
    """Exit code of every class that descends from one of `ROOTS`, by name."""
    kinds = dict(ROOTS)
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    while True:
        new = {
            node.name: _own_exit_code(node) or kinds[base.id]
            for node in classes
            for base in node.bases
            if isinstance(base, ast.Name) and base.id in kinds and node.name not in kinds
        }
        if not new:
            return kinds
        kinds |= new


def _own_exit_code(node: ast.ClassDef) -> int | None:
    for part in node.body:
        if isinstance(part, ast.Assign) and isinstance(part.value, ast.Constant):
            for target in part.targets:
                if isinstance(target, ast.Name) and target.id == "exit_code":
                    return int(part.value.value)
    return None


@cache
def messages(root: Path = ROOT) -> list[Message]:
    """Every message that a `raise` of an error spells out, by module and line."""
    trees = sources(root)
    kinds = error_kinds(list(trees.values()))
    found = {}
    for module, tree in trees.items():
        constants = _constants(tree)
        for name, argument in _raised(tree):
            text = " ".join(_text(argument, constants).split())
            if name in kinds and any(sign.isalpha() for sign in text):
                found[module, text] = Message(name, kinds[name], module, text)
    return list(found.values())


def _raised(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Class and first argument of each error that is raised."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            function = node.exc.func
            yield getattr(function, "id", getattr(function, "attr", "")), node.exc.args[0]


def _constants(tree: ast.Module) -> dict[str, str]:
    """Texts that a module gives a name."""
    return {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _text(node: ast.expr, constants: dict[str, str]) -> str:
    """The text of an expression, with `GAP` for what is not known."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Name):
        return constants.get(node.id, GAP)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, constants) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _text(node.value, constants) if isinstance(node.value, ast.Name) else GAP
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left, constants) + _text(node.right, constants)
    return GAP


def message_list(root: Path = ROOT) -> str:
    """The messages as Markdown, a table for each package."""
    by_package: dict[str, list[Message]] = {}
    for message in messages(root):
        package = ".".join(message.module.split(".")[:2])
        by_package.setdefault(package, []).append(message)
    parts = ["## All messages", f"`{GAP}` stands for what differs from one occurrence to the next."]
    for package, entries in by_package.items():
        rows = [f"| {_cell(entry.text)} | {entry.kind} | {entry.exit_code} |" for entry in entries]
        parts.append("\n".join([f"### `{package}`", "", "| message | kind | exit code |", "|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    """A message as a cell of a table."""
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]<>#|" else sign for sign in text)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Add the messages to the page on errors."""
    return f"{markdown}\n\n{message_list()}" if page.file.src_uri == PAGE else markdown
