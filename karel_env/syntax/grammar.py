"""Grammars of both dialects in Lark's notation, for grammar-constrained decoding.

Each describes what follows the header of a program. That of the canonical text is the grammar of `parser`, with two
bounds: at most `MOST_SPACE` white-space characters between tokens, so that decoding cannot emit white space without
end, and nothing after the closing bracket. Nesting is not bounded here; `parser` accepts `language.MAX_NESTING` levels.
That of Python has the layout of `python_text`, nests at most `PYTHON_NESTING` blocks, since indentation is no context-free
language, and ends with line breaks or without.
Source: docs/karel_env.md.
"""

from __future__ import annotations

from collections.abc import Iterable

from karel_env.language import ACTIONS, CONDITIONS, MAX_REPEAT
from karel_env.syntax.dialects import KAREL, PYTHON
from karel_env.syntax.python_syntax import INDENT

MOST_SPACE = 8
PYTHON_NESTING = 8
"""Deepest nesting of blocks; the generators nest at most 4 deep."""


def continuation_grammar(dialect: str = KAREL) -> str:
    """Grammar in Lark's notation of what may follow the header of a program; the start symbol is `start`."""
    if dialect == PYTHON:
        return _python_grammar()
    return f"""start: block
block: _S statement (_S ";" _S statement)* (_S ";")? _S "}}"
statement: ACTION _S "(" _S ")"
    | "if" _test _body
    | "ifelse" _test _body _S "else" _body
    | "while" _test _body
    | "repeat" _S "(" _S COUNT _S ")" _body
_test: _S "(" _S ("not" _GAP)? CONDITION _S "(" _S ")" _S ")"
_body: _S "{{" block
ACTION: {_alternatives(ACTIONS)}
CONDITION: {_alternatives(CONDITIONS)}
COUNT: {_alternatives(map(str, range(MAX_REPEAT + 1)))}
_S: /[ \\t\\n]{{0,{MOST_SPACE}}}/
_GAP: /[ \\t\\n]{{1,{MOST_SPACE}}}/
"""


def _python_grammar() -> str:
    """A block and a statement per depth of indentation."""
    rules = ["start: block0 END?", "END: /\\n{1,2}/"]
    for depth in range(PYTHON_NESTING + 1):
        line = f'"\\n{INDENT * (depth + 1)}"'
        inner = f"block{depth + 1}"
        rules += [f"block{depth}: ({line} statement{depth})+", f'statement{depth}: ACTION "()"']
        if depth < PYTHON_NESTING:
            rules += [
                f'    | "if " _test ":" {inner} ({line} "else:" {inner})?',
                f'    | "while " _test ":" {inner}',
                f'    | "for _ in range(" COUNT "):" {inner}',
            ]
    rules += [
        '_test: "not "? CONDITION "()"',
        f"ACTION: {_alternatives(ACTIONS)}",
        f"CONDITION: {_alternatives(CONDITIONS)}",
        f"COUNT: {_alternatives(map(str, range(MAX_REPEAT + 1)))}",
    ]
    return "\n".join(rules) + "\n"


def _alternatives(words: Iterable[str]) -> str:
    return " | ".join(f'"{word}"' for word in words)
