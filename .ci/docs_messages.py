"""The messages that the sources can raise, and the pages of `docs/errors/` that say their cause and remedy.

As a hook of mkdocs it writes the data by which the site leads from a pasted message to its section.

    python .ci/docs_messages.py              # messages without a page, and pages' messages that are no more
    python .ci/docs_messages.py 'MESSAGE'    # the page of a message as it was printed
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("baselines", "benchmark", "karel_env")
PAGES = ROOT / "docs" / "errors"
INDEX, FOLDER, DATA = "index.md", "errors/", "messages.js"
MIN_PARTIAL = 12
"""Characters that a line shares at least with a message whose end it lacks."""
ROOTS = {"BenchmarkError": 1, "UsageExit": 2, "OutputError": 1, "LeakError": 1, "ParseError": 2, "WorldError": 2}
"""Classes from which all errors that a user meets descend, with their exit codes."""
RAISES = re.compile(
    r"\b(?:raise|return|=) \w+(?:Error|Exit)\(|^class \w+\(\w*(?:Error|Exit|Failed|Exception)", re.MULTILINE
)
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
    """Syntax trees of the modules that raise or define errors, by name."""
    files = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    texts = {".".join(path.relative_to(root).with_suffix("").parts): path.read_text(encoding="utf-8") for path in files}
    return {name: ast.parse(text) for name, text in texts.items() if RAISES.search(text)}


def error_kinds(trees: Sequence[ast.Module]) -> dict[str, int]:
    """Exit code of every class that descends from one of `ROOTS`, by name."""
    kinds = dict(ROOTS)
    classes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
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
    """Every message that an error which is raised or returned spells out, by module and line."""
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
    """Class and first argument of each call that is raised, returned or given a name."""
    for node in _statements(tree.body):
        call = node.exc if isinstance(node, ast.Raise) else getattr(node, "value", None)
        if isinstance(call, ast.Call) and call.args:
            yield getattr(call.func, "id", getattr(call.func, "attr", "")), call.args[0]


def _statements(nodes: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """Statements and those within them."""
    for node in nodes:
        yield node
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from _statements(getattr(node, name, ()))


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


class Section(NamedTuple):
    """One situation of a page: its heading, the messages as printed, and the text below them."""

    page: str
    title: str
    messages: tuple[str, ...]
    text: str


def sections(folder: Path = PAGES) -> list[Section]:
    """The situations of all pages; a message is an entry of a list, in backticks."""
    entries = []
    for path in sorted(folder.glob("*.md")):
        for part in path.read_text(encoding="utf-8").split("\n## ")[1:] if path.name != INDEX else ():
            title, _, text = part.partition("\n")
            printed = tuple(line[2:].strip("`").strip() for line in text.splitlines() if line.startswith("- `"))
            entries.append(Section(path.name, title, printed, text))
    return entries


def problems(raised: Sequence[Message], entries: Sequence[Section], is_known: Callable[[str], bool]) -> list[str]:
    """What to do so that every raised message is on one page, and every message of a page is one of the program.

    Args:
        raised: the messages of the sources.
        entries: the situations of the pages.
        is_known: whether the sources have a text that no `raise` spells out.
    """
    places: dict[str, list[str]] = {}
    for section in entries:
        for text in section.messages:
            places.setdefault(text, []).append(f"docs/errors/{section.page}, {section.title}")
    texts = {message.text: message.module for message in raised}
    return [
        *(
            f"{module} raises a message without a page: add the line\n- `{text}`\nto the section of docs/errors/ whose cause "
            "and remedy are its own, or write a section"
            for text, module in texts.items()
            if text not in places
        ),
        *(f"`{text}` is on several pages, keep one: {'; '.join(at)}" for text, at in places.items() if len(at) > 1),
        *(
            f"{at[0]}: no source has `{text}`; correct it, or remove the line"
            for text, at in places.items()
            if text not in texts and not all(is_known(part.strip()) for part in text.split(GAP))
        ),
    ]


def literals(root: Path = ROOT) -> str:
    """All texts of the sources, with neighbouring literals joined and line ends of calls removed."""
    files = (path for package in PACKAGES for path in sorted((root / package).rglob("*.py")))
    return "\n".join(re.sub(r'"\s*\n\s*f?"', "", path.read_text(encoding="utf-8")) for path in files)


def fixed_parts(text: str) -> list[str]:
    """The parts of a message that are the same each time."""
    return [part.strip() for part in text.split(GAP) if part.strip()]


def find_page(printed: str, entries: Sequence[Section]) -> Section | None:
    """The situation whose message shares the most characters with a printed one; None if none does. As `messages.js`."""
    line = " ".join(printed.split())
    shared = [(_shared(fixed_parts(text), line), section) for section in entries for text in section.messages]
    most, best = max(shared, key=lambda entry: entry[0], default=(0, None))
    return best if most else None


def _shared(parts: Sequence[str], line: str) -> int:
    if any(line in part for part in parts):
        return len(line)
    start = shared = 0
    for part in parts:
        at = line.find(part, start)
        if at < 0:
            return 0 if shared < MIN_PARTIAL else shared
        start, shared = at + len(part), shared + len(part)
    return shared + 1


def message_data(entries: Sequence[Section]) -> str:
    """The script that `docs/javascripts/messages.js` loads: title and address of each section, fixed parts of its messages."""
    data = []
    for section in entries:
        title = re.sub("[`*]", "", section.title)
        data.append(
            {
                "title": title,
                "address": f"{section.page.removesuffix('.md')}/#{_anchor(title)}",
                "messages": [fixed_parts(text) for text in section.messages],
            }
        )
    return f"window.errorMessages = {json.dumps(data)};\n"


def _anchor(title: str) -> str:
    """The anchor of a heading in ASCII, as Markdown's `toc` makes it."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title.lower()))


def on_post_build(config: Any, **_: Any) -> None:
    """Hook of mkdocs: write what a pasted message is looked up in."""
    (Path(config["site_dir"]) / FOLDER / DATA).write_text(message_data(sections()), encoding="utf-8")


def main() -> int:
    """Command line; returns the exit code."""
    entries = sections()
    if len(sys.argv) > 1:
        section = find_page(" ".join(sys.argv[1:]), entries)
        print(f"docs/errors/{section.page}: {section.title}" if section else "on no page")
        return 0 if section else 1
    known = literals()
    lines = problems(messages(), entries, lambda text: text in known)
    print("\n".join(lines) or "every message has a page")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
