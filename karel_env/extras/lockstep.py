"""The interpreter in plain NumPy: all pairs execute their next instruction in lock-step.

It is the vectorised implementation that needs no compiler: a baseline for `karel_env.bench` and a second implementation
for the tests; nothing else uses it.

Letters: `B` pairs, `A` pairs that have not ended, `M` recorded events.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from karel_env.execution.compiler import END, JUMP, NEGATED, SET, TEST, TICK, Code, compile_programs
from karel_env.execution.interpreter import CRASH, EVENT_LIMIT, MAX_EVENTS, OK, TIMEOUT, Execution, Trace
from karel_env.language import MAX_NESTING, Programs
from karel_env.semantics import LEFT, MOVE, ORIGINAL, PICK, PUT, RIGHT, Semantics
from karel_env.world import Worlds


def run_lockstep(
    programs: Programs | Code,
    worlds: Worlds,
    semantics: Semantics = ORIGINAL,
    *,
    mode: str = "noop",
    max_markers: int | None = None,
    max_events: int = MAX_EVENTS,
    trace: bool = False,
) -> Execution:
    """Execute like `interpreter.run`, with equal results."""
    code = programs if isinstance(programs, Code) else compile_programs(programs)
    pairs = int(np.prod(worlds.shape))
    cap = EVENT_LIMIT + 1 if max_markers is None else max_markers
    first = np.repeat(code.offsets[:-1], pairs // max(len(code.offsets) - 1, 1))
    machine = _Lockstep(code, semantics, mode, cap, max_events, worlds, first, trace)
    machine.run()
    shape = worlds.shape
    width = worlds.cells.shape[-1]
    robot = np.stack([*np.divmod(machine.position, width), machine.heading], -1).astype(np.int16)
    final = Worlds(machine.cells.reshape(worlds.cells.shape), robot.reshape(*shape, 3), worlds.size)
    status, actions, events = (t.reshape(shape) for t in (machine.status, machine.actions, machine.events))
    return Execution(final, status, actions, events, machine.joined_trace() if trace else None)


@dataclass
class _Lockstep:
    code: Code
    semantics: Semantics
    mode: str
    cap: int
    budget: int
    worlds: Worlds
    first: np.ndarray
    trace: bool

    def __post_init__(self) -> None:
        pairs = len(self.first)
        width = self.worlds.cells.shape[-1]
        self.cells = self.worlds.cells.reshape(-1).copy()
        self.base = np.arange(pairs) * (self.cells.size // max(pairs, 1))
        robot = self.worlds.robot.reshape(-1, 3).astype(np.int64)
        self.position, self.heading = robot[:, 0] * width + robot[:, 1], robot[:, 2].copy()
        self.steps = np.array([-width, 1, width, -1])
        self.pc = self.first.copy()
        self.counters = np.zeros((pairs, MAX_NESTING + 1), np.int64)
        self.status, self.actions, self.events = (np.zeros(pairs, t) for t in (np.int8, np.int32, np.int32))
        self.effect_of = np.append(self.semantics.action_table(), np.full(END, -1, np.int8))
        self.recorded: list[tuple[np.ndarray, ...]] = []

    def run(self) -> None:
        active = np.arange(len(self.first))
        while active.size:
            operation = self.code.operation[self.pc[active]]
            ended = operation == END
            if ended.any():
                active, operation = active[~ended], operation[~ended]
            if operation.size and operation.max() >= TEST:
                active, operation = self._control(active, operation)
            acting = operation < TEST
            at = active if acting.all() else active[acting]
            crashed = self._act(at, operation if at is active else operation[acting])
            if crashed.size:
                active = active[~np.isin(active, crashed)]

    def _spend(self, at: np.ndarray) -> np.ndarray:
        """Consume an event of each of the pairs `at`; returns bool [A], whether its budget had one left."""
        left = self.events[at] < self.budget
        self.events[at[left]] += 1
        self.status[at[~left]] = TIMEOUT
        return left

    def _control(self, active: np.ndarray, operation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Execute the instructions that are not actions; returns the pairs that have not ended, and their instructions."""
        code, pc = self.code, self.pc
        at = active[operation == JUMP]
        pc[at] = self.first[at] + code.jump[pc[at]]
        at = active[operation == SET]
        self.counters[at, code.jump[pc[at]]] = code.argument[pc[at]]
        pc[at] += 1
        at = active[operation == TICK]
        is_finished = self.counters[at, code.argument[pc[at]]] == 0
        pc[at[is_finished]] = self.first[at[is_finished]] + code.jump[pc[at[is_finished]]]
        at = at[~is_finished]
        at = at[self._spend(at)]
        self.counters[at, code.argument[pc[at]]] -= 1
        pc[at] += 1
        at = active[operation == TEST]
        self._test(at[self._spend(at)])
        going = self.status[active] == OK
        return active[going], operation[going]

    def _test(self, at: np.ndarray) -> None:
        argument = self.code.argument[self.pc[at]]
        test = self.semantics.condition_table()[argument & 7]
        condition = test & 7
        turn = np.where(condition == 1, 3, np.where(condition == 2, 1, 0))
        cells = self.base[at] + self.position[at]
        clear = self.cells[cells + self.steps[(self.heading[at] + turn) & 3]] >= 0
        value = np.where(condition < 3, clear, (self.cells[cells] > 0) == (condition == 3))
        value = value != ((test >= NEGATED) != (argument >= NEGATED))
        self._record(at, value.astype(np.int8))
        self.pc[at] = np.where(value, self.pc[at] + 1, self.first[at] + self.code.jump[self.pc[at]])

    def _act(self, at: np.ndarray, operation: np.ndarray) -> np.ndarray:
        """Execute one action per pair; returns the pairs that ended by it."""
        left = self._spend(at)
        ended = at[~left]
        if ended.size:
            at, operation = at[left], operation[left]
        effect = self.effect_of[operation]
        cells = self.base[at] + self.position[at]
        heading = self.heading[at]
        step = self.steps[heading]
        moving, picking, putting = effect == MOVE, effect == PICK, effect == PUT
        count = self.cells[cells]
        clear = self.cells[cells + step] >= 0
        legal = (~moving | clear) & (~picking | (count > 0)) & (~putting | (count < self.cap))
        self.position[at] += step * (moving & legal)
        turn = (effect == RIGHT) + 3 * (effect == LEFT)
        if self.mode == "turn180":
            turn = turn + 2 * (moving & ~legal)
        self.heading[at] = (heading + turn) & 3
        self.cells[cells] = count + (putting & legal) - (picking & legal)
        if self.mode == "crash" and not legal.all():
            self.status[at[~legal]] = CRASH
            ended = np.append(ended, at[~legal])
            at = at[legal]
        self.actions[at] += 1
        self._record(at, np.full(len(at), -1, np.int8))
        self.pc[at] += 1
        return ended

    def _record(self, at: np.ndarray, value: np.ndarray) -> None:
        if self.trace:
            self.recorded.append((at, self.code.word[self.pc[at]], value, self.position[at], self.heading[at]))

    def joined_trace(self) -> Trace:
        """The trace: recorded events sorted by pair."""
        pair, word, value, position, heading = (
            np.concatenate([np.zeros(0, np.int64), *column]) for column in zip(*self.recorded, strict=True)
        ) if self.recorded else (np.zeros(0, np.int64),) * 5  # fmt: skip
        order = np.argsort(pair, kind="stable")
        offsets = np.zeros(len(self.first) + 1, np.int64)
        np.cumsum(np.bincount(pair, minlength=len(self.first)), out=offsets[1:])
        fields = [(word, np.int16), (value, np.int8), (position, np.int32), (heading, np.int8)]
        return Trace(offsets, *(field[order].astype(kind) for field, kind in fields))
