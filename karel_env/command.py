"""Shared behaviour of all command lines: numbers in a range, errors on one line, output for any terminal.

    def main(arguments=None):
        return run_command(lambda: work(parser.parse_args(arguments)))

Output never makes a command fail: characters that the terminal's encoding lacks are replaced by ASCII, output after the
reader has closed the pipe (`| head`) is discarded while the command continues, and a missing stream is the null device.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import threading
import traceback
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from math import isfinite
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

USAGE_EXIT, INCOMPLETE_EXIT = 2, 1
LONGEST_SHOWN = 60
"""Largest number of characters of a value that a message quotes."""
PARSERS = ("json", "yaml")
"""Packages that parse nested text recursively."""
Explanation = tuple[str, int]
"""Error message on one line, and exit code."""

_SIGNS = {
    "\u2010": "-", "\u2011": "-", "\u2013": "-", "\u2014": "-", "\u2212": "-", "\u2018": "'", "\u2019": "'",
    "\u201c": '"', "\u201d": '"', "\u2022": "*", "\u00b7": "*", "\u2026": ".", "\u00d7": "x", "\u00b1": "+/-",
    "\u2264": "<=", "\u2265": ">=", "\u2192": "->", "\u00a0": " ",
}  # fmt: skip
"""ASCII replacements of punctuation; box-drawing characters are replaced by `_box_sign`."""


class UsageExit(Exception):
    """The command line is invalid; the message is one line."""


class ParserExit(SystemExit):
    """The parser has printed its help."""


class CommandParser(argparse.ArgumentParser):
    """An argument parser that raises `UsageExit`, so that `run_command` reports its errors like any other."""

    def error(self, message: str) -> NoReturn:
        """See `argparse.ArgumentParser`."""
        if message.startswith("argument "):
            message = message.removeprefix("argument ").replace(": ", " ", 1)
        raise UsageExit(f"{shown(message, 1000)}; see {self.prog} --help")

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """See `argparse.ArgumentParser`, which takes `--option=--` as an option without a value and passes on an empty list."""
        words = list(sys.argv[1:] if args is None else args)
        for word in words[: words.index("--")] if "--" in words else words:
            if re.fullmatch(r"--?[\w-]+=--", word):
                self.error(f"argument {word.removesuffix('=--')}: '--': expected a value")
        return super().parse_known_args(words, namespace)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """See `argparse.ArgumentParser`; after `--help`."""
        raise ParserExit(status)


def shown(text: object, longest: int = LONGEST_SHOWN) -> str:
    """Quote a value for a message: printable ASCII on one line, cut after `longest` characters."""
    line = "".join(c if c.isascii() and c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return line if len(line) <= longest else f"{line[:longest]}..."


def quoted(text: str) -> str:
    """Quote a value that is not a number; in quotation marks unless it is a plain word."""
    return shown(text) if re.fullmatch(r"[\w.+-]+", text, re.ASCII) else f"'{shown(text)}'"


def nearest(text: str, names: Iterable[str], prefix: str = "") -> str:
    """The nearest of some names as a part of a message, such as ` (did you mean laptop?)`; empty if none is near.

    Args:
        text: the name that is not known.
        names: the known names.
        prefix: what is written before a name, and does not make two names alike, such as `--`.
    """
    # difflib costs as much time to import as all of this module, and only a wrong name needs it.
    from difflib import get_close_matches

    by_folded = {name.lower(): name for name in names}
    matches = get_close_matches(text.lower(), by_folded, n=1)
    return f" (did you mean {prefix}{by_folded[matches[0]]}?)" if matches else ""


def integer(low: int, high: int) -> Callable[[str], int]:
    """Option type: an integer from `low` to `high`, in ASCII digits."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,30}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(
                f"{quoted(text)}: expected a whole number, at least {low} and at most {high}"
            )
        return int(text)

    return parse


def number(low: float, high: float, above: bool = False, description: str = "") -> Callable[[str], float]:
    """Option type: a finite decimal number from `low` (exclusive if `above`) to `high`; `description` explains the range."""

    def parse(text: str) -> float:
        decimal = re.fullmatch(r"[+-]?([0-9]{1,30}\.?[0-9]{0,30}|\.[0-9]{1,30})([eE][+-]?[0-9]{1,3})?", text)
        value = float(text) if decimal else float("nan")
        if not isfinite(value) or not low <= value <= high or (above and value == low):
            start = f"more than {low:g} and at most" if above else f"at least {low:g} and at most"
            reason = f" ({description})" if description else ""
            raise argparse.ArgumentTypeError(f"{quoted(text)}: expected a number, {start} {high:.15g}{reason}")
        return value

    return parse


def _box_sign(character: str) -> str:
    """ASCII replacement of a box-drawing character, by the directions of its lines."""
    name = unicodedata.name(character, "")
    if not name.startswith("BOX DRAWINGS"):
        return _SIGNS.get(character, character)
    upright = any(word in name for word in ("VERTICAL", "UP", "DOWN"))
    level = any(word in name for word in ("HORIZONTAL", "LEFT", "RIGHT"))
    return "+" if upright and level else "|" if upright else "-"


