"""Baselines that are no networks: against brute force, a hand-made corpus, and tasks whose answer is known."""

from __future__ import annotations

import itertools
from dataclasses import replace
from math import log

import numpy as np
import pytest
from whole_runs import call, only

import benchmark.calibrate.legacy
import benchmark.calibrate.legacy_command
from baselines.non_neural.neighbour import NearestNeighbour, compute_effects
from baselines.non_neural.ngram import Ngram, find_most_probable
from baselines.non_neural.prompt_reading import read_prompt
from baselines.non_neural.random_program import RandomProgram
from baselines.non_neural.registry import BASELINES
from baselines.non_neural.search import EnumerativeSearch
from benchmark.board.tables import row_cells
from benchmark.errors import ModelError
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.runner.record import read_record
from benchmark.tasks.prompt_template import render_prompts
from benchmark.tasks.scoring import score_programs
from benchmark.tasks.suite import load_suite, training_tasks
from benchmark.tasks.suite import test_tasks as tasks_of
from karel_env.execution.interpreter import run
from karel_env.language import ACTIONS, CLOSE, Programs
from karel_env.world import Worlds

LAPTOP = replace(load_suite("laptop"), tasks=40, sha256="")


def shortest_by_brute_force(inputs: Worlds, outputs: Worlds, longest: int) -> int | None:
    """Length of the shortest program, by running every one."""
    for length in range(1, longest + 1):
        actions = np.array(list(itertools.product(range(len(ACTIONS)), repeat=length)), np.int8)
        programs = Programs.straight_line(actions, np.full(len(actions), length))
        batch = inputs[None][np.zeros(len(actions), int)]
        goal = outputs[None][np.zeros(len(actions), int)]
        if run(programs, batch).worlds.same_state(goal).all(1).any():
            return length
    return None


@pytest.mark.parametrize("name", ["laptop", "icml24"])
def test_a_prompt_is_read_back(name):
    suite = replace(load_suite(name), tasks=20, sha256="")
    tasks = tasks_of(suite)
    for i, prompt in enumerate(render_prompts(suite, tasks)):
        before, after = read_prompt(prompt)
        same = Worlds.same_state if suite.show_under_robot else Worlds.same_drawing
        assert same(before, tasks.inputs[i, : suite.shown]).all()
        assert same(after, tasks.outputs[i, : suite.shown]).all()


def test_a_prompt_without_pairs_is_refused():
    with pytest.raises(ValueError, match="1 inputs and 0 outputs"):
        read_prompt("input\n>\nprogram\ndef run() {")


def test_search_finds_the_shortest_program():
    tasks = tasks_of(LAPTOP)
    search = EnumerativeSearch(LAPTOP)
    for i in range(12):
        inputs, outputs = tasks.inputs[i, : LAPTOP.shown], tasks.outputs[i, : LAPTOP.shown]
        found = search.find_shortest(inputs, outputs, 6)
        assert found is not None
        assert len(found) == shortest_by_brute_force(inputs, outputs, len(found))


def test_search_solves_every_task_that_it_does_not_give_up():
    tasks = tasks_of(LAPTOP)
    written = EnumerativeSearch(LAPTOP).generate(render_prompts(LAPTOP, tasks), LAPTOP.max_new_words)
    assert score_programs(LAPTOP, tasks, [one.text for one in written]).shown.all()
    few = EnumerativeSearch(LAPTOP, budget=5).generate(render_prompts(LAPTOP, tasks), LAPTOP.max_new_words)
    solved = score_programs(LAPTOP, tasks, [one.text for one in few])
    assert (solved.num_tokens[solved.shown] == 2).all()
    assert [one.text for one, right in zip(few, solved.shown, strict=True) if not right] == [""] * (~solved.shown).sum()


