"""Exact gaps of perfect observers: closed forms, and that no bag or record of words has a delta."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from benchmark.calibrate.exact_observer import (
    COUNTS,
    FORGOTTEN,
    PLACES,
    PROBE,
    SUMS,
    all_programs,
    exact_gaps,
    forgetful_cases,
    hash_rows,
)
from benchmark.probing.version4.readable_record import NUM_WORDS, count_targets
from benchmark.probing.version4.turn_pairs import ALL_PAIRS, ORIGINAL_PAIR, rotations
from karel_env.semantics import LEFT, PICK, PUT, RIGHT

MARGIN = 0.03
PROGRAMS = all_programs(4)
WORD_COUNTS = count_targets(PROGRAMS).T.astype(np.int64)


def partitions(items: list[int]) -> Iterator[list[list[int]]]:
    """All partitions of a list into classes."""
    if not items:
        yield []
        return
    for partition in partitions(items[1:]):
        yield [[items[0]], *partition]
        for i in range(len(partition)):
            yield [*partition[:i], [items[0], *partition[i]], *partition[i + 1 :]]


def test_one_word_in_closed_form() -> None:
    # After one word, rotation is 0, 1 or 3 with probabilities .6, .2, .2; a record that merges pick and put leaves one
    # bit of the label of (left, pick) open in two of five cases.
    programs = all_programs(1)
    merged = np.where(programs == PUT, PICK, programs)[:, 0]
    gaps = exact_gaps(programs, merged)
    entropy = -(0.6 * np.log(0.6) + 0.4 * np.log(0.2))
    assert gaps.skills[PROBE][0] == pytest.approx(1)
    assert gaps.gap(PROBE) == pytest.approx(0.4 * np.log(2) / entropy)
    assert gaps.gap(PLACES) == pytest.approx(gaps.gap(PROBE))
    assert gaps.delta == pytest.approx(0)


def test_a_whole_record_has_no_gap_and_rotation_has_a_delta() -> None:
    record = exact_gaps(PROGRAMS, np.arange(len(PROGRAMS)))
    for observer in (PROBE, PLACES, COUNTS):
        assert record.skills[observer] == pytest.approx(np.ones(len(ALL_PAIRS)))
    state = exact_gaps(PROGRAMS, rotations(PROGRAMS, ORIGINAL_PAIR))
    assert state.skills[PROBE][0] == pytest.approx(1)
    assert state.delta > 0.3
    assert state.pose_delta > 0.3
    assert state.surplus > 0.3
    assert state.arithmetic > 0.3
    assert state.turn_count > 0.3


@pytest.mark.parametrize("classes", list(partitions(list(range(NUM_WORDS)))), ids=str)
def test_no_merged_bag_or_record_has_a_delta(classes: list[list[int]]) -> None:
    merged = np.zeros(NUM_WORDS, np.int64)
    for index, words in enumerate(classes):
        merged[words] = index
    bag = np.stack([WORD_COUNTS[:, words].sum(1) for words in classes], 1)
    for code in (hash_rows(bag), hash_rows(merged[PROGRAMS])):
        gaps = exact_gaps(PROGRAMS, code)
        assert gaps.delta < 1e-9
        assert gaps.pose_delta < 1e-9
        assert gaps.arithmetic < MARGIN or gaps.turn_count < 1e-9


def test_without_the_sums_a_bag_that_merges_both_kinds_passes() -> None:
    bag = np.stack([WORD_COUNTS[:, words].sum(1) for words in ([0], [LEFT, RIGHT], [PICK, PUT])], 1)
    gaps = exact_gaps(PROGRAMS, hash_rows(bag))
    assert gaps.gap(PROBE) - max(gaps.gap(PLACES), gaps.gap(COUNTS)) > 0.2
    assert gaps.gap(SUMS) >= gaps.gap(PROBE)


@pytest.mark.parametrize("keep", [(0.95, 0.95, 0.95, 0.8, 0.8), (0.9, 0.9, 0.9, 0.6, 0.6), (0.9, 0.95, 0.95, 0.9, 0.9)])
def test_a_forgetful_record_has_a_gap_and_no_delta(keep: tuple[float, ...]) -> None:
    words, remembered, probability = forgetful_cases(3, np.array(keep))
    assert probability.sum() == pytest.approx(1)
    assert ((remembered == words) | (remembered == FORGOTTEN)).all()
    gaps = exact_gaps(words, hash_rows(remembered), probability)
    assert gaps.gap(PROBE) > 0.02
    assert gaps.gap(PLACES) == pytest.approx(gaps.gap(PROBE))
    assert gaps.delta < 1e-9
    assert gaps.pose_delta < 1e-9


def test_forgetting_against_a_simulation() -> None:
    keep = np.array([0.9, 0.9, 0.9, 0.6, 0.6])
    _words, remembered, probability = forgetful_cases(2, keep)
    random = np.random.default_rng(3)
    draws = random.integers(NUM_WORDS, size=(200_000, 2))
    kept = np.where(random.random(draws.shape) < keep[draws], draws, FORGOTTEN)
    for case in ([FORGOTTEN, 0], [4, 4], [FORGOTTEN, FORGOTTEN]):
        exact = probability[(remembered == case).all(1)].sum()
        assert (kept == case).all(1).mean() == pytest.approx(exact, abs=0.005)
