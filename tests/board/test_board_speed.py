"""How fast many rows are ranked, read and shown: benchmarks, whose ratios are printed and not asserted."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from many_rows import make_rows

from benchmark.board.paired import holm_rejects, mcnemar, mcnemar_all_pairs
from benchmark.installation.paths import SOURCE_ROOT

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
def test_commands_of_a_thousand_rows(tmp_path, capsys):
    """Shipped rows under other names, first and again: processor seconds of each command, and what follows from two sizes for
    1,000 rows. `BOARD_ROWS=1000` makes as many."""
    large = int(os.environ.get("BOARD_ROWS", "120"))
    small = large // 3
    seconds = {size: command_seconds(tmp_path / str(size), size) for size in (small, large)}
    with capsys.disabled():
        print(f"\nprocessor seconds of {small} and {large:,} rows; per row; extrapolated to {ROWS:,}")
        for name in seconds[small]:
            first, second = seconds[small][name], seconds[large][name]
            per_row = (second - first) / (large - small)
            print(f"{name:26} {first:7.1f} {second:7.1f} {per_row:7.4f} {second + per_row * (ROWS - large):7.0f}")


def command_seconds(folder: Path, size: int) -> dict[str, float]:
    """Processor seconds of the commands on so many rows, by name: `leaderboard` with an empty cache, then those that use it."""
    make_rows(folder / "submissions", size)
    rows, table = ["--submissions", str(folder / "submissions")], ["--output-file", str(folder / "leaderboard.md")]
    site = ["--output-dir", str(folder / "site")]
    run = partial(processor_seconds, folder / "cache")
    seconds = {"leaderboard": run("leaderboard", *rows, *table)}
    for state in ("first", "again"):
        seconds |= {
            f"board, {state}": run("board", *rows),
            f"leaderboard --check, {state}": run("leaderboard", *rows, *table, "--check"),
            f"page, {state}": run("page", *rows, *site),
        }
    seconds["submit verify --all"] = run("submit", *rows, "verify", "--all")
    assert (folder / "site" / "index.html").stat().st_size < 1e6
    return seconds


def processor_seconds(cache: Path, *words: str) -> float:
    """Processor seconds of a command and of the processes that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", f"benchmark.{words[0]}", *words[1:]], cwd=SOURCE_ROOT, check=True, capture_output=True,
        env=os.environ | {"XDG_CACHE_HOME": str(cache)},
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
