from __future__ import annotations

import random

import numpy as np
import pytest
from random_programs import statements, worlds
from reference_interpreter import Karel, text

from karel_env.interpreter import EVENT_LIMIT, STATUSES, run
from karel_env.language import ACTIONS, CONDITIONS, WORDS, Programs
from karel_env.parser import parse
from karel_env.semantics import FLIP, ORIGINAL, Semantics, mirror_classes

CASES = [("noop", None, 1000), ("crash", 9, 1000), ("turn180", None, 200), ("noop", 1, 37), ("crash", None, 5)]


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


@pytest.mark.parametrize(("mode", "cap", "budget"), CASES)
def test_equals_the_reference_in_every_step(mode, cap, budget):
    rng, numbers = random.Random(f"{mode}{cap}{budget}"), np.random.default_rng(budget)
    flipped = Semantics("conditions", conditions=(1, 0, 2, 4, 3), flipped=(True, False, False, True, False))
    compared = 0
    for semantics in [ORIGINAL, FLIP, flipped, *mirror_classes()[::4]]:
        sources = [statements(rng, 3) for _ in range(60)]
        batch = worlds(numbers, 60 * 5, rng.randint(3, 9), rng.randint(3, 9)).reshape(60, 5)
        programs = Programs.of([parse(text(s)) for s in sources])
        done = run(programs, batch, semantics, mode=mode, max_markers=cap, max_events=budget, trace=True)
        for i, source in enumerate(sources):
            for e in range(5):
                karel = reference(batch[i, e], semantics, mode, cap, budget)
                assert STATUSES[done.status[i, e]] == karel.run(source)
                final = done.worlds[i, e]
                assert final.robot.tolist() == [karel.row, karel.column, karel.heading]
                assert {tuple(p): int(final.cells[tuple(p)]) for p in np.argwhere(final.cells > 0).tolist()} == {
                    p: n for p, n in karel.markers.items() if n
                }
                assert (int(done.actions[i, e]), int(done.events[i, e])) == (karel.actions, karel.events)
                a, b = done.trace.offsets[i * 5 + e : i * 5 + e + 2]
                rows, columns = np.divmod(done.trace.position[a:b], final.cells.shape[1])
                steps = zip(done.trace.value[a:b], rows, columns, done.trace.heading[a:b], strict=True)
                assert [tuple(map(int, s)) for s in steps] == karel.trace
                compared += 1
    assert compared == 60 * 5 * 11


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
