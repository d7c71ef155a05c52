"""The trained pseudo-models of protocol 4 learn what they are named after, on words of the stated frequencies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_pair import PAIR_SUITE

from benchmark.calibrate.trained.rotation_network import (
    COPY,
    TRACK,
    TRAINED_KINDS,
    TrainedKind,
    fresh_accuracy,
    init_rotation_network,
    rotation_views,
    sample_batch,
    train_rotation_network,
)
from benchmark.probing.labels import MISSING
from benchmark.probing.version4.measure_rotation import relative_probe_set
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.probing.version4.turn_pairs import ORIGINAL_PAIR, rotations
from benchmark.tasks.shared_prompts import shared_prompts

TURN = np.array([0, -1, 1, 0, 0])


def test_a_tracker_is_trained_on_rotation_and_displacement_in_the_frame_of_the_start():
    batch = sample_batch(PAIR_SUITE, TRAINED_KINDS["trained to track"], (1,), 0, 200)
    actions, (rotation, forward, _) = batch.actions.numpy(), batch.targets[TRACK].numpy()
    np.testing.assert_array_equal(rotation, rotations_of(actions))
    # Without a turn the robot moves ahead only, by at most one cell per word.
    has_not_turned = (TURN[actions] != 0).cumsum(1) == 0
    moved = np.diff(forward, prepend=forward[:, :1], axis=1)[has_not_turned]
    assert set(np.unique(moved)) <= {0, 1}
    assert (batch.targets[TRACK] != MISSING).all()


def rotations_of(actions: np.ndarray) -> np.ndarray:
    return TURN[actions].cumsum(1) % 4


@pytest.mark.parametrize("name", ["trained to copy", "trained to copy, words of the suite"])
def test_a_copier_reads_words_of_its_frequencies_and_is_trained_on_them(name):
    kind = TRAINED_KINDS[name]
    batch = sample_batch(PAIR_SUITE, kind, (1,), 0, 4000)
    shares = np.bincount(batch.actions.numpy().ravel(), minlength=5) / batch.actions.numel()
    weights = np.array(PAIR_SUITE.recipe.weights) if kind.has_suite_words else np.ones(5)
    np.testing.assert_allclose(shares, weights / weights.sum(), atol=0.02)
    targets = batch.targets[COPY].numpy()
    np.testing.assert_array_equal(targets[0], batch.actions.numpy())
    np.testing.assert_array_equal(targets[2, :, 2:], batch.actions.numpy()[:, :-2])
    assert (targets[2, :, :2] == MISSING).all()


def test_training_is_deterministic_and_learns():
    kind = TrainedKind("N", COPY)
    first, second = (train_rotation_network(PAIR_SUITE, kind, 3, 12) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    untrained = init_rotation_network(PAIR_SUITE, 3).eval()
    assert fresh_accuracy(first, kind, 0, 500) > fresh_accuracy(untrained, kind, 0, 500) + 0.05


def test_a_view_has_the_states_at_the_labelled_words():
    blind = shared_prompts(PAIR_SUITE, 40)
    programs, inputs = blind.tasks.programs, blind.tasks.inputs[:, 0]
    rows = relative_probe_set(blind, ROTATION_STANDARD, 40)
    network = init_rotation_network(PAIR_SUITE, 0).eval()
    mean, last = rotation_views(network, programs, inputs, rows)
    assert mean.shape == last.shape == (len(rows.program), last.shape[1])
    # Earlier words alone determine a state: programs that agree up to a word, in one world, have the same one.
    prefixes = np.concatenate([blind.prompt[rows.program][:, None], rows.prefixes], 1)
    _, group = np.unique(prefixes, axis=0, return_inverse=True)
    group = group.reshape(-1)
    assert len(np.unique(group)) < len(group)
    for number in np.flatnonzero(np.bincount(group) > 1)[:20]:
        np.testing.assert_allclose(
            last[group == number], last[group == number][:1].repeat((group == number).sum(), 0), atol=1e-5
        )
    assert np.isfinite(mean).all()
    assert len(np.unique(rotations(rows.prefixes, ORIGINAL_PAIR))) == 4
