"""Redacts file paths: each is reduced to its last part before a text is published."""

from __future__ import annotations

import re
from typing import Any

PATH_CHAR = r"(?:\\[ ]|[^\s/\\'\"<>|,;:()\[\]{}])"
ABSOLUTE_PATH = re.compile(
    rf"""
    (?:(?<![\w./\\~-])|(?<=\s-\w))                      # not inside a word, a URL or a relative path; -I/path is one
    (?:file:/{{0,3}}(?:localhost)?)?                    # file:///home/x is a path too
    (?:
        (?:~{PATH_CHAR}*|\$HOME|\$\{{HOME\}}|%\w+%)(?=[/\\])  # a home folder by its short name
      | [A-Za-z]:(?=[/\\])                             # a drive
      | \\\\(?={PATH_CHAR})                                 # a share of another machine
      | (?:\.\.[/\\])+(?={PATH_CHAR})                       # above the folder of the run
      | (?=/{PATH_CHAR})(?!(?<=<)/[\w-]+\s*>)                # from the root; </b> closes an element
    )
    [/\\]*(?:{PATH_CHAR}+[/\\]+)*{PATH_CHAR}*
    """,
    re.VERBOSE,
)
QUOTED_PATH = re.compile(r"(?P<quote>['\"])(?P<inside>(?:[~/\\]|[A-Za-z]:[/\\])[^'\"\n]*)(?P=quote)")


def redact_paths(text: str) -> str:
    """The text with every absolute or home path in it reduced to its last part; URLs and relative paths stay."""
    text = QUOTED_PATH.sub(lambda match: f"{match['quote']}{_basename(match['inside'])}{match['quote']}", text)
    return ABSOLUTE_PATH.sub(lambda match: _basename(match[0]), text)


def has_paths(text: str) -> bool:
    """Whether a text contains an absolute or home path."""
    return redact_paths(text) != text


def redact_json_paths(value: Any) -> Any:
    """A JSON value with `redact_paths` applied to each string; keys are unchanged."""
    if isinstance(value, str):
        return redact_paths(value)
    if isinstance(value, dict):
        return {key: redact_json_paths(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redact_json_paths(inner) for inner in value]
    return value


def _basename(path: str) -> str:
    parts = [part for part in re.split(r"/|\\(?! )", path) if part]
    return parts[-1] if parts else "/"
