"""Operations of the compiled interpreter on one world and on the lanes of one program, inlined into `machine`.

A *lane* is one world of the current program. Arrays have one column per lane: `lanes` int64 [3, E] is its cell (index in
the flat cells of all pairs), heading and number; `tallies` int64 [2, E] its events and actions, indexed by number;
`scratch` int64 [4, E] is working memory for reordering, and its last row is the value of the last condition.

Letters: `E` lanes; `low` to `high`: the active lanes.
"""

from __future__ import annotations

from numba import int64, njit, uint64

from karel_env.execution.compiler import NEGATED
from karel_env.semantics import LEFT, MOVE, PICK, RIGHT

OK, CRASH, TIMEOUT = range(3)
NOOP, CRASH_MODE, TURN180 = range(3)
CELL, HEADING, LANE, TRUTH = range(4)
EVENTS, ACTIONS = range(2)
_SHIFT = 40


@njit(cache=True, nogil=True, inline="always")
def cell_of(robot, pair, size, width):  # type: ignore[no-untyped-def]
    """Index of the robot's cell in the flat cells of all pairs."""
    return pair * size + int64(robot[pair, 0]) * width + robot[pair, 1]


@njit(cache=True, nogil=True, inline="always")
def store_cell(robot, pair, size, width, cell, heading):  # type: ignore[no-untyped-def]
    """Write the robot's position; the row is a fixed-point multiplication, since a division takes as long as an action."""
    position = cell - pair * size
    row = (position * ((int64(1) << _SHIFT) // width + 1)) >> _SHIFT
    robot[pair, 0], robot[pair, 1], robot[pair, 2] = row, position - row * width, heading


@njit(cache=True, nogil=True, inline="always")
def turn_to(condition):  # type: ignore[no-untyped-def]
    """Quarter turns to the right from the heading to the direction that a condition on walls tests."""
    return 0 if condition == 0 else 3 if condition == 1 else 1


@njit(cache=True, nogil=True, inline="always")
def begin(robot, pair, size, width, budget, lanes, tallies, out):  # type: ignore[no-untyped-def]
    """Initialise every lane; `pair` is the first one."""
    for k in range(lanes.shape[1]):
        at = uint64(k)
        lanes[CELL, at] = cell_of(robot, pair + k, size, width)
        lanes[HEADING, at], lanes[LANE, at] = robot[pair + k, 2], k
        tallies[EVENTS, at], tallies[ACTIONS, at] = 0, 0
        out[at] = k * budget


@njit(cache=True, nogil=True, inline="always")
def act_once(effect, mode, cap, cells, steps, cell, heading):  # type: ignore[no-untyped-def]
    """Apply one action to a single world; returns cell, heading and whether the action is legal."""
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
    return cell, heading, legal


@njit(cache=True, nogil=True, inline="always")
def is_condition_true(test, negated, cells, steps, cell, heading):  # type: ignore[no-untyped-def]
    """Evaluate a condition in a single world."""
    condition = test & 7
    if condition < 3:
        truth = cells[uint64(cell + steps[uint64((heading + turn_to(condition)) & 3)])] >= 0
    else:
        truth = (cells[uint64(cell)] > 0) == (condition == 3)
    return truth != ((test >= NEGATED) != negated)


@njit(cache=True, nogil=True, inline="always")
def act(effect, mode, cap, cells, steps, lanes, low, high):  # type: ignore[no-untyped-def]
    """Apply one action to lanes `low` to `high`; the loops contain no branches."""
    if effect == MOVE:
        for k in range(low, high):
            at = uint64(k)
            ahead = lanes[CELL, at] + steps[uint64(lanes[HEADING, at])]
            blocked = cells[uint64(ahead)] < 0
            lanes[CELL, at] = lanes[CELL, at] if blocked else ahead
            if mode == TURN180:
                lanes[HEADING, at] = (lanes[HEADING, at] + 2 * int64(blocked)) & 3
    elif effect in (LEFT, RIGHT):
        turn = 3 if effect == LEFT else 1
        for k in range(low, high):
            lanes[HEADING, uint64(k)] = (lanes[HEADING, uint64(k)] + turn) & 3
    elif effect == PICK:
        for k in range(low, high):
            markers = uint64(lanes[CELL, uint64(k)])
            cells[markers] -= int64(cells[markers] > 0)
    else:
        for k in range(low, high):
            markers = uint64(lanes[CELL, uint64(k)])
            cells[markers] += int64(cells[markers] < cap)


@njit(cache=True, nogil=True, inline="always")
def evaluate(test, negated, cells, steps, lanes, scratch, low, high):  # type: ignore[no-untyped-def]
    """Evaluate a condition in lanes `low` to `high` into the last row of `scratch`; returns the number of lanes in which it is true."""
    condition = test & 7
    inverted = int64((condition == 4) != ((test >= NEGATED) != negated))
    passed = 0
    if condition < 3:
        turn = turn_to(condition)
        for k in range(low, high):
            at = uint64(k)
            side = lanes[CELL, at] + steps[uint64((lanes[HEADING, at] + turn) & 3)]
            scratch[TRUTH, at] = int64(cells[uint64(side)] >= 0) ^ inverted
            passed += scratch[TRUTH, at]
    else:
        for k in range(low, high):
            at = uint64(k)
            scratch[TRUTH, at] = int64(cells[uint64(lanes[CELL, at])] > 0) ^ inverted
            passed += scratch[TRUTH, at]
    return passed


@njit(cache=True, nogil=True, inline="always")
def part(lanes, scratch, low, middle, high):  # type: ignore[no-untyped-def]
    """Reorder lanes so that those in which the condition is false come first, up to `middle`."""
    failed, passed = low, middle
    for k in range(low, high):
        at = uint64(k)
        truth = scratch[TRUTH, at]
        to = uint64(passed if truth else failed)
        passed += truth
        failed += 1 - truth
        for row in range(3):
            scratch[row, to] = lanes[row, at]
    for row in range(3):
        for k in range(low, high):
            lanes[row, uint64(k)] = scratch[row, uint64(k)]


@njit(cache=True, nogil=True, inline="always")
def settle(tallies, lanes, low, high, events, actions):  # type: ignore[no-untyped-def]
    """Add the events and actions of the group since it was formed to each of its lanes."""
    for k in range(low, high):
        lane = uint64(lanes[LANE, uint64(k)])
        tallies[EVENTS, lane] += events
        tallies[ACTIONS, lane] += actions


@njit(cache=True, nogil=True, inline="always")
def finish(final_robot, tally, pair, size, width, lanes, tallies):  # type: ignore[no-untyped-def]
    """Write the robots and tallies of all lanes; `pair` is the first one."""
    statuses, all_events, all_actions = tally
    for k in range(lanes.shape[1]):
        at = uint64(k)
        to = pair + lanes[LANE, at]
        store_cell(final_robot, to, size, width, lanes[CELL, at], lanes[HEADING, at])
        statuses[to], all_events[pair + k], all_actions[pair + k] = OK, tallies[EVENTS, at], tallies[ACTIONS, at]


@njit(cache=True, nogil=True, inline="always")
def record(records, out, lanes, scratch, low, high, base, size, word, tested):  # type: ignore[no-untyped-def]
    """Record an event of lanes `low` to `high`, packed from the lowest bit: word, value + 1, heading, position."""
    for k in range(low, high):
        at = uint64(k)
        lane = lanes[LANE, at]
        value = scratch[TRUTH, at] + 1 if tested else int64(0)
        position = lanes[CELL, at] - base - lane * size
        records[uint64(out[uint64(lane)])] = int64(word) | value << 16 | lanes[HEADING, at] << 24 | position << 32
        out[uint64(lane)] += 1


@njit(cache=True, nogil=True, inline="always")
def keep(trace, pair, budget, records, out):  # type: ignore[no-untyped-def]
    """Append the records of all lanes to the trace; `pair` is relative to the trace's first pair."""
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
