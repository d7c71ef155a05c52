"""Samples of what probes read, executed: against the exact records of protocol 4, and against enumeration."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from benchmark.probing.version4.readable_record import (
    NUM_WORDS,
    count_targets,
    execute_counts,
    execute_places,
    execute_sums,
)
from benchmark.probing.version4.turn_pairs import ALL_PAIRS, ORIGINAL_PAIR, SEMANTIC_PAIRS, rotations
from benchmark.relative.control_labels import SEMANTICS, SUMS
from benchmark.relative.samples import sample_counts, sample_places, sample_sums
from karel_env.execution.first_executions import ActionWords, run_to_words
from karel_env.language import Programs
from karel_env.world import Worlds

NUM_SAMPLES = 20_000
TOLERANCE = 0.015
"""Four standard errors of a share of the samples."""
LENGTH = 4


def random_distributions(seed: int, *shape: int) -> np.ndarray:
    values = np.random.default_rng(seed).random(shape)
    return values / values.sum(-1, keepdims=True)


def straight_line(rows: int) -> tuple[Programs, Worlds]:
    """Programs of `LENGTH` words, each in a world of 3x3 free cells with a wall."""
    programs = Programs.straight_line(np.zeros((rows, LENGTH), np.int64), np.full(rows, LENGTH))
    cells = np.full((rows, 5, 5), -1, np.int16)
    cells[:, 1:-1, 1:-1] = 0
    cells[:, 1, 2] = -1
    robot = np.tile(np.array([[2, 2, 1]], np.int16), (rows, 1))
    return programs, Worlds(cells, robot, np.full((rows, 2), 5, np.int16))


def last_words(programs: Programs) -> ActionWords:
    words = ActionWords.of(programs)
    last = np.flatnonzero(words.rank == LENGTH - 1)
    return ActionWords(*(part[last] for part in vars(words).values()))


def shares(samples: np.ndarray, semantics, sums=()):
    """Shares of rotation, forward and sideways over the samples."""
    programs, inputs = straight_line(len(samples))
    first = run_to_words(programs, inputs, last_words(programs), samples, semantics, sums)
    return [counts / samples.shape[1] for counts in (first.rotation, first.forward, first.sideways)]


def test_sampled_places_agree_with_the_exact_record() -> None:
    place_probs = random_distributions(1, 2, LENGTH, NUM_WORDS)
    samples = sample_places(place_probs, NUM_SAMPLES, np.random.default_rng(2))
    rotation, _, _ = shares(samples, SEMANTICS, SUMS)
    for k, pair in enumerate(ALL_PAIRS):
        exact = execute_places(place_probs, np.full(2, LENGTH), pair)
        assert rotation[:, k] == pytest.approx(exact, abs=TOLERANCE), pair.name


def test_sampled_displacement_agrees_with_enumeration() -> None:
    place_probs = random_distributions(3, 1, LENGTH, NUM_WORDS)
    samples = sample_places(place_probs, NUM_SAMPLES, np.random.default_rng(4))
    every = np.array(list(product(range(NUM_WORDS), repeat=LENGTH)), np.int8)
    weights = np.prod(place_probs[0, np.arange(LENGTH), every], 1)
    programs, inputs = straight_line(len(every))
    first = run_to_words(programs, inputs, last_words(programs), every[:, None], SEMANTICS[:2])
    _, forward, sideways = shares(samples, SEMANTICS[:2])
    for sampled, counts in ((forward, first.forward), (sideways, first.sideways)):
        assert sampled[0] == pytest.approx(np.einsum("b,bkd->kd", weights, counts), abs=TOLERANCE)


def test_certain_counts_agree_with_the_exact_record() -> None:
    prefixes = np.random.default_rng(5).integers(NUM_WORDS, size=(30, LENGTH))
    count_probs = np.eye(LENGTH + 1)[count_targets(prefixes).T]
    samples = sample_counts(count_probs, np.full(30, LENGTH), 50, np.random.default_rng(6))
    assert (
        count_targets(samples.reshape(-1, LENGTH)).T.reshape(30, 50, -1) == count_targets(prefixes).T[:, None]
    ).all()
    rotation, _, _ = shares(samples, SEMANTICS, SUMS)
    for k, pair in enumerate(ALL_PAIRS):
        assert rotation[:, k] == pytest.approx(execute_counts(count_probs, pair)), pair.name
        assert (rotation[:, k].argmax(1) == rotations(prefixes, pair)).all()


def test_sampled_counts_are_those_of_the_posteriors_that_add_up() -> None:
    count_probs = random_distributions(7, 1, NUM_WORDS, LENGTH + 1)
    samples = sample_counts(count_probs, np.array([LENGTH]), NUM_SAMPLES, np.random.default_rng(8))
    expected = np.zeros((NUM_WORDS, LENGTH + 1))
    for counts in product(range(LENGTH + 1), repeat=NUM_WORDS):
        if sum(counts) == LENGTH:
            expected[np.arange(NUM_WORDS), counts] += np.prod(count_probs[0, np.arange(NUM_WORDS), counts])
    expected /= expected.sum(1, keepdims=True)
    counts = count_targets(samples[0])
    sampled = np.stack([np.bincount(row, minlength=LENGTH + 1) for row in counts]) / NUM_SAMPLES
    assert sampled == pytest.approx(expected, abs=TOLERANCE)
    # Every order of the words is equally likely.
    first = np.bincount(samples[0, :, 0], minlength=NUM_WORDS) / NUM_SAMPLES
    assert first == pytest.approx(counts.mean(1) / LENGTH, abs=TOLERANCE)


def test_sampled_sums_agree_with_the_exact_record() -> None:
    sum_probs = random_distributions(9, 1, LENGTH + 1)
    samples = sample_sums(sum_probs, np.array([LENGTH]), ORIGINAL_PAIR, NUM_SAMPLES, np.random.default_rng(10))
    rotation, _, _ = shares(samples, SEMANTICS[:1], SUMS)
    same_words = [0, *range(len(SEMANTIC_PAIRS), len(ALL_PAIRS))]
    for k, label in enumerate(same_words):
        assert rotation[:, k] == pytest.approx(execute_sums(sum_probs, ALL_PAIRS[label]), abs=TOLERANCE)


def test_words_after_a_short_prefix_change_nothing() -> None:
    sum_probs, lengths = random_distributions(11, 2, LENGTH + 1), np.array([1, 2])
    samples = sample_sums(sum_probs, lengths, ORIGINAL_PAIR, 500, np.random.default_rng(12))
    turns = np.isin(samples, (ORIGINAL_PAIR.left, ORIGINAL_PAIR.right))
    assert turns[0, :, :1].mean() == pytest.approx(sum_probs[0, 1] / sum_probs[0, :2].sum(), abs=0.1)
    assert turns[1, :, :2].sum(-1).max() <= 2
