from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from random_programs import statements, worlds
from reference_interpreter import Karel, text

from karel_env.execution.interpreter import EVENT_LIMIT, STATUSES, run
from karel_env.extras.lockstep import run_lockstep
from karel_env.language import ACTIONS, CONDITIONS, WORDS, Programs
from karel_env.semantics import ADVERSARIAL, FLIP, ORIGINAL, Semantics, condition_flips, mirror_classes
from karel_env.syntax.parser import parse
from karel_env.world import Worlds

CASES = [
    ("noop", None, 1000),
    ("noop", 1, 37),
    ("noop", None, 5),
    ("crash", 9, 150),
    ("crash", None, 60),
    ("turn180", None, 150),
    ("turn180", 2, 60),
]
"""Mode, cap on markers, budget of events."""
MEANINGS = [
    ORIGINAL,
    FLIP,
    ADVERSARIAL,
    *mirror_classes(),
    *condition_flips(),
    Semantics("both", (4, 0, 3, 1, 2), (1, 0, 2, 4, 3), (True, False, False, True, False)),
]
SIZES = [pytest.param(12, 5, id="few"), pytest.param(74, 10, id="many", marks=pytest.mark.slow)]
"""Programs of a meaning and worlds of a program, for each case: in the default suite, and with `-m slow`."""


def reference(world, semantics, mode, cap, budget):
    cells = world.cells
    return Karel(
        walls=set(map(tuple, np.argwhere(cells < 0).tolist())),
        markers={tuple(p): int(cells[tuple(p)]) for p in np.argwhere(cells > 0).tolist()},
        row=int(world.robot[0]),
        column=int(world.robot[1]),
        heading=int(world.robot[2]),
        mode=mode,
        cap=cap,
        budget=budget,
        meaning={a: ACTIONS[e] for a, e in zip(ACTIONS, semantics.actions, strict=True)},
        tests={
            c: (CONDITIONS[t], f) for c, t, f in zip(CONDITIONS, semantics.conditions, semantics.flipped, strict=True)
        },
    )


def assert_equals(final, steps, tallies, karel, status):
    """One execution against the reference's: `steps` are (value, row, column, heading)."""
    assert tallies == (status, karel.actions, karel.events)
    assert steps == karel.trace
    assert final.robot.tolist() == [karel.row, karel.column, karel.heading]
    at = np.argwhere(final.cells > 0).tolist()
    assert {(r, c): int(final.cells[r, c]) for r, c in at} == {p: n for p, n in karel.markers.items() if n}


def assert_equals_reference(sources, batch, done, semantics, mode, cap, budget):
    """Every execution of a traced batch [N, E] against the reference's; returns how many."""
    count, each = batch.shape
    rows, columns = np.divmod(done.trace.position, batch.cells.shape[-1])
    steps = list(zip(*(x.tolist() for x in (done.trace.value, rows, columns, done.trace.heading)), strict=True))
    offsets = done.trace.offsets.tolist()
    for i, e in np.ndindex(count, each):
        karel = reference(batch[i, e], semantics, mode, cap, budget)
        status = karel.run(sources[i])
        tallies = (STATUSES[done.status[i, e]], int(done.actions[i, e]), int(done.events[i, e]))
        recorded = steps[slice(*offsets[i * each + e :][:2])]
        assert_equals(done.worlds[i, e], recorded, tallies, karel, status)
    return count * each


def test_the_pairs_compared_are_enough():
    few, many = (size.values[0] * size.values[1] for size in SIZES)
    assert len(CASES) * len(MEANINGS) * many >= 200_000
    assert len(CASES) * len(MEANINGS) * few >= 15_000


@pytest.mark.parametrize(("count", "each"), SIZES)
@pytest.mark.parametrize(("mode", "cap", "budget"), CASES)
def test_equals_the_reference_in_every_step(mode, cap, budget, count, each):
    rng, numbers = random.Random(f"{mode}{cap}{budget}"), np.random.default_rng(budget)
    compared = 0
    for semantics in MEANINGS:
        sources = [statements(rng, rng.randint(0, 3)) for _ in range(count)]
        high, wide = rng.randint(3, 11), rng.randint(3, 11)
        batch = worlds(numbers, count * each, high, wide).reshape(count, each)
        programs = Programs.of([parse(text(s)) for s in sources])
        done = run(programs, batch, semantics, mode=mode, max_markers=cap, max_events=budget, trace=True)
        compared += assert_equals_reference(sources, batch, done, semantics, mode, cap, budget)
    assert compared == len(MEANINGS) * count * each


