"""The shipped suites generate their pinned tasks, in any order and with any number of threads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmark.errors import UsageError, VerificationError
from benchmark.tasks import suite as suites
from benchmark.tasks.scoring import check_references
from benchmark.tasks.suite import SUITE_FOLDER, blind_tasks, hash_tasks, load_suite, probe_tasks, training_tasks
from karel_env.generation import control_flow, generator
from karel_env.generation.control_flow import ControlRecipe
from karel_env.language import FIRST_CONDITION

NAMES = sorted(path.stem for path in SUITE_FOLDER.glob("*.yaml"))
PINNED = {
    "colm24": "7d5cc28d1e85a5ef6c4bdc9046524ea41f2517d08f9478d79d9ded6d399ffdc2",
    "control": "06c0299fa15b92e5ea1fcbd51afb042bb0a5662a1eb151f8e0e3776cba1bf19a",
    "generalize": "55389e056621c048accd95248b9a81604c3c42cab86ee3372d543be86d682984",
    "icml24": "1c4d42631c975aa7b698ffb43fc59eedf596ed6acbfbbe76fe18fcc62d9eaa72",
    "laptop": "cb4bdc05635923b4afac6a754acc3e3f569b4bddcb6d98af29b3a0f2f2607643",
    "smoke": "4d1e964d5b7bedc58e41b8cb2de6e8662e2d771396a16886b7eabcbc633d4189",
}


def test_all_suites_are_pinned():
    assert PINNED.keys() == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_test_set_is_the_pinned_one_and_its_references_solve_it(name):
    suite = load_suite(name)
    tasks = suites.test_tasks(suite)
    assert suite.sha256 == PINNED[name] == hash_tasks(tasks)
    assert len(tasks) == suite.tasks == len(set(tasks.key.tolist()))
    assert tasks.inputs.shape == (suite.tasks, suite.shown + suite.held_out)
    check_references(suite, tasks)
    assert tasks.programs.lengths.max() - 3 <= suite.max_new_words
    assert suite.shard % suite.batch == 0


@pytest.mark.parametrize("name", NAMES)
def test_tasks_are_the_same_in_any_order_and_at_any_thread_count(name):
    suite = load_suite(name)
    draw = control_flow.generate if isinstance(suite.recipe, ControlRecipe) else generator.generate
    indices = np.array([3, 31, 0, 17, 8, 25])
    alone = [draw(suite.recipe, suite.seed, "test", indices[i : i + 1]) for i in range(len(indices))]
    together = draw(suite.recipe, suite.seed, "test", indices, threads=3)
    for i, task in enumerate(alone):
        assert hash_tasks(task) == hash_tasks(together.take([i]))


@pytest.mark.parametrize("name", ["smoke", "laptop", "control"])
def test_splits_share_no_task(name):
    suite = replace(load_suite(name), tasks=40, probe_programs=60, sha256="")
    train = training_tasks(suite, np.arange(300), suite.seed)
    parts = [suites.test_tasks(suite), probe_tasks(suite), blind_tasks(suite), train]
    keys = [set(part.key.tolist()) for part in parts]
    assert all(not a & b for i, a in enumerate(keys) for b in keys[:i])


def test_control_flow_suites_repeat_no_program():
    suite = replace(load_suite("control"), tasks=100, probe_programs=200, sha256="")
    for tasks in (suites.test_tasks(suite), probe_tasks(suite)):
        assert len({tasks.programs.program(i).tobytes() for i in range(len(tasks))}) == len(tasks)


def test_blind_programs_are_straight_and_uniform():
    suite = replace(load_suite("control"), probe_programs=400)
    tasks = blind_tasks(suite)
    body = tasks.programs.words.reshape(800, suite.blind_length + 4)[:, 3:-1]
    assert (body < FIRST_CONDITION).all()
    assert np.abs(np.bincount(body.ravel()) / body.size - 0.2).max() < 0.03


def test_generalize_exceeds_every_other_suite():
    beyond, other_suites = load_suite("generalize").recipe, [load_suite(n).recipe for n in NAMES if n != "generalize"]
    assert isinstance(beyond, ControlRecipe)
    assert all(beyond.height[0] > r.height[1] and beyond.width[0] > r.width[1] for r in other_suites)
    assert all(beyond.wall > r.wall and beyond.marker > r.marker for r in other_suites)
    control = load_suite("control").recipe
    assert isinstance(control, ControlRecipe)
    assert beyond.length[0] > control.length[1]
    assert beyond.depth > control.depth


def test_the_probe_data_of_the_paper():
    tasks = suites.test_tasks(load_suite("colm24"))
    body = tasks.programs.words.reshape(len(tasks), 19)[:, 3:-1]
    assert set(body.ravel().tolist()) == {0, 1, 2}
    assert np.abs(np.bincount(body.ravel()) / body.size - 1 / 3).max() < 0.01


def test_a_wrong_digest_stops_a_run():
    with pytest.raises(VerificationError, match="generated test set has SHA-256 4d1e964d"):
        suites.test_tasks(replace(load_suite("smoke"), sha256="0" * 64))


def test_another_seed_is_another_suite():
    suite = load_suite("smoke", seed=8)
    assert (suite.seed, suite.sha256, suite.official) == (8, "", False)
    assert hash_tasks(suites.test_tasks(suite)) != PINNED["smoke"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kinds: {action: 5, ", "kinds: {", "missing entry 'action'"),
        ("repeats: [2, 6]", "repeats: [2, 60]", "repeats"),
        ("shard: 100", "shard: 101", "multiple of batch"),
        ("equality: state", "equality: maybe", "equality"),
    ],
)
def test_an_invalid_custom_suite_is_refused_in_one_line(tmp_path, old, new, message):
    text = (SUITE_FOLDER / "control.yaml").read_text()
    assert old in text
    path = tmp_path / "own.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(UsageError, match=message) as caught:
        load_suite(str(path))
    assert "\n" not in str(caught.value)


def test_a_custom_suite_is_not_official(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text((SUITE_FOLDER / "smoke.yaml").read_text().replace("official: false", "official: true"))
    assert not load_suite(str(path)).official
