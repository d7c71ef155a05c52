"""States after the first execution of a word: against the interpreter, and programs that are taken as they are drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmark.probing.labels import MISSING, label_actions
from benchmark.probing.version4.relative_labels import action_prefixes, relative_classes
from benchmark.relative.control_labels import SEMANTICS, SUMS
from benchmark.tasks.suite import load_suite
from karel_env.execution.first_executions import ActionWords, run_to_words
from karel_env.execution.interpreter import run
from karel_env.generation.unselected import draw_unselected
from karel_env.language import HEADER, Programs
from karel_env.semantics import ORIGINAL
from karel_env.syntax.parser import parse
from karel_env.world import Worlds

CONTROL = load_suite("control").recipe
MAX_EVENTS = 200


@pytest.fixture(scope="module")
def tasks():
    return draw_unselected(replace(CONTROL, length=(8, 8), weights=(1,) * 5), 3, "blind", np.arange(150))


def empty_world(rows: int = 6) -> Worlds:
    """A world of free cells, the robot in its middle, heading north."""
    cells = np.full((1, rows, rows), -1, np.int16)
    cells[:, 1:-1, 1:-1] = 0
    return Worlds(cells, np.array([[3, 2, 0]], np.int16), np.array([[rows, rows]], np.int16))


def executed(text: str, sums=()):
    """The true words of one program, executed up to each of them."""
    programs = Programs.of([parse(f"def run() {{ {text} }}")])
    words = ActionWords.of(programs)
    prefixes = action_prefixes(programs, words.program, words.rank).clip(0)
    return run_to_words(programs, empty_world(), words, prefixes[:, None], (ORIGINAL,), sums, MAX_EVENTS)


def test_states_are_those_of_the_interpreter(tasks) -> None:
    inputs = tasks.inputs[:, 0]
    words = ActionWords.of(tasks.programs)
    prefixes = action_prefixes(tasks.programs, words.program, words.rank).clip(0)
    first = run_to_words(tasks.programs, inputs, words, prefixes[:, None], SEMANTICS, SUMS, MAX_EVENTS)
    program, word, place, classes = label_actions(tasks.programs, inputs, SEMANTICS)
    assert (words.program == program).all()
    assert (words.word == word).all()
    assert (words.rank == place).all()
    start = inputs.robot[program, 2].astype(np.int64)
    expected = relative_classes(classes[0], start, *inputs.cells.shape[-2:])
    is_labelled = (first.num_executed[:, : len(SEMANTICS)] > 0).T
    assert 0.3 < is_labelled.mean() < 0.7
    assert (expected[:, 0][is_labelled] != MISSING).all()
    by_feature = (first.rotation[:, : len(SEMANTICS)], first.forward, first.sideways)
    for f, counts in enumerate(by_feature):
        assert (counts.argmax(-1).T[is_labelled] == expected[:, f][is_labelled]).all()


def test_a_word_without_a_label_is_not_executed_or_comes_after_a_later_one(tasks) -> None:
    inputs = tasks.inputs[:, 0]
    words = ActionWords.of(tasks.programs)
    prefixes = action_prefixes(tasks.programs, words.program, words.rank).clip(0)
    first = run_to_words(tasks.programs, inputs, words, prefixes[:, None], max_events=MAX_EVENTS)
    trace = run(tasks.programs, inputs, max_events=MAX_EVENTS, trace=True).trace
    for row in range(len(words.program)):
        b = words.program[row]
        events = trace.word[trace.offsets[b] : trace.offsets[b + 1]]
        index = words.word[row] + len(HEADER)
        at = np.flatnonzero(events == index)
        is_known = len(at) > 0 and events[: at[0] + 1].max() == index
        assert (first.num_executed[row, 0] > 0) == is_known


def test_a_word_that_is_reached_in_the_second_pass_only_has_no_label() -> None:
    loop = executed("repeat (2) { if (markers_present()) { turn_left(); }; put_marker(); }; move();")
    assert loop.num_executed[:, 0].tolist() == [0, 1, 1]
    # The second pass turned left before the robot moved.
    assert loop.rotation[2, 0].tolist() == [0, 0, 0, 1]


def test_an_endless_loop_leaves_later_words_without_a_label() -> None:
    endless = executed("turn_right(); while (no_markers_present()) { turn_left(); }; move();")
    assert endless.num_executed[:, 0].tolist() == [1, 1, 0]


def test_sums_count_what_is_executed() -> None:
    loop = executed("repeat (3) { turn_left(); }; turn_right(); move();", sums=[[0, 1, 2, 0, 0]])
    # One left in the first pass; three lefts and a right after the loop.
    assert loop.rotation[:, 1].argmax(-1).tolist() == [1, (3 + 2) % 4, (3 + 2) % 4]
    assert loop.sideways[:, 0].argmax(-1).tolist() == [3, 3, 3]
    assert loop.forward[2, 0].argmax() in (2, 4)


def test_samples_replace_the_words_up_to_the_target_only() -> None:
    programs = Programs.of([parse("def run() { move(); move(); turn_left(); }")])
    words = ActionWords.of(programs)
    samples = np.array([[[1, 1, 1], [2, 1, 1], [0, 2, 1]]] * 3, np.int8)
    first = run_to_words(programs, empty_world(), words, samples)
    assert first.rotation[0, 0].tolist() == [1, 1, 0, 1]
    assert first.rotation[1, 0].tolist() == [1, 1, 1, 0]


def test_programs_are_taken_as_they_are_drawn(tasks) -> None:
    again = draw_unselected(replace(CONTROL, length=(8, 8), weights=(1,) * 5), 3, "blind", np.arange(20, 40))
    assert again.programs.texts() == tasks.programs.texts()[20:40]
    actions = ActionWords.of(tasks.programs).action
    shares = np.bincount(actions, minlength=5) / len(actions)
    assert np.abs(shares - 0.2).max() < 0.05
    assert (run(tasks.programs, tasks.inputs[:, 0], max_events=MAX_EVENTS).status != 0).any()
