"""`python -m karel_env.run`: JSON lines in and out, against the reference interpreter and as a process."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import numpy as np
import pytest
import random_programs
from reference_interpreter import Karel, text

from karel_env.extras.token_syntax import token_text
from karel_env.language import text_of
from karel_env.run import BATCH, Options, TaskError, main, results
from karel_env.syntax.parser import parse

WORLD = {"h": 4, "w": 5, "walls": ["#####", "#...#", "#.#.#", "#####"], "markers": [[1, 3, 2]], "y": 1, "x": 1, "d": 1}
TASK = {"id": 7, "program": "def run() { move(); put_marker() }", "world": WORLD}


def random_task(rng: random.Random, numbers: np.random.Generator, name: int) -> tuple[dict, list]:
    """A task as JSON, its program in either syntax, and the same program for the reference."""
    high, wide = rng.randint(3, 9), rng.randint(3, 9)
    world = random_programs.worlds(numbers, 1, high, wide)[0]
    source = random_programs.statements(rng, 3)
    words = parse(text(source))
    at = np.argwhere(world.cells > 0).tolist()
    row, column, heading = world.robot.tolist()
    given = {
        "h": high,
        "w": wide,
        "walls": ["".join("#" if n < 0 else "." for n in line) for line in world.cells.tolist()],
        "markers": [[r, c, int(world.cells[r, c])] for r, c in rng.sample(at, len(at))],
        "y": row,
        "x": column,
        "d": heading,
    }
    return {"id": f"t{name}", "program": rng.choice([text_of, token_text])(words), "world": given}, source


class Recorded(Karel):
    """The reference, with its whole state after each action."""

    def state(self) -> list:
        return [self.row, self.column, self.heading, [[r, c, n] for (r, c), n in sorted(self.markers.items()) if n]]

    def act(self, name: str) -> None:
        super().act(name)
        self.states.append(self.state())


@pytest.mark.parametrize(("mode", "cap", "budget"), [("noop", None, 1000), ("crash", 9, 100), ("turn180", 1, 50)])
def test_results_are_those_of_the_reference(mode, cap, budget):
    rng, numbers = random.Random(mode), np.random.default_rng(budget)
    tasks = [random_task(rng, numbers, i) for i in range(BATCH + 50)]
    done = list(results((json.dumps(task) for task, _ in tasks), Options(mode, cap, budget, trace=True)))
    assert len(done) == len(tasks)
    for (task, source), result in zip(tasks, done, strict=True):
        world = task["world"]
        karel = Recorded(
            walls={(r, c) for r, line in enumerate(world["walls"]) for c, kind in enumerate(line) if kind == "#"},
            markers={(r, c): n for r, c, n in world["markers"]},
            row=world["y"], column=world["x"], heading=world["d"], mode=mode, cap=cap, budget=budget,
        )  # fmt: skip
        karel.states = [karel.state()]
        status = karel.run(source)
        expected = {"id": task["id"], "status": status, "actions": karel.actions, "final": karel.state()}
        assert result == {**expected, "states": karel.states}


def test_a_program_that_does_not_parse_is_a_result():
    lines = [json.dumps({**TASK, "program": source}) for source in ("def run() { mve() }", TASK["program"])]
    wrong, right = results(lines, Options())
    assert wrong["status"] == "syntax"
    assert "column 13" in wrong["error"]
    assert right == {"id": 7, "status": "ok", "actions": 2, "final": [1, 2, 1, [[1, 2, 1], [1, 3, 2]]]}
    only = list(results(lines[:1], Options(trace=True)))
    assert only == [wrong]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"h": 5}, "walls"),
        ({"h": 2}, "expected 3 to"),
        ({"w": "5"}, "expected an integer"),
        ({"walls": ["#####", "#..x#", "#.#.#", "#####"]}, "expected"),
        ({"walls": ["#####", "#....", "#.#.#", "#####"]}, "border"),
        ({"markers": [[2, 2, 1]]}, "in a wall"),
        ({"markers": [[1, 1]]}, "row, column, count"),
        ({"markers": [[1, 1, 20_000]]}, "expected a count"),
        ({"markers": [[1, 1, 2000], [1, 1, 2000]]}, "more than"),
        ({"y": 2, "x": 2}, "is in a wall"),
        ({"d": 4}, "heading"),
    ],
)
def test_a_world_that_cannot_be_ends_the_run(change, message):
    bad = {**TASK, "world": {**WORLD, **change}}
    given = results([json.dumps(TASK), "", json.dumps(bad)], Options())
    assert next(given)["id"] == 7
    with pytest.raises(TaskError, match=rf"line 3: .*{message}"):
        next(given)


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"id": 1}', json.dumps({**TASK, "program": 3}), json.dumps({**TASK, "world": 1})]
)
def test_a_line_that_is_no_task_ends_the_run(line):
    with pytest.raises(TaskError, match="line 1"):
        list(results([line], Options()))


def test_as_a_process():
    lines = "\n".join([json.dumps(TASK), json.dumps({**TASK, "id": "b", "program": "DEF run m( pickMarker m)"})])
    command = [sys.executable, "-m", "karel_env.run", "--mode", "crash", "--trace"]
    # A run whose lines are all right is among those with odd streams (`test_command_faults`).
    done = subprocess.run(command, input=lines + "\nnothing\n", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert first["states"] == [[1, 1, 1, [[1, 3, 2]]], [1, 2, 1, [[1, 3, 2]]], [1, 2, 1, [[1, 2, 1], [1, 3, 2]]]]
    assert second == {
        "id": "b",
        "status": "crash",
        "actions": 0,
        "final": second["states"][0],
        "states": second["states"],
    }
    assert "line 3" in done.stderr


@pytest.mark.parametrize(
    "wrong", [["--max-events", "-1"], ["--max-events", "99999"], ["--max-markers", "-2"], ["--mode", "x"]]
)
def test_wrong_options_are_a_usage_error(wrong, capsys):
    assert main(wrong) == 2
    assert wrong[0] in capsys.readouterr().err
