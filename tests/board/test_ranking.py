"""Ranks of many rows at once are those of the tests of all pairs, one after the other."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shipped_rows import shipped

from benchmark.board.paired import ALPHA, holm_rejects, mcnemar, mcnemar_all_pairs, sign_test, sign_test_p_values
from benchmark.board.ranking import UNRANKED_STATUSES, LeaderboardRow, rank_groups, rank_rows
from benchmark.statistics import holm
from benchmark.submit.schema import FLAGGED, WITHDRAWN


def ranks_of_all_pairs(entries: list[LeaderboardRow]) -> dict[str, int | None]:
    """Rank by folder, as docs/board.md defines it: each pair is tested by itself, and Holm adjusts all p values."""
    ranked = [entry for entry in entries if entry.status not in UNRANKED_STATUSES]
    tests = {
        f"{i} {j}": mcnemar(ranked[i].held_out, ranked[j].held_out) for i, j in combinations(range(len(ranked)), 2)
    }
    better = [0] * len(ranked)
    for name, p in holm({name: test.p for name, test in tests.items()}).items():
        if p <= ALPHA:
            i, j = map(int, name.split())
            better[j if tests[name].first > tests[name].second else i] += 1
    ranks: dict[str, int | None] = {entry.folder: None for entry in entries}
    return ranks | {entry.folder: 1 + count for entry, count in zip(ranked, better, strict=True)}


def ranks_of(entries: list[LeaderboardRow]) -> dict[str, int | None]:
    return {ranked_row.row.folder: ranked_row.rank for ranked_row in rank_rows(entries)}


def entries_of(solved: np.ndarray, statuses: list[str] | None = None) -> list[LeaderboardRow]:
    statuses = statuses or ["validated"] * len(solved)
    return [
        replace(shipped()[0], folder=f"row-{i}", held_out=hits, status=status)
        for i, (hits, status) in enumerate(zip(solved, statuses, strict=True))
    ]


def test_ranks_of_the_shipped_board_are_those_of_all_pairs():
    for group in rank_groups(shipped()):
        entries = [ranked_row.row for ranked_row in group.rows]
        assert ranks_of(entries) == ranks_of_all_pairs(entries)


@pytest.mark.parametrize("seed", range(12))
def test_ranks_of_random_rows_are_those_of_all_pairs(seed):
    """Rows of related models: most tasks alike, shares near each other, some rows equal, some without a rank."""
    rng = np.random.default_rng(seed)
    num_rows, num_tasks = int(rng.integers(2, 40)), int(rng.choice([1, 5, 60, 1000]))
    difficulty = rng.normal(size=num_tasks)
    ability = rng.normal(scale=rng.choice([0.02, 0.3, 2]), size=num_rows)
    solved = difficulty[None] + rng.normal(scale=rng.choice([0.1, 1]), size=(num_rows, num_tasks)) < ability[:, None]
    solved[num_rows // 2] = solved[0]
    statuses = rng.choice(["validated", FLAGGED, WITHDRAWN], size=num_rows, p=[0.8, 0.1, 0.1]).tolist()
    entries = entries_of(solved, statuses)
    assert ranks_of(entries) == ranks_of_all_pairs(entries)


def test_tests_of_all_pairs_are_those_of_each_pair():
    rng = np.random.default_rng(5)
    solved = rng.random((30, 200)) < rng.random((30, 1))
    tests = mcnemar_all_pairs(solved)
    assert len(tests.p) == 30 * 29 // 2
    for pair, (i, j) in enumerate(combinations(range(30), 2)):
        single = mcnemar(solved[i], solved[j])
        assert (tests.first[pair], tests.second[pair]) == (i, j)
        assert (tests.wins[pair], tests.losses[pair], tests.p[pair]) == (single.first, single.second, single.p)


def test_p_values_of_a_sign_test_are_binomial_tails():
    for trials in (0, 1, 2, 7, 30, 501):
        tails = np.cumsum([comb(trials, k) for k in range(trials // 2 + 1)], dtype=object)
        expected = [min(1.0, 2 * int(tail) / 2**trials) for tail in tails]
        assert sign_test_p_values(trials, trials // 2) == expected
        assert [sign_test(k, trials - k) for k in range(trials // 2 + 1)] == expected
    assert sign_test(0, 1000) == 2 / 2**1000 > 0


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from([0.0, 1e-300, 0.001, 0.0049, 0.005, 0.0051, 0.0125, 0.025, 0.05, 0.06, 1.0]), max_size=14)
)
def test_what_holm_rejects_is_what_its_adjusted_p_values_say(p_values):
    adjusted = holm({str(i): p for i, p in enumerate(p_values)})
    expected = [adjusted[str(i)] <= ALPHA for i in range(len(p_values))]
    assert holm_rejects(np.array(p_values)).tolist() == expected


def test_a_board_of_one_row_and_rows_without_tasks():
    assert ranks_of(entries_of(np.ones((1, 5), bool))) == {"row-0": 1}
    with pytest.raises(ValueError, match="at least one"):
        mcnemar_all_pairs(np.ones((3, 0), bool))
