"""Against `karel-for-synthesis`, an implementation that no one here wrote; its known differences are asserted.

The two agree where a cell holds at most 9 markers and counts of `repeat` are 2 to 10, in two modes: theirs ends an
execution at an illegal action (`crash`) or passes over it (`strict=False`, our `noop`). What each event is and does is
compared as it happens, through that package's callbacks.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
import random_programs
from karel_for_synthesis import ExecutorRuntimeException, ExecutorSyntaxException, execute
from karel_for_synthesis.executor import KarelExecutor
from karel_for_synthesis.parser_for_synthesis import KarelForSynthesisParser
from reference_interpreter import text

from karel_env.execution.interpreter import CRASH, MAX_EVENTS, OK, TIMEOUT, run
from karel_env.extras.state_array import corner_planes
from karel_env.extras.token_syntax import parse_tokens, token_text
from karel_env.language import Programs
from karel_env.syntax.parser import ParseError, parse
from karel_env.world import Worlds, parse_world

BATCHES, PROGRAMS, WORLDS = 20, 510, 10
FEW_BATCHES, FEW_PROGRAMS, FEW_WORLDS = 10, 100, 4
"""In the default suite; the rest, by which the pairs are 100,000, with `-m slow`."""
SIZES = [
    *(pytest.param(batch, FEW_PROGRAMS, FEW_WORLDS, id=f"few {batch}") for batch in range(FEW_BATCHES)),
    *(pytest.param(b, PROGRAMS, WORLDS, id=f"many {b}", marks=pytest.mark.slow) for b in range(BATCHES)),
]
CAP = 9


class Stop(Exception):
    pass


class Observed:
    """Their machine, counting events as ours does: the end of a `repeat` is none, and event 1,001 ends it."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.parser = KarelForSynthesisParser()
        self.parser.karel.action_callback = self.action
        self.parser.karel.event_callback = self.block
        self.events: list[tuple[int, int, int, int]] = []
        self.ticks = 0

    def spend(self) -> None:
        if len(self.events) + self.ticks == MAX_EVENTS:
            raise Stop("timeout")

    def note(self, value: int) -> None:
        self.spend()
        (row, column), heading = self.parser.karel.hero_pos, self.parser.karel.hero_dir
        self.events.append((value, int(row), int(column), int(heading)))

    def action(self, name: str, success: bool, span: object) -> None:
        if not success and self.mode == "crash":
            self.spend()
            raise Stop("crash")
        self.note(-1)

    def block(self, name: str, span: object, condition: object, value: int, chosen: object) -> None:
        if name != "repeat":
            self.note(int(value))
        elif value > 0:
            self.spend()
            self.ticks += 1

    def run(self, program, planes: np.ndarray) -> str:
        self.events, self.ticks = [], 0
        self.parser.karel.init_from_array(planes)
        try:
            program()
        except Stop as stop:
            return str(stop)
        return "ok"


def planes_of(worlds: Worlds) -> np.ndarray:
    """bool [..., 15, H, W], as their machine takes them."""
    return corner_planes(worlds)[..., :15, :, :]


def one(source: str, drawing: str) -> tuple[tuple[str, ...], np.ndarray, Worlds]:
    world = parse_world(drawing)
    return tuple(token_text(parse(source)).split()), planes_of(world), world


def test_the_pairs_compared_are_enough():
    assert BATCHES * PROGRAMS * WORLDS >= 100_000
    assert FEW_BATCHES * FEW_PROGRAMS * FEW_WORLDS >= 4_000


@pytest.mark.parametrize(("batch", "count", "each"), SIZES)
def test_every_event_and_every_end_is_the_same(batch, count, each):
    rng, numbers = random.Random(batch), np.random.default_rng(batch)
    mode = ("crash", "noop")[batch % 2]
    theirs = Observed(mode)
    programs: list[np.ndarray] = []
    while len(programs) < count:
        words = parse(text(random_programs.statements(rng, rng.randint(0, 3))))
        tokens = token_text(words).split()
        if all(t in theirs.parser.string_to_token_map for t in tokens):
            programs.append(words)
    high, wide = rng.randint(3, 11), rng.randint(3, 11)
    worlds = random_programs.worlds(numbers, count * each, high, wide).reshape(count, each)
    done = run(Programs.of(programs), worlds, mode=mode, max_markers=CAP, trace=True)
    rows, columns = np.divmod(done.trace.position, wide)
    record = (done.trace.value, high - 1 - rows, columns, done.trace.heading)
    ours = list(zip(*(field.tolist() for field in record), strict=True))
    grids = planes_of(worlds)
    expected = planes_of(done.worlds)
    for i, words in enumerate(programs):
        compiled = theirs.parser.parse(tuple(token_text(words).split()))
        for e in range(each):
            status = theirs.run(compiled, grids[i, e])
            assert status == ("ok", "crash", "timeout")[done.status[i, e]]
            assert theirs.events == ours[slice(*done.trace.offsets[i * each + e :][:2])]
            assert len(theirs.events) + theirs.ticks + (status == "crash") == done.events[i, e]
            if status != "timeout":
                assert np.array_equal(theirs.parser.karel.world, expected[i, e])


