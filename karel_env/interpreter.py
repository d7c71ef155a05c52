"""The machine: runs batches of (program, world) pairs, and records what they do.

An *event* is an executed action, an evaluated condition, or the start of one pass through a `repeat`. A budget
of events ends an execution, never a clock. Source: shared/KAREL.md, Execution.

Letters: `B` pairs, `M` recorded events of all pairs, one pair after the other.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from karel_env.compiler import END, JUMP, NEGATED, SET, TEST, TICK, Code, compile_programs
from karel_env.language import MAX_NESTING, Programs
from karel_env.semantics import LEFT, MOVE, ORIGINAL, PICK, RIGHT, Semantics
from karel_env.world import Worlds

STATUSES = ("ok", "crash", "timeout")
OK, CRASH, TIMEOUT = range(3)
MODES = ("noop", "crash", "turn180")
NOOP, CRASH_MODE, TURN180 = range(3)
MAX_EVENTS = 1000
EVENT_LIMIT = 30_000
"""Largest budget: marker counts are int16, and one event adds at most one marker."""


@dataclass(frozen=True)
class Trace:
    """What a batch of executions did, in order.

    Attributes:
        offsets: int64 [B + 1], pair b is events `offsets[b]` to `offsets[b + 1]`.
        word: int16 [M], index of the word in its program that caused the event.
        value: int8 [M], -1 for an action, else the condition's value (0, 1) with its `not` applied.
        position: int32 [M], the robot's row * W + column after the event.
        heading: int8 [M], the robot's heading after the event.
    """

    offsets: np.ndarray
    word: np.ndarray
    value: np.ndarray
    position: np.ndarray
    heading: np.ndarray


@dataclass(frozen=True)
class Execution:
    """The result of a batch.

    Attributes:
        worlds: final worlds, shaped as those given.
        status: int8 [...], index in `STATUSES`.
        actions: int32 [...], executed actions (one that crashes is not counted).
        events: int32 [...], spent events.
        trace: of the pairs in C order, if asked for.
    """

    worlds: Worlds
    status: np.ndarray
    actions: np.ndarray
    events: np.ndarray
    trace: Trace | None = None


def run(
    programs: Programs | Code,
    worlds: Worlds,
    semantics: Semantics = ORIGINAL,
    *,
    mode: str = "noop",
    max_markers: int | None = None,
    max_events: int = MAX_EVENTS,
    trace: bool = False,
    threads: int = 1,
) -> Execution:
    """Run program i on `worlds[i]` (shape [N] or [N, E, ...]: on each of them); the worlds given stay as they are.

    Args:
        programs: N programs, compiled or not.
        worlds: leading shape [N, ...].
        semantics: what the words mean.
        mode: what an illegal action does, one of `MODES`.
        max_markers: cap on the markers of a cell; None for no cap.
        max_events: events after which an execution ends with `timeout`.
        trace: record every action and condition.
        threads: how many threads share the pairs; the result does not depend on it.

    Raises:
        ValueError: shapes that do not fit, an unknown mode, or a budget above `EVENT_LIMIT`.
    """
    code = programs if isinstance(programs, Code) else compile_programs(programs)
    count = len(code.offsets) - 1
    if len(worlds) != count:
        raise ValueError(f"run: {count} programs but {len(worlds)} worlds; the first axis must be the same")
    if mode not in MODES:
        raise ValueError(f"run: mode {mode!r} is not one of {', '.join(MODES)}")
    if not 0 <= max_events <= EVENT_LIMIT:
        raise ValueError(f"run: max_events {max_events} is not within 0 to {EVENT_LIMIT}")
    pairs = int(np.prod(worlds.shape))
    cap = EVENT_LIMIT + 1 if max_markers is None else max_markers
    tables = (semantics.action_table(), semantics.condition_table())
    settings = np.array([MODES.index(mode), cap, max_events, worlds.cells.shape[-1], pairs // max(count, 1)], np.int64)
    machine = _Machine(code, worlds, tables, settings, pairs, threads)
    final, tally, _ = machine.execute(None)
    record = None
    if trace:
        offsets = np.zeros(pairs + 1, np.int64)
        np.cumsum(tally[:, 3], out=offsets[1:])
        record = machine.execute(offsets)[2]
    shape = worlds.shape
    return Execution(
        final,
        tally[:, 0].astype(np.int8).reshape(shape),
        tally[:, 1].reshape(shape),
        tally[:, 2].reshape(shape),
        record,
    )


@dataclass(frozen=True)
class _Machine:
    code: Code
    worlds: Worlds
    tables: tuple[np.ndarray, np.ndarray]
    settings: np.ndarray
    pairs: int
    threads: int

    def execute(self, offsets: np.ndarray | None) -> tuple[Worlds, np.ndarray, Trace | None]:
        """Final worlds, int32 [B, 4] (status, actions, events, recorded events), and the trace if `offsets` is given."""
        cells = self.worlds.cells.reshape(self.pairs, -1).copy()
        robot = self.worlds.robot.reshape(self.pairs, 3).copy()
        tally = np.zeros((self.pairs, 4), np.int32)
        total = 0 if offsets is None else int(offsets[-1])
        word, value = np.empty(total, np.int16), np.empty(total, np.int8)
        position, heading = np.empty(total, np.int32), np.empty(total, np.int8)
        where = np.zeros(1, np.int64) if offsets is None else offsets
        code = self.code

        def part(start: int, stop: int) -> None:
            _run(
                code.operation, code.argument, code.jump, code.word, code.offsets, *self.tables, self.settings,
                start, stop, cells, robot, tally, offsets is not None, where, word, value, position, heading,
            )  # fmt: skip

        in_parts(part, self.pairs, self.threads)
        shape = self.worlds.shape
        final = Worlds(cells.reshape(self.worlds.cells.shape), robot.reshape(*shape, 3), self.worlds.size)
        return final, tally, None if offsets is None else Trace(offsets, word, value, position, heading)


def in_parts(part: Callable[[int, int], Any], count: int, threads: int) -> None:
    """Call `part(start, stop)` over `count` items cut into equal slices, on `threads` threads (0: all cores)."""
    threads = threads or os.cpu_count() or 1
    if threads == 1 or count < 2 * threads:
        part(0, count)
        return
    edges = np.linspace(0, count, threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part, edges[:-1], edges[1:]))


@njit(cache=True, nogil=True, inline="always")
def _holds(condition, cells, base, position, heading, steps):  # type: ignore[no-untyped-def]
    """Value of a condition (index in CONDITIONS) for a robot at `position`."""
    if condition < 3:
        side = heading if condition == 0 else (heading + 3) & 3 if condition == 1 else (heading + 1) & 3
        return cells[base + position + steps[side]] >= 0
    return (cells[base + position] > 0) == (condition == 3)


@njit(cache=True, nogil=True)
def _run(  # type: ignore[no-untyped-def]
    operation, argument, jump, source, offsets, effect_of, test_of, settings,
    start, stop, cells2d, robot, tally, tracing, where, word, value, position_at, heading_at,
):  # fmt: skip
    """Pairs `start` to `stop`; changes `cells2d`, `robot` and `tally` in place and fills the trace arrays."""
    mode, cap, budget, width, a_program = settings[0], settings[1], settings[2], settings[3], settings[4]
    cells = cells2d.reshape(-1)
    steps = np.array([-width, 1, width, -1])
    counter = np.zeros(MAX_NESTING + 1, np.int64)
    for pair in range(start, stop):
        program = pair // a_program
        first = offsets[program]
        base = pair * cells2d.shape[1]
        position = robot[pair, 0] * width + robot[pair, 1]
        heading = np.int64(robot[pair, 2])
        status, actions, events, recorded = OK, 0, 0, 0
        out = where[pair] if tracing else 0
        pc = first
        while True:
            op = operation[pc]
            if op == END:
                break
            if op == JUMP:
                pc = first + jump[pc]
                continue
            if op == SET:
                counter[jump[pc]] = argument[pc]
                pc += 1
                continue
            if op == TICK and counter[argument[pc]] == 0:
                pc = first + jump[pc]
                continue
            if events == budget:
                status = TIMEOUT
                break
            events += 1
            if op == TICK:
                counter[argument[pc]] -= 1
                pc += 1
                continue
            seen = -1
            at = base + position
            if op == TEST:
                test = test_of[argument[pc] & 7]
                truth = _holds(test & 7, cells, base, position, heading, steps)
                truth = truth != ((test >= NEGATED) != (argument[pc] >= NEGATED))
                seen = 1 if truth else 0
            else:
                legal = True
                effect = effect_of[op]
                if effect == MOVE:
                    legal = cells[at + steps[heading]] >= 0
                    if legal:
                        position += steps[heading]
                    elif mode == TURN180:
                        heading = (heading + 2) & 3
                elif effect == LEFT:
                    heading = (heading + 3) & 3
                elif effect == RIGHT:
                    heading = (heading + 1) & 3
                elif effect == PICK:
                    legal = cells[at] > 0
                    if legal:
                        cells[at] -= 1
                else:
                    legal = cells[at] < cap
                    if legal:
                        cells[at] += 1
                if not legal and mode == CRASH_MODE:
                    status = CRASH
                    break
                actions += 1
            if tracing:
                word[out], value[out] = source[pc], seen
                position_at[out], heading_at[out] = position, heading
                out += 1
            recorded += 1
            pc = first + jump[pc] if seen == 0 else pc + 1
        row = position // width
        robot[pair, 0], robot[pair, 1], robot[pair, 2] = row, position - row * width, heading
        tally[pair, 0], tally[pair, 1], tally[pair, 2], tally[pair, 3] = status, actions, events, recorded