def in_encoding(text: str, encoding: str) -> str:
    """Replace the characters that the encoding lacks by ASCII."""

    def encoded(character: str) -> str:
        try:
            character.encode(encoding)
        except UnicodeEncodeError:
            return _box_sign(character).encode(encoding, "backslashreplace").decode(encoding)
        return character

    return "".join(encoded(character) for character in text)


class OutputError(Exception):
    """Standard output cannot be written to."""


class ReaderGone(Exception):
    """The reader of standard output has closed the pipe."""


class Output:
    """A standard stream that accepts any text, whatever its encoding.

    Args:
        stream: the stream to write to.
        is_error: whether it is standard error, whose failures are ignored.
        stops: whether to raise `ReaderGone` when the reader has closed the pipe.
    """

    def __init__(self, stream: TextIO, is_error: bool, stops: bool = False) -> None:
        self.stream, self.is_error, self.stops = stream, is_error, stops
        self.is_discarding = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """See `TextIO`."""
        with self._guard():
            try:
                self.stream.write(text)
            except UnicodeEncodeError:
                self.stream.write(in_encoding(text, self.stream.encoding or "ascii"))
        return len(text)

    def flush(self) -> None:
        """See `TextIO`."""
        with self._guard():
            self.stream.flush()

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            if not self.is_discarding:
                yield
            else:
                with suppress(OSError, ValueError):
                    yield
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError) and not self.stream.closed:
                raise
            self._discard()
            if isinstance(error, BrokenPipeError):
                if self.stops:
                    raise ReaderGone from error
            elif isinstance(error, OSError) and not self.is_error:
                raise OutputError(f"standard output cannot be written to ({error.strerror})") from error

    def _discard(self) -> None:
        """Discard all further output, and what the stream has buffered."""
        self.is_discarding = True
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.stream.fileno())
            os.close(null)


def run_command(
    command: Callable[[], int],
    explain: Callable[[BaseException], Explanation | None] = lambda error: None,
    stops: bool = False,
) -> int:
    """Run a command and return its exit code; expected errors become one line on standard error, others a traceback.

    Args:
        command: parses its options, does the work and returns the exit code.
        explain: returns message and exit code of an expected error, and None for any other.
        stops: whether to end the command when the reader of its output closes the pipe; otherwise it continues silently.
    """
    with _standard_streams(stops) as (output, errors), _interrupts():
        try:
            code = command()
            output.flush()
        except ReaderGone:
            return 0
        except BaseException as error:
            explanation = _explain(error, explain)
            if explanation is None:
                raise
            with suppress(OutputError, ReaderGone):
                output.flush()
            errors.write(f"error: {' '.join(explanation[0].split())}\n")
            return explanation[1]
        return code


def _explain(error: BaseException, explain: Callable[[BaseException], Explanation | None]) -> Explanation | None:
    if isinstance(error, UsageExit):
        return str(error), USAGE_EXIT
    if isinstance(error, OutputError):
        return str(error), INCOMPLETE_EXIT
    if isinstance(error, ParserExit):
        return None
    own_message = explain(error)
    if own_message is not None:
        return own_message
    if isinstance(error, SystemExit):
        return f"code that the command called exited (SystemExit: {shown(error.code)})", INCOMPLETE_EXIT
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INCOMPLETE_EXIT
    if isinstance(error, RecursionError) and _is_in_parser(error):
        return "JSON or YAML is nested too deeply; give a file that this program wrote", USAGE_EXIT
    return None


def _is_in_parser(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).parent.name in PARSERS


@contextmanager
def _standard_streams(stops: bool) -> Iterator[tuple[Output, Output]]:
    """Replace standard output and standard error by `Output` streams while the context lasts."""
    # Open the null device first, so that no other file gets the file descriptor of a closed stream.
    with Path(os.devnull).open("w", encoding="utf-8") as null:
        before = sys.stdout, sys.stderr
        output = Output(before[0] or null, is_error=False, stops=stops)
        errors = Output(before[1] or null, is_error=True)
        sys.stdout, sys.stderr = output, errors
        try:
            yield output, errors
        finally:
            errors.flush()
            sys.stdout, sys.stderr = before


_signals: list[int] | None = None
"""Interrupt signals received so far; None while they are not counted."""


@contextmanager
def _interrupts() -> Iterator[None]:
    """Count interrupt signals, to distinguish them from a `KeyboardInterrupt` that code raised."""
    global _signals
    if threading.current_thread() is not threading.main_thread() or _signals is not None:
        yield
        return
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.default_int_handler(number, frame)

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield
        return
    _signals = received
    signal.signal(signal.SIGINT, receive)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        _signals = None


def was_interrupted() -> bool:
    """Whether a `KeyboardInterrupt` may come from the user: a signal arrived, or signals are not counted."""
    return _signals is None or bool(_signals)
