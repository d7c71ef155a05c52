"""Runs batches of (program, world) pairs, and records what they do.

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

from karel_env.compiler import TEST, Code, compile_programs
from karel_env.language import Programs
from karel_env.machine import CRASH, OK, TIMEOUT, run_pairs
from karel_env.semantics import ORIGINAL, Semantics
from karel_env.world import Worlds

__all__ = [
    "CRASH",
    "EVENT_LIMIT",
    "MAX_EVENTS",
    "MODES",
    "OK",
    "STATUSES",
    "TIMEOUT",
    "Execution",
    "Trace",
    "in_parts",
    "run",
]

STATUSES = ("ok", "crash", "timeout")
MODES = ("noop", "crash", "turn180")
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
    out: Worlds | None = None,
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
        out: worlds of the same shape, to write the final ones into instead of into new ones.

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
    width, lanes = worlds.cells.shape[-1], pairs // max(count, 1)
    settings = np.array([MODES.index(mode), cap, max_events, width, lanes], np.int64)
    final = _new_like(worlds) if out is None else out
    if final.cells.shape != worlds.cells.shape or not (
        final.cells.flags.c_contiguous and final.robot.flags.c_contiguous
    ):
        raise ValueError(f"run: out holds cells {final.cells.shape}; expected contiguous {worlds.cells.shape}")
    batch = _Batch(code, worlds, tables, settings, threads)
    known = _straight_line_tally(code, lanes, max_events) if trace and mode != "crash" else None
    tally = known or batch.execute(final, None)
    record = None
    if trace:
        record = _empty_trace(tally[3])
        batch.execute(final, record)
    status, events, actions = (each.reshape(worlds.shape) for each in tally[:3])
    return Execution(final, status, actions, events, record)


def _new_like(worlds: Worlds) -> Worlds:
    cells, robot = np.empty(worlds.cells.shape, np.int16), np.empty(worlds.robot.shape, np.int16)
    return Worlds(cells, robot, worlds.size)


def _straight_line_tally(code: Code, lanes: int, max_events: int) -> tuple[np.ndarray, ...] | None:
    """Status, events, actions and recorded events [B] of programs without control flow, known before they run."""
    length = np.diff(code.offsets) - 1
    if (code.operation >= TEST).sum() > len(length) or (length > max_events).any():
        return None
    each = np.repeat(length.astype(np.int32), lanes)
    return np.zeros(len(each), np.int8), each, each.copy(), each.copy()


def _empty_trace(recorded: np.ndarray) -> Trace:
    """A trace of that many events a pair, to be filled."""
    offsets = np.zeros(len(recorded) + 1, np.int64)
    np.cumsum(recorded, out=offsets[1:])
    fields = (np.empty(offsets[-1], kind) for kind in (np.int16, np.int8, np.int32, np.int8))
    return Trace(offsets, *fields)


@dataclass(frozen=True)
class _Batch:
    code: Code
    worlds: Worlds
    tables: tuple[np.ndarray, np.ndarray]
    settings: np.ndarray
    threads: int

    def execute(self, out: Worlds, trace: Trace | None) -> tuple[np.ndarray, ...]:
        """(status, events, actions, recorded events), each [B]; fills `out`, and `trace` if given."""
        code = self.code
        pairs = int(np.prod(self.worlds.shape))
        given, final = (
            (np.ascontiguousarray(w.cells).reshape(pairs, -1), np.ascontiguousarray(w.robot).reshape(pairs, 3))
            for w in (self.worlds, out)
        )
        kinds = (np.int8, np.int32, np.int32, np.int32)
        tally: tuple[np.ndarray, ...] = tuple(np.empty(pairs, kind) for kind in kinds)
        flat = (code.operation, code.argument, code.jump, code.word, code.offsets)
        record = None if trace is None else (trace.offsets, trace.word, trace.value, trace.position, trace.heading)

        def part(start: int, stop: int) -> None:
            run_pairs(flat, self.tables, self.settings, start, stop, given, final, tally, record)

        in_parts(part, len(code.offsets) - 1, self.threads)
        return tally


def in_parts(part: Callable[[int, int], Any], count: int, threads: int) -> None:
    """Call `part(start, stop)` over `count` items cut into equal slices, on `threads` threads (0: all cores)."""
    threads = threads or os.cpu_count() or 1
    if threads == 1 or count < 2 * threads:
        part(0, count)
        return
    edges = np.linspace(0, count, threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part, edges[:-1], edges[1:]))
