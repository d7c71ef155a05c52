"""Execute programs as a filter: tasks as JSON lines on standard input, results as JSON lines on standard output.

    python -m karel_env.run [--mode noop|crash|turn180] [--max-markers N] [--max-events N] [--trace] < tasks.jsonl

In:  {"id", "program", "world": {"h", "w", "walls", "markers", "y", "x", "d"}}
     `id` is text, a number, true, false or null, and is repeated in the result; `program` is in either syntax; `h` and
     `w` include the border; `walls` is h strings of w characters, `#` or `.`; `markers` is [[row, column, count], ...];
     `y`, `x` are the robot's row and column; `d` is 0 north, 1 east, 2 south, 3 west.
Out: {"id", "status": "ok" | "crash" | "timeout", "actions", "final": [y, x, d, [[row, column, count], ...]]}
     `actions` is the number of executed actions, without an action that crashed; markers are sorted. With `--trace` also
     "states": the input state and the state after each of these actions. A program that does not parse gives
     {"id", "status": "syntax", "error"}.

A line that is not a task ends the command with exit code 2, after the results of earlier lines were written.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from types import ModuleType
from typing import Any

import numpy as np

from karel_env.command import CommandParser, UsageExit, integer, run_command
from karel_env.execution.interpreter import STATUSES, Execution, run
from karel_env.extras.token_syntax import parse_either
from karel_env.language import Programs
from karel_env.limits import EVENT_LIMIT, MAX_EVENTS, MODES
from karel_env.semantics import PICK, PUT
from karel_env.single import ProgramRun
from karel_env.single import run as run_program
from karel_env.syntax.parser import ParseError
from karel_env.world import MAX_COUNT, MAX_SIDE, WALL, Worlds, brief

BATCH = 256
State = list[Any]


class TaskError(UsageExit, ValueError):
    """A line is not a task; ends the command with exit code 2."""


@dataclass(frozen=True)
class Options:
    """Options of the command line; see the arguments of `interpreter.run`."""

    mode: str = "noop"
    max_markers: int | None = None
    max_events: int = MAX_EVENTS
    trace: bool = False


@dataclass(frozen=True)
class _Task:
    name: Any
    world: Worlds
    words: np.ndarray | None
    error: str = ""


def results(lines: Iterable[str | bytes], options: Options) -> Iterator[dict[str, Any]]:
    """Yield one result per task, in the order of the lines (text, or bytes in UTF-8); blank lines are skipped.

    Raises:
        TaskError: a line is not a task; the results of earlier lines have been yielded.
    """
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    while batch := list(islice(numbered, BATCH)):
        tasks, failure = [], None
        for number, line in batch:
            try:
                tasks.append(_read(line))
            except RecursionError:
                failure = TaskError(f"line {number}: brackets are nested too deeply; expected a task object")
                break
            except ValueError as error:
                # Errors of JSON syntax, of numbers, of the encoding, of the task and of its world.
                failure = TaskError(f"line {number}: {error}")
                break
        yield from _execute(tasks, options)
        if failure:
            raise failure


def _read(line: str | bytes) -> _Task:
    raw = json.loads(line)
    if not isinstance(raw, dict) or not {"id", "program", "world"} <= raw.keys():
        raise TaskError('expected an object with "id", "program" and "world"')
    if not isinstance(raw["program"], str):
        raise TaskError(f'"program" is {brief(raw["program"])}; expected text')
    if isinstance(raw["id"], list | dict) or raw["id"] in (math.inf, -math.inf) or raw["id"] != raw["id"]:
        raise TaskError(f'"id" is {brief(raw["id"])}; expected text, a finite number, true, false or null')
    world = read_world(raw["world"])
    try:
        return _Task(raw["id"], world, parse_either(raw["program"]))
    except ParseError as error:
        return _Task(raw["id"], world, None, str(error))


def read_world(value: Any) -> Worlds:
    """Convert a world from its JSON form (see the module docstring).

    Raises:
        TaskError: a field is missing or malformed.
        WorldError: the world is invalid.
    """
    fields = ("h", "w", "walls", "markers", "y", "x", "d")
    if not isinstance(value, dict) or not set(fields) <= value.keys():
        raise TaskError(f'"world" is not an object with {", ".join(fields)}')
    height, width, row, column, heading = (_integer(value, name) for name in ("h", "w", "y", "x", "d"))
    if not (3 <= height <= MAX_SIDE and 3 <= width <= MAX_SIDE):
        raise TaskError(f'"h" {height} and "w" {width} with the border; expected 3 to {MAX_SIDE}')
    walls = value["walls"]
    if not isinstance(walls, list) or [len(r) if isinstance(r, str) else -1 for r in walls] != [width] * height:
        raise TaskError(f'"walls" is not {height} strings of {width} characters')
    if set("".join(walls)) - set("#."):
        raise TaskError(f'"walls" holds {brief(sorted(set("".join(walls)) - set("#.")))}; expected "#" and "."')
    cells = np.array([[WALL if c == "#" else 0 for c in line] for line in walls], np.int16)
    if not isinstance(value["markers"], list):
        raise TaskError('"markers" is not a list of [row, column, count]')
    for marker in value["markers"]:
        _add_marker(cells, marker)
    return Worlds.of(cells, np.array([row, column, heading]))


def _integer(fields: dict[str, Any], name: str) -> int:
    value = fields[name]
    if type(value) is not int or abs(value) > EVENT_LIMIT:
        raise TaskError(f'"{name}" is {brief(value)}; expected an integer')
    return value


def _add_marker(cells: np.ndarray, marker: Any) -> None:
    if not isinstance(marker, list) or len(marker) != 3 or any(type(n) is not int for n in marker):
        raise TaskError(f"marker {brief(marker)}; expected [row, column, count]")
    row, column, count = marker
    if not (0 <= row < cells.shape[0] and 0 <= column < cells.shape[1]) or cells[row, column] == WALL:
        raise TaskError(f"marker {brief(marker)} is outside the grid or in a wall")
    if not 0 <= count <= MAX_COUNT:
        raise TaskError(f"marker {brief(marker)}; expected a count of 0 to {MAX_COUNT}")
    cells[row, column] += count
    if cells[row, column] > MAX_COUNT:
        raise TaskError(f"marker {marker!r} makes more than {MAX_COUNT} in its cell")


def _execute(tasks: list[_Task], options: Options) -> Iterator[dict[str, Any]]:
    runnable = [task for task in tasks if task.words is not None]
    execution = None
    if runnable:
        programs = Programs.of([task.words for task in runnable if task.words is not None])
        worlds = _padded([task.world for task in runnable])
        execution = run(
            programs, worlds, mode=options.mode, max_markers=options.max_markers, max_events=options.max_events,
            trace=options.trace,
        )  # fmt: skip
    index = 0
    for task in tasks:
        if task.words is None or execution is None:
            yield {"id": task.name, "status": "syntax", "error": task.error}
            continue
        result = {
            "id": task.name,
            "status": STATUSES[execution.status[index]],
            "actions": int(execution.actions[index]),
            "final": _state(execution.worlds[index]),
        }
        if options.trace:
            result["states"] = _states(task, execution, index, options.max_markers)
        yield result
        index += 1


def _padded(worlds: list[Worlds]) -> Worlds:
    """Stack worlds to a batch, padded with walls to the largest size."""
    size = np.stack([world.size for world in worlds])
    cells = np.full((len(worlds), *size.max(0)), WALL, np.int16)
    for i, world in enumerate(worlds):
        cells[i, : size[i, 0], : size[i, 1]] = world.cells
    return Worlds(cells, np.stack([world.robot for world in worlds]), size)


def _state(world: Worlds) -> State:
    at = np.argwhere(world.cells > 0)
    markers = [[row, column, int(world.cells[row, column])] for row, column in at.tolist()]
    return [*world.robot.tolist(), markers]


def _states(task: _Task, execution: Execution, index: int, max_markers: int | None) -> list[State]:
    """The input state and the state after each action, from the recorded positions and the rules for markers."""
    trace, words = execution.trace, task.words
    assert trace is not None
    assert words is not None
    row, column, heading, listed = _state(task.world)
    markers = {(r, c): n for r, c, n in listed}
    states = [[row, column, heading, listed]]
    events = slice(*trace.offsets[index : index + 2])
    width = execution.worlds.cells.shape[-1]
    for word, value, position, facing in zip(
        words[trace.word[events]], trace.value[events], trace.position[events], trace.heading[events], strict=True
    ):
        if value >= 0:
            continue
        cell = divmod(int(position), width)
        count = markers.get(cell, 0)
        if word == PICK and count > 0:
            markers[cell] = count - 1
        elif word == PUT and (max_markers is None or count < max_markers):
            markers[cell] = count + 1
        states.append([*cell, int(facing), [[*at, n] for at, n in sorted(markers.items()) if n]])
    return states


def execute_tasks(options: Options) -> int:
    """Print the result of each task on standard input; returns the exit code.

    Raises:
        TaskError: see `results`.
    """
    for result in results(_lines(), options):
        print(json.dumps(result, separators=(",", ":")))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Command-line entry point; returns the exit code."""
    parser = CommandParser(prog="python -m karel_env.run", description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=MODES, default="noop", help="effect of an illegal action (default: noop)")
    parser.add_argument(
        "--max-markers",
        type=integer(0, EVENT_LIMIT),
        metavar="N",
        help="largest number of markers per cell (default: no limit)",
    )
    parser.add_argument(
        "--max-events",
        type=integer(0, EVENT_LIMIT),
        default=MAX_EVENTS,
        metavar="N",
        help="largest number of events per execution (default: %(default)s)",
    )
    parser.add_argument("--trace", action="store_true", help="also print the state after every action")

    return run_command(lambda: execute_tasks(Options(**vars(parser.parse_args(argv)))), stops=True)


def _lines() -> Iterator[str | bytes]:
    """Lines of standard input.

    Raises:
        TaskError: standard input cannot be read.
    """
    if sys.stdin is None or sys.stdin.closed:
        raise TaskError("standard input is closed; expected tasks as JSON lines")
    source = getattr(sys.stdin, "buffer", None)
    try:
        # Read bytes: JSON is UTF-8 whatever the terminal's encoding; an invalid line is an error of that line only.
        yield from sys.stdin if source is None else source
    except OSError as error:
        raise TaskError(f"standard input cannot be read ({error.strerror}); expected tasks as JSON lines") from error


class _CallableModule(ModuleType):
    """This module as the attribute `karel_env.run`, which importing it makes of it: also the function of that name."""

    def __call__(self, *args: Any, **options: Any) -> ProgramRun:
        """See `karel_env.single.run`."""
        return run_program(*args, **options)


if __name__ == "__main__":
    sys.exit(main())
sys.modules[__name__].__class__ = _CallableModule
