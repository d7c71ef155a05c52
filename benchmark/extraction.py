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


def answered(text: str) -> str:
    """What follows the header in the program of an answer; the answer itself where there is no program in it."""
    for body in _bodies(text):
        try:
            parse(f"{HEADER_TEXT} {body}")
        except ParseError:
            continue
        return body
    return text


def _bodies(text: str) -> Iterator[str]:
    """Candidates, none within another: what holds a second header is no program, so the work is linear in the text."""
    starts = [0, *(match.end() for match in _HEADER.finditer(text))]
    headers = [match.start() for match in _HEADER.finditer(text)]
    closing = _closing_brackets(text)
    for start, next_header in zip(starts, [*headers, len(text)], strict=True):
        # The first candidate continues the header of the prompt, whose bracket is not in the text.
        end = closing.get(start - 1)
        if end is not None and end <= next_header:
            yield text[start:end]


def _closing_brackets(text: str) -> dict[int, int]:
    """By the place of each opening bracket, the place after the one that closes it; by -1, that of the first unopened."""
    closing: dict[int, int] = {}
    opened: list[int] = []
    for match in _BRACKET.finditer(text):
        if match[0] == "{":
            opened.append(match.start())
        elif opened:
            closing[opened.pop()] = match.end()
        else:
            closing.setdefault(-1, match.end())
    return closing
