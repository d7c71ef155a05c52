"""Parsing in a batch gives what parsing alone gives: the same programs, and the same texts refused."""

from __future__ import annotations

import random

import numpy as np
import pytest

from karel_env.language import MAX_NESTING, WORDS, text_of
from karel_env.syntax.batch_parser import parse_batch
from karel_env.syntax.parser import ParseError, parse
from tests.helpers.random_programs import statements

PROGRAM = "def run() { move(); }"


def text_from(block) -> str:
    """The canonical text of a block of nested statements."""
    parts = []
    for statement in block:
        if isinstance(statement, str):
            parts.append(f"{statement}();")
            continue
        kind, head, *blocks = statement
        if kind != "repeat":
            name, is_negated = head
            head = f"not {name}())" if is_negated else f"{name}())"
            head = f"({head}"
        else:
            head = f"({head})"
        first, *second = [text_from(part) for part in blocks]
        tail = f"}} else {{ {second[0]} }};" if second else "};"
        parts.append(f"{kind} {head} {{ {first} {tail}")
    return " ".join(parts)


def random_texts(count, seed=0):
    rng = random.Random(seed)
    return [f"def run() {{ {text_from(statements(rng, 3))} }}" for _ in range(count)]


def mutated(texts, seed=1):
    """Texts with a word removed, repeated, exchanged or altered, and with characters changed."""
    rng = random.Random(seed)
    strange = [
        "",
        "\x00",
        "\x1c",
        "\x85",
        "\u00a0",
        "\u0661",
        "(20)",
        "(-1)",
        "move()",
        "}",
        "};",
        "else",
        "(not",
        "\x0b",
    ]
    for text in texts:
        words = text.split()
        place = rng.randrange(len(words))
        kind = rng.randrange(6)
        if kind == 0:
            del words[place]
        elif kind == 1:
            words.insert(place, rng.choice(words))
        elif kind == 2:
            words[place] = rng.choice(WORDS)
        elif kind == 3:
            words[place] = rng.choice(strange)
        elif kind == 4:
            words[place] = words[place] + rng.choice(strange)
        else:
            words = words[:place]
        yield rng.choice([" ", "\n", "\t ", "\x0c"]).join(words)


def alone(texts):
    """What `parse` gives: the words by index of the text."""
    programs = {}
    for i, text in enumerate(texts):
        try:
            programs[i] = parse(text)
        except ParseError:
            continue
    return programs


def check(texts):
    programs, indices = parse_batch(texts)
    expected = alone(texts)
    assert indices.tolist() == list(expected)
    for position, index in enumerate(indices.tolist()):
        np.testing.assert_array_equal(programs.program(position), expected[index], texts[index])
    return len(expected)


def test_random_programs_are_parsed_alike():
    assert check(random_texts(1500)) == 1500


def test_mutated_programs_are_refused_alike():
    texts = list(mutated(random_texts(6000, seed=2)))
    num_valid = check(texts)
    assert 300 < num_valid < 4000


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "def run() { }", "def run() {", PROGRAM + " }", PROGRAM + " " + PROGRAM, "move();", "def run() { move() }",
        "def run(){move();turn_left()}", "def run() { move(); };", "def run() { else { move(); }; }",
        "def run() { if (front_is_clear()) { }; }", "def run() { if (not (front_is_clear()) { move(); }; }",
        "def run() { ifelse (front_is_clear()) { move(); }; else { move(); }; }", "def run() { repeat (front_is_clear()) { move(); }; }",
        "def run() { ifelse (front_is_clear()) { move(); } else { }; }", "def run() { while (3) { move(); }; }",
        "def run() { ifelse (front_is_clear()) { move(); } else { move(); } }", "def run() { repeat (20) { move(); }; }",
        "def run() { move(); \x00 }", "\x00", "def run() { move();\u00a0}", "def run() { move(); }\x1c", "DEF run m( m)",
    ],
)  # fmt: skip
def test_a_text_is_parsed_alike_between_others(text):
    check([PROGRAM, text, PROGRAM])
    programs, indices = parse_batch([PROGRAM, text, PROGRAM])
    assert {0, 2} <= set(indices.tolist())
    assert text_of(programs.program(0)) == PROGRAM


@pytest.mark.parametrize("depth", [1, MAX_NESTING - 1, MAX_NESTING, MAX_NESTING + 1])
def test_nesting_is_limited_alike(depth):
    text = "def run() { " + "repeat (2) { " * depth + "move(); " + "}; " * depth + "}"
    assert check([text]) == (depth <= MAX_NESTING)


def test_no_text_gives_no_program():
    programs, indices = parse_batch([])
    assert len(programs) == len(indices) == 0


def test_the_table_parses_faster(benchmark):
    texts = random_texts(1500, seed=3)
    benchmark(parse_batch, texts)
