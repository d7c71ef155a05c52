"""Extraction of the program from an answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.tasks.extraction import extract_program
from karel_env.language import HEADER_TEXT
from karel_env.syntax.parser import ParseError, parse


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        (" move(); }", " move(); }"),
        (" move(); } I hope this helps }", " move(); }"),
        (" repeat (2) { move(); }; } trailing", " repeat (2) { move(); }; }"),
        ("```\ndef run() { turn_left(); }\n```", " turn_left(); }"),
        (" go(); } or rather def run ( ) {move()} .", "move()}"),
        (" // def run() { broken } then def run() { move(); }", " move(); }"),
        (" move();", " move();"),
        ("", ""),
        (" jump(); }", " jump(); }"),
    ],
)
def test_extracts_the_first_candidate_that_parses(answer: str, program: str) -> None:
    assert extract_program(answer) == program


@given(st.text(alphabet=" {}();movedfrun", max_size=40), st.text(alphabet=" {}();movedfrun", max_size=40))
def test_result_is_a_program_or_the_answer(before: str, after: str) -> None:
    text = f"{before}def run() {{ move(); }}{after}"
    body = extract_program(text)
    try:
        parse(f"{HEADER_TEXT} {body}")
    except ParseError:
        pytest.fail(f"{body!r} of {text!r}")
