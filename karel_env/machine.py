"""The compiled machine: two ways to run the same code, equal in every result.

*Together*: all worlds of one program take each instruction in turn, so what an instruction is gets decided once
for all of them; a condition on which they differ parts them into a group that goes on and one that waits where
the branches meet again. *Alone*: world after world, for what the first cannot do: executions that crash or reach
the budget of events, and programs with too few worlds for it to pay.

Both are compiled without reference counts (`_nrt=False`): counting what the inlined functions are given took longer
than the instructions themselves. So they allocate nothing and work in the arrays of `_room`.

Letters: `B` pairs, `E` worlds a program, `M` recorded events; a *lane* is one world of the program at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import int64, njit, uint64

from karel_env.compiler import END, JUMP, NEGATED, SET, TEST, TICK
from karel_env.language import MAX_NESTING
from karel_env.semantics import LEFT, MOVE, PICK, RIGHT

OK, CRASH, TIMEOUT = range(3)
NOOP, CRASH_MODE, TURN180 = range(3)
FEWEST_LANES = 3
"""Fewest worlds a program for which running them together pays."""
MOST_RECORDS = 1 << 20
"""Most events of one program that are recorded together; a program that might have more is run alone."""
_EVENTS_AN_INSTRUCTION = 2
"""First guess at the room for a trace; it doubles when full."""
_SHIFT = 40
_NEVER = 1 << 60
_CELL, _HEADING, _LANE, _TRUTH = range(4)
_EVENTS, _ACTIONS = range(2)
_AT, _LOW, _HIGH = range(3)


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


def run_pairs(
    code: tuple[np.ndarray, ...],
    tables: tuple[np.ndarray, np.ndarray],
    settings: np.ndarray,
    start: int,
    stop: int,
    given: tuple[np.ndarray, np.ndarray],
    final: tuple[np.ndarray, np.ndarray],
    tally: tuple[np.ndarray, np.ndarray, np.ndarray],
    traced: bool,
) -> Trace | None:
    """Run programs `start` to `stop` on their worlds; returns what they did if `traced`.

    Args:
        code: (operation, argument, jump, word, offsets) of `compiler.Code`.
        tables: (effect of each action word, test of each condition word), see `semantics.Semantics`.
        settings: int64 [5]: mode, cap on markers, budget of events, grid width, E.
        start, stop: range of programs.
        given: (cells int16 [B, H * W], robot int16 [B, 3]), left as they are.
        final: the same, filled.
        tally: (status int8 [B], events and actions int32 [B]), filled.
        traced: whether to record.
    """
    mode, _, budget, width, lanes = map(int, settings)
    together = lanes >= FEWEST_LANES and mode != CRASH_MODE and not (traced and lanes * budget > MOST_RECORDS)
    room = _room(width, lanes, lanes * budget if together and traced else 0)
    at, end = (start, stop) if together else (start * lanes, stop * lanes)
    machine = _together if together else _alone
    trace = None
    if traced:
        guess = int(code[-1][stop] - code[-1][start]) * lanes * _EVENTS_AN_INSTRUCTION
        trace = _trace_room((stop - start) * lanes, guess + (lanes * budget if together else budget))
    while at < end:
        at = machine(code, tables, settings, room, at, end, start * lanes, given, final, tally, trace)
        if at < end and trace is not None:
            trace = _grown(trace)
    return None if trace is None else Trace(trace[1], *(field[: trace[0][0]] for field in trace[2:]))


def _room(width: int, lanes: int, records: int) -> tuple[np.ndarray, ...]:
    """Where the machine works.

    Returns:
        What a step in each heading adds to a cell's index; the lanes (rows `_CELL`, `_HEADING`, `_LANE`); their
        tallies; room to reorder them, and a condition's value in each; where each writes its next record; the
        records; the groups that wait (rows `_AT`, `_LOW`, `_HIGH`); the counters of `repeat`.
    """
    rows = (np.empty((count, lanes), np.int64) for count in (3, 2, 4))
    steps, counters = np.array([-width, 1, width, -1]), np.zeros(MAX_NESTING + 1, np.int64)
    waiting = np.empty((3, MAX_NESTING + 2), np.int64)
    return steps, *rows, np.empty(lanes, np.int64), np.empty(records, np.int64), waiting, counters


def _trace_room(pairs: int, events: int) -> tuple[np.ndarray, ...]:
    """(number of events so far [1], and the fields of a `Trace` with room for that many)."""
    fields = (np.empty(events, kind) for kind in (np.int16, np.int8, np.int32, np.int8))
    return np.zeros(1, np.int64), np.zeros(pairs + 1, np.int64), *fields


def _grown(trace: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """The same with twice the room."""
    return *trace[:2], *(np.concatenate([field, np.empty_like(field)]) for field in trace[2:])


@njit(cache=True, nogil=True, inline="always")
def _cell_of(robot, pair, size, width):  # type: ignore[no-untyped-def]
    """Index of the robot's cell in the flat cells of all pairs."""
    return pair * size + int64(robot[pair, 0]) * width + robot[pair, 1]


