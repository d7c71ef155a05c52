from __future__ import annotations

import random
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_programs import statements
from reference_interpreter import text

from karel_env.language import MAX_NESTING, Programs, text_of
from karel_env.syntax.parser import ParseError, parse


def test_printing_and_parsing_are_inverse():
    rng = random.Random(0)
    for _ in range(500):
        words = parse(text(statements(rng, 4)))
        assert parse(text_of(words)).tolist() == words.tolist()


def test_canonical_text():
    words = parse(
        "def run(){if(not left_is_clear()){move()};repeat(2){ifelse(markers_present()){pick_marker()}else{move();}}}"
    )
    assert text_of(words) == (
        "def run() { if (not left_is_clear()) { move(); }; "
        "repeat (2) { ifelse (markers_present()) { pick_marker(); } else { move(); }; }; }"
    )


@pytest.mark.parametrize(
    ("source", "line", "column", "found"),
    [
        ("junk def run() { move() }", 1, 1, "'junk'"),
        ("def run() { @@move() }", 1, 13, "'@'"),
        ("def run() { }", 1, 13, "'}'"),
        ("def run() { move() move() }", 1, 20, "'move'"),
        ("def run() {\n move();;\n}", 2, 9, "';'"),
        ("def run() { repeat (20) { move() } }", 1, 21, "'20'"),
        ("def run() { repeat (05) { move() } }", 1, 21, "'05'"),
        ("def run() { if (move()) { move() } }", 1, 17, "'move'"),
        ("def run() { move() } x", 1, 22, "'x'"),
        ("def run() { Move() }", 1, 13, "'Move'"),
        ("defrun() { move() }", 1, 1, "'defrun'"),
        ("def run() { move(", 1, 18, "end of text"),
        ("", 1, 1, "end of text"),
    ],
)
def test_errors_name_their_place(source, line, column, found):
    with pytest.raises(ParseError) as caught:
        parse(source)
    assert (caught.value.line, caught.value.column, caught.value.token) == (line, column, found)
    assert "\n" not in str(caught.value)


def test_nesting_is_limited():
    def nested(depth: int) -> str:
        return "def run() {" + "repeat (1) {" * depth + "move()" + "}" * depth + "}"

    assert len(parse(nested(MAX_NESTING))) > MAX_NESTING
    with pytest.raises(ParseError, match="nested"):
        parse(nested(MAX_NESTING + 1))
    with pytest.raises(ParseError):
        parse(nested(100_000))


@given(st.text(alphabet="defrun(){};mov\n \tx0é", max_size=60) | st.text(max_size=60))
def test_any_text_parses_or_is_refused(source):
    try:
        words = parse(source)
    except ParseError:
        return
    assert parse(text_of(words)).tolist() == words.tolist()


def test_a_long_program_of_blanks_is_refused_quickly():
    began = time.process_time()
    with pytest.raises(ParseError):
        parse("def run() { " + "move(); " * 3000 + " " * 20_000 + "!")
    assert time.process_time() - began < 5


def test_straight_line_programs_from_arrays():
    programs = Programs.straight_line(np.array([[0, 1, 2], [3, 4, 0]]), np.array([3, 1]))
    assert programs.texts() == [
        "def run() { move(); turn_left(); turn_right(); }",
        "def run() { pick_marker(); }",
    ]
    assert [parse(t).tolist() for t in programs.texts()] == [programs.program(i).tolist() for i in range(2)]
