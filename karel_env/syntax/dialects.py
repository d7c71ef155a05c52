"""The dialects that programs are written in: the canonical text (`karel`), and Python text (`python`).

A program consists of its header and its *body*, what a prompt leaves to a model. The body in the canonical text follows the
header after a space; the body in Python begins with a line break, which also tells the dialect of a body.

Letters: `W` words of a body, which are the same in every dialect: brackets are layout in Python and have no characters there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from karel_env.language import HEADER, HEADER_TEXT, Programs
from karel_env.syntax.parser import parse
from karel_env.syntax.python_syntax import HEADER_LINE, NO_SPAN, parse_python, python_text, render_python

KAREL, PYTHON = DIALECTS = ("karel", "python")
HEADERS = {KAREL: HEADER_TEXT, PYTHON: HEADER_LINE}
"""What each dialect begins programs with."""
LINE_BREAK = "\n"


def program_texts(programs: Programs, dialect: str = KAREL) -> list[str]:
    """The text of each program."""
    if dialect == KAREL:
        return programs.texts()
    return [python_text(programs.program(i)) for i in range(len(programs))]


def program_bodies(programs: Programs, dialect: str = KAREL) -> list[str]:
    """The body of each program, without the space before a canonical one."""
    header = HEADERS[dialect]
    bodies = [text.removeprefix(header) for text in program_texts(programs, dialect)]
    return bodies if dialect == PYTHON else [body.lstrip() for body in bodies]


def body_dialect(body: str) -> str:
    """The dialect of a body."""
    return PYTHON if body.startswith(LINE_BREAK) else KAREL


def append_body(prompt: str, body: str) -> str:
    """A prompt, which ends with a header, continued by a body."""
    return prompt + body if body_dialect(body) == PYTHON else f"{prompt} {body}"


def parse_program(text: str, dialect: str = KAREL) -> np.ndarray:
    """The words of a program, int16 [T].

    Raises:
        ParseError: the text is not exactly one program.
    """
    return parse_python(text) if dialect == PYTHON else parse(text)


def word_spans(body: str) -> np.ndarray:
    """int64 [W, 2], first character of each word of a body and the one after its last.

    A word without characters begins and ends where the word before it ends.

    Raises:
        ParseError: the body is Python text, and not of one program.
        ValueError: the body is Python text in another layout than that of `python_text`.
    """
    if body_dialect(body) == PYTHON:
        return _python_spans(body)
    ends = np.cumsum([len(word) + 1 for word in body.split(" ")]) - 1
    return np.stack([np.concatenate([[0], ends[:-1] + 1]), ends], 1)


def _python_spans(body: str) -> np.ndarray:
    rendered = render_python(parse_python(HEADER_LINE + body))
    if rendered.text != HEADER_LINE + body:
        raise ValueError(f"{body!r}: expected the layout {rendered.text!r}")
    spans = rendered.spans[len(HEADER) :] - len(HEADER_LINE)
    is_layout = rendered.spans[len(HEADER) :, 0] == NO_SPAN
    ends: Sequence[int] = np.maximum.accumulate(np.where(is_layout, 0, spans[:, 1])).tolist()
    spans[is_layout] = np.array(ends)[is_layout, None]
    return spans
