"""Labels in the frame of the start, distinct labels of rotation, and the splits of protocol 4."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from worlds import WORLDS_SUITE

from benchmark.probing.labels import MISSING, label_actions
from benchmark.probing.version4.derivability import derivability_losses, judged_derivability, screened_pairs
from benchmark.probing.version4.measure_rotation import relative_probe_set
from benchmark.probing.version4.relative_labels import relative_classes, representative
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.probing.version4.turn_pairs import (
    ALL_PAIRS,
    MARKER_PAIRS,
    ORIGINAL_PAIR,
    POSE_PAIRS,
    SEMANTIC_PAIRS,
    pair_of,
    rotations,
)
from benchmark.tasks.shared_prompts import shared_prompts
from benchmark.tasks.suite import load_suite, probe_tasks
from karel_env.features import PRIMARY
from karel_env.screen import valid_alternatives
from karel_env.semantics import ORIGINAL, mirror_class, mirror_classes

PROTOCOL = replace(ROTATION_STANDARD, folds=4, seeds=(0, 1))
TURNS = {"turn_left();": -1, "turn_right();": 1}
STEPS = [(-1, 0), (0, 1), (1, 0), (0, -1)]


@pytest.fixture(scope="module")
def blind():
    return shared_prompts(load_suite(WORLDS_SUITE))


@pytest.fixture(scope="module")
def probe_set(blind):
    return relative_probe_set(blind, PROTOCOL, 400)


def test_the_29_alternatives_have_nine_labels_and_those_of_protocol_3_six() -> None:
    labels = Counter(pair_of(semantics) for semantics in mirror_classes())
    assert set(labels) == set(SEMANTIC_PAIRS)
    assert len(labels) == 10
    assert labels[ORIGINAL_PAIR] == 2
    kept = {pair_of(mirror_class(name)) for name in valid_alternatives(PRIMARY)}
    assert kept == set(MARKER_PAIRS)
    assert len(valid_alternatives(PRIMARY)) == 18
    assert pair_of(ORIGINAL) == ORIGINAL_PAIR
    assert all(pair_of(representative(pair)) == pair for pair in SEMANTIC_PAIRS)


def test_executed_rotation_is_the_difference_of_counts(probe_set) -> None:
    for k, pair in enumerate(ALL_PAIRS):
        assert (probe_set.classes[k, 0] == rotations(probe_set.prefixes, pair)).all(), pair.name


def test_displacement_against_a_walk_by_hand(blind, probe_set) -> None:
    cells, robot = blind.tasks.inputs.cells[:, 0], blind.tasks.inputs.robot[:, 0]
    half = (int(probe_set.counts[1]) - 1) // 2
    texts = blind.tasks.programs.texts()
    for b in (0, 5, 77):
        row, column, heading = (int(v) for v in robot[b])
        start = (row, column, heading)
        rows = np.flatnonzero(probe_set.program == b)
        for r, word in zip(rows, texts[b].split()[3:-1], strict=True):
            heading = (heading + TURNS.get(word, 0)) % 4
            ahead = (row + STEPS[heading][0], column + STEPS[heading][1])
            if word == "move();" and cells[b][ahead] >= 0:
                row, column = ahead
            away = (row - start[0], column - start[1])
            forward = sum(x * y for x, y in zip(away, STEPS[start[2]], strict=True))
            sideways = sum(x * y for x, y in zip(away, STEPS[(start[2] + 1) % 4], strict=True))
            expected = [(heading - start[2]) % 4, forward + half, sideways + half]
            assert probe_set.classes[0, :, r].tolist() == expected


def test_a_word_that_is_never_executed_has_no_label() -> None:
    tasks = probe_tasks(replace(load_suite("control"), probe_programs=60))
    inputs = tasks.inputs[:, 0]
    program, _, _, classes = label_actions(tasks.programs, inputs, [ORIGINAL])
    start = inputs.robot[program, 2].astype(np.int64)
    relative = relative_classes(classes[0, 0], start, *inputs.cells.shape[-2:])
    is_missing = classes[0, 0, 0] == MISSING
    assert 0 < is_missing.sum() < len(program)
    assert (relative[:, is_missing] == MISSING).all()
    assert (relative[:, ~is_missing] >= 0).all()


def test_no_program_and_no_world_is_in_two_parts_of_a_split(blind, probe_set) -> None:
    texts = np.array(blind.tasks.programs.texts())
    worlds = np.array([w.tobytes() for w in blind.tasks.inputs.cells])
    for seed in range(3):
        split = probe_set.split(seed)
        programs = [probe_set.program[rows] for rows in (split.train, split.validation, split.test)]
        for values in (texts, blind.prompt, worlds):
            parts = [set(values[p].tolist()) for p in programs]
            assert not parts[0] & parts[1]
            assert not parts[0] & parts[2]
            assert not parts[1] & parts[2]


def test_unseen_prefixes_against_sets_of_tuples(probe_set) -> None:
    split = probe_set.split(1)
    trained = {tuple(probe_set.prefixes[r]) for r in split.train}
    expected = [tuple(probe_set.prefixes[r]) not in trained for r in split.test]
    assert probe_set.is_unseen(split, split.test).tolist() == expected
    assert all(expected[i] for i in np.flatnonzero(probe_set.step[split.test] == probe_set.step.max()))


def test_the_budget_limits_training(probe_set) -> None:
    small = replace(probe_set, budget=100)
    assert len(np.unique(small.program[small.split(0).train])) == 100
    assert (small.split(0).test == probe_set.split(0).test).all()


def test_derivability_is_1_for_the_original_and_small_on_the_last_word(probe_set) -> None:
    losses = derivability_losses(probe_set)
    by_last_word = np.zeros(losses.shape[2])
    by_last_word[-1] = 1
    derivability = judged_derivability(losses, by_last_word)
    own = 1 - losses[1, 0] / losses[0, 0]
    assert own[-1] > 0.9
    # The first word: a marker alternative turns only where the original does or where the state has not changed.
    first = judged_derivability(losses, np.eye(len(by_last_word))[0])
    assert first["lp"] > 0.3 > derivability["lp"]
    assert screened_pairs(dict.fromkeys(derivability, 0.1) | {"ml": 0.2, "ru": 0.3}, 0.2) == (
        tuple(pair for pair in MARKER_PAIRS if pair.name != "ru"),
        POSE_PAIRS[1:],
    )