@pytest.mark.parametrize(("high", "wide"), [(3, 3), (3, 102), (102, 3), (102, 102), (4, 300)])
def test_worlds_of_any_size(high, wide):
    rng = random.Random(high * wide)
    cross = ("while", ("front_is_clear", False), ["move", "put_marker"])
    count = 20 if high * wide < 5000 else 6
    sources = [[cross, "turn_right", cross, *statements(rng, 3)] for _ in range(count)]
    batch = worlds(np.random.default_rng(wide), count * 4, high, wide).reshape(count, 4)
    batch.cells[batch.cells < 0] = 0
    batch.cells[..., [0, -1], :] = batch.cells[..., :, [0, -1]] = -1
    programs = Programs.of([parse(text(s)) for s in sources])
    done = run(programs, batch, trace=True)
    assert_equals_reference(sources, batch, done, ORIGINAL, "noop", None, 1000)
    assert done.trace.position.max() == (high - 2) * wide + wide - 2, "someone must reach the last free cell"


@pytest.mark.parametrize(("mode", "cap", "budget"), CASES)
def test_worlds_together_alone_and_in_lockstep_end_alike(mode, cap, budget):
    rng = random.Random(budget)
    settings = {"mode": mode, "max_markers": cap, "max_events": budget, "trace": True}
    for depth in (0, 1, 3):
        programs = Programs.of([parse(text(statements(rng, depth, most=8))) for _ in range(200)])
        batch = worlds(np.random.default_rng(depth), 200 * 6, 9, 5).reshape(200, 6)
        together = run(programs, batch, **settings)
        assert_same(together, run_lockstep(programs, batch, **settings))
        one_each = programs.take(np.repeat(np.arange(200), 6))
        alone = run(one_each, batch.reshape(1200), **settings)
        assert np.array_equal(alone.worlds.cells, together.worlds.cells.reshape(1200, 9, 5))
        assert_same(replace(alone, worlds=alone.worlds.reshape(200, 6)), together)
        untraced = run(programs, batch, mode=mode, max_markers=cap, max_events=budget)
        assert untraced.worlds.same_state(together.worlds).all()
        assert np.array_equal(untraced.events, together.events)


def assert_same(a, b):
    assert a.worlds.same_state(b.worlds).all()
    for name in ("offsets", "word", "value", "position", "heading"):
        assert np.array_equal(getattr(a.trace, name), getattr(b.trace, name)), name
    for name in ("status", "actions", "events"):
        assert np.array_equal(getattr(a, name).ravel(), getattr(b, name).ravel()), name


def test_a_slice_of_worlds_runs_as_a_copy_of_it():
    programs = Programs.of([parse("def run() { move(); put_marker(); turn_left() }")] * 20)
    batch = worlds(np.random.default_rng(2), 120, 6, 6).reshape(20, 6)
    before = batch.cells.copy()
    for part in (batch[:, 1], batch[:, 1:5:2], batch[::1, ::-1]):
        copied = Worlds(part.cells.copy(), part.robot.copy(), part.size.copy())
        assert run(programs, part).worlds.same_state(run(programs, copied).worlds).all()
    assert np.array_equal(batch.cells, before), "the worlds given must stay as they are"


def test_out_is_filled_and_checked():
    programs = Programs.of([parse("def run() { move() }")] * 4)
    batch = worlds(np.random.default_rng(2), 12, 6, 6).reshape(4, 3)
    room = Worlds(np.zeros_like(batch.cells), np.zeros_like(batch.robot), batch.size)
    assert run(programs, batch, out=room).worlds is room
    assert room.same_state(run(programs, batch).worlds).all()
    with pytest.raises(ValueError, match="expected contiguous"):
        run(programs, batch, out=room[:, :2])


def test_trace_names_the_word_that_acted():
    program = parse("def run() { move(); while (markers_present()) { pick_marker() }; turn_left() }")
    world = worlds(np.random.default_rng(0), 1, 3, 3)
    world.cells[0, 1, 1] = 2
    trace = run(Programs.of([program]), world, trace=True).trace
    words = [WORDS[program[w]] for w in trace.word]
    test, pick = "(markers_present())", "pick_marker();"
    assert words == ["move();", test, pick, test, pick, test, "turn_left();"]
    assert trace.value.tolist() == [-1, 1, -1, 1, -1, 0, -1]


def test_threads_and_batches_change_nothing():
    rng = random.Random(1)
    programs = Programs.of([parse(text(statements(rng, 2))) for _ in range(50)])
    batch = worlds(np.random.default_rng(1), 50, 6, 6)
    whole = run(programs, batch, trace=True)
    parts = run(programs, batch, trace=True, threads=2)
    assert np.array_equal(whole.worlds.cells, parts.worlds.cells)
    assert np.array_equal(whole.trace.position, parts.trace.position)
    alone = run(programs.take([7]), batch[7:8])
    assert np.array_equal(alone.worlds.cells[0], whole.worlds.cells[7])


def test_refuses_what_does_not_fit():
    programs = Programs.of([parse("def run() { move() }")])
    one = worlds(np.random.default_rng(0), 1, 4, 4)
    with pytest.raises(ValueError, match="2 worlds"):
        run(programs, worlds(np.random.default_rng(0), 2, 4, 4))
    with pytest.raises(ValueError, match="noop, crash, turn180"):
        run(programs, one, mode="explode")
    with pytest.raises(ValueError, match=str(EVENT_LIMIT)):
        run(programs, one, max_events=EVENT_LIMIT + 1)
