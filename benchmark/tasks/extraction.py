"""Extract the program from an answer in the few-shot track, whose models may write text around it.

The answer continues the header of a program. In the canonical text the program is the first of these candidates that parses:
1. the header with the answer up to the bracket that closes the header's bracket;
2. each `def run() {` in the answer, with the text up to the bracket that closes it.
White space is treated as in the language; nothing is corrected. If no candidate parses, the answer is unchanged.

In Python they are the header with the answer up to its first line that is not indented, and each `def run():` in the answer
with the lines below it that are indented deeper. What is returned is the program in the canonical text, which scoring
parses; if no candidate parses, it is the header with the answer, which is no program of either dialect.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from karel_env.language import HEADER_TEXT, text_of
from karel_env.syntax.dialects import HEADERS, KAREL, PYTHON
from karel_env.syntax.parser import ParseError, parse
from karel_env.syntax.python_syntax import parse_python

_HEADER = re.compile(r"def\s+run\s*\(\s*\)\s*\{", re.ASCII)
_BRACKET = re.compile(r"[{}]")
_ANY_PYTHON_HEADER = re.compile(r"def\s+run\s*\(\s*\)\s*:", re.ASCII)
_PYTHON_HEADER = re.compile(r"^([ \t]*)def\s+run\s*\(\s*\)\s*:", re.ASCII | re.MULTILINE)


def extract_program(text: str, dialect: str = KAREL) -> str:
    """The canonical body of the program in an answer; text that is no program if the answer contains none.

    Args:
        text: the answer, which continues the header of a program.
        dialect: one of `karel_env.syntax.dialects.DIALECTS`, in which the answer is read.
    """
    if dialect == PYTHON:
        return _extract_python(text)
    for body in _candidates(text):
        try:
            parse(f"{HEADER_TEXT} {body}")
        except ParseError:
            continue
        return body
    return text


def _candidates(text: str) -> Iterator[str]:
    """Yield the candidates in order, without those that contain a header, since `def` is not a statement.

    No two candidates share a character, so an answer of n characters is read in time O(n).
    """
    headers = list(_HEADER.finditer(text))
    starts = [0, *(match.end() for match in headers)]
    stops = [*(match.start() for match in headers), len(text)]
    for start, stop in zip(starts, stops, strict=True):
        end = _find_closing_bracket(text, start, stop)
        if end is not None:
            yield text[start:end]


def _find_closing_bracket(text: str, start: int, stop: int) -> int | None:
    """Index after the bracket that closes a bracket opened before `start`; None if there is none before `stop`."""
    depth = 1
    for match in _BRACKET.finditer(text, start, stop):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return match.end()
    return None


def _extract_python(text: str) -> str:
    for candidate in _python_candidates(text):
        try:
            words = parse_python(candidate)
        except ParseError:
            continue
        return text_of(words).removeprefix(f"{HEADER_TEXT} ")
    return f"{HEADERS[PYTHON]}{text}" if text.strip() else text


def _python_candidates(text: str) -> Iterator[str]:
    """Yield the candidates in order; no two share a line, so an answer of n characters is read in time O(n)."""
    headers = list(_PYTHON_HEADER.finditer(text))
    bounds = [*(match.start() for match in headers), len(text)]
    yield _indented_block(HEADERS[PYTHON] + text[: bounds[0]])
    for match, start, stop in zip(headers, bounds[:-1], bounds[1:], strict=True):
        indent = match[1]
        lines = text[start:stop].split("\n")
        yield _indented_block("\n".join(line.removeprefix(indent) for line in lines))


def _indented_block(text: str) -> str:
    """A header and the lines below it up to the first that is not indented."""
    first, *lines = text.split("\n")
    block = [first]
    for line in lines:
        if line.strip() and not line[0].isspace():
            break
        block.append(line)
    return "\n".join(block)


def count_headers(text: str, dialect: str = KAREL) -> int:
    """Number of program headers of a dialect in a text."""
    return sum(1 for _ in (_ANY_PYTHON_HEADER if dialect == PYTHON else _HEADER).finditer(text))
