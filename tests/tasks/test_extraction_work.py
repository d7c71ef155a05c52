"""Extraction takes time linear in the answer and follows the documented rule."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator

import pytest

import benchmark.tasks.extraction
from benchmark.tasks.extraction import _HEADER, extract_program
from karel_env.language import HEADER_TEXT
from karel_env.syntax.parser import ParseError, parse

PIECES = (
    "def run() {", "def run(){", "def  run ( )\n{", "def run", "xdef run() {", "def run() }", "{", "}", "};", "move();",
    " move() ", "turn_left();", "repeat (2) {", "if (front_is_clear()) {", "else {", "; ", " ", "\n", "def", "run() {",
    "```", "a", "\u00a0", "\ufb01",
)  # fmt: skip

LONG: dict[str, Callable[[int], str]] = {
    "headers one in another": lambda n: ("def run(){" * (n // 11)) + "}" * (n // 11),
    "headers that nothing closes": lambda n: "def run() {" * (n // 11),
    "programs one after the other": lambda n: "def run() { go(); } " * (n // 20),
    "opening brackets": lambda n: "{" * n,
    "closing brackets": lambda n: "}" * n,
    "blocks": lambda n: "repeat (2) {" * (n // 13) + "}" * (n // 13),
    "statements": lambda n: "move(); " * (n // 8) + "}",
    "white space": lambda n: " " * n,
    "white space before the end": lambda n: " move()" + " " * n + "x }",
    "white space in a header": lambda n: "def" + " " * n + "run() { def run(" + " " * n,
    "letters": lambda n: "def" * (n // 3),
}


def by_the_rule(text: str) -> str:
    """The rule of the module, word for word: from each header to the bracket that closes it, however often read."""

    def bodies() -> Iterator[str]:
        for start in (0, *(match.end() for match in _HEADER.finditer(text))):
            depth = 1
            for position in range(start, len(text)):
                depth += (text[position] == "{") - (text[position] == "}")
                if depth == 0:
                    yield text[start : position + 1]
                    break

    for body in bodies():
        try:
            parse(f"{HEADER_TEXT} {body}")
        except ParseError:
            continue
        return body
    return text


def test_matches_the_reference_implementation():
    rng = random.Random(0)
    changed = 0
    for _ in range(4000):
        middle = rng.choice(("", "", "def run() { move(); }", "move(); } def run(){repeat (2) { move() }}"))
        text = "".join(rng.choices(PIECES, k=rng.randint(0, 6))) + middle + "".join(rng.choices(PIECES, k=6))
        assert extract_program(text) == by_the_rule(text), text
        changed += extract_program(text) != text
    assert changed > 300


@pytest.mark.parametrize("kind", LONG)
def test_work_is_linear_in_the_answer(kind, monkeypatch):
    """Counted: the characters that are parsed, and the lines of Python that are executed meanwhile."""
    parsed: list[int] = []

    def counting(text: str):
        parsed.append(len(text) - len(HEADER_TEXT))
        return parse(text)

    monkeypatch.setattr(benchmark.tasks.extraction, "parse", counting)

    def work(text: str) -> tuple[int, int]:
        parsed.clear()
        lines = 0

        def tracer(frame, event, argument):
            nonlocal lines
            lines += event == "line"
            return tracer

        before = sys.gettrace()
        sys.settrace(tracer)
        try:
            extract_program(text)
        finally:
            sys.settrace(before)
        return sum(parsed), lines

    short, long = LONG[kind](2_000), LONG[kind](8_000)
    assert work(long)[0] <= len(long) + len(parsed)
    assert work(long)[1] <= 4.4 * work(short)[1] + 200


@pytest.mark.parametrize("kind", LONG)
def test_time_is_linear_in_the_answer(kind):
    """What regular expressions do is not counted; four times the text must not take the sixteen times of a square."""

    def seconds(text: str) -> float:
        times = []
        for _ in range(5):
            began = time.process_time()
            extract_program(text)
            times.append(time.process_time() - began)
        return min(times)

    short, long = seconds(LONG[kind](10_000)), seconds(LONG[kind](40_000))
    assert long <= 8 * short + 0.02
