"""Programs as Python text: the text is executed by Python itself, with a robot that was written for this test."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from benchmark.tasks.suite import SUITE_FOLDER, load_suite, probe_tasks
from benchmark.tasks.suite import test_tasks as tasks_of
from karel_env.language import ACTIONS, CONDITIONS, WORDS, text_of
from karel_env.syntax.parser import ParseError, parse
from karel_env.syntax.python_syntax import MAX_CHARACTERS, NO_SPAN, parse_python, python_text, render_python

STEPS = ((-1, 0), (0, 1), (1, 0), (0, -1))
NESTED = (
    "def run() { move(); ifelse (not markers_present()) { repeat (3) { turn_left(); }; } else { while (front_is_clear()) "
    "{ move(); }; }; if (no_markers_present()) { put_marker(); pick_marker(); turn_right(); }; }"
)


@dataclass
class Robot:
    """A world in which Python runs a program; a move into a wall and a pick from an empty cell do nothing."""

    cells: np.ndarray
    row: int
    column: int
    heading: int

    def is_free(self, turn: int) -> bool:
        down, right = STEPS[(self.heading + turn) % 4]
        return bool(self.cells[self.row + down, self.column + right] >= 0)

    def move(self) -> None:
        if self.is_free(0):
            down, right = STEPS[self.heading]
            self.row, self.column = self.row + down, self.column + right

    def turn(self, quarters: int) -> None:
        self.heading = (self.heading + quarters) % 4

    def change_markers(self, change: int) -> None:
        self.cells[self.row, self.column] = max(0, self.cells[self.row, self.column] + change)

    def run(self, text: str) -> None:
        names = {
            "move": self.move, "turn_left": lambda: self.turn(3), "turn_right": lambda: self.turn(1),
            "pick_marker": lambda: self.change_markers(-1), "put_marker": lambda: self.change_markers(1),
            "front_is_clear": lambda: self.is_free(0), "left_is_clear": lambda: self.is_free(3),
            "right_is_clear": lambda: self.is_free(1),
            "markers_present": lambda: self.cells[self.row, self.column] > 0,
            "no_markers_present": lambda: self.cells[self.row, self.column] == 0,
        }  # fmt: skip
        assert set(names) == {*ACTIONS, *CONDITIONS}
        exec(f"{text}\nrun()", names)


def compare(tasks) -> None:
    """Every example of every program, run by Python and by Karel, which gave the outputs."""
    for index in range(len(tasks.programs)):
        text = python_text(tasks.programs.program(index))
        assert parse_python(text).tolist() == tasks.programs.program(index).tolist()
        for example in range(tasks.inputs.robot.shape[1]):
            before, after = tasks.inputs[index, example], tasks.outputs[index, example]
            robot = Robot(before.cells.copy(), *before.robot.tolist())
            robot.run(text)
            assert [robot.row, robot.column, robot.heading] == after.robot.tolist(), text
            np.testing.assert_array_equal(robot.cells, after.cells, text)


@pytest.mark.parametrize("name", ["laptop", "control"])
def test_python_runs_the_text_to_the_same_worlds(name):
    compare(probe_tasks(replace(load_suite(name), probe_programs=60, tasks=4, sha256="")))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in SUITE_FOLDER.glob("*.yaml")))
def test_python_runs_every_task_of_every_suite_to_the_same_worlds(name):
    compare(tasks_of(load_suite(name)))


def test_every_word_has_its_place():
    words = parse(NESTED)
    rendered = render_python(words)
    placed = [(WORDS[word], rendered.text[start:end]) for word, (start, end) in zip(words, rendered.spans, strict=True) if start != NO_SPAN]  # fmt: skip
    assert placed[:6] == [
        ("def", "def"), ("run()", "run()"), ("move();", "move()"), ("ifelse", "if"), ("(not", "not"),
        ("markers_present())", "markers_present()"),
    ]  # fmt: skip
    assert ("repeat", "for") in placed
    assert ("(3)", "3") in placed
    assert ("(front_is_clear())", "front_is_clear()") in placed
    ends = [end for _, end in rendered.spans if end != NO_SPAN]
    assert ends == sorted(ends)
    assert len(rendered.spans) == len(words)
    assert {WORDS[word] for word, (start, _) in zip(words, rendered.spans, strict=True) if start == NO_SPAN} == {
        "{", "}", "};"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("def run(): move(); turn_left()", "def run() { move(); turn_left(); }"),
        ("# solves it\ndef run():\n\tmove()  # go\n\n\tmove()\n", "def run() { move(); move(); }"),
        (
            "def run():\n  if (not (front_is_clear())):\n    move()",
            "def run() { if (not front_is_clear()) { move(); }; }",
        ),
        ("def run():\n  for step in range(0x3):\n    (move())", "def run() { repeat (3) { move(); }; }"),
        (
            "def run():\n  if left_is_clear():\n    move()\n  elif right_is_clear():\n    turn_left()",
            "def run() { ifelse (left_is_clear()) { move(); } else { if (right_is_clear()) { turn_left(); }; }; }",
        ),
        ("def run():\r\n  move()\r\n  move()", "def run() { move(); move(); }"),
    ],
)
def test_any_layout_of_python_is_accepted(text, program):
    assert text_of(parse_python(text)) == text_of(parse(program))
    assert text_of(parse_python(python_text(parse_python(text)))) == text_of(parse(program))


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("", "line 1, column 1", "'def run():'"),
        ("move()", "line 1, column 1", "'def run():'"),
        ("def walk():\n  move()", "line 1, column 1", "'def run():'"),
        ("def run(n):\n  move()", "line 1, column 1", "'def run():'"),
        ("def run() -> None:\n  move()", "line 1, column 1", "'def run():'"),
        ("async def run():\n  move()", "line 1, column 1", "'def run():'"),
        ("@cache\ndef run():\n  move()", "line 1, column 2", "'def run():'"),
        ("def run():\n  move()\nrun()", "line 3, column 1", "the end of the text"),
        ("def run():\n  pass", "line 2, column 3", "a call of an action"),
        ("def run():\n  'turns'\n  move()", "line 2, column 3", "a call of an action"),
        ("def run():\n  move(2)", "line 2, column 3", "a call of an action"),
        ("def run():\n  fly()", "line 2, column 3", "a call of an action"),
        ("def run():\n  __import__('os').getcwd()", "line 2, column 3", "a call of an action"),
        ("def run():\n  x = move()", "line 2, column 3", "a call of an action"),
        ("def run():\n  return move()", "line 2, column 3", "a call of an action"),
        ("def run():\n  while front_is_clear():\n    move()\n  else:\n    move()", "line 2, column 3", "without 'else'"),
        ("def run():\n  if front_is_clear:\n    move()", "line 2, column 6", "'not' or a condition"),
        ("def run():\n  if not not front_is_clear():\n    move()", "line 2, column 10", "a condition"),
        ("def run():\n  if front_is_clear() and left_is_clear():\n    move()", "line 2, column 6", "'not' or a condition"),
        ("def run():\n  for _ in range(20):\n    move()", "line 2, column 18", "a number from 0 to 19"),
        ("def run():\n  for _ in range(True):\n    move()", "line 2, column 12", "range(N)"),
        ("def run():\n  for _ in range(1, 2):\n    move()", "line 2, column 12", "range(N)"),
        ("def run():\n  for _ in [1]:\n    move()", "line 2, column 12", "range(N)"),
        ("def run():\n  for a, b in range(2):\n    move()", "line 2, column 3", "a call of an action"),
        ("def run():\nmove()", "line 2, column 1", "valid Python"),
        ("def run():\n  move(", "line 2", "valid Python"),
        ("def run() { move(); }", "line 1, column 11", "valid Python"),
        ("def run():\n  'é'; fly()", "line 2, column 3", "a call of an action"),
        ("def run():\n  move(); f('é'); fly()", "line 2, column 11", "a call of an action"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_its_place(text, place, expected):
    with pytest.raises(ParseError) as refused:
        parse_python(text)
    assert str(refused.value).startswith(place), refused.value
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "def run():\n" + "".join(" " * depth + "if front_is_clear():\n" for depth in range(1, 80)) + " " * 80 + "move()",
        "def run():\n  " + "(" * 5000 + "move()" + ")" * 5000,
        "def run():\n  " + "-" * 90_000 + "1",
        "def run():\n  move()\0",
        "\ud800def run():\n  move()",
        "def run():\n" + "  move()\n" * MAX_CHARACTERS,
    ],
)  # fmt: skip
def test_hostile_texts_are_refused(text):
    with pytest.raises(ParseError):
        parse_python(text)


def test_a_warning_of_python_is_no_error():
    with pytest.raises(ParseError, match="a call of an action"):
        parse_python("def run():\n  '\\d'\n  1 is 1")
