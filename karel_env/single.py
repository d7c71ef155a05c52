"""One program in one world, from texts: what a user at a prompt wants; batches are those of `interpreter.run`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from karel_env.execution.interpreter import MAX_EVENTS, STATUSES, Execution
from karel_env.execution.interpreter import run as run_batch
from karel_env.execution.stepping import State, play
from karel_env.extras.token_syntax import parse_either
from karel_env.language import WORDS, Programs
from karel_env.semantics import ORIGINAL, Semantics
from karel_env.world import HEADINGS, Worlds, parse_world, world_text


@dataclass(frozen=True)
class Step:
    """The state after one executed action.

    Attributes:
        word: the action word, such as `move();`.
        index: its index in the program, split at spaces; `def` is 0.
        row, column: the robot's cell, border included.
        heading: north, east, south or west.
        world: the world after the action.
    """

    word: str
    index: int
    row: int
    column: int
    heading: str
    world: Worlds

    def __str__(self) -> str:
        """The canonical text of the world."""
        return world_text(self.world)


@dataclass(frozen=True)
class ProgramRun:
    """How one program ended in one world.

    Attributes:
        status: `ok`, `crash` or `timeout`.
        world: the last world.
        actions, events: number of executed actions, and of events: actions, tests, and passes of a `repeat`.
        steps: the state after each action; empty without a trace.
    """

    status: str
    world: Worlds
    actions: int
    events: int
    steps: tuple[Step, ...] = ()

    def __str__(self) -> str:
        """The canonical text of the last world."""
        return world_text(self.world)


def run(
    program: str | np.ndarray,
    world: str | Worlds,
    trace: bool = False,
    *,
    semantics: Semantics = ORIGINAL,
    mode: str = "noop",
    max_markers: int | None = None,
    max_events: int = MAX_EVENTS,
) -> ProgramRun:
    """Run one program in one world.

    Args:
        program: the text of a program in either syntax, or its word ids, int [T].
        world: the canonical text of a world, without border, or one world.
        trace: whether the state after each action is recorded.
        semantics: what each action and condition word does.
        mode: what an illegal action does: nothing (`noop`), end the execution (`crash`), or turn round (`turn180`).
        max_markers: cap on the markers of a cell; None for no cap.
        max_events: budget of events, after which an execution ends with `timeout`.

    Returns:
        Status, last world, counts, and with a trace the steps.

    Raises:
        ParseError: (a ValueError) the text is no program.
        WorldError: (a ValueError) the text is no world.
        ValueError: more than one world, an unknown mode, a budget that is too large.

    Source: docs/karel_env.md, "Rules".
    """
    words = parse_either(program) if isinstance(program, str) else np.asarray(program)
    start = parse_world(world) if isinstance(world, str) else world
    if start.shape:
        raise ValueError(f"run: worlds of leading shape {start.shape}; expected one world, or run_batch for several")
    execution = run_batch(
        Programs.of([words]), start[None], semantics, mode=mode, max_markers=max_markers, max_events=max_events, trace=trace
    )  # fmt: skip
    steps = _steps(words, start, execution, semantics, mode, max_markers, max_events) if trace else []
    return ProgramRun(
        STATUSES[execution.status[0]],
        execution.worlds[0],
        int(execution.actions[0]),
        int(execution.events[0]),
        tuple(steps),
    )


def _steps(
    words: np.ndarray,
    start: Worlds,
    execution: Execution,
    semantics: Semantics,
    mode: str,
    max_markers: int | None,
    max_events: int,
) -> list[Step]:
    """The state after each executed action, by the machine that shows every world."""
    trace = execution.trace
    assert trace is not None
    word_index = iter(trace.word[trace.value < 0].tolist())
    steps: list[Step] = []

    def observe(state: State) -> bool:
        index = next(word_index)
        heading = HEADINGS[state.heading]
        steps.append(Step(WORDS[words[index]], index, state.row, state.column, heading, state.world()))
        return False

    play(words, start, observe, semantics, mode=mode, max_markers=max_markers, max_events=max_events)
    return steps