@njit(cache=True, nogil=True, inline="always")
def _place(robot, pair, size, width, cell, heading):  # type: ignore[no-untyped-def]
    """Write where the robot is; the row is a multiplication, since a division costs as much as an action."""
    position = cell - pair * size
    row = (position * ((int64(1) << _SHIFT) // width + 1)) >> _SHIFT
    robot[pair, 0], robot[pair, 1], robot[pair, 2] = row, position - row * width, heading


@njit(cache=True, nogil=True, inline="always")
def _turn_to(condition):  # type: ignore[no-untyped-def]
    """Quarter turns to the right from the heading to where a condition on walls looks."""
    return 0 if condition == 0 else 3 if condition == 1 else 1


@njit(cache=True, nogil=True, _nrt=False)
def _alone(code, tables, settings, room, low, high, origin, given, final, tally, trace):  # type: ignore[no-untyped-def]
    """Pairs `low` to `high`, one after the other; returns the first that its trace has no room for, or `high`."""
    operation, argument, jump, source, offsets = code
    effect_of, test_of = tables
    mode, cap, budget, width, lanes = settings[0], settings[1], settings[2], settings[3], settings[4]
    steps, counter = room[0], room[-1]
    robot, final_robot, size = given[1], final[1], given[0].shape[1]
    source_cells, cells = given[0].reshape(-1), final[0].reshape(-1)
    statuses, all_events, all_actions = tally
    out = 0
    if trace is not None:
        cursor, starts, words, values, positions, headings = trace
        out = cursor[0]
    program = low // lanes
    lane = low - program * lanes
    for pair in range(low, high):
        if trace is not None and out + budget > len(words):
            cursor[0] = out
            return pair
        first, base = offsets[program], pair * size
        lane += 1
        if lane == lanes:
            program, lane = program + 1, 0
        for k in range(base, base + size):
            cells[uint64(k)] = source_cells[uint64(k)]
        cell, heading = _cell_of(robot, pair, size, width), int64(robot[pair, 2])
        status, events, actions = OK, 0, 0
        pc = first
        while True:
            here = uint64(pc)
            op = operation[here]
            seen = -1
            if op > TEST:
                if op == JUMP:
                    pc = first + jump[here]
                elif op == SET:
                    counter[jump[here]] = argument[here]
                    pc += 1
                elif op != TICK:
                    break
                elif counter[argument[here]] == 0:
                    pc = first + jump[here]
                elif events == budget:
                    status = TIMEOUT
                    break
                else:
                    counter[argument[here]] -= 1
                    events += 1
                    pc += 1
                continue
            if events == budget:
                status = TIMEOUT
                break
            events += 1
            if op == TEST:
                test = test_of[uint64(argument[here] & 7)]
                condition = test & 7
                if condition < 3:
                    truth = cells[uint64(cell + steps[uint64((heading + _turn_to(condition)) & 3)])] >= 0
                else:
                    truth = (cells[uint64(cell)] > 0) == (condition == 3)
                truth = truth != ((test >= NEGATED) != (argument[here] >= NEGATED))
                seen = 1 if truth else 0
                pc = pc + 1 if truth else first + jump[here]
            else:
                effect = effect_of[uint64(op)]
                legal = True
                if effect == MOVE:
                    ahead = cell + steps[uint64(heading)]
                    legal = cells[uint64(ahead)] >= 0
                    cell = ahead if legal else cell
                    if mode == TURN180 and not legal:
                        heading = (heading + 2) & 3
                elif effect == LEFT:
                    heading = (heading + 3) & 3
                elif effect == RIGHT:
                    heading = (heading + 1) & 3
                else:
                    count = cells[uint64(cell)]
                    legal = count > 0 if effect == PICK else count < cap
                    change = -1 if effect == PICK else 1
                    cells[uint64(cell)] = count + (change if legal else 0)
                if mode == CRASH_MODE and not legal:
                    status = CRASH
                    break
                actions += 1
                pc += 1
            if trace is not None:
                to = uint64(out)
                words[to], values[to], positions[to], headings[to] = source[here], seen, cell - base, heading
                out += 1
        _place(final_robot, pair, size, width, cell, heading)
        statuses[pair], all_events[pair], all_actions[pair] = status, events, actions
        if trace is not None:
            starts[pair - origin + 1] = out
    if trace is not None:
        cursor[0] = out
    return high


@njit(cache=True, nogil=True, _nrt=False)
def _together(code, tables, settings, room, start, stop, origin, given, final, tally, trace):  # type: ignore[no-untyped-def]
    """Programs `start` to `stop`, all worlds of one at once; returns the first without room for its trace, or `stop`.

    A program of which one world might reach the budget is run again, alone. The lanes that go on are `low` to `high`.
    `waiting` holds the groups that wait, the innermost last, each at an instruction that the others reach later;
    groups that part are neighbours, so two that meet are one stretch again.
    """
    operation, argument, jump, source, offsets = code
    mode, cap, budget, width, count = settings[0], settings[1], settings[2], settings[3], settings[4]
    steps, lanes, tallies, scratch, out, records, waiting, counter = room
    robot, final_robot, size = given[1], final[1], given[0].shape[1]
    source_cells, cells = given[0].reshape(-1), final[0].reshape(-1)
    effect_of, test_of = tables
    for program in range(start, stop):
        pair, first = program * count, offsets[program]
        if trace is not None and trace[0][0] + count * budget > len(trace[2]):
            return program
        for k in range(pair * size, (pair + count) * size):
            cells[uint64(k)] = source_cells[uint64(k)]
        _begin(robot, pair, size, width, budget, lanes, tallies, out)
        low, high, depth, meet = 0, count, 0, _NEVER
        events, actions, spent = 0, 0, 0
        pc = first
        while True:
            if pc >= meet:
                _settle(tallies, lanes, low, high, events, actions)
                events, actions = 0, 0
                others_low, others_high = waiting[_LOW, depth], waiting[_HIGH, depth]
                if pc == meet:
                    low, high = min(low, others_low), max(high, others_high)
                    depth -= 1
                    meet = waiting[_AT, depth] if depth else _NEVER
                else:
                    waiting[_AT, depth], waiting[_LOW, depth], waiting[_HIGH, depth] = pc, low, high
                    low, high = others_low, others_high
                    pc, meet = meet, pc
                continue
            here = uint64(pc)
            op = operation[here]
            if op == JUMP:
                pc = first + jump[here]
                continue
            if op == SET:
                counter[jump[here]] = argument[here]
                pc += 1
                continue
            if op == TICK and counter[argument[here]] == 0:
                pc = first + jump[here]
                continue
            if op == END or spent == budget:
                break
            spent += 1
            events += 1
            if op == TICK:
                counter[argument[here]] -= 1
                pc += 1
                continue
            if op < TEST:
                _act(effect_of[uint64(op)], mode, cap, cells, steps, lanes, low, high)
                if trace is not None:
                    _record(records, out, lanes, scratch, low, high, pair * size, size, source[here], False)
                actions += 1
                pc += 1
                continue
            passed = _test(test_of[uint64(argument[here] & 7)], argument[here] >= NEGATED, cells, steps, lanes,
                           scratch, low, high)  # fmt: skip
            if trace is not None:
                _record(records, out, lanes, scratch, low, high, pair * size, size, source[here], True)
            target = first + jump[here]
            if passed == 0:
                pc = target
                continue
            pc += 1
            if passed < high - low:
                _settle(tallies, lanes, low, high, events, actions)
                events, actions = 0, 0
                middle = high - passed
                _part(lanes, scratch, low, middle, high)
                if meet == target:
                    waiting[_LOW, depth] = min(low, waiting[_LOW, depth])
                    waiting[_HIGH, depth] = max(middle, waiting[_HIGH, depth])
                else:
                    depth += 1
                    waiting[_AT, depth], waiting[_LOW, depth], waiting[_HIGH, depth] = target, low, middle
                    meet = target
                low = middle
        if operation[uint64(pc)] != END:
            _alone(code, tables, settings, room, pair, pair + count, origin, given, final, tally, trace)
            continue
        _settle(tallies, lanes, low, high, events, actions)
        _finish(final_robot, tally, pair, size, width, lanes, tallies)
        if trace is not None:
            _keep(trace, pair - origin, budget, records, out)
    return stop


@njit(cache=True, nogil=True, inline="always")
def _begin(robot, pair, size, width, budget, lanes, tallies, out):  # type: ignore[no-untyped-def]
    """Set every lane to its start; `pair` is the first of them."""
    for k in range(lanes.shape[1]):
        at = uint64(k)
        lanes[_CELL, at] = _cell_of(robot, pair + k, size, width)
        lanes[_HEADING, at], lanes[_LANE, at] = robot[pair + k, 2], k
        tallies[_EVENTS, at], tallies[_ACTIONS, at] = 0, 0
        out[at] = k * budget


@njit(cache=True, nogil=True, inline="always")
def _act(effect, mode, cap, cells, steps, lanes, low, high):  # type: ignore[no-untyped-def]
    """One action in lanes `low` to `high`; without branches inside the loops."""
    if effect == MOVE:
        for k in range(low, high):
            at = uint64(k)
            ahead = lanes[_CELL, at] + steps[uint64(lanes[_HEADING, at])]
            blocked = cells[uint64(ahead)] < 0
            lanes[_CELL, at] = lanes[_CELL, at] if blocked else ahead
            if mode == TURN180:
                lanes[_HEADING, at] = (lanes[_HEADING, at] + 2 * int64(blocked)) & 3
    elif effect in (LEFT, RIGHT):
        turn = 3 if effect == LEFT else 1
        for k in range(low, high):
            lanes[_HEADING, uint64(k)] = (lanes[_HEADING, uint64(k)] + turn) & 3
    elif effect == PICK:
        for k in range(low, high):
            here = uint64(lanes[_CELL, uint64(k)])
            cells[here] -= int64(cells[here] > 0)
    else:
        for k in range(low, high):
            here = uint64(lanes[_CELL, uint64(k)])
            cells[here] += int64(cells[here] < cap)


@njit(cache=True, nogil=True, inline="always")
def _test(test, negated, cells, steps, lanes, scratch, low, high):  # type: ignore[no-untyped-def]
    """Evaluate a condition in lanes `low` to `high` into the last row of `scratch`; returns how many it holds in."""
    condition = test & 7
    inverted = int64((condition == 4) != ((test >= NEGATED) != negated))
    passed = 0
    if condition < 3:
        turn = _turn_to(condition)
        for k in range(low, high):
            at = uint64(k)
            side = lanes[_CELL, at] + steps[uint64((lanes[_HEADING, at] + turn) & 3)]
            scratch[_TRUTH, at] = int64(cells[uint64(side)] >= 0) ^ inverted
            passed += scratch[_TRUTH, at]
    else:
        for k in range(low, high):
            at = uint64(k)
            scratch[_TRUTH, at] = int64(cells[uint64(lanes[_CELL, at])] > 0) ^ inverted
            passed += scratch[_TRUTH, at]
    return passed


@njit(cache=True, nogil=True, inline="always")
def _part(lanes, scratch, low, middle, high):  # type: ignore[no-untyped-def]
    """Reorder lanes so that those in which the condition failed come first, up to `middle`."""
    failed, passed = low, middle
    for k in range(low, high):
        at = uint64(k)
        truth = scratch[_TRUTH, at]
        to = uint64(passed if truth else failed)
        passed += truth
        failed += 1 - truth
        for row in range(3):
            scratch[row, to] = lanes[row, at]
    for row in range(3):
        for k in range(low, high):
            lanes[row, uint64(k)] = scratch[row, uint64(k)]


@njit(cache=True, nogil=True, inline="always")
def _settle(tallies, lanes, low, high, events, actions):  # type: ignore[no-untyped-def]
    """Give what the group has spent since it was formed to each of its lanes."""
    for k in range(low, high):
        lane = uint64(lanes[_LANE, uint64(k)])
        tallies[_EVENTS, lane] += events
        tallies[_ACTIONS, lane] += actions


@njit(cache=True, nogil=True, inline="always")
def _finish(final_robot, tally, pair, size, width, lanes, tallies):  # type: ignore[no-untyped-def]
    """Write robots and tallies of all lanes, whose first pair is `pair`."""
    statuses, all_events, all_actions = tally
    for k in range(lanes.shape[1]):
        at = uint64(k)
        to = pair + lanes[_LANE, at]
        _place(final_robot, to, size, width, lanes[_CELL, at], lanes[_HEADING, at])
        statuses[to], all_events[pair + k], all_actions[pair + k] = OK, tallies[_EVENTS, at], tallies[_ACTIONS, at]


@njit(cache=True, nogil=True, inline="always")
def _record(records, out, lanes, scratch, low, high, base, size, word, tested):  # type: ignore[no-untyped-def]
    """Note an event of lanes `low` to `high`, packed: word, value + 1, heading and position from the lowest bit up."""
    for k in range(low, high):
        at = uint64(k)
        lane = lanes[_LANE, at]
        value = scratch[_TRUTH, at] + 1 if tested else int64(0)
        position = lanes[_CELL, at] - base - lane * size
        records[uint64(out[uint64(lane)])] = int64(word) | value << 16 | lanes[_HEADING, at] << 24 | position << 32
        out[uint64(lane)] += 1


@njit(cache=True, nogil=True, inline="always")
def _keep(trace, pair, budget, records, out):  # type: ignore[no-untyped-def]
    """Append the records of all lanes to the trace; `pair` counts from its first."""
    cursor, starts, words, values, positions, headings = trace
    to = uint64(cursor[0])
    for k in range(len(out)):
        for at in range(k * budget, out[uint64(k)]):
            packed = records[uint64(at)]
            words[to], values[to] = packed & 0xFFFF, ((packed >> 16) & 0xFF) - 1
            headings[to], positions[to] = (packed >> 24) & 0xFF, packed >> 32
            to += uint64(1)
        starts[pair + k + 1] = to
    cursor[0] = to
