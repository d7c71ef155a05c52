"""Execute one action at a time, for callers that read or change the world between actions.

It executes the same code as `interpreter.run`, with equal results (checked by the tests), but much slower.
Letters: `H W` grid, `M` executed actions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from karel_env.execution.compiler import END, JUMP, NEGATED, SET, TEST, TICK, Code, compile_programs
from karel_env.execution.interpreter import EVENT_LIMIT, MAX_EVENTS, MODES
from karel_env.language import MAX_NESTING, Programs
from karel_env.semantics import LEFT, MOVE, ORIGINAL, PICK, RIGHT, Semantics
from karel_env.world import Worlds

STOPPED = "stopped"
"""Status of an execution that the observer ended, in addition to `interpreter.STATUSES`."""
STEPS = ((-1, 0), (0, 1), (1, 0), (0, -1))


@dataclass
class State:
    """A world during an execution; an observer may change it.

    Attributes:
        cells: int16 [H, W], as in `Worlds`.
        row, column, heading: position and heading of the robot.
    """

    cells: np.ndarray
    row: int
    column: int
    heading: int

    def world(self) -> Worlds:
        """A copy of the current world."""
        robot = np.array([self.row, self.column, self.heading], np.int16)
        return Worlds(self.cells.copy(), robot, np.array(self.cells.shape, np.int16))

    def clear(self, turn: int) -> bool:
        """Whether the cell `turn` quarter turns to the right of the heading is not a wall."""
        down, right = STEPS[(self.heading + turn) % 4]
        return bool(self.cells[self.row + down, self.column + right] >= 0)


@dataclass(frozen=True)
class Played:
    """How an execution ended.

    Attributes:
        status: `ok`, `crash`, `timeout` or `stopped`.
        actions, events: number of executed actions and of events.
        world: the final world.
    """

    status: str
    actions: int
    events: int
    world: Worlds


def play(
    words: np.ndarray,
    world: Worlds,
    observe: Callable[[State], bool],
    semantics: Semantics = ORIGINAL,
    *,
    mode: str = "noop",
    max_markers: int | None = None,
    max_events: int = MAX_EVENTS,
) -> Played:
    """Execute a program on one world and call `observe` after every action; `world` is not modified.

    Args:
        words: int [T], a valid program.
        world: one world (empty leading shape).
        observe: called with the state, which it may change; returns True to end the execution.
        semantics, mode, max_markers, max_events: as in `interpreter.run`.

    Raises:
        ValueError: more than one world, or an unknown mode.
    """
    if world.shape:
        raise ValueError(f"play: worlds of leading shape {world.shape}; expected one world")
    if mode not in MODES:
        raise ValueError(f"play: mode {mode!r} is not one of {', '.join(MODES)}")
    height, width = (int(n) for n in world.size)
    row, column, heading = (int(n) for n in world.robot)
    state = State(world.cells[:height, :width].copy(), row, column, heading)
    code = compile_programs(Programs.of([words]))
    cap = EVENT_LIMIT + 1 if max_markers is None else max_markers
    status, actions, events = _execute(code, state, observe, semantics, mode, cap, max_events)
    return Played(status, actions, events, state.world())


def snapshots(words: np.ndarray, world: Worlds, semantics: Semantics = ORIGINAL, *, mode: str = "noop") -> Worlds:
    """Worlds [M + 1]: the input, and the world after each action of one program, with the default budget of events."""
    states = [State(world.cells[: world.size[0], : world.size[1]], *(int(n) for n in world.robot)).world()]

    def observe(state: State) -> bool:
        states.append(state.world())
        return False

    play(words, world, observe, semantics, mode=mode)
    return Worlds(*(np.stack([getattr(w, field) for w in states]) for field in ("cells", "robot", "size")))


def _execute(
    code: Code,
    state: State,
    observe: Callable[[State], bool],
    semantics: Semantics,
    mode: str,
    cap: int,
    budget: int,
) -> tuple[str, int, int]:
    """Execute the program, changing `state`; returns status, number of actions and number of events."""
    counter = [0] * (MAX_NESTING + 1)
    pc = actions = events = 0
    while code.operation[pc] != END:
        operation, argument, jump = int(code.operation[pc]), int(code.argument[pc]), int(code.jump[pc])
        pc += 1
        if operation == JUMP:
            pc = jump
            continue
        if operation == SET:
            counter[jump] = argument
            continue
        if operation == TICK and counter[argument] == 0:
            pc = jump
            continue
        if events == budget:
            return "timeout", actions, events
        events += 1
        if operation == TICK:
            counter[argument] -= 1
        elif operation == TEST:
            test = int(semantics.condition_table()[argument & 7])
            if _holds(test & 7, state) == ((test >= NEGATED) != (argument >= NEGATED)):
                pc = jump
        elif not _act(semantics.actions[operation], state, mode, cap):
            return "crash", actions, events
        else:
            actions += 1
            if observe(state):
                return STOPPED, actions, events
    return "ok", actions, events


def _holds(condition: int, state: State) -> bool:
    """Value of a condition (index in `language.CONDITIONS`)."""
    if condition < 3:
        return state.clear((0, -1, 1)[condition])
    return bool(state.cells[state.row, state.column] > 0) == (condition == 3)


def _act(effect: int, state: State, mode: str, cap: int) -> bool:
    """Execute an action; returns False if it is illegal and crashes."""
    cell = state.row, state.column
    if effect == MOVE:
        legal = state.clear(0)
        if legal:
            down, right = STEPS[state.heading]
            state.row, state.column = state.row + down, state.column + right
        elif mode == "turn180":
            state.heading = (state.heading + 2) % 4
    elif effect in (LEFT, RIGHT):
        legal = True
        state.heading = (state.heading + (1 if effect == RIGHT else -1)) % 4
    elif effect == PICK:
        legal = bool(state.cells[cell] > 0)
        state.cells[cell] -= legal
    else:
        legal = bool(state.cells[cell] < cap)
        state.cells[cell] += legal
    return legal or mode != "crash"
