"""Parse and print the token syntax of the public Karel data sets.

`DEF run m( move IF c( frontIsClear c) i( turnLeft i) m)`: one token per word, separated by white space, no
separators between statements, and different brackets for each kind of block.
Source: Bunel et al. 2018 (arXiv 1805.04276), appendix.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from karel_env.language import (
    ACTIONS,
    CLOSE,
    CLOSE_NEXT,
    CONDITIONS,
    ELSE,
    FIRST_CONDITION,
    FIRST_COUNT,
    FIRST_NEGATED,
    HEADER,
    IF,
    IFELSE,
    MAX_REPEAT,
    NOT,
    OPEN,
    REPEAT,
    WHILE,
)
from karel_env.syntax.parser import Descent, parse

_TOKEN = re.compile(r"(\S+)")


def _camel(name: str) -> str:
    first, *later_words = name.split("_")
    return first + "".join(part.title() for part in later_words)


_ACTION_ID = {_camel(name): i for i, name in enumerate(ACTIONS)}
_CONDITION_ID = {_camel(name): i for i, name in enumerate(CONDITIONS)}
_COUNT = {f"R={n}": n for n in range(MAX_REPEAT + 1)}
_BLOCK = {"IF": (IF, "i"), "IFELSE": (IFELSE, "i"), "WHILE": (WHILE, "w"), "REPEAT": (REPEAT, "r")}
_KEYWORD = {word: (name, letter) for name, (word, letter) in _BLOCK.items()}
_ACTION_NAME, _CONDITION_NAME = list(_ACTION_ID), list(_CONDITION_ID)


def parse_tokens(text: str) -> np.ndarray:
    """Parse a program in the token syntax to its canonical words, int16 [T].

    Raises:
        ParseError: the text is not exactly one program.
    """
    return np.array(_TokenParser(text, _TOKEN).program(), np.int16)


def parse_either(text: str) -> np.ndarray:
    """Parse a program in either syntax, chosen by its first token (`DEF`: token syntax), to its words, int16 [T].

    Raises:
        ParseError: see `parse` and `parse_tokens`.
    """
    return parse_tokens(text) if text.split(maxsplit=1)[:1] == ["DEF"] else parse(text)


def token_text(words: Sequence[int] | np.ndarray) -> str:
    """Print one valid program, given as word ids, in the token syntax."""
    out = ["DEF", "run", "m("]
    closing = ["m)"]
    letter, condition_end = "", ""
    for word in map(int, words[len(HEADER) :]):
        if word < FIRST_CONDITION:
            out.append(_ACTION_NAME[word])
        elif word in _KEYWORD:
            keyword, letter = _KEYWORD[word]
            out.append(keyword)
        elif word == NOT:
            out += ("c(", "not")
            condition_end = " c)"
        elif word < FIRST_COUNT:
            out.append(f"c( {_CONDITION_NAME[(word - FIRST_CONDITION) % len(CONDITIONS)]} c){condition_end}")
            condition_end = ""
        elif word < NOT:
            out.append(f"R={word - FIRST_COUNT}")
        elif word == ELSE:
            out.append("ELSE")
            letter = "e"
        elif word == OPEN:
            out.append(f"{letter}(")
            closing.append(f"{letter})")
        elif word in (CLOSE, CLOSE_NEXT):
            out.append(closing.pop())
    return " ".join(out)


class _TokenParser(Descent):
    def program(self) -> list[int]:
        for token in ("DEF", "run"):
            self._take(token)
        self._block("m", 0)
        return self._end()

    def _block(self, letter: str, depth: int) -> None:
        """Parse a block in the brackets of this letter; the caller appends the words of its brackets."""
        self._take(f"{letter}(")
        self._enter(depth)
        self._statement(depth, "an action, IF, IFELSE, WHILE or REPEAT")
        while self._peek() != f"{letter})":
            self._statement(depth, f"a statement or '{letter})'")
        self.next += 1

    def _statement(self, depth: int, expected: str) -> None:
        token = self._peek()
        if token in _ACTION_ID:
            self.next += 1
            self.words.append(_ACTION_ID[token])
            return
        if token not in _BLOCK:
            raise self._error(expected)
        self.next += 1
        word, letter = _BLOCK[token]
        self.words.append(word)
        self._count() if word == REPEAT else self._condition()
        self.words.append(OPEN)
        self._block(letter, depth + 1)
        if word == IFELSE:
            self._take("ELSE")
            self.words += (CLOSE, ELSE, OPEN)
            self._block("e", depth + 1)
        self.words.append(CLOSE_NEXT)

    def _count(self) -> None:
        if self._peek() not in _COUNT:
            raise self._error(f"R=0 to R={MAX_REPEAT}")
        self.words.append(FIRST_COUNT + _COUNT[self._peek()])
        self.next += 1

    def _condition(self) -> None:
        self._take("c(")
        negated = self._peek() == "not"
        if negated:
            self.next += 1
            self._take("c(")
            self.words.append(NOT)
        if self._peek() not in _CONDITION_ID:
            raise self._error("a condition" if negated else "'not' or a condition")
        self.words.append((FIRST_NEGATED if negated else FIRST_CONDITION) + _CONDITION_ID[self._peek()])
        self.next += 1
        self._take("c)")
        if negated:
            self._take("c)")
