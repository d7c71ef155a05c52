"""The trained pair: the tracker tracks, the copier only keeps what it read, and their states are those of the word."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_pair import PAIR_SUITE

from benchmark.calibrate.trained_pair import (
    COPIED_FEATURES,
    TRACKED_FEATURES,
    WIDTH,
    Network,
    TrainedPair,
    _sample_batch,
    head_accuracies,
    pooled_states,
    train_pair,
)
from benchmark.probing.labels import MISSING, build_probe_set
from benchmark.probing.protocol import POOLS, STANDARD
from benchmark.tasks.probe_sets import first_inputs
from benchmark.tasks.suite import blind_tasks
from karel_env.features import FEATURES, PRIMARY
from karel_env.language import ACTIONS, HEADER, Programs
from karel_env.semantics import ORIGINAL
from karel_env.syntax.parser import parse
from karel_env.world import Worlds

SUITE = PAIR_SUITE
LENGTH = SUITE.blind_length
FACING = TRACKED_FEATURES.index(PRIMARY)
TURN = np.array([0, -1, 1, 0, 0])
"""Quarters that each action turns the robot to the right, in the order of `ACTIONS`."""


@pytest.fixture(scope="module")
def pair(brief_pair) -> TrainedPair:
    """Hardly trained: for the form and order of states."""
    return brief_pair


@pytest.fixture(scope="module")
def blind():
    """Programs, inputs and labels of the blind set."""
    tasks = blind_tasks(SUITE)
    inputs = first_inputs(tasks)
    return tasks.programs, inputs, build_probe_set(tasks.programs, inputs, [ORIGINAL], STANDARD)


def labelled(actions: list[list[int]], heading: int = 0):
    """Programs, inputs and labels of programs of one length, all in the same empty world."""
    programs = Programs.straight_line(np.array(actions), np.full(len(actions), len(actions[0])))
    cells = np.full((len(actions), 5, 5), -1)
    cells[:, 1:-1, 1:-1] = 0
    inputs = Worlds.of(cells, np.broadcast_to([2, 2, heading], (len(actions), 3)))
    return programs, inputs, build_probe_set(programs, inputs, [ORIGINAL], STANDARD)


def same(first: Network, second: Network) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def read_linearly(found: np.ndarray, wanted: np.ndarray) -> float:
    """Accuracy on the second half of a linear map fitted to the first."""
    columns = np.concatenate([found, np.ones((len(found), 1))], 1)
    half = len(found) // 2
    fitted = np.linalg.lstsq(columns[:half], np.eye(4)[wanted[:half]], rcond=None)[0]
    return float(((columns[half:] @ fitted).argmax(1) == wanted[half:]).mean())


def test_labels_are_the_headings_that_turns_add_up_to():
    batch = _sample_batch(SUITE, [1], 0, 300)
    # World columns end with the one-hot heading.
    start = batch.world[:, -4:].argmax(1).numpy()
    expected = (start[:, None] + TURN[batch.actions.numpy()].cumsum(1)) % 4
    np.testing.assert_array_equal(batch.targets["track"][FACING], expected)
    np.testing.assert_array_equal(
        batch.targets["copy"][LENGTH + COPIED_FEATURES.index("facing")], start[:, None].repeat(LENGTH, 1)
    )
    np.testing.assert_array_equal(batch.targets["copy"][1, :, 1:], batch.actions[:, :-1])
    assert (batch.targets["copy"][1, :, 0] == MISSING).all()


def test_training_draws_are_uniform_and_of_a_stream_of_their_own(blind):
    batch, other = _sample_batch(SUITE, [1], 0, 4000), _sample_batch(SUITE, [2], 0, 4000)
    shares = np.bincount(batch.actions.flatten(), minlength=len(ACTIONS)) / batch.actions.numel()
    np.testing.assert_allclose(shares, 1 / len(ACTIONS), atol=0.02)
    assert (batch.actions != other.actions).float().mean() > 0.7
    later = _sample_batch(SUITE, [1], 1000, 10)
    assert torch.equal(later.actions, batch.actions[1000:1010])
    assert torch.equal(later.world, batch.world[1000:1010])


@pytest.mark.slow
def test_the_tracker_tracks_and_the_copier_does_not(small_pair, blind):
    found = head_accuracies(small_pair.tracker, 0, "track")
    assert found.shape == (len(TRACKED_FEATURES),)
    assert found[FACING] > 0.9
    assert (found > 0.8).all()
    assert head_accuracies(small_pair.copier, 0, "track")[FACING] < 0.4
    wanted = blind[2].classes[0, FEATURES.index(PRIMARY)]
    read = {name: read_linearly(pooled_states(model, *blind)[:, 1], wanted) for name, model in vars(small_pair).items()}
    assert read["tracker"] > 0.85
    assert read["copier"] < 0.6


@pytest.mark.slow
def test_the_copier_copies_and_the_tracker_does_not(small_pair):
    found = head_accuracies(small_pair.copier, 0, "copy")
    assert found.shape == (LENGTH + len(COPIED_FEATURES),)
    assert (found > 0.97).all()
    assert (head_accuracies(small_pair.tracker, 0, "copy")[:LENGTH] < 0.5).all()


@pytest.mark.slow
def test_states_are_in_the_order_of_the_labels(small_pair, blind):
    """The models' own heads read the labels of the probe set and the words before from the states, row by row."""
    programs, inputs, probe_set = blind
    found = pooled_states(small_pair.tracker, programs, inputs, probe_set)
    assert found.shape == (len(probe_set.program), len(POOLS), WIDTH)
    assert found.dtype == np.float32
    with torch.no_grad():
        tracked = small_pair.tracker.logits(torch.from_numpy(found[:, 1]), "track")
        copied = small_pair.copier.logits(torch.from_numpy(pooled_states(small_pair.copier, *blind)[:, 1]), "copy")
    for name, logits in zip(TRACKED_FEATURES, tracked, strict=True):
        assert (logits.argmax(1).numpy() == probe_set.classes[0, FEATURES.index(name)]).mean() > 0.8, name
    second = np.flatnonzero(probe_set.word == 1)
    for back in (0, 1):
        words = programs.words[programs.offsets[probe_set.program[second]] + len(HEADER) + 1 - back]
        assert (copied[back][second].argmax(1).numpy() == words).mean() > 0.97


