"""What every command line does alike: numbers in a range, errors on one line, output that any terminal takes.

    def main(arguments=None):
        return run_command(lambda: work(parser.parse_args(arguments)))

Output never brings a command down: characters that the terminal's encoding lacks are replaced by ASCII, a reader that is
gone (`| head`) is written to no more while the command goes on, a missing stream is a null device.
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
"""Characters of a value that a message repeats."""
PARSERS = ("json", "yaml")
"""Packages that read nested text by recursion."""
Explanation = tuple[str, int]
"""The line that an error is told by, and the exit code."""

_SIGNS = {
    "\u2010": "-", "\u2011": "-", "\u2013": "-", "\u2014": "-", "\u2212": "-", "\u2018": "'", "\u2019": "'",
    "\u201c": '"', "\u201d": '"', "\u2022": "*", "\u00b7": "*", "\u2026": ".", "\u00d7": "x", "\u00b1": "+/-",
    "\u2264": "<=", "\u2265": ">=", "\u2192": "->", "\u00a0": " ",
}  # fmt: skip
"""ASCII for signs of messages and tables; boxes are drawn by `_box_sign`."""


class UsageExit(Exception):
    """The command line cannot be; the message is one line."""


class ParserExit(SystemExit):
    """The parser has printed its help."""


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors are a `UsageExit`, so that `run_command` tells them like any other."""

    def error(self, message: str) -> NoReturn:
        """See `argparse.ArgumentParser`."""
        if message.startswith("argument "):
            message = message.removeprefix("argument ").replace(": ", " ", 1)
        raise UsageExit(f"{shown(message, 1000)}; see {self.prog} --help")

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """See `argparse.ArgumentParser`, which takes `--option=--` for an option without a value and hands on a list."""
        words = list(sys.argv[1:] if args is None else args)
        for word in words[: words.index("--")] if "--" in words else words:
            if re.fullmatch(r"--?[\w-]+=--", word):
                self.error(f"argument {word.removesuffix('=--')}: '--': expected a value")
        return super().parse_known_args(words, namespace)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """See `argparse.ArgumentParser`; after `--help`."""
        raise ParserExit(status)


def shown(text: object, longest: int = LONGEST_SHOWN) -> str:
    """A value as a message may repeat it: printable ASCII, on one line, not too long."""
    line = "".join(c if c.isascii() and c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return line if len(line) <= longest else f"{line[:longest]}..."


def quoted(text: str) -> str:
    """A value that is no number, in quotation marks unless it is plain."""
    return shown(text) if re.fullmatch(r"[\w.+-]+", text, re.ASCII) else f"'{shown(text)}'"


def nearest(text: str, names: Iterable[str]) -> str:
    """The nearest of some names as a part of a message, such as ` (did you mean laptop?)`; empty if none is near."""
    # difflib costs as much time to import as all of this module, and only a wrong name needs it.
    from difflib import get_close_matches

    by_folded = {name.lower(): name for name in names}
    matches = get_close_matches(text.lower(), by_folded, n=1)
    return f" (did you mean {by_folded[matches[0]]}?)" if matches else ""


def integer(low: int, high: int) -> Callable[[str], int]:
    """Type of an option: a whole number from `low` to `high`, in ASCII digits."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,30}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(
                f"{quoted(text)}: expected a whole number, at least {low} and at most {high}"
            )
        return int(text)

    return parse


def number(low: float, high: float, above: bool = False, description: str = "") -> Callable[[str], float]:
    """Type of an option: a finite decimal number from `low` (if `above`, more than it) to `high`; `why` says why so."""

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
    """ASCII for a line of a box: by which ways it goes."""
    name = unicodedata.name(character, "")
    if not name.startswith("BOX DRAWINGS"):
        return _SIGNS.get(character, character)
    upright = any(word in name for word in ("VERTICAL", "UP", "DOWN"))
    level = any(word in name for word in ("HORIZONTAL", "LEFT", "RIGHT"))
    return "+" if upright and level else "|" if upright else "-"


def in_encoding(text: str, encoding: str) -> str:
    """The text with ASCII in place of what the encoding lacks."""

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
    """Nobody reads standard output any more."""


class Output:
    """A standard stream that takes every text.

    Args:
        stream: is written to.
        is_error: whether it is standard error, of which a failure is passed over.
        stops: whether a reader that is gone ends the command by `ReaderGone`.
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
        except (OSError, ValueError) as problem:
            if isinstance(problem, ValueError) and not self.stream.closed:
                raise
            self._discard()
            if isinstance(problem, BrokenPipeError):
                if self.stops:
                    raise ReaderGone from problem
            elif isinstance(problem, OSError) and not self.is_error:
                raise OutputError(f"standard output cannot be written to ({problem.strerror})") from problem

    def _discard(self) -> None:
        """Write nothing any more; what the stream still holds goes to the null device."""
        self.is_discarding = True
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.stream.fileno())
            os.close(null)


