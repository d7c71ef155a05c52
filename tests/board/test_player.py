"""What is played is what the interpreter does and the record says."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from benchmark.board import player
from benchmark.board.player import (
    MAX_STEPS,
    NUM_BLIND_PROGRAMS,
    SEMANTICS_BY_NAME,
    build_player_readings,
    build_player_tasks,
    describe_semantics,
    steps_to_json,
)
from benchmark.installation.paths import SOURCE_ROOT
from benchmark.probing.readout import Readout, SemanticsReadout, load_readout
from benchmark.probing.verdict import load_blind_set
from benchmark.runner.record import read_record
from benchmark.tasks.suite import blind_tasks, load_suite
from benchmark.tasks.suite import test_tasks as tasks_of
from karel_env.execution.interpreter import run
from karel_env.language import Programs
from karel_env.semantics import ADVERSARIAL, ORIGINAL
from karel_env.syntax.parser import parse
from karel_env.world import parse_world

# With the file that shows the same rows in a browser: a process draws their tasks once.
FOLDER = SOURCE_ROOT / "submissions" / "2026-11-25_gpt-laptop"
SUITE = load_suite("laptop")


def samples() -> list[dict]:
    with gzip.open(FOLDER / "samples.jsonl.gz", "rt") as file:
        return [row for row in map(json.loads, file) if row["stage"] == "test"]


def ended(world, steps):
    """Cells and robot after all steps of what is played."""
    cells, robot = list(world[2]), world[3]
    for _, moved, changed, _ in steps:
        robot = moved
        for place, content in changed:
            cells[place] = content
    return cells, robot


def test_every_example_ends_as_it_was_scored():
    stored, tasks = {row["task"]: row for row in samples()}, tasks_of(SUITE)
    played = build_player_tasks(SUITE, list(stored.values()))
    assert {one["kind"] for one in played} == {"solved", "shown examples only", "wrong output"}
    for one in played:
        row = stored[one["task"]]
        shown = [e["right"] for e in one["examples"] if e["shown"]]
        held_out = [e["right"] for e in one["examples"] if not e["shown"]]
        assert (len(shown), len(held_out)) == (SUITE.shown, SUITE.held_out)
        assert (all(shown), all(held_out)) == (row["shown"], row["held_out"])
        assert " ".join(one["tokens"]) == row["text"]
        for e, example in enumerate(one["examples"]):
            done = run(Programs.of([parse(f"def run() {{ {row['text']}")]), tasks.inputs[one["task"], e][None])
            cells, robot = ended(example["input"], example["steps"])
            np.testing.assert_array_equal(cells, done.worlds.cells[0].ravel())
            assert robot == done.worlds.robot[0].tolist()
            same = [cells, robot] == example["expected"][2:]
            assert same == example["right"]


@pytest.mark.parametrize(
    ("text", "outcome"), [("no program", "unparsable"), ("", "empty"), ("</script>" * 900, "unparsable")]
)
def test_what_is_no_program_is_shown_as_text(text, outcome):
    row = samples()[0] | {"text": text, "outcome": outcome, "shown": False, "held_out": False}
    (one,) = build_player_tasks(SUITE, [row])
    assert one["tokens"] is None
    assert one["text"] == text[:2000]
    assert one["problem"]


def test_conditions_and_long_programs_are_steps_too():
    world = parse_world("> . .\n. . .")
    steps = steps_to_json(parse("def run() { while (front_is_clear()) { move(); } }"), world)
    assert [(word, value) for word, _, _, value in steps] == [(1, True), (3, None), (1, True), (3, None), (1, False)]
    assert steps[-1][1] == [1, 3, 1]
    endless = steps_to_json(parse("def run() { while (no_markers_present()) { turn_left(); } }"), world)
    assert len(endless) == MAX_STEPS
    marked = steps_to_json(parse("def run() { put_marker(); pick_marker(); pick_marker(); }"), world)
    assert [changed for _, _, changed, _ in marked] == [[[6, 1]], [[6, 0]], []]


def test_what_rows_of_a_suite_have_in_common_is_computed_once(monkeypatch):
    """A second row draws no task, and executes no program of the blind set."""
    drawn, traced = [], []
    for name in ("test_tasks", "blind_tasks"):
        draw = getattr(player, name)
        monkeypatch.setattr(player, name, lambda suite, name=name, draw=draw: drawn.append(name) or draw(suite))
    trace = player.steps_to_json
    monkeypatch.setattr(player, "steps_to_json", lambda *program: traced.append(program) or trace(*program))
    for cached in (player._drawn_tests, player._drawn_blind_set, player._blind_steps):
        cached.cache_clear()
    semantics = SemanticsReadout(
        semantics="original", view="last", prior=False, true=[[0]], read=[[0]], probability=[[1]]
    )
    readings = Readout(feature="facing", seed=0, task=[3], by_semantics=[semantics])
    for _ in range(2):
        build_player_tasks(SUITE, [])
        build_player_readings(SUITE, readings)
    assert sorted(drawn) == ["blind_tasks", "test_tasks"]
    assert len(traced) == 1


def test_readings_are_played_under_their_own_semantics():
    record = read_record(FOLDER / "record.json")
    probe_set, _ = load_blind_set(SUITE, record.protocol)
    readings = load_readout(FOLDER, probe_set)
    played = build_player_readings(SUITE, readings)
    assert len(played["programs"]) == NUM_BLIND_PROGRAMS
    worlds = blind_tasks(SUITE).inputs[:, 0]
    for place, program in enumerate(played["programs"]):
        for one in readings.by_semantics:
            under = program["under"][one.semantics]
            assert [step[1][2] for step in under["steps"]] == one.true[place] == under["labels"]
            assert under["probability"] == one.probability[place]
        words = blind_tasks(SUITE).programs.program(program["task"])
        done = run(Programs.of([words]), worlds[program["task"]][None], SEMANTICS_BY_NAME["adversarial"])
        assert program["under"]["adversarial"]["steps"][-1][1] == done.worlds.robot[0].tolist()


def test_meanings_are_told_in_words():
    assert describe_semantics(ORIGINAL) == "original meaning of every word"
    assert describe_semantics(ADVERSARIAL) == "move turns left, turn_left turns right, turn_right moves"