def test_the_comparison_can_fail():
    """Positive control: the same programs under another mode, and a world with one marker more."""
    tokens, grid, world = one("def run() { move(); put_marker() }", "> 1")
    done = run(Programs.of([parse_tokens(" ".join(tokens))]), world[None], mode="crash", max_markers=CAP)
    assert np.array_equal(execute(tokens, grid).result, planes_of(done.worlds)[0])
    more = run(Programs.of([parse_tokens(" ".join(tokens))]), parse_world("> 2")[None], mode="crash", max_markers=CAP)
    assert not np.array_equal(execute(tokens, grid).result, planes_of(more.worlds)[0])


def test_difference_the_end_of_a_repeat_costs_them_an_event():
    tokens, grid, world = one("def run() { repeat (3) { turn_left() } }", "> .")
    trace = execute(tokens, grid, record_trace=True).trace
    assert [event.type for event in trace.events] == ["repeat", "turnLeft"] * 3 + ["repeat"]
    assert run(Programs.of([parse_tokens(" ".join(tokens))]), world[None]).events.tolist() == [6]


def test_difference_their_last_event_is_one_earlier():
    """Ours refuses event 1,001; theirs executes event 1,000 and then gives up."""
    turns = "; ".join(["turn_left()"] * 9)
    source = f"def run() {{ repeat (10) {{ repeat (10) {{ {turns} }} }} }}"
    tokens, grid, world = one(source, "> .")
    done = run(Programs.of([parse(source)]), world[None], max_events=1010)
    assert (done.status.tolist(), done.events.tolist()) == ([OK], [1010])
    assert KarelExecutor(action_limit=1010 + 11 + 1).execute(tokens, grid).result is not None
    with pytest.raises(ExecutorRuntimeException):
        KarelExecutor(action_limit=1010 + 11).execute(tokens, grid)


def test_difference_they_do_not_tell_a_crash_from_an_endless_loop():
    for tokens, status in (
        ("DEF run m( pickMarker m)", CRASH),
        ("DEF run m( WHILE c( noMarkersPresent c) w( turnLeft w) m)", TIMEOUT),
    ):
        _, grid, world = one("def run() { move() }", "> .")
        with pytest.raises(ExecutorRuntimeException):
            execute(tuple(tokens.split()), grid)
        assert run(Programs.of([parse_tokens(tokens)]), world[None], mode="crash").status.tolist() == [status]


def test_difference_their_traces_hold_the_last_grid_throughout():
    """Every grid after the first is the same array, so a trace cannot be compared state by state."""
    tokens, grid, _ = one("def run() { move(); turn_left() }", "> .")
    grids = execute(tokens, grid, record_trace=True).trace.grids
    assert len(grids) == 3
    assert grids[1] is grids[2]


@pytest.mark.parametrize("count", ["R=0", "R=1", "R=11", "R=19"])
def test_difference_their_tokens_know_counts_of_2_to_10(count):
    tokens = f"DEF run m( REPEAT {count} r( move r) m)"
    with pytest.raises(ExecutorSyntaxException):
        execute(tuple(tokens.split()), one("def run() { move() }", "> .")[1])
    assert token_text(parse_tokens(tokens)) == tokens


def test_difference_they_run_programs_with_empty_blocks():
    _, grid, _ = one("def run() { move() }", "> .")
    empty = "DEF run m( IF c( frontIsClear c) i( i) m)"
    assert np.array_equal(execute(tuple(empty.split()), grid).result, grid)
    with pytest.raises(ParseError, match="expected an action"):
        parse_tokens(empty)


def test_difference_they_cannot_hold_ten_markers():
    tokens, grid, world = one("def run() { put_marker() }", ">9 .")
    with pytest.raises(ExecutorRuntimeException):
        execute(tokens, grid)
    assert run(Programs.of([parse_tokens(" ".join(tokens))]), world[None]).worlds.cells.max() == CAP + 1
