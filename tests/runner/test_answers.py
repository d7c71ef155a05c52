"""pass@k and the figures of constrained answers."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binom

from benchmark.tasks.pass_at_k import pass_at_k, summarize_constrained, summarize_sampled
from benchmark.tasks.suite import load_suite
from benchmark.tasks.suite import test_tasks as tasks_of
from karel_env.language import HEADER_TEXT

SUITE = replace(load_suite("smoke"), tasks=12, sha256="")


@pytest.mark.parametrize("k", [1, 2, 5, 7])
def test_pass_at_k_counts_the_subsets_of_draws(k: int) -> None:
    right = np.random.default_rng(0).random((6, 7)) < np.linspace(0, 1, 6)[:, None]
    counted = [np.mean([row[list(chosen)].any() for chosen in combinations(range(7), k)]) for row in right]
    found = pass_at_k(right.sum(1), 7, k)
    assert found.value == pytest.approx(np.mean(counted), abs=1e-12)
    assert found.low <= found.value <= found.high
    assert found.n == 6


@pytest.mark.parametrize("k", [1, 3, 10])
def test_pass_at_k_is_unbiased(k: int) -> None:
    """Its expectation over the right draws of a task, binomial with chance p, is exactly 1 - (1 - p)^k."""
    p, draws = 0.2, 10
    mean = sum(binom.pmf(right, draws, p) * pass_at_k(np.array([right]), draws, k).value for right in range(draws + 1))
    assert mean == pytest.approx(1 - (1 - p) ** k, abs=1e-12)


def _texts() -> list[str]:
    return [text.removeprefix(HEADER_TEXT) for text in tasks_of(SUITE).programs.texts()]


def test_draws_are_told_apart_whatever_their_order() -> None:
    samples = [
        {"task": task, "sample": draw, "text": text if (task + draw) % 3 == 0 else " }"}
        for draw in range(3)
        for task, text in enumerate(_texts())
    ]
    found = summarize_sampled(SUITE, tasks_of(SUITE), samples[::-1], 3, 0.5)
    assert set(found.shown) == {1, 2, 3}
    assert found.shown[1].value == pytest.approx(1 / 3)
    assert found.shown[3].value == 1
    assert found.held_out[2].value == pytest.approx(2 / 3)


def test_truncated_answers_are_counted_apart() -> None:
    samples = [{"text": text, "finished": True} for text in _texts()]
    samples[0] = {"text": " move();", "finished": False}
    samples[1] = {"text": " jump(); }", "finished": True}
    found = summarize_constrained(SUITE, tasks_of(SUITE), samples)
    assert found.finished.value == pytest.approx(11 / 12)
    assert found.valid is not None
    assert (found.valid.value, found.valid.n) == (pytest.approx(10 / 11), 11)
    assert found.accuracy.shown.value == pytest.approx(10 / 12)
    none = summarize_constrained(SUITE, tasks_of(SUITE), [{"text": "", "finished": False}] * 12)
    assert none.valid is None
