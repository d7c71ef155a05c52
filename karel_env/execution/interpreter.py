"""Interpreter: execute batches of (program, world) pairs and record their traces.

An *event* is an executed action, an evaluated condition, or the start of one pass through a `repeat`. An execution
is limited by a budget of events, never by time. The language is defined in docs/karel_env.md.

Letters: `B` pairs, `M` recorded events, in the order of pairs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from karel_env.execution.compiler import Code, compile_programs
from karel_env.execution.lanes import CRASH, OK, TIMEOUT
from karel_env.execution.machine import Trace, run_pairs
from karel_env.language import Programs
from karel_env.limits import EVENT_LIMIT, MAX_EVENTS, MODES
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
"""Largest budget: marker counts are int16, and one event adds at most one marker."""


@dataclass(frozen=True)
class Execution:
    """The result of a batch.

    Attributes:
        worlds: final worlds, with the shape of the inputs.
        status: int8 [...], index in `STATUSES`.
        actions: int32 [...], number of executed actions, without an action that crashes.
        events: int32 [...], number of events.
        trace: trace of the pairs in C order, if requested.
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
    """Execute program i on every world in `worlds[i]` (leading shape [N] or [N, E, ...]); inputs are not modified.

    Args:
        programs: N programs, compiled or not.
        worlds: worlds of leading shape [N, ...].
        semantics: semantics of the action and condition words.
        mode: effect of an illegal action, one of `MODES`.
        max_markers: cap on the markers of a cell; None for no cap.
        max_events: budget of events, after which an execution ends with `timeout`.
        trace: record every action and condition.
        threads: number of threads (0: all cores); the result does not depend on it.
        out: preallocated worlds of the same shape for the result.

    Raises:
        ValueError: The shapes do not match, the mode is unknown, or the budget exceeds `EVENT_LIMIT`.
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
    status, events, actions, record = _execute(code, worlds, tables, settings, final, trace, threads)
    status, events, actions = (part.reshape(worlds.shape) for part in (status, events, actions))
    return Execution(final, status, actions, events, record)


def _new_like(worlds: Worlds) -> Worlds:
    cells, robot = np.empty(worlds.cells.shape, np.int16), np.empty(worlds.robot.shape, np.int16)
    return Worlds(cells, robot, worlds.size)


def _execute(
    code: Code,
    worlds: Worlds,
    tables: tuple[np.ndarray, np.ndarray],
    settings: np.ndarray,
    out: Worlds,
    traced: bool,
    threads: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Trace | None]:
    """Execute all pairs, filling `out`; returns status, events and actions, each [B], and the trace if `traced`."""
    pairs = int(np.prod(worlds.shape))
    arguments, final = (
        (np.ascontiguousarray(w.cells).reshape(pairs, -1), np.ascontiguousarray(w.robot).reshape(pairs, 3))
        for w in (worlds, out)
    )
    tally = (np.empty(pairs, np.int8), np.empty(pairs, np.int32), np.empty(pairs, np.int32))
    flat = (code.operation, code.argument, code.jump, code.word, code.offsets)

    def part(start: int, stop: int) -> Trace | None:
        return run_pairs(flat, tables, settings, start, stop, arguments, final, tally, traced)

    parts = in_parts(part, len(code.offsets) - 1, threads)
    return *tally, _joined([part for part in parts if part is not None]) if traced else None


def _joined(parts: list[Trace]) -> Trace:
    """Concatenate the traces of consecutive ranges of pairs."""
    if len(parts) == 1:
        return parts[0]
    before = np.cumsum([0, *(part.offsets[-1] for part in parts)])
    offsets = [part.offsets[1:] + start for part, start in zip(parts, before, strict=False)]
    fields = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("word", "value", "position", "heading")
    )
    return Trace(np.concatenate([[0], *offsets]), *fields)


def in_parts(part: Callable[[int, int], Any], count: int, threads: int) -> list[Any]:
    """Call `part(start, stop)` on equal slices of `count` items, on `threads` threads (0: all cores)."""
    threads = threads or os.cpu_count() or 1
    if threads == 1 or count < 2 * threads:
        return [part(0, count)]
    edges = np.linspace(0, count, threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(part, edges[:-1], edges[1:]))
