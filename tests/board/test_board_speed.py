"""How fast many rows are ranked, read and shown: benchmarks, whose ratios are printed and not asserted."""

from __future__ import annotations

import time
from itertools import combinations

import numpy as np
import pytest
from many_rows import make_rows
from measured_rows import few_pairs

from benchmark.board.page import main
from benchmark.board.paired import holm_rejects, mcnemar, mcnemar_all_pairs
from benchmark.board.ranking import read_leaderboard_rows

ROWS, PAIRS_BY_ONE = 1000, 2000


def random_rows(num_rows: int) -> np.ndarray:
    """Solved tasks of rows that differ as models do: bool [R, 1000]."""
    rng = np.random.default_rng(0)
    difficulty, ability = rng.normal(size=1000), rng.normal(size=(num_rows, 1))
    return difficulty + rng.normal(scale=0.5, size=(num_rows, 1000)) < ability


def test_ranking_a_thousand_rows(benchmark, capsys):
    """Against one test per pair, of which a sample is timed."""
    solved = random_rows(ROWS)
    tests = benchmark.pedantic(mcnemar_all_pairs, (solved,), rounds=1)
    began = time.process_time()
    tests = mcnemar_all_pairs(solved)
    rejects = holm_rejects(tests.p)
    at_once = time.process_time() - began
    pairs = list(combinations(range(ROWS), 2))
    sample = np.random.default_rng(1).choice(len(pairs), PAIRS_BY_ONE, replace=False)
    began = time.process_time()
    p_values = [mcnemar(solved[i], solved[j]).p for i, j in (pairs[k] for k in sample)]
    one_by_one = (time.process_time() - began) * len(pairs) / PAIRS_BY_ONE
    assert tests.p[sample].tolist() == p_values
    assert 0 < rejects.sum() < len(pairs)
    benchmark.extra_info["times faster"] = one_by_one / at_once
    with capsys.disabled():
        print(
            f"\n{len(pairs):,} pairs: {at_once:.2f} s at once, {one_by_one:.0f} s one by one, ratio {one_by_one / at_once:.0f}"
        )


@pytest.mark.slow
def test_rows_and_pages_the_second_time(tmp_path, monkeypatch, capsys):
    """Forty rows of three shipped ones, first and again: processor time per row."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    count = 40
    make_rows(tmp_path / "rows", count, ("2026-11-25_gpt-laptop", "2026-11-25_n-gram", "2026-11-25_search"))
    words = ["--submissions", str(tmp_path / "rows"), "--output-dir", str(tmp_path / "site")]
    seconds: dict[str, list[float]] = {"rows": [], "site": []}
    for _ in range(2):
        began = time.process_time()
        assert len(read_leaderboard_rows(tmp_path / "rows")) == count
        seconds["rows"].append(time.process_time() - began)
        began = time.process_time()
        with few_pairs():
            assert main(words) == 0
        seconds["site"].append(time.process_time() - began)
    with capsys.disabled():
        for name, (first, again) in seconds.items():
            print(
                f"\n{name}: {1e3 * first / count:.0f} ms per row first, {1e3 * again / count:.1f} ms again, "
                f"ratio {first / again:.0f}"
            )
