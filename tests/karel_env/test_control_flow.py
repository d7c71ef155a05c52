"""Programs with control flow: drawn within their limits, alive, and the same however they are asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmark.tasks.suite import hash_tasks
from karel_env.execution.interpreter import run
from karel_env.generation.control_flow import ControlRecipe, distinct, generate
from karel_env.generation.coverage import alive
from karel_env.language import (
    CLOSE,
    CLOSE_NEXT,
    FIRST_CONDITION,
    FIRST_COUNT,
    IF,
    IFELSE,
    NOT,
    OPEN,
    REPEAT,
    WHILE,
    Programs,
    text_of,
)
from karel_env.syntax.parser import parse
from karel_env.world import MAX_PRINTED_MARKERS, parse_world

RECIPE = ControlRecipe(
    height=(6, 10), width=(6, 10), wall=0.15, marker=0.2, length=(2, 9), weights=(5, 3, 3, 2, 2), examples=4,
    kinds=(5, 3, 3, 4, 2), depth=2, negate=0.3, repeats=(2, 6), most_markers=3, events=150, live=True, shown=3,
)  # fmt: skip
OPENING = {IF, IFELSE, WHILE, REPEAT}


@pytest.fixture(scope="module")
def tasks():
    return generate(RECIPE, 5, "train", np.arange(300))


def test_programs_are_in_the_language(tasks):
    for i in range(len(tasks)):
        np.testing.assert_array_equal(parse(text_of(tasks.programs.program(i))), tasks.programs.program(i))


def test_programs_and_worlds_keep_their_limits(tasks):
    statements = []
    for i in range(len(tasks)):
        words = tasks.programs.program(i).tolist()
        statements.append(sum(w < FIRST_CONDITION or w in OPENING for w in words))
        nesting = np.cumsum([(w == OPEN) - (w in (CLOSE, CLOSE_NEXT)) for w in words])
        assert nesting.max() <= 1 + RECIPE.depth
        assert nesting[-1] == 0
        counts = [w - FIRST_COUNT for w in words if FIRST_COUNT <= w < NOT]
        assert all(2 <= n <= 6 for n in counts)
    assert set(statements) == set(range(2, 10))
    assert np.ptp(np.bincount(statements)[2:]) < 40, "rejection must not favour short programs"
    tasks.inputs.check()
    tasks.outputs.check()
    assert tasks.inputs.cells.max() == RECIPE.most_markers
    assert tasks.outputs.cells.max() <= MAX_PRINTED_MARKERS
    assert set(tasks.inputs.size.ravel().tolist()) == set(range(6, 11))


def test_every_kind_of_statement_occurs(tasks):
    words = set(tasks.programs.words.tolist())
    assert words >= OPENING | set(range(FIRST_CONDITION)) | {NOT}


def test_outputs_are_what_the_programs_make(tasks):
    done = run(tasks.programs, tasks.inputs, max_events=RECIPE.events)
    assert (done.status == 0).all()
    assert done.worlds.same_state(tasks.outputs).all()


def test_the_shown_examples_leave_no_dead_code(tasks):
    """Counted again in plain Python: each condition both ways, each action with an effect."""
    for i in range(60):
        words = tasks.programs.program(i)
        values: dict[int, set[int]] = {}
        worked: set[int] = set()
        for e in range(RECIPE.shown):
            done = run(tasks.programs.take([i]), tasks.inputs[i : i + 1, e], trace=True)
            cells, (row, column, heading) = tasks.inputs.cells[i, e].copy(), tasks.inputs.robot[i, e].tolist()
            for word, value, position, facing in zip(
                *(x.tolist() for x in (done.trace.word, done.trace.value, done.trace.position, done.trace.heading)),
                strict=True,
            ):
                if value >= 0:
                    values.setdefault(word, set()).add(value)
                    continue
                change = {3: -int(cells[row, column] > 0), 4: 1}.get(int(words[word]), 0)
                cells[row, column] += change
                after = (*divmod(position, cells.shape[1]), facing)
                if change or after != (row, column, heading):
                    worked.add(word)
                row, column, heading = after
        assert worked == {j for j, w in enumerate(words) if w < FIRST_CONDITION}
        assert values == {j: {0, 1} for j, w in enumerate(words) if FIRST_CONDITION <= w < FIRST_COUNT}


def test_dead_code_is_found():
    world = parse_world("> . 1\n. . .")
    texts = {
        "def run() { move(); }": True,
        "def run() { move(); pick_marker(); }": False,
        "def run() { move(); move(); pick_marker(); }": True,
        "def run() { while (front_is_clear()) { move(); }; }": True,
        "def run() { if (front_is_clear()) { move(); }; }": False,
        "def run() { move(); move(); move(); }": False,
        "def run() { turn_left(); turn_right(); }": False,
    }
    programs = Programs.of([parse(text) for text in texts])
    worlds = world[None, None][np.zeros(len(texts), int)]
    assert alive(programs, worlds, run(programs, worlds, trace=True)).tolist() == list(texts.values())
    with pytest.raises(ValueError, match="trace=True"):
        alive(programs, worlds, run(programs, worlds))


def test_rejection_is_an_option():
    free = generate(replace(RECIPE, live=False), 5, "train", np.arange(200))
    seen = free.inputs[:, : RECIPE.shown]
    assert not alive(free.programs, seen, run(free.programs, seen, trace=True)).all()


def test_a_task_does_not_depend_on_what_else_is_drawn(tasks):
    rng = np.random.default_rng(1)
    order = rng.permutation(300)[:90]
    for indices, threads in ((order, 1), (order[:1], 1), (order, 3), (np.sort(order), 2)):
        again = generate(RECIPE, 5, "train", indices, threads=threads)
        assert hash_tasks(again) == hash_tasks(tasks.take(indices))
        np.testing.assert_array_equal(again.key, tasks.key[indices])


def test_streams_differ(tasks):
    for seed, purpose in ((6, "train"), (5, "test")):
        assert not set(generate(RECIPE, seed, purpose, np.arange(50)).key) & set(tasks.key)


def test_excluded_tasks_are_drawn_again(tasks):
    other = generate(RECIPE, 5, "train", np.arange(300), excluded=tasks.key[::3])
    kept = np.arange(300) % 3 != 0
    np.testing.assert_array_equal(other.key[kept], tasks.key[kept])
    assert not np.isin(other.key[~kept], tasks.key[::3]).any()
    assert hash_tasks(other.take(np.flatnonzero(kept))) == hash_tasks(tasks.take(np.flatnonzero(kept)))


def test_distinct_programs_have_a_stable_beginning():
    short = replace(RECIPE, length=(2, 3))
    few, many = distinct(short, 5, "test", 40), distinct(short, 5, "test", 120)
    assert hash_tasks(few) == hash_tasks(many.take(np.arange(40)))
    assert len({many.programs.program(i).tobytes() for i in range(120)}) == 120


def test_nothing_and_the_impossible():
    assert len(generate(RECIPE, 5, "train", np.zeros(0, int))) == 0
    stuck = replace(RECIPE, height=(3, 3), width=(3, 3), weights=(1, 0, 0, 0, 0), kinds=(1, 0, 0, 0, 0))
    with pytest.raises(ValueError, match="no task number 0"):
        generate(stuck, 5, "train", np.arange(1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kinds": (0, 1, 1, 1, 1)}, "kinds"),
        ({"kinds": (1, 1)}, "kinds"),
        ({"depth": 65}, "depth"),
        ({"repeats": (3, 20)}, "repeats"),
        ({"negate": 1.5}, "negate"),
        ({"shown": 5}, "shown"),
        ({"length": (0, 3)}, "length"),
    ],
)
def test_bad_recipes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(RECIPE, **change)
