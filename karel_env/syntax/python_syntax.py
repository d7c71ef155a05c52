"""Parse and print programs as Python text, which models of code know better than the syntax of the data sets.

    def run():
        move()
        while not markers_present():
            for _ in range(2):
                turn_left()

Of Python these forms are programs, and nothing else: one function `run` without parameters; calls of the five actions; `if`
with `else` or `elif`, and `while`, of a condition or of `not` and a condition; `for NAME in range(N)` with N from 0 to 19. Any
layout that Python accepts is accepted, comments included. `ifelse` of the canonical words is `if` with `else`.

Letters: `T` words of a program.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from karel_env.language import (
    ACTION_ID,
    ACTIONS,
    CLOSE,
    CLOSE_NEXT,
    CONDITION_ID,
    CONDITIONS,
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
from karel_env.syntax.parser import ParseError

MAX_CHARACTERS = 100_000
"""Longest text that is given to Python's parser."""
INDENT = "    "
HEADER_LINE = "def run():"
NO_SPAN = -1
_BLOCKS = {IF: "if ", IFELSE: "if ", WHILE: "while ", REPEAT: "for _ in range("}


@dataclass(frozen=True)
class PythonText:
    """A program as Python text.

    Attributes:
        text: the text, without a line break at its end.
        spans: int64 [T, 2], first character of each word and the one after its last; `NO_SPAN` for brackets, which Python
            has as layout.
    """

    text: str
    spans: np.ndarray


def parse_python(text: str) -> np.ndarray:
    """Parse a program written in Python to its canonical words, int16 [T].

    Nothing of the text is executed.

    Args:
        text: one function `run`.

    Raises:
        ParseError: the text is no Python, or not exactly one program.
    """
    return np.array(_PythonParser(text).program(), np.int16)


def python_text(words: Sequence[int] | np.ndarray) -> str:
    """Print the canonical words of a program as Python text."""
    return render_python(words).text


def render_python(words: Sequence[int] | np.ndarray) -> PythonText:
    """Print the canonical words of a program as Python text, with the place of each word.

    Args:
        words: int [T], the words of one valid program.
    """
    printer = _Printer(np.asarray(words).tolist())
    return PythonText(printer.text, np.array(printer.spans, np.int64))


class _Printer:
    """Prints word by word; `spans` has an entry for each."""

    def __init__(self, words: Sequence[int]) -> None:
        self.text, self.depth = HEADER_LINE, 1
        self.spans = [(0, 3), (4, 9), (NO_SPAN, NO_SPAN)]
        for word in words[len(HEADER) : -1]:
            self.spans.append(self._print(word))
        self.spans.append((NO_SPAN, NO_SPAN))

    def _print(self, word: int) -> tuple[int, int]:
        if word < FIRST_CONDITION:
            return self._append_line(f"{ACTIONS[word]}()")
        if word < FIRST_COUNT:
            return self._append(f"{CONDITIONS[(word - FIRST_CONDITION) % len(CONDITIONS)]}()")
        if word < NOT:
            span = self._append(str(word - FIRST_COUNT))
            self.text += ")"
            return span
        if word == NOT:
            span = self._append("not")
            self.text += " "
            return span
        if word in _BLOCKS:
            start, _ = self._append_line(_BLOCKS[word])
            return start, start + len(_BLOCKS[word].split()[0])
        if word == ELSE:
            return self._append_line("else")
        if word == OPEN:
            self.text += ":"
            self.depth += 1
        else:
            self.depth -= 1
        return NO_SPAN, NO_SPAN

    def _append_line(self, part: str) -> tuple[int, int]:
        self.text += "\n" + INDENT * self.depth
        return self._append(part)

    def _append(self, part: str) -> tuple[int, int]:
        start = len(self.text)
        self.text += part
        return start, len(self.text)