def test_states_follow_the_order_of_the_labelled_words(pair, blind):
    programs, inputs, probe_set = blind
    found = pooled_states(pair.tracker, programs, inputs, probe_set)
    order = np.random.default_rng(0).permutation(len(found))
    shuffled = replace(probe_set, program=probe_set.program[order], word=probe_set.word[order])
    np.testing.assert_array_equal(pooled_states(pair.tracker, programs, inputs, shuffled), found[order])


@pytest.mark.slow
def test_states_are_the_mean_over_layers_and_the_last(small_pair):
    programs, inputs, probe_set = labelled([[0, 1, 2, 3]])
    batch = _sample_batch(SUITE, [1], 0, 1)
    assert batch.actions.shape == (1, LENGTH)
    layers = small_pair.tracker(batch.world, batch.actions)
    assert [one.shape for one in layers] == [(1, LENGTH, WIDTH)] * 3
    np.testing.assert_allclose(layers[-1].detach().mean(-1), 0, atol=0.2)
    found = pooled_states(small_pair.tracker, programs, inputs, probe_set)
    with torch.no_grad():
        from_heads = small_pair.tracker.logits(torch.from_numpy(found[:, 1]), "track")[FACING].argmax(1)
    assert from_heads.tolist() == [0, 3, 0, 0]


@pytest.mark.parametrize("name", ["tracker", "copier"])
def test_a_word_changes_its_state_and_no_earlier_one(pair, name):
    found = pooled_states(getattr(pair, name), *labelled([[1, 2, 0, 3], [1, 2, 1, 3]])).reshape(2, 4, len(POOLS), WIDTH)
    np.testing.assert_array_equal(found[0, :2], found[1, :2])
    assert (np.abs(found[0, 2:] - found[1, 2:]).max(-1) > 1e-2).all()
    turned = pooled_states(getattr(pair, name), *labelled([[1, 2, 0, 3]], heading=1)).reshape(4, len(POOLS), WIDTH)
    assert (np.abs(found[0] - turned).max(-1) > 1e-3).all()


def test_a_program_has_the_states_that_it_has_alone(pair):
    programs = Programs.of([labelled([[1, 2]])[0].program(0), labelled([[1, 2, 0, 3]])[0].program(0)])
    inputs = labelled([[1, 2, 0, 3]] * 2)[1]
    probe_set = build_probe_set(programs, inputs, [ORIGINAL], STANDARD)
    found = pooled_states(pair.tracker, programs, inputs, probe_set)
    assert len(found) == 6
    np.testing.assert_allclose(found[:2], found[2:4], atol=1e-5)
    np.testing.assert_allclose(found[2:], pooled_states(pair.tracker, *labelled([[1, 2, 0, 3]])), atol=1e-5)


def test_programs_that_do_not_fit_are_named(pair):
    programs, inputs, probe_set = labelled([[0] * (LENGTH + 1)])
    with pytest.raises(ValueError, match=f"{LENGTH + 1} actions; expected at most {LENGTH}"):
        pooled_states(pair.tracker, programs, inputs, probe_set)
    looping = Programs.of([parse("def run() { repeat (2) { move(); } }")])
    with pytest.raises(ValueError, match="expected actions only"):
        pooled_states(pair.tracker, looping, inputs, probe_set)


def test_a_seed_determines_the_pair():
    state = torch.random.get_rng_state()
    first, again, other = (train_pair(SUITE, seed, steps=12) for seed in (3, 3, 4))
    assert torch.equal(state, torch.random.get_rng_state())
    for name in ("tracker", "copier"):
        assert same(getattr(first, name), getattr(again, name))
        assert not same(getattr(first, name), getattr(other, name))
    assert not same(first.tracker, first.copier)


def test_both_start_alike_and_no_untrained_copy_is_that_start(blind):
    start = train_pair(SUITE, seed=3, steps=0)
    assert same(start.tracker, start.copier)
    copies = [start.random_init(seed) for seed in (3, 4)]
    assert not same(*copies)
    assert not any(same(copy, start.tracker) for copy in copies)
    assert same(copies[0], train_pair(SUITE, seed=5, steps=0).random_init(3))
    sizes = [[p.shape for p in model.parameters()] for model in (start.tracker, *copies)]
    assert sizes[0] == sizes[1] == sizes[2]
    first, second = (pooled_states(copy, *blind) for copy in copies)
    assert (np.abs(first - second).max(-1) > 0.1).all()
