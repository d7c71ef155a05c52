"""The readable record: what a probe of the same size reads of the words themselves, executed under every semantics.

Heads read from a model's own states (a) the word at each place of the prefix, (b) how often each word has occurred, and
(c) how often either of two words has occurred. The posterior of each is run through a semantics exactly, with independent
heads, which gives a distribution over rotations: `RECORDS`. A record of the words that is forgotten unequally has the gap
of its own readable record, and nothing beyond it.

For a bag of words in which classes of words are merged, one of the three is exact under the original and no better than
exact under an alternative: (c) if the two turns are merged, else (b). Its gap is then at least that of any probe.

Letters: `R` rows, `T` places, `V` action words, `N` counts (0 to T), `K` labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from benchmark.probing.labels import MISSING
from benchmark.probing.version4.turn_pairs import NUM_ROTATIONS, TurnPair
from karel_env.language import ACTIONS

NUM_WORDS = len(ACTIONS)
WORD_PAIRS = tuple(combinations(range(NUM_WORDS), 2))
RECORDS = ("record-places", "record-counts", "record-sums")
"""Names of the three executed records as controls."""
_SMALLEST = 1e-12


def place_targets(prefixes: np.ndarray) -> np.ndarray:
    """int16 [T, R], the word at each place of the prefix; `MISSING` after the prefix."""
    return np.where(prefixes < 0, MISSING, prefixes).T.astype(np.int16)


def count_targets(prefixes: np.ndarray) -> np.ndarray:
    """int16 [V, R], how often each action word has occurred."""
    return np.stack([(prefixes == word).sum(1) for word in range(NUM_WORDS)]).astype(np.int16)


def pair_count_targets(prefixes: np.ndarray) -> np.ndarray:
    """int16 [10, R], how often either word of each of `WORD_PAIRS` has occurred."""
    counts = count_targets(prefixes)
    return np.stack([counts[a] + counts[b] for a, b in WORD_PAIRS])


def execute_places(place_probs: np.ndarray, lengths: np.ndarray, pair: TurnPair) -> np.ndarray:
    """float64 [R, 4], distribution of rotation if the words at all places are independent.

    Args:
        place_probs: float [R, T, V], posterior of the word at each place.
        lengths: int [R], words of the prefix; later places are ignored.
        pair: the label.
    """
    left, right = (place_probs[..., word].astype(np.float64) for word in (pair.left, pair.right))
    is_read = np.arange(place_probs.shape[1]) < lengths[:, None]
    left, right = left * is_read, right * is_read
    distribution = np.zeros((len(place_probs), NUM_ROTATIONS))
    distribution[:, 0] = 1
    for position in range(place_probs.shape[1]):
        p_left, p_right = left[:, position, None], right[:, position, None]
        distribution = (
            (1 - p_left - p_right) * distribution
            + p_left * np.roll(distribution, pair.left_turns, 1)
            + p_right * np.roll(distribution, pair.right_turns, 1)
        )
    return distribution


def execute_counts(count_probs: np.ndarray, pair: TurnPair) -> np.ndarray:
    """float64 [R, 4], distribution of rotation if the counts of the two turning words are independent.

    Args:
        count_probs: float [R, V, N], posterior of how often each word has occurred.
        pair: the label.
    """
    left, right = (count_probs[:, word].astype(np.float64) for word in (pair.left, pair.right))
    right_turned = _fold(right, pair.right_turns)
    distribution = np.zeros_like(right_turned)
    for turns, probability in enumerate(_fold(left, pair.left_turns).T):
        distribution += probability[:, None] * np.roll(right_turned, turns, 1)
    return distribution


def execute_sums(sum_probs: np.ndarray, pair: TurnPair) -> np.ndarray:
    """float64 [R, 4], distribution of rotation from the number of turning words, each of them either by a fair coin.

    Args:
        sum_probs: float [R, N], posterior of how often either turning word of the label has occurred.
        pair: the label.
    """
    by_sum = np.zeros((sum_probs.shape[1], NUM_ROTATIONS))
    by_sum[0, 0] = 1
    for total in range(1, len(by_sum)):
        previous = by_sum[total - 1]
        by_sum[total] = (np.roll(previous, pair.left_turns) + np.roll(previous, pair.right_turns)) / 2
    return np.asarray(sum_probs.astype(np.float64) @ by_sum)


def executed_losses(
    place_probs: np.ndarray, count_probs: np.ndarray, lengths: np.ndarray, pairs: Sequence[TurnPair], labels: np.ndarray
) -> dict[str, np.ndarray]:
    """float64 [K, R] by record, cross-entropy of each label under the records of one network, executed.

    Args:
        place_probs: float [R, T, V], see `execute_places`.
        count_probs: float [R, V + number of `WORD_PAIRS`, N], counts of words, then of pairs of words.
        lengths: int [R], words so far.
        pairs: the K labels.
        labels: int [K, R], rotation under each of them.
    """
    losses: dict[str, list[np.ndarray]] = {name: [] for name in RECORDS}
    for pair, label in zip(pairs, labels, strict=True):
        sum_probs = count_probs[:, NUM_WORDS + WORD_PAIRS.index((pair.left, pair.right))]
        distributions = (
            execute_places(place_probs, lengths, pair),
            execute_counts(count_probs[:, :NUM_WORDS], pair),
            execute_sums(sum_probs, pair),
        )
        for name, distribution in zip(RECORDS, distributions, strict=True):
            losses[name].append(-log_prob_of(distribution / distribution.sum(1, keepdims=True), label))
    return {name: np.stack(of_record) for name, of_record in losses.items()}


def execute_heading(start_probs: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """float64 [R, 4], distribution of the heading if start heading and rotation, float [R, 4] each, are independent."""
    heading = np.zeros_like(rotation)
    for start in range(NUM_ROTATIONS):
        heading += start_probs[:, start, None] * np.roll(rotation, start, 1)
    return heading


def _fold(count_probs: np.ndarray, turns: int) -> np.ndarray:
    """float64 [R, 4], distribution of `turns` times a count, modulo 4."""
    folded = np.zeros((len(count_probs), NUM_ROTATIONS))
    for count in range(count_probs.shape[1]):
        folded[:, turns * count % NUM_ROTATIONS] += count_probs[:, count]
    return folded


def log_prob_of(distribution: np.ndarray, label: np.ndarray) -> np.ndarray:
    """float64 [R], log-probability of each label under its row of `distribution`, at least log(1e-12)."""
    return np.asarray(np.log(np.maximum(distribution[np.arange(len(label)), label], _SMALLEST)))