def test_the_most_probable_text_is_that_of_the_counted_frequencies():
    rng = np.random.default_rng(0)
    bodies = [[*rng.integers(0, 3, rng.integers(1, 4)).tolist(), CLOSE] for _ in range(400)]
    found = find_most_probable(bodies, 2)

    def cost(body: list[int]) -> float:
        total = 0.0
        for i, word in enumerate(body):
            before = body[i - 1] if i else None
            after = [b[j] for b in bodies for j in range(len(b)) if (b[j - 1] if j else None) == before]
            share = after.count(word) / len(after)
            total -= log(share) if share else -1e9
        return total

    every = [[*words, CLOSE] for n in range(1, 5) for words in itertools.product(range(3), repeat=n)]
    assert cost(found) == pytest.approx(min(map(cost, every)))


def test_the_n_gram_baseline_writes_one_program():
    one, two = Ngram(load_suite("laptop")).generate(["a", "b"], 9)
    assert one == two


def test_the_most_probable_text_of_programs_with_control_flow_is_a_program():
    programs = training_tasks(replace(load_suite("control"), tasks=2, sha256=""), np.arange(20), 3).programs
    bodies = [programs.program(i)[3:].tolist() for i in range(20)]
    assert find_most_probable(bodies, 4)[-1] == CLOSE


def test_effects_do_not_depend_on_where_the_robot_stands_and_looks():
    """The same program in open worlds does the same, seen from the robot."""
    cells = np.full((4, 12, 12), -1, np.int16)
    cells[:, 1:-1, 1:-1] = 0
    before = Worlds.of(cells, np.array([[6, 6, 0], [5, 5, 1], [6, 5, 2], [5, 6, 3]], np.int16))
    actions = np.array([[0, 2, 4, 0, 1, 1]] * 4, np.int8)
    after = run(Programs.straight_line(actions, np.full(4, 6)), before).worlds
    found = compute_effects(before.reshape(4, 1), after.reshape(4, 1))
    assert (found == found[0]).all()
    assert found[0, :6].tolist() == [1, 1, 0, 0, 0, 1]
    assert found[0, 6:].sum() == 1


def test_a_task_is_its_own_nearest_neighbour():
    neighbour = NearestNeighbour(LAPTOP)
    tasks = training_tasks(LAPTOP, np.arange(30), 90_003)
    written = neighbour.generate(render_prompts(LAPTOP, tasks), LAPTOP.max_new_words)
    assert score_programs(LAPTOP, tasks, [one.text for one in written]).shown.mean() > 0.9


def test_random_programs_are_valid_and_do_not_depend_on_the_batch():
    tasks = tasks_of(LAPTOP).take(np.arange(16))
    prompts = render_prompts(LAPTOP, tasks)
    together = RandomProgram(LAPTOP).generate(prompts, 16)
    assert together == [RandomProgram(LAPTOP).generate([prompt], 16)[0] for prompt in prompts]
    assert (score_programs(LAPTOP, tasks, [one.text for one in together]).num_tokens > 0).all()
    assert len({one.text for one in together}) > 10


def test_an_unknown_baseline_is_named_with_the_known_ones():
    with pytest.raises(ModelError, match="expected one of random, n-gram, nearest-neighbour, search"):
        open_checkpoint(ModelSpec.parse("baseline:none"))


def test_what_has_no_states_is_refused_where_states_are_probed(capsys):
    assert benchmark.calibrate.legacy_command.main(["--model", "baseline:search"]) == 2
    assert "no hidden states" in capsys.readouterr().err


@pytest.mark.parametrize("name", BASELINES)
def test_a_whole_run_has_accuracy_and_no_verdict(name, tmp_path, capsys):
    words = ["--model", f"baseline:{name}", "--suite", "smoke", "--out", tmp_path]
    assert call(*words) == 0
    said = capsys.readouterr().out
    record = read_record(only(tmp_path) / "record.json")
    assert record.meaning is None
    assert record.content is None
    assert record.accuracy.shown.n == 40
    assert name in said
    assert row_cells(record)["model"] == name
    assert call(*words) == 0