def run_command(
    command: Callable[[], int],
    explain: Callable[[BaseException], Explanation | None] = lambda problem: None,
    stops: bool = False,
) -> int:
    """The exit code of a command; every foreseen failure is one line on standard error, any other a traceback.

    Args:
        command: reads its options and carries them out.
        explain: the line and exit code of an error, None for one that is a fault of the program.
        stops: whether the command ends when nobody reads its output; otherwise it goes on silently.
    """
    with _standard_streams(stops) as (output, error), _interrupts():
        try:
            code = command()
            output.flush()
        except ReaderGone:
            return 0
        except BaseException as problem:
            explanation = _explain(problem, explain)
            if explanation is None:
                raise
            with suppress(OutputError, ReaderGone):
                output.flush()
            error.write(f"error: {' '.join(explanation[0].split())}\n")
            return explanation[1]
        return code


def _explain(problem: BaseException, explain: Callable[[BaseException], Explanation | None]) -> Explanation | None:
    if isinstance(problem, UsageExit):
        return str(problem), USAGE_EXIT
    if isinstance(problem, OutputError):
        return str(problem), INCOMPLETE_EXIT
    if isinstance(problem, ParserExit):
        return None
    own_message = explain(problem)
    if own_message is not None:
        return own_message
    if isinstance(problem, SystemExit):
        return f"code that was called ended the command (SystemExit: {shown(problem.code)})", INCOMPLETE_EXIT
    if isinstance(problem, KeyboardInterrupt):
        return "interrupted", INCOMPLETE_EXIT
    if isinstance(problem, RecursionError) and _is_in_parser(problem):
        return "JSON or YAML that is nested too deep; give a file as this program writes it", USAGE_EXIT
    return None


def _is_in_parser(problem: BaseException) -> bool:
    frames = traceback.extract_tb(problem.__traceback__)
    return bool(frames) and Path(frames[-1].filename).parent.name in PARSERS


@contextmanager
def _standard_streams(stops: bool) -> Iterator[tuple[Output, Output]]:
    """Within, standard output and error take every text."""
    # The null device comes first, so that no other file gets the number of a stream that is closed.
    with Path(os.devnull).open("w", encoding="utf-8") as null:
        before = sys.stdout, sys.stderr
        output = Output(before[0] or null, is_error=False, stops=stops)
        error = Output(before[1] or null, is_error=True)
        sys.stdout, sys.stderr = output, error
        try:
            yield output, error
        finally:
            error.flush()
            sys.stdout, sys.stderr = before


_signals: list[int] | None = None
"""Interrupts that this process received; None where nobody counts them."""


@contextmanager
def _interrupts() -> Iterator[None]:
    """Within, interrupts from outside are told from those that code raises by itself."""
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
    """Whether a `KeyboardInterrupt` can be the user's: a signal arrived, or nobody counts them."""
    return _signals is None or bool(_signals)
