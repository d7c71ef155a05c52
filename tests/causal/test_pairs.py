"""Pairs: derived from the suite alone, filtered as stated, balanced so that no look-up tells the target."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmark.causal import pairs as module
from benchmark.causal.merges import OTHER, SAME, merge_pairs
from benchmark.causal.pairs import MAX_BASE, MIN_EDITED, PairSet, PairSettings, derive_pairs, rank_within
from benchmark.causal.rotation import alternative_semantics, net_rotation
from benchmark.causal.targets import END, SuffixTable, execute_prefixes, turn_robots
from benchmark.causal.verdict import look_up_words
from benchmark.tasks.suite import load_suite
from benchmark.tasks.suite import test_tasks as tasks_of
from karel_env.semantics import ORIGINAL, mirror_class

LAPTOP = load_suite("laptop")


@pytest.fixture(scope="module")
def pairs() -> PairSet:
    return derive_pairs(LAPTOP)


def test_there_are_enough_pairs(pairs):
    strict = pairs.is_report & pairs.is_strict
    assert len(np.unique(pairs.task[pairs.is_report])) >= 120
    assert pairs.is_report.sum() >= 1000
    assert strict.sum() >= 300
    assert np.bincount(pairs.split).tolist() == [240, 360], "40% choose"


def test_pairs_are_what_they_say(pairs):
    posterior = pairs.posterior[np.arange(len(pairs)), pairs.turn]
    assert np.array_equal(posterior.argmax(1), pairs.target)
    assert (posterior.max(1) >= MIN_EDITED).all()
    base = pairs.posterior[:, 0]
    assert (base[np.arange(len(pairs)), pairs.target] <= MAX_BASE).all()
    assert np.array_equal(base.argmax(1), pairs.base_word)
    assert (pairs.target != pairs.base_word).all()
    rows = np.arange(0, len(pairs), 97)
    inputs, outputs = (w[pairs.task[rows], : LAPTOP.shown] for w in (pairs.tasks.inputs, pairs.tasks.outputs))
    turned = turn_robots(execute_prefixes(pairs.prefix[rows], inputs), pairs.turn[rows])
    again = SuffixTable.of_suite(LAPTOP, 3).next_word_posterior(turned, outputs)
    np.testing.assert_allclose(again, posterior[rows], atol=1e-12)


def test_strict_pairs_have_another_target_and_no_finer_look_up_tells_it(pairs):
    strict = pairs.is_strict
    assert (pairs.look_up[pairs.turn, pairs.base_word] != pairs.target)[strict].all()
    choose = ~pairs.is_report
    counts = np.zeros((4, END + 1, END + 1), int)
    every = derive_pairs(
        LAPTOP,
        replace(module.STANDARD_PAIRS, per_task=10_000, not_strict_per_task=10_000, not_strict_per_choose_task=10_000),
    )
    rows = ~every.is_report
    np.add.at(counts, (every.turn[rows], every.base_word[rows], every.target[rows]), 1)
    frequent = np.where(counts.any(2), counts.argmax(2), -1)
    assert np.array_equal(pairs.look_up, frequent)
    report = pairs.is_report & strict
    assert (look_up_words(pairs)[report] == pairs.target[report]).mean() < 0.6
    assert (look_up_words(pairs)[choose & strict] == pairs.target[choose & strict]).mean() < 0.6


def test_limits_per_task_hold(pairs):
    assert np.bincount(pairs.task).max() <= 12
    assert np.bincount(pairs.task[~pairs.is_strict & pairs.is_report]).max() <= 3
    assert np.bincount(pairs.task[~pairs.is_strict & ~pairs.is_report]).max() <= 1
    assert set(pairs.mean_task) <= set(np.flatnonzero(pairs.split == module.CHOOSE))


def test_test_tasks_are_never_used(pairs):
    assert not set(pairs.tasks.key.tolist()) & set(tasks_of(LAPTOP).key.tolist())


def test_another_value_asks_for_another_word(pairs):
    other = pairs.other_turns()
    rows = np.flatnonzero(other)
    assert (other != pairs.turn)[rows].all()
    assert (pairs.posterior[rows, other[rows]].argmax(1) != pairs.target[rows]).all()
    assert len(rows) > len(pairs) / 2


def test_derivation_depends_on_the_suite_alone(pairs):
    derive_pairs.cache_clear()
    again = derive_pairs(LAPTOP)
    assert again is not pairs
    assert np.array_equal(again.posterior, pairs.posterior)
    assert again.dropped == pairs.dropped
    few = derive_pairs(replace(LAPTOP, seed=5, sha256=""), PairSettings(tasks=20))
    assert not np.array_equal(few.tasks.key, pairs.tasks.key[:20])


def test_rotation_of_alternatives():
    prefix = np.array([[1, 1, 0], [2, 1, 2], [0, 0, 3]])
    assert net_rotation(prefix).tolist() == [2, 1, 0]
    assert net_rotation(prefix, mirror_class("lmpru")).tolist() == [3, 0, 3]
    names = alternative_semantics()
    labels = [tuple(net_rotation(np.indices((5, 5, 5)).reshape(3, -1).T, s)) for s in (ORIGINAL, *names)]
    assert len(set(labels)) == 5


def test_rank_within_groups():
    group, priority = np.array([1, 0, 1, 1, 0]), np.array([5, 2, 1, 9, 0])
    assert rank_within(group, priority).tolist() == [1, 1, 0, 2, 0]


def test_merge_pairs_lead_to_the_state_that_they_say():
    merges = merge_pairs(LAPTOP)
    tasks = derive_pairs(LAPTOP).tasks
    reached = execute_prefixes(merges.prefix, tasks.inputs[merges.task, : LAPTOP.shown])
    is_same = reached[merges.first].same_state(reached[merges.second]).all(1)
    assert np.array_equal(is_same, merges.kind == SAME)
    assert np.array_equal(merges.task[merges.first], merges.task[merges.second])
    same = merges.kind == SAME
    first, second = (np.sort(merges.prefix[rows[same]], 1) for rows in (merges.first, merges.second))
    assert (first != second).any(1).all()
    assert (merges.kind == OTHER).sum() >= same.sum() > 200
