"""Samples of action words from what probes read of them: each word by its place, counts of words, sums of two counts.

These are the three records of protocol 4 (`probing/version4/readable_record.py`), for labels that are no function of the
counts. The number of words is known. Counts are drawn given that they add up to it, and arranged in any order.

Letters: `R` rows, `S` samples, `T` places, `V` action words, `N` counts (0 to T).
"""

from __future__ import annotations

import numpy as np

from benchmark.probing.version4.readable_record import NUM_WORDS
from benchmark.probing.version4.turn_pairs import TurnPair

_SMALLEST = 1e-12


def sample_places(place_probs: np.ndarray, num_samples: int, random: np.random.Generator) -> np.ndarray:
    """int8 [R, S, T], words at all places, independent of one another.

    Args:
        place_probs: float [R, T, V], posterior of the word at each place.
        num_samples: S.
        random: generator.
    """
    cumulative = place_probs.cumsum(-1, dtype=np.float64)
    cumulative /= cumulative[..., -1:]
    uniform = random.random((len(place_probs), num_samples, place_probs.shape[1]))
    return (uniform[..., None] >= cumulative[:, None]).sum(-1).clip(0, NUM_WORDS - 1).astype(np.int8)


def sample_counts(
    count_probs: np.ndarray, lengths: np.ndarray, num_samples: int, random: np.random.Generator
) -> np.ndarray:
    """int8 [R, S, N - 1], words whose counts are drawn from their posteriors given their number, in random order.

    Args:
        count_probs: float [R, V, N], posterior of how often each word has occurred.
        lengths: int [R], words of the prefix; what is at later places has no meaning.
        num_samples: S.
        random: generator.
    """
    probs = np.maximum(count_probs.astype(np.float64), _SMALLEST)
    num_rows, _, num_counts = probs.shape
    # Probability of each total of the first words, by convolution; then the counts from the last word to the first.
    totals = [np.eye(1, num_counts).repeat(num_rows, 0)]
    for word in range(NUM_WORDS):
        total = np.zeros((num_rows, num_counts))
        for count in range(num_counts):
            total[:, count:] += probs[:, word, count, None] * totals[-1][:, : num_counts - count]
        totals.append(total)
    remaining = np.repeat(lengths[:, None], num_samples, 1)
    counts = np.zeros((num_rows, num_samples, NUM_WORDS), np.int64)
    row = np.arange(num_rows)[:, None, None]
    for word in range(NUM_WORDS - 1, -1, -1):
        before = remaining[..., None] - np.arange(num_counts)
        weights = np.where(before >= 0, probs[:, None, word] * totals[word][row, before.clip(0)], 0)
        cumulative = weights.cumsum(-1)
        threshold = random.random((num_rows, num_samples, 1)) * cumulative[..., -1:]
        counts[..., word] = np.minimum((threshold >= cumulative).sum(-1), remaining)
        remaining = remaining - counts[..., word]
    ends = counts.cumsum(-1)
    words = (np.arange(num_counts - 1)[:, None] >= ends[:, :, None]).sum(-1).clip(0, NUM_WORDS - 1)
    return _shuffle(words.astype(np.int8), lengths, random)


def sample_sums(
    sum_probs: np.ndarray, lengths: np.ndarray, pair: TurnPair, num_samples: int, random: np.random.Generator
) -> np.ndarray:
    """int8 [R, S, N - 1], words of which as many as drawn are either turning word by a fair coin, the others any other.

    Args:
        sum_probs: float [R, N], posterior of how often either word of `pair` has occurred.
        lengths: int [R], words of the prefix.
        pair: the turning words.
        num_samples: S.
        random: generator.
    """
    num_rows, num_counts = sum_probs.shape
    is_possible = np.arange(num_counts) <= lengths[:, None]
    cumulative = np.where(is_possible, np.maximum(sum_probs.astype(np.float64), _SMALLEST), 0).cumsum(-1)
    threshold = random.random((num_rows, num_samples, 1)) * cumulative[:, None, -1:]
    total = (threshold >= cumulative[:, None]).sum(-1)
    shape = (num_rows, num_samples, num_counts - 1)
    turning = np.array([pair.left, pair.right], np.int8)[random.integers(2, size=shape)]
    unturned = [word for word in range(NUM_WORDS) if word not in (pair.left, pair.right)]
    other = np.array(unturned, np.int8)[random.integers(len(unturned), size=shape)]
    return _shuffle(np.where(np.arange(num_counts - 1) < total[..., None], turning, other), lengths, random)


def _shuffle(words: np.ndarray, lengths: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The first `lengths` words of each sample in random order."""
    keys = random.random(words.shape)
    keys[np.broadcast_to(np.arange(words.shape[-1]) >= lengths[:, None, None], words.shape)] = 2
    return np.take_along_axis(words, keys.argsort(-1), -1)
