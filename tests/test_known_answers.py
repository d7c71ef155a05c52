"""The instrument against pseudo-models whose verdict is known: a small version of the calibration gate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmark.evaluation import first_inputs
from benchmark.labels import TEST, TRAIN, build_probe_set, with_original
from benchmark.measurement import measure_meaning
from benchmark.protocol import STANDARD
from benchmark.recorder import recorder_states
from benchmark.semantic_content import REPRESENTS, prior_log_prob
from benchmark.suites import blind_tasks, load_suite
from karel_env.features import FEATURES
from karel_env.screen import kept

SUITE = replace(load_suite("laptop"), probe_programs=1500)
PROTOCOL = replace(STANDARD, alternatives=4, steps=300, hidden=64, seeds=(0, 1, 2))


@pytest.fixture(scope="module")
def probe_set():
    tasks = blind_tasks(SUITE)
    return build_probe_set(tasks.programs, first_inputs(tasks), with_original(kept("facing"), PROTOCOL), PROTOCOL)


@pytest.fixture(scope="module")
def states(probe_set):
    """name -> float32 [R, D] of each pseudo-model."""
    tasks = blind_tasks(SUITE)
    rng = np.random.default_rng(12)
    recorder = recorder_states(tasks.programs, first_inputs(tasks), probe_set)

    def oracle(semantics: int) -> np.ndarray:
        heads = [FEATURES.index(name) for name in ("facing", "absolute_x", "absolute_y", "obstacle")]
        return np.concatenate([np.eye(probe_set.counts[f])[probe_set.classes[semantics, f]] for f in heads], 1)

    def mixed(*parts: np.ndarray) -> np.ndarray:
        whole = np.concatenate(parts, 1)
        return (whole @ rng.normal(size=(whole.shape[1], 96)) / np.sqrt(whole.shape[1])).astype(np.float32)

    return {
        "noise": rng.normal(size=(len(recorder), 96)).astype(np.float32),
        "recorder": mixed(recorder),
        "oracle": mixed(oracle(0)),
        "oracle + recorder": mixed(oracle(0), recorder),
        "oracle of an alternative": mixed(oracle(1)),
        "random": [mixed(np.tanh(mixed(recorder))) for _ in range(2)],
    }


def measured(states, name):
    def twice(x):
        return np.repeat(x[:, None], 2, 1)

    return measure_meaning(SUITE, PROTOCOL, twice(states[name]), [twice(s) for s in states["random"]])[0]


def test_noise_knows_nothing(states):
    facing = measured(states, "noise").features["facing"]
    assert abs(facing.skill.value) < 0.02
    assert abs(facing.gap.value) < 0.02


@pytest.mark.parametrize("name", ["oracle", "oracle + recorder"])
def test_the_oracle_represents(states, name):
    found = measured(states, name)
    assert found.verdict == REPRESENTS
    facing = found.features["facing"]
    assert facing.skill.value > 0.5
    assert facing.delta.low > 0.03
    assert facing.p_rand == pytest.approx(1 / (len(facing.alternatives) + 1))


def test_the_recorder_does_not_represent(states):
    found = measured(states, "recorder")
    assert found.verdict != REPRESENTS
    assert abs(found.features["facing"].gap.value) < 0.05


def test_the_oracle_of_an_alternative_has_a_negative_gap_for_it(states):
    found = measured(states, "oracle of an alternative")
    assert found.verdict != REPRESENTS
    assert found.features["facing"].delta.value < 0


def test_no_program_and_no_prefix_in_its_world_crosses_splits(probe_set):
    tasks = blind_tasks(SUITE)
    worlds = first_inputs(tasks)
    train, test = ({} for _ in range(2))
    for home, split in ((train, TRAIN), (test, TEST)):
        for row in probe_set.rows(split):
            b = probe_set.program[row]
            prefix = tuple(tasks.programs.program(b)[: 4 + probe_set.word[row]])
            home[(prefix, worlds.cells[b].tobytes(), worlds.robot[b].tobytes())] = b
    assert not train.keys() & test.keys()
    assert len(train) > 1000 < len(test) * 5


def test_the_prior_is_the_frequency_of_the_step(probe_set):
    found = prior_log_prob(probe_set)
    train, test = probe_set.rows(TRAIN), probe_set.rows(TEST)
    f, step = FEATURES.index("facing"), 3
    label = probe_set.classes[0, f, train[probe_set.step[train] == step]]
    expected = np.log((np.bincount(label, minlength=4) + 1) / (len(label) + 4))
    at = probe_set.step[test] == step
    np.testing.assert_allclose(found[0, f, at], expected[probe_set.classes[0, f, test[at]]])


def test_every_semantics_has_the_same_label_frequencies(probe_set):
    """Exchangeable tokens and headings: facing is uniform under each semantics, within sampling noise."""
    f = FEATURES.index("facing")
    counts = np.stack([np.bincount(classes, minlength=4) / classes.size for classes in probe_set.classes[:, f]])
    assert np.abs(counts - 0.25).max() < 0.03
