"""The readable record: executed posteriors against enumeration, and its targets."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from benchmark.probing.labels import MISSING
from benchmark.probing.version4.readable_record import (
    NUM_WORDS,
    WORD_PAIRS,
    count_targets,
    execute_counts,
    execute_heading,
    execute_places,
    execute_sums,
    log_prob_of,
    pair_count_targets,
    place_targets,
)
from benchmark.probing.version4.turn_pairs import ALL_PAIRS, ORIGINAL_PAIR, SAME_WORDS_PAIRS, TurnPair, rotations

RANDOM = np.random.default_rng(7)


def random_distributions(*shape: int) -> np.ndarray:
    values = RANDOM.random(shape)
    return values / values.sum(-1, keepdims=True)


@pytest.mark.parametrize("pair", ALL_PAIRS, ids=lambda pair: pair.name)
def test_places_agree_with_the_sum_over_all_programs(pair: TurnPair) -> None:
    places = random_distributions(3, 4, NUM_WORDS)
    lengths = np.array([4, 2, 1])
    expected = np.zeros((3, 4))
    for row, length in enumerate(lengths):
        for words in product(range(NUM_WORDS), repeat=int(length)):
            probability = np.prod([places[row, place, word] for place, word in enumerate(words)])
            expected[row, rotations(np.array([words]), pair)[0]] += probability
    assert execute_places(places, lengths, pair) == pytest.approx(expected)


@pytest.mark.parametrize("pair", ALL_PAIRS, ids=lambda pair: pair.name)
def test_counts_agree_with_the_sum_over_all_pairs_of_counts(pair: TurnPair) -> None:
    counts = random_distributions(2, NUM_WORDS, 6)
    expected = np.zeros((2, 4))
    for row, left, right in product(range(2), range(6), range(6)):
        expected[row, (pair.right_turns * right + pair.left_turns * left) % 4] += (
            counts[row, pair.left, left] * counts[row, pair.right, right]
        )
    assert execute_counts(counts, pair) == pytest.approx(expected)


@pytest.mark.parametrize("pair", [ORIGINAL_PAIR, *SAME_WORDS_PAIRS], ids=lambda pair: pair.name)
def test_sums_agree_with_the_sum_over_all_fair_coins(pair: TurnPair) -> None:
    sums = random_distributions(2, 5)
    expected = np.zeros((2, 4))
    for row, total in product(range(2), range(5)):
        for coins in product((pair.left_turns, pair.right_turns), repeat=total):
            expected[row, sum(coins) % 4] += sums[row, total] / 2**total
    assert execute_sums(sums, pair) == pytest.approx(expected)


def test_heading_is_start_plus_rotation() -> None:
    start, rotation = random_distributions(2, 4), random_distributions(2, 4)
    expected = np.zeros((2, 4))
    for row, a, b in product(range(2), range(4), range(4)):
        expected[row, (a + b) % 4] += start[row, a] * rotation[row, b]
    assert execute_heading(start, rotation) == pytest.approx(expected)


def test_a_certain_record_is_executed_to_the_true_rotation() -> None:
    prefixes = RANDOM.integers(NUM_WORDS, size=(50, 6))
    prefixes[:10, 4:] = -1
    places = np.eye(NUM_WORDS)[prefixes.clip(0)]
    lengths = (prefixes >= 0).sum(1)
    counts = np.eye(7)[count_targets(prefixes).T]
    for pair in ALL_PAIRS:
        label = rotations(prefixes, pair)
        assert log_prob_of(execute_places(places, lengths, pair), label) == pytest.approx(np.zeros(50))
        assert log_prob_of(execute_counts(counts, pair), label) == pytest.approx(np.zeros(50))


def test_targets() -> None:
    prefixes = np.array([[1, 3, 1], [0, -1, -1]])
    assert place_targets(prefixes).tolist() == [[1, 0], [3, MISSING], [1, MISSING]]
    assert count_targets(prefixes).tolist() == [[0, 1], [2, 0], [0, 0], [1, 0], [0, 0]]
    sums = pair_count_targets(prefixes)
    assert sums[WORD_PAIRS.index((ORIGINAL_PAIR.left, ORIGINAL_PAIR.right))].tolist() == [2, 0]
    assert sums[WORD_PAIRS.index((1, 3))].tolist() == [3, 0]


def test_an_impossible_label_has_a_bounded_loss() -> None:
    assert log_prob_of(np.array([[1.0, 0, 0, 0]]), np.array([1]))[0] == pytest.approx(np.log(1e-12))
