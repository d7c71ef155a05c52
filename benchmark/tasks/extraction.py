"""Extract the program from an answer in the few-shot track, whose models may write text around it.

The answer continues `HEADER_TEXT`. The program is the first of these candidates that parses:
1. the header with the answer up to the bracket that closes the header's bracket;
2. each `def run() {` in the answer, with the text up to the bracket that closes it.
White space is treated as in the language; nothing is corrected. If no candidate parses, the answer is unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from karel_env.language import HEADER_TEXT
from karel_env.parser import ParseError, parse

_HEADER = re.compile(r"def\s+run\s*\(\s*\)\s*\{", re.ASCII)
_BRACKET = re.compile(r"[{}]")


def extract_program(text: str) -> str:
    """The body (the text after the header) of the program in an answer; the answer itself if it contains no program."""
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


def count_headers(text: str) -> int:
    """Number of program headers in a text."""
    return sum(1 for _ in _HEADER.finditer(text))
