"""Exact skills and gaps of a perfect observer, by enumeration: known answers without a trained probe.

A pseudo-model is a function from the words so far (and, for a forgetful record, from which of them are kept) to a code. A
perfect probe predicts each label by its exact posterior under the code, and the heads of the readable record are exact
posteriors too. All programs of uniformly drawn words are enumerated, so that nothing is sampled.

Letters: `R` enumerated cases, `T` words, `G` codes, `K` labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from benchmark.probing.version4.readable_record import (
    NUM_WORDS,
    WORD_PAIRS,
    count_targets,
    execute_counts,
    execute_places,
    execute_sums,
    log_prob_of,
)
from benchmark.probing.version4.turn_pairs import (
    ALL_PAIRS,
    ARITHMETIC_PAIRS,
    MARKER_PAIRS,
    NUM_ROTATIONS,
    POSE_PAIRS,
    TURN_COUNT_PAIR,
    TurnPair,
    rotations,
)

PROBE, PLACES, COUNTS, SUMS = OBSERVERS = ("probe", "record-places", "record-counts", "record-sums")
FORGOTTEN = NUM_WORDS
"""The word that stands for a forgotten one in `forgetful_cases`."""


@dataclass(frozen=True)
class ExactGaps:
    """Exact figures of one pseudo-model; skill is 1 - H(label | code) / H(label).

    Attributes:
        skills: float64 [K] in the order of `ALL_PAIRS`, by observer.
    """

    skills: dict[str, np.ndarray]

    def gap(self, observer: str) -> float:
        """Skill under the original minus mean skill under the marker alternatives."""
        return float(self.skills[observer][0] - self._mean(observer, MARKER_PAIRS))

    def pose_gap(self, observer: str) -> float:
        """Skill under the original minus mean skill under the pose-word alternatives."""
        return float(self.skills[observer][0] - self._mean(observer, POSE_PAIRS))

    @property
    def delta(self) -> float:
        """Gap of the probe minus the largest gap of the records, at least 0."""
        return self.gap(PROBE) - max(0.0, *(self.gap(name) for name in OBSERVERS[1:]))

    @property
    def pose_delta(self) -> float:
        """The same against the pose-word alternatives."""
        return self.pose_gap(PROBE) - max(0.0, *(self.pose_gap(name) for name in OBSERVERS[1:]))

    @property
    def surplus(self) -> float:
        """Skill of the probe minus the largest skill of the records, under the original."""
        return float(self.skills[PROBE][0] - max(self.skills[name][0] for name in OBSERVERS[1:]))

    @property
    def arithmetic(self) -> float:
        """Skill of the probe under the original minus mean skill of the same two words with another arithmetic."""
        return float(self.skills[PROBE][0] - self._mean(PROBE, ARITHMETIC_PAIRS))

    @property
    def turn_count(self) -> float:
        """Skill of the probe under the original minus skill of the number of turns."""
        return float(self.skills[PROBE][0] - self._mean(PROBE, (TURN_COUNT_PAIR,)))

    def _mean(self, observer: str, pairs: tuple[TurnPair, ...]) -> float:
        return float(np.mean([self.skills[observer][ALL_PAIRS.index(pair)] for pair in pairs]))


def all_programs(length: int) -> np.ndarray:
    """int64 [5 ** length, length], every program of this many action words."""
    return np.array(list(product(range(NUM_WORDS), repeat=length)), np.int64)


def forgetful_cases(length: int, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Programs with every combination of kept words: words [R, T], remembered words [R, T], probabilities [R].

    Args:
        length: T.
        keep: float [5], probability that each word is kept.
    """
    cases = np.array(list(product(range(2 * NUM_WORDS), repeat=length)), np.int64)
    words, is_kept = cases % NUM_WORDS, cases >= NUM_WORDS
    probability = np.where(is_kept, keep[words], 1 - keep[words]).prod(1) / NUM_WORDS**length
    used = probability > 0
    return words[used], np.where(is_kept, words, FORGOTTEN)[used], probability[used]


def hash_rows(columns: np.ndarray) -> np.ndarray:
    """int64 [R], index of each distinct row of int [R, columns]."""
    return np.asarray(np.unique(columns, axis=0, return_inverse=True)[1].reshape(-1))


def exact_gaps(words: np.ndarray, code: np.ndarray, probability: np.ndarray | None = None) -> ExactGaps:
    """Exact skills of the probe and of the executed records after the last word.

    Args:
        words: int [R, T], the words of each case.
        code: int [R], index of what the pseudo-model holds in each case.
        probability: float [R], probability of each case; equal if None.
    """
    weights = np.full(len(words), 1 / len(words)) if probability is None else probability
    code = np.unique(code, return_inverse=True)[1]
    by_code = np.bincount(code, weights)
    length = words.shape[1]
    counts = count_targets(words).astype(np.int64)

    def posterior(label: np.ndarray, classes: int) -> np.ndarray:
        joint = np.bincount(code * classes + label, weights, minlength=len(by_code) * classes)
        return joint.reshape(-1, classes) / by_code[:, None]

    places = np.stack([posterior(words[:, position], NUM_WORDS) for position in range(length)], 1)
    count_probs = np.stack([posterior(count, length + 1) for count in counts], 1)
    sums = {pair: posterior(counts[pair[0]] + counts[pair[1]], length + 1) for pair in WORD_PAIRS}
    skills: dict[str, list[float]] = {name: [] for name in OBSERVERS}
    for pair in ALL_PAIRS:
        label = rotations(words, pair)
        predictions = {
            PROBE: posterior(label, NUM_ROTATIONS),
            PLACES: execute_places(places, np.full(len(by_code), length), pair),
            COUNTS: execute_counts(count_probs, pair),
            SUMS: execute_sums(sums[pair.left, pair.right], pair),
        }
        prior = np.bincount(label, weights, NUM_ROTATIONS)
        entropy = -float((prior * np.log(np.maximum(prior, 1e-300))).sum())
        for name, distribution in predictions.items():
            cross_entropy = -float((weights * log_prob_of(distribution[code], label)).sum())
            skills[name].append(1 - cross_entropy / entropy)
    return ExactGaps({name: np.array(values) for name, values in skills.items()})
