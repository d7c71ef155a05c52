"""Parse programs in the curly syntax, strictly by the grammar in docs/karel_env.md.

White space is allowed between any two tokens. Statements are separated by `;`, and a `;` after the last one is allowed.
Anything else is an error with its position. `extras.token_syntax` parses the other syntax.
"""

from __future__ import annotations

import re

import numpy as np

from karel_env.language import (
    ACTION_ID,
    ACTIONS,
    CLOSE,
    CLOSE_NEXT,
    CONDITION_ID,
    ELSE,
    FIRST_CONDITION,
    FIRST_COUNT,
    FIRST_NEGATED,
    HEADER,
    IF,
    IFELSE,
    MAX_NESTING,
    MAX_REPEAT,
    NOT,
    OPEN,
    REPEAT,
    WHILE,
)


class ParseError(ValueError):
    """The text is not a program.

    Attributes:
        line, column: position of the unexpected token, from 1.
        token: the unexpected token, or `end of text`.
        expected: what the grammar allows at this position.
    """

    def __init__(self, text: str, offset: int, token: str, expected: str) -> None:
        self.line = text.count("\n", 0, offset) + 1
        self.column = offset - text.rfind("\n", 0, offset)
        self.token, self.expected = token, expected
        super().__init__(f"line {self.line}, column {self.column}: found {token}, expected {expected}")


# The pattern contains no `\s*`: followed by a required token it would be retried at every length of white space.
_TOKEN = re.compile(r"([A-Za-z_][A-Za-z_0-9]*|[0-9]+|[(){};]|\S)", re.ASCII)
_STRAIGHT = re.compile(
    r"\s*def\s+run\s*\(\s*\)\s*\{((?:\s*(?:" + "|".join(ACTIONS) + r")\s*\(\s*\)\s*;)*"
    r"\s*(?:" + "|".join(ACTIONS) + r")\s*\(\s*\)(?:\s*;)?)\s*\}\s*",
    re.ASCII,
)
_ACTION = re.compile("|".join(ACTIONS))
_COUNTS = {str(n): n for n in range(MAX_REPEAT + 1)}
_KEYWORD = {"if": IF, "ifelse": IFELSE, "while": WHILE, "repeat": REPEAT}


def parse(text: str) -> np.ndarray:
    """Parse a program in the curly syntax to its canonical words, int16 [T].

    Args:
        text: one program, such as `def run() { move(); }`.

    Raises:
        ParseError: the text is not exactly one program.
    """
    straight = _STRAIGHT.fullmatch(text)
    if straight:
        actions = [ACTION_ID[name] for name in _ACTION.findall(straight[1])]
        return np.array([*HEADER, *actions, CLOSE], np.int16)
    return np.array(_CurlyParser(text).program(), np.int16)


class Descent:
    """State of a recursive-descent parser of either syntax: tokens, their positions, and the words parsed so far.

    Nesting, and so the depth of recursion, is limited to `MAX_NESTING`.
    """

    def __init__(self, text: str, token: re.Pattern[str]) -> None:
        self.text = text
        matches = list(token.finditer(text))
        self.tokens = [match[1] for match in matches]
        self.offsets = [match.start(1) for match in matches]
        self.next = 0
        self.words: list[int] = list(HEADER)

    def _end(self) -> list[int]:
        """Return the words; raises unless the text ends here."""
        if self.next < len(self.tokens):
            raise self._error("the end of the text")
        self.words.append(CLOSE)
        return self.words

    def _enter(self, depth: int) -> None:
        if depth > MAX_NESTING:
            raise self._error(f"at most {MAX_NESTING} nested blocks")

    def _error(self, expected: str) -> ParseError:
        if self.next < len(self.tokens):
            return ParseError(self.text, self.offsets[self.next], repr(self.tokens[self.next])[:60], expected)
        return ParseError(self.text, len(self.text), "end of text", expected)

    def _peek(self) -> str:
        return self.tokens[self.next] if self.next < len(self.tokens) else ""

    def _take(self, token: str) -> None:
        if self._peek() != token:
            raise self._error(repr(token))
        self.next += 1


class _CurlyParser(Descent):
    def __init__(self, text: str) -> None:
        super().__init__(text, _TOKEN)

    def program(self) -> list[int]:
        for token in ("def", "run", "(", ")", "{"):
            self._take(token)
        self._block(0)
        return self._end()

    def _block(self, depth: int) -> None:
        """Parse statements up to and including the closing bracket, whose word the caller appends."""
        self._enter(depth)
        while True:
            self._statement(depth)
            if self._peek() == ";":
                self.next += 1
                if self._peek() != "}":
                    continue
            elif self._peek() != "}":
                raise self._error("';' or '}'")
            self.next += 1
            return

    def _statement(self, depth: int) -> None:
        token = self._peek()
        if token in ACTION_ID:
            self.next += 1
            self._take("(")
            self._take(")")
            self.words.append(ACTION_ID[token])
            return
        if token not in _KEYWORD:
            raise self._error("an action, 'if', 'ifelse', 'while' or 'repeat'")
        self.next += 1
        self.words.append(_KEYWORD[token])
        self._take("(")
        self._count() if token == "repeat" else self._condition()
        self._take(")")
        self._braces(depth)
        if token == "ifelse":
            self._take("else")
            self.words += (CLOSE, ELSE)
            self._braces(depth)
        self.words.append(CLOSE_NEXT)

    def _braces(self, depth: int) -> None:
        self._take("{")
        self.words.append(OPEN)
        self._block(depth + 1)

    def _count(self) -> None:
        if self._peek() not in _COUNTS:
            raise self._error(f"a number from 0 to {MAX_REPEAT}")
        self.words.append(FIRST_COUNT + _COUNTS[self._peek()])
        self.next += 1

    def _condition(self) -> None:
        first = FIRST_CONDITION
        if self._peek() == "not":
            self.next += 1
            self.words.append(NOT)
            first = FIRST_NEGATED
        if self._peek() not in CONDITION_ID:
            raise self._error("'not' or a condition" if first == FIRST_CONDITION else "a condition")
        self.words.append(first + CONDITION_ID[self._peek()])
        self.next += 1
        self._take("(")
        self._take(")")
