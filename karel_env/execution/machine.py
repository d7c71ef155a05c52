"""The compiled interpreter loops: two ways to execute the same code, with equal results.

`_run_lanes` executes each instruction for all worlds of a program, so it is decoded once for all of them. If a condition
has different values, the worlds are split into a group that continues and one that waits at the instruction where the
branches join again. `_run_one_by_one` executes one world after the other. It is used where the first cannot be: for
executions that crash or reach the budget of events, and for programs with too few worlds to be faster.

Both are compiled without reference counts (`_nrt=False`): counting references to the arguments of inlined functions took
longer than the instructions themselves. Therefore they allocate nothing and work in the arrays of `_allocate_buffers`.

Letters: `B` pairs, `E` worlds per program, `M` recorded events; a *lane* is one world of the current program.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import int64, njit, uint64

from karel_env.execution.compiler import END, JUMP, NEGATED, SET, TEST, TICK
from karel_env.execution.lanes import (
    CRASH,
    CRASH_MODE,
    OK,
    TIMEOUT,
    act,
    act_once,
    begin,
    cell_of,
    evaluate,
    finish,
    is_condition_true,
    keep,
    part,
    record,
    settle,
    store_cell,
)
from karel_env.language import MAX_NESTING

FEWEST_LANES = 3
"""Smallest number of worlds per program for which `_run_lanes` is faster."""
MOST_RECORDS = 1 << 20
"""Largest number of events of one program that `_run_lanes` records; programs that might have more run one by one."""
_EVENTS_PER_INSTRUCTION = 2
"""Initial capacity of a trace, in events per instruction; it is doubled when full."""
_NEVER = 1 << 60
_AT, _LOW, _HIGH = range(3)


@dataclass(frozen=True)
class Trace:
    """Recorded events of a batch of executions, in order.

    Attributes:
        offsets: int64 [B + 1], pair b is events `offsets[b]` to `offsets[b + 1]`.
        word: int16 [M], index in the program of the word that caused the event.
        value: int8 [M], -1 for an action, else the condition's value (0, 1) with its `not` applied.
        position: int32 [M], the robot's row * W + column after the event.
        heading: int8 [M], the robot's heading after the event.
    """

    offsets: np.ndarray
    word: np.ndarray
    value: np.ndarray
    position: np.ndarray
    heading: np.ndarray


def run_pairs(
    code: tuple[np.ndarray, ...],
    tables: tuple[np.ndarray, np.ndarray],
    settings: np.ndarray,
    start: int,
    stop: int,
    inputs: tuple[np.ndarray, np.ndarray],
    final: tuple[np.ndarray, np.ndarray],
    tally: tuple[np.ndarray, np.ndarray, np.ndarray],
    traced: bool,
) -> Trace | None:
    """Execute programs `start` to `stop` on their worlds; returns their trace if `traced`.

    Args:
        code: (operation, argument, jump, word, offsets) of `compiler.Code`.
        tables: (effect of each action word, test of each condition word), see `semantics.Semantics`.
        settings: int64 [5]: mode, cap on markers, budget of events, grid width, E.
        start, stop: range of programs.
        inputs: (cells int16 [B, H * W], robot int16 [B, 3]), not modified.
        final: arrays like `inputs` for the final worlds, filled in place.
        tally: (status int8 [B], events int32 [B], actions int32 [B]), filled in place.
        traced: whether to record a trace.
    """
    mode, _, budget, width, lanes = map(int, settings)
    use_lanes = lanes >= FEWEST_LANES and mode != CRASH_MODE and not (traced and lanes * budget > MOST_RECORDS)
    buffers = _allocate_buffers(width, lanes, lanes * budget if use_lanes and traced else 0)
    at, end = (start, stop) if use_lanes else (start * lanes, stop * lanes)
    machine = _run_lanes if use_lanes else _run_one_by_one
    trace = None
    if traced:
        guess = int(code[-1][stop] - code[-1][start]) * lanes * _EVENTS_PER_INSTRUCTION
        trace = _allocate_trace((stop - start) * lanes, guess + (lanes * budget if use_lanes else budget))
    while at < end:
        at = machine(code, tables, settings, buffers, at, end, start * lanes, inputs, final, tally, trace)
        if at < end and trace is not None:
            trace = _grow_trace(trace)
    return None if trace is None else Trace(trace[1], *(field[: trace[0][0]] for field in trace[2:]))


def _allocate_buffers(width: int, lanes: int, records: int) -> tuple[np.ndarray, ...]:
    """Allocate the working memory of both loops.

    Returns:
        Change of the cell index by a step in each heading; `lanes`, `tallies` and `scratch` (see `karel_env.execution.lanes`);
        index of the next record of each lane; records; stack of waiting groups (rows `_AT`, `_LOW`, `_HIGH`); counters
        of `repeat`.
    """
    rows = (np.empty((count, lanes), np.int64) for count in (3, 2, 4))
    steps, counters = np.array([-width, 1, width, -1]), np.zeros(MAX_NESTING + 1, np.int64)
    waiting = np.empty((3, MAX_NESTING + 2), np.int64)
    return steps, *rows, np.empty(lanes, np.int64), np.empty(records, np.int64), waiting, counters


def _allocate_trace(pairs: int, events: int) -> tuple[np.ndarray, ...]:
    """Allocate a trace: number of events so far [1], and the fields of a `Trace` with capacity for `events`."""
    fields = (np.empty(events, kind) for kind in (np.int16, np.int8, np.int32, np.int8))
    return np.zeros(1, np.int64), np.zeros(pairs + 1, np.int64), *fields


def _grow_trace(trace: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Double the capacity of a trace."""
    return *trace[:2], *(np.concatenate([field, np.empty_like(field)]) for field in trace[2:])


