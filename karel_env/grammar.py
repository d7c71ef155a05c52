"""Grammar of the curly syntax in Lark's notation, for grammar-constrained decoding.

It describes what follows `HEADER_TEXT`: the statements and the closing bracket. It is the grammar of `parser`, with two
bounds: at most `MOST_SPACE` white-space characters between tokens, so that decoding cannot emit white space without
end, and nothing after the closing bracket. Nesting is not bounded here; `parser` accepts `language.MAX_NESTING` levels.
Source: docs/karel_env.md.
"""

from __future__ import annotations

from collections.abc import Iterable

from karel_env.language import ACTIONS, CONDITIONS, MAX_REPEAT

MOST_SPACE = 8


def continuation_grammar() -> str:
    """Grammar in Lark's notation of what may follow the header of a program; the start symbol is `start`."""
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


def _alternatives(words: Iterable[str]) -> str:
    return " | ".join(f'"{word}"' for word in words)