class _PythonParser:
    """Turns the syntax tree of a text into words; Python's parser takes care of layout."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.words: list[int] = list(HEADER)

    def program(self) -> list[int]:
        function = self._function()
        self._block(function.body, 0)
        self.words.append(CLOSE)
        return self.words

    def _function(self) -> ast.FunctionDef:
        """The only statement of the text, if it is the function `run`."""
        if len(self.text) > MAX_CHARACTERS:
            raise ParseError(self.text, MAX_CHARACTERS, "more text", f"at most {MAX_CHARACTERS:,} characters")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                body = ast.parse(self.text).body
        except SyntaxError as error:
            raise self._syntax_error(error) from None
        except (ValueError, RecursionError, MemoryError) as error:
            raise ParseError(
                self.text, 0, f"text that Python cannot parse ({error})"[:100], "a function 'run'"
            ) from None
        if not body:
            raise ParseError(self.text, len(self.text), "end of text", f"{HEADER_LINE!r}")
        function = body[0]
        if not isinstance(function, ast.FunctionDef) or function.name != "run":
            raise self._error(function, f"{HEADER_LINE!r}")
        if function.decorator_list:
            raise self._error(function.decorator_list[0], f"{HEADER_LINE!r}")
        if ast.unparse(function.args) or function.returns is not None or getattr(function, "type_params", []):
            raise self._error(function, f"{HEADER_LINE!r}")
        if len(body) > 1:
            raise self._error(body[1], "the end of the text")
        return function

    def _syntax_error(self, error: SyntaxError) -> ParseError:
        lines = self.text.splitlines(keepends=True)
        line, column = error.lineno or 1, max(1, error.offset or 1)
        offset = min(len(self.text), sum(map(len, lines[: line - 1])) + column - 1)
        unexpected = " ".join(self.text[offset : offset + 40].split()[:1]) or "end of text"
        return ParseError(self.text, offset, repr(unexpected)[:60], f"valid Python ({error.msg})"[:120])

    def _error(self, node: ast.AST, expected: str) -> ParseError:
        line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        # Columns of the tree count bytes, and lines end where Python ends them.
        lines = self.text.encode().split(b"\n")
        before = b"\n".join([*lines[: line - 1], lines[line - 1][:column]])
        offset = len(before.decode(errors="replace"))
        unexpected = (ast.get_source_segment(self.text, node) or type(node).__name__).split("\n")[0]
        return ParseError(self.text, offset, repr(unexpected)[:60], expected)

    def _block(self, statements: Sequence[ast.stmt], depth: int) -> None:
        if depth > MAX_NESTING:
            raise self._error(statements[0], f"at most {MAX_NESTING} nested blocks")
        for statement in statements:
            self._statement(statement, depth)

    def _statement(self, statement: ast.stmt, depth: int) -> None:
        if isinstance(statement, ast.Expr):
            name = _called_name(statement.value)
            if name in ACTION_ID:
                self.words.append(ACTION_ID[name])
                return
        elif isinstance(statement, ast.If):
            self.words.append(IFELSE if statement.orelse else IF)
            self._condition(statement.test)
            self._braces(statement.body, depth)
            if statement.orelse:
                self.words += (CLOSE, ELSE)
                self._braces(statement.orelse, depth)
            self.words.append(CLOSE_NEXT)
            return
        elif isinstance(statement, ast.While) and not statement.orelse:
            self.words.append(WHILE)
            self._condition(statement.test)
            self._braces(statement.body, depth)
            self.words.append(CLOSE_NEXT)
            return
        elif isinstance(statement, ast.For) and not statement.orelse and isinstance(statement.target, ast.Name):
            self.words += (REPEAT, FIRST_COUNT + self._count(statement.iter))
            self._braces(statement.body, depth)
            self.words.append(CLOSE_NEXT)
            return
        raise self._error(statement, "a call of an action, 'if', 'while' without 'else' or 'for ... in range(N)'")

    def _braces(self, statements: Sequence[ast.stmt], depth: int) -> None:
        self.words.append(OPEN)
        self._block(statements, depth + 1)

    def _condition(self, test: ast.expr) -> None:
        first = FIRST_CONDITION
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            self.words.append(NOT)
            test, first = test.operand, FIRST_NEGATED
        name = _called_name(test)
        if name not in CONDITION_ID:
            raise self._error(test, "a condition" if first == FIRST_NEGATED else "'not' or a condition")
        self.words.append(first + CONDITION_ID[name])

    def _count(self, iterable: ast.expr) -> int:
        if isinstance(iterable, ast.Call) and not iterable.keywords and len(iterable.args) == 1:
            (argument,) = iterable.args
            is_range = isinstance(iterable.func, ast.Name) and iterable.func.id == "range"
            if is_range and isinstance(argument, ast.Constant) and type(argument.value) is int:
                if 0 <= argument.value <= MAX_REPEAT:
                    return argument.value
                raise self._error(argument, f"a number from 0 to {MAX_REPEAT}")
        raise self._error(iterable, f"range(N) with a number from 0 to {MAX_REPEAT}")


def _called_name(node: ast.expr) -> str:
    """Name of a function that is called without arguments; empty for anything else."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args and not node.keywords:
        return node.func.id
    return ""