@njit(cache=True, nogil=True, _nrt=False)
def _run_one_by_one(code, tables, settings, buffers, low, high, origin, inputs, final, tally, trace):  # type: ignore[no-untyped-def]
    """Execute pairs `low` to `high`; returns the first pair whose events might exceed the trace's capacity, or `high`."""
    offsets, budget, width, lanes = code[4], settings[2], settings[3], settings[4]
    robot, final_robot, size = inputs[1], final[1], inputs[0].shape[1]
    source_cells, cells = inputs[0].reshape(-1), final[0].reshape(-1)
    statuses, all_events, all_actions = tally
    out = 0
    if trace is not None:
        cursor, starts, out = trace[0], trace[1], trace[0][0]
    program = low // lanes
    lane = low - program * lanes
    for pair in range(low, high):
        if trace is not None and out + budget > len(trace[2]):
            cursor[0] = out
            return pair
        first, base = offsets[program], pair * size
        lane += 1
        if lane == lanes:
            program, lane = program + 1, 0
        for k in range(base, base + size):
            cells[uint64(k)] = source_cells[uint64(k)]
        cell, heading = cell_of(robot, pair, size, width), int64(robot[pair, 2])
        status, events, actions, cell, heading, out = _run_pair(
            code, tables, settings, buffers[0], buffers[-1], first, cells, base, cell, heading, out, trace
        )
        store_cell(final_robot, pair, size, width, cell, heading)
        statuses[pair], all_events[pair], all_actions[pair] = status, events, actions
        if trace is not None:
            starts[pair - origin + 1] = out
    if trace is not None:
        cursor[0] = out
    return high


@njit(cache=True, nogil=True, inline="always")
def _run_pair(code, tables, settings, steps, counter, first, cells, base, cell, heading, out, trace):  # type: ignore[no-untyped-def]
    """Execute the program at instruction `first` on one world; returns status, events, actions, cell, heading and `out`."""
    operation, argument, jump, source, _ = code
    effect_of, test_of = tables
    mode, cap, budget = settings[0], settings[1], settings[2]
    status, events, actions = OK, 0, 0
    pc = first
    while True:
        index = uint64(pc)
        op = operation[index]
        is_true = -1
        if op > TEST:
            if op == JUMP:
                pc = first + jump[index]
            elif op == SET:
                counter[jump[index]] = argument[index]
                pc += 1
            elif op != TICK:
                break
            elif counter[argument[index]] == 0:
                pc = first + jump[index]
            elif events == budget:
                status = TIMEOUT
                break
            else:
                counter[argument[index]] -= 1
                events += 1
                pc += 1
            continue
        if events == budget:
            status = TIMEOUT
            break
        events += 1
        if op == TEST:
            truth = is_condition_true(
                test_of[uint64(argument[index] & 7)], argument[index] >= NEGATED, cells, steps, cell, heading
            )
            is_true = 1 if truth else 0
            pc = pc + 1 if truth else first + jump[index]
        else:
            cell, heading, legal = act_once(effect_of[uint64(op)], mode, cap, cells, steps, cell, heading)
            if mode == CRASH_MODE and not legal:
                status = CRASH
                break
            actions += 1
            pc += 1
        if trace is not None:
            to = uint64(out)
            trace[2][to], trace[3][to], trace[4][to], trace[5][to] = source[index], is_true, cell - base, heading
            out += 1
    return status, events, actions, cell, heading, out


