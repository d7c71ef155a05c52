"""The program in an answer: the rule of the few-shot track, whose models may write around it.

The answer continues `HEADER_TEXT`. The program is the first of these that is one:
1. the header with the answer up to the bracket that closes the header's;
2. each `def run() {` within the answer, with what follows up to the bracket that closes it.
White space counts as the language counts it; nothing is corrected. If none is a program, the answer stands as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from karel_env.language import HEADER_TEXT
from karel_env.parser import ParseError, parse

_HEADER = re.compile(r"def\s+run\s*\(\s*\)\s*\{", re.ASCII)
_BRACKET = re.compile(r"[{}]")


def extract_program(text: str) -> str:
    """What follows the header in the program of an answer; the answer itself where there is no program in it."""
    for body in _candidates(text):
        try:
            parse(f"{HEADER_TEXT} {body}")
        except ParseError:
            continue
        return body
    return text


def _candidates(text: str) -> Iterator[str]:
    """The candidates, in order; those that hold a header themselves are left out, since `def` is no statement.

    So no two of them share a character, and an answer of n characters is read in time O(n).
    """
    headers = list(_HEADER.finditer(text))
    starts = [0, *(match.end() for match in headers)]
    stops = [*(match.start() for match in headers), len(text)]
    for start, stop in zip(starts, stops, strict=True):
        end = _find_closing_bracket(text, start, stop)
        if end is not None:
            yield text[start:end]


def _find_closing_bracket(text: str, start: int, stop: int) -> int | None:
    """Place behind the bracket that closes one opened before `start`; None where none does before `stop`."""
    depth = 1
    for match in _BRACKET.finditer(text, start, stop):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return match.end()
    return None


def count_headers(text: str) -> int:
    """How many programs a text begins."""
    return sum(1 for _ in _HEADER.finditer(text))
