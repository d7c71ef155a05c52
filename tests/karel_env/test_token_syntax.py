"""The token syntax: printed as the public data sets print it, parsed back, and strict."""

from __future__ import annotations

import random

import pytest
from random_programs import statements
from reference_interpreter import text

from karel_env.extras.token_syntax import parse_either, parse_tokens, token_text
from karel_env.language import MAX_NESTING, MAX_REPEAT
from karel_env.syntax.parser import ParseError, parse

CURLY = (
    "def run() { if (not left_is_clear()) { move(); }; while (no_markers_present()) { put_marker(); }; "
    "repeat (19) { ifelse (markers_present()) { pick_marker(); } else { turn_left(); turn_right(); }; }; }"
)
TOKENS = (
    "DEF run m( IF c( not c( leftIsClear c) c) i( move i) WHILE c( noMarkersPresent c) w( putMarker w) "
    "REPEAT R=19 r( IFELSE c( markersPresent c) i( pickMarker i) ELSE e( turnLeft turnRight e) r) m)"
)


def test_the_two_syntaxes_say_the_same():
    assert token_text(parse(CURLY)) == TOKENS
    assert parse_tokens(TOKENS).tolist() == parse(CURLY).tolist()
    assert parse_either(" \n" + TOKENS.replace(" ", "\n")).tolist() == parse_either(CURLY).tolist()


def test_printing_and_parsing_are_inverse():
    rng = random.Random(1)
    for _ in range(1000):
        words = parse(text(statements(rng, 4)))
        assert parse_tokens(token_text(words)).tolist() == words.tolist()


@pytest.mark.parametrize(
    ("source", "line", "column", "found", "expected"),
    [
        ("", 1, 1, "end of text", "'DEF'"),
        ("def run m( move m)", 1, 1, "'def'", "'DEF'"),
        ("DEF run m( m)", 1, 12, "'m)'", "an action"),
        ("DEF run m( move", 1, 16, "end of text", "'m)'"),
        ("DEF run m( move i)", 1, 17, "'i)'", "'m)'"),
        ("DEF run m( move m) move", 1, 20, "'move'", "the end of the text"),
        ("DEF run m(move m)", 1, 9, "'m(move'", "'m('"),
        ("DEF run m(\n REPEAT R=20 r( move r) m)", 2, 9, "'R=20'", f"R={MAX_REPEAT}"),
        ("DEF run m( REPEAT R=02 r( move r) m)", 1, 19, "'R=02'", "R=0"),
        ("DEF run m( IF c( move c) i( move i) m)", 1, 18, "'move'", "a condition"),
        ("DEF run m( IF c( not c( not c(", 1, 25, "'not'", "a condition"),
        ("DEF run m( IFELSE c( markersPresent c) i( move i) m)", 1, 51, "'m)'", "'ELSE'"),
        ("DEF run m( WHILE c( markersPresent c) i( move i) m)", 1, 39, "'i('", "'w('"),
    ],
)
def test_errors_name_their_place(source, line, column, found, expected):
    with pytest.raises(ParseError) as caught:
        parse_tokens(source)
    assert (caught.value.line, caught.value.column, caught.value.token) == (line, column, found)
    assert expected in caught.value.expected


def test_nesting_is_limited():
    def nested(depth: int) -> str:
        return "DEF run m( " + "REPEAT R=1 r( " * depth + "move" + " r)" * depth + " m)"

    assert len(parse_tokens(nested(MAX_NESTING))) > MAX_NESTING
    for depth in (MAX_NESTING + 1, 100_000):
        with pytest.raises(ParseError, match="nested"):
            parse_tokens(nested(depth))