@njit(cache=True, nogil=True, _nrt=False)
def _run_lanes(code, tables, settings, buffers, start, stop, origin, inputs, final, tally, trace):  # type: ignore[no-untyped-def]
    """Execute programs `start` to `stop`, all worlds of a program together.

    Returns the first program whose events might exceed the trace's capacity, or `stop`. A program of which a world might
    reach the budget is executed again, one world after the other.
    """
    operation, offsets = code[0], code[4]
    budget, width, count = settings[2], settings[3], settings[4]
    _, lanes, tallies, _, out, records, _, _ = buffers
    robot, final_robot, size = inputs[1], final[1], inputs[0].shape[1]
    source_cells, cells = inputs[0].reshape(-1), final[0].reshape(-1)
    for program in range(start, stop):
        pair, first = program * count, offsets[program]
        if trace is not None and trace[0][0] + count * budget > len(trace[2]):
            return program
        for k in range(pair * size, (pair + count) * size):
            cells[uint64(k)] = source_cells[uint64(k)]
        begin(robot, pair, size, width, budget, lanes, tallies, out)
        pc = _run_program(code, tables, settings, buffers, first, cells, pair * size, size, trace is not None)
        if operation[uint64(pc)] != END:
            _run_one_by_one(code, tables, settings, buffers, pair, pair + count, origin, inputs, final, tally, trace)
            continue
        finish(final_robot, tally, pair, size, width, lanes, tallies)
        if trace is not None:
            keep(trace, pair - origin, budget, records, out)
    return stop


@njit(cache=True, nogil=True, inline="always")
def _run_program(code, tables, settings, buffers, first, cells, base, size, traced):  # type: ignore[no-untyped-def]
    """Execute the program at instruction `first` in all lanes; returns the last instruction, `END` unless the budget is spent.

    The active lanes are `low` to `high`. `waiting` is a stack of waiting groups, each at an instruction that the active
    lanes reach later; groups are split into neighbouring ranges of lanes, so groups that join form one range again.
    """
    operation, argument, jump, source, _ = code
    mode, cap, budget = settings[0], settings[1], settings[2]
    steps, lanes, tallies, scratch, out, records, waiting, counter = buffers
    effect_of, test_of = tables
    low, high, depth, meet = 0, settings[4], 0, _NEVER
    events, actions, spent = 0, 0, 0
    pc = first
    while True:
        if pc >= meet:
            settle(tallies, lanes, low, high, events, actions)
            events, actions = 0, 0
            pc, low, high, depth, meet = _next_group(waiting, pc, low, high, depth, meet)
            continue
        index = uint64(pc)
        op = operation[index]
        if op == JUMP:
            pc = first + jump[index]
            continue
        if op == SET:
            counter[jump[index]] = argument[index]
            pc += 1
            continue
        if op == TICK and counter[argument[index]] == 0:
            pc = first + jump[index]
            continue
        if op == END or spent == budget:
            break
        spent += 1
        events += 1
        pc += 1
        if op == TICK:
            counter[argument[index]] -= 1
            continue
        if op < TEST:
            act(effect_of[uint64(op)], mode, cap, cells, steps, lanes, low, high)
            if traced:
                record(records, out, lanes, scratch, low, high, base, size, source[index], False)
            actions += 1
            continue
        passed = evaluate(test_of[uint64(argument[index] & 7)], argument[index] >= NEGATED, cells, steps, lanes,
                          scratch, low, high)  # fmt: skip
        if traced:
            record(records, out, lanes, scratch, low, high, base, size, source[index], True)
        if passed == 0:
            pc = first + jump[index]
        elif passed < high - low:
            settle(tallies, lanes, low, high, events, actions)
            events, actions = 0, 0
            middle = high - passed
            part(lanes, scratch, low, middle, high)
            depth, meet = _push_group(waiting, first + jump[index], low, middle, depth, meet)
            low = middle
    settle(tallies, lanes, low, high, events, actions)
    return pc


@njit(cache=True, nogil=True, inline="always")
def _next_group(waiting, pc, low, high, depth, meet):  # type: ignore[no-untyped-def]
    """Join the innermost waiting group at its instruction `meet`, or exchange it with the active lanes if these are past it."""
    others_low, others_high = waiting[_LOW, depth], waiting[_HIGH, depth]
    if pc == meet:
        low, high = min(low, others_low), max(high, others_high)
        depth -= 1
        meet = waiting[_AT, depth] if depth else _NEVER
    else:
        waiting[_AT, depth], waiting[_LOW, depth], waiting[_HIGH, depth] = pc, low, high
        low, high = others_low, others_high
        pc, meet = meet, pc
    return pc, low, high, depth, meet


@njit(cache=True, nogil=True, inline="always")
def _push_group(waiting, target, low, high, depth, meet):  # type: ignore[no-untyped-def]
    """Let lanes `low` to `high` wait at instruction `target`, with the innermost group if it waits there."""
    if meet == target:
        waiting[_LOW, depth] = min(low, waiting[_LOW, depth])
        waiting[_HIGH, depth] = max(high, waiting[_HIGH, depth])
    else:
        depth += 1
        waiting[_AT, depth], waiting[_LOW, depth], waiting[_HIGH, depth] = target, low, high
        meet = target
    return depth, meet
