"""Paths of whoever ran an evaluation, reduced to their last part before anything is published."""

from __future__ import annotations

import re
from typing import Any

PART = r"(?:\\[ ]|[^\s/\\'\"<>|,;:()\[\]{}])"
ABSOLUTE = re.compile(
    rf"""
    (?:(?<![\w./\\~-])|(?<=\s-\w))                      # not inside a word, a URL or a relative path; -I/path is one
    (?:file:/{{0,3}}(?:localhost)?)?                    # file:///home/x is a path too
    (?:
        (?:~{PART}*|\$HOME|\$\{{HOME\}}|%\w+%)(?=[/\\])  # a home folder by its short name
      | [A-Za-z]:(?=[/\\])                             # a drive
      | \\\\(?={PART})                                 # a share of another machine
      | (?:\.\.[/\\])+(?={PART})                       # above the folder of the run
      | (?=/{PART})(?!(?<=<)/[\w-]+\s*>)                # from the root; </b> closes an element
    )
    [/\\]*(?:{PART}+[/\\]+)*{PART}*
    """,
    re.VERBOSE,
)
QUOTED = re.compile(r"(?P<quote>['\"])(?P<inside>(?:[~/\\]|[A-Za-z]:[/\\])[^'\"\n]*)(?P=quote)")


def without_paths(text: str) -> str:
    """The text with every absolute or home path in it reduced to its last part; URLs and relative paths stay."""
    text = QUOTED.sub(lambda match: f"{match['quote']}{_last(match['inside'])}{match['quote']}", text)
    return ABSOLUTE.sub(lambda match: _last(match[0]), text)


def has_paths(text: str) -> bool:
    """Whether a text names a place on somebody's machine."""
    return without_paths(text) != text


def strings_without_paths(value: Any) -> Any:
    """A JSON value with `without_paths` of each string in it, keys left as they are."""
    if isinstance(value, str):
        return without_paths(value)
    if isinstance(value, dict):
        return {key: strings_without_paths(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [strings_without_paths(inner) for inner in value]
    return value


def _last(path: str) -> str:
    parts = [part for part in re.split(r"/|\\(?! )", path) if part]
    return parts[-1] if parts else "/"
