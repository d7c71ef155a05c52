"""Paired tests against closed forms and simulations whose truth is known, and the command on the shipped rows."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from dataclasses import replace
from fractions import Fraction
from math import comb
from pathlib import Path

import numpy as np
import pytest

from benchmark.board.comparison import compare_runs, load_recorded_suite, main, read_compared_run
from benchmark.board.paired import (
    cluster_bootstrap_difference,
    mcnemar,
    mcnemar_power,
    min_detectable_difference,
    min_detectable_effect,
    normal_p_value,
)
from benchmark.installation.paths import SOURCE_ROOT
from benchmark.statistics import Estimate

GPT, LLAMA, SEARCH = "2026-11-25_gpt-laptop", "2026-11-23_llama-laptop", "2026-11-25_search"


def pair(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes of two models of which so many tasks are solved by both, by one alone, by neither."""
    counts = [both, first, second, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (3, 3), (6, 0), (10, 2), (43, 7), (21, 36)])
def test_mcnemar_is_the_sum_of_the_binomial_tail(first, second):
    found = mcnemar(*pair(20, first, second, 5))
    m, most = first + second, max(first, second)
    tail = Fraction(sum(comb(m, k) for k in range(most, m + 1)), 2**m)
    assert found.p == pytest.approx(float(min(Fraction(1), 2 * tail)), rel=1e-9)
    assert (found.first, found.second, found.n) == (first, second, 25 + m)
    assert mcnemar(*pair(20, second, first, 5)).p == found.p


def test_mcnemar_refuses_other_tasks():
    with pytest.raises(ValueError, match="same tasks"):
        mcnemar(np.ones(3, bool), np.ones(4, bool))


def simulated(rng: np.random.Generator, n: int, rate: float, difference: float) -> tuple[np.ndarray, np.ndarray]:
    """Two models that differ on a share `rate` of tasks, the first solving `difference` more."""
    one, other = (rate + difference) / 2, (rate - difference) / 2
    kind = rng.choice(4, size=n, p=[one, other, (1 - rate) / 2, (1 - rate) / 2])
    return (kind == 0) | (kind == 2), (kind == 1) | (kind == 2)


@pytest.mark.parametrize(("n", "rate"), [(200, 0.3), (1000, 0.06)])
def test_size_and_power_are_as_promised(n, rate):
    rng = np.random.default_rng([n, 1])
    least = min_detectable_difference(n, rate)
    assert least is not None
    rejected = {d: np.mean([mcnemar(*simulated(rng, n, rate, d)).p <= 0.05 for _ in range(1200)]) for d in (0.0, least)}
    assert 0.01 < rejected[0.0] <= 0.065
    assert rejected[least] == pytest.approx(0.80, abs=0.035)
    assert mcnemar_power(n, rate, least) == pytest.approx(0.80, abs=0.01)


@pytest.mark.parametrize(("n", "rate"), [(1000, 0.0), (20, 0.1)])
def test_what_too_few_tasks_could_show_is_missing(n, rate):
    assert min_detectable_difference(n, rate) is None


def covered(own: bool) -> float:
    """How often the interval of the difference holds the truth, tasks of one program sharing their luck."""
    rng, found = np.random.default_rng(11), 0
    for i in range(400):
        cluster = np.repeat(np.arange(120), rng.integers(1, 9, 120))
        easy, edge = rng.normal(size=120)[cluster], rng.normal(size=120)[cluster]
        first, second = (easy + sign * edge + rng.normal(size=len(cluster)) * 0.5 > 0 for sign in (1, -1))
        asked = np.arange(len(cluster)) if own else cluster
        estimate = cluster_bootstrap_difference(first, second, asked, 300, i)
        found += estimate.low <= 0 <= estimate.high
    return found / 400


def test_the_clustered_interval_covers_and_one_of_single_tasks_would_not():
    assert covered(own=False) == pytest.approx(0.95, abs=0.03)
    assert covered(own=True) < 0.85


def test_smallest_and_p_of_a_normal_figure():
    figure = Estimate(0.02, 0.02 - 1.96 * 0.01, 0.02 + 1.96 * 0.01, 100)
    assert min_detectable_effect(figure) == pytest.approx(2.8016 * 0.01, rel=1e-3)
    assert normal_p_value(figure) == pytest.approx(0.0455, abs=1e-4)
    assert normal_p_value(replace(figure, value=0.0)) == 1
    assert min_detectable_effect(Estimate(0, 0, 0, 5)) is None


def test_the_figures_are_those_of_the_records():
    a, b = read_compared_run(GPT), read_compared_run(LLAMA)
    forth, back = compare_runs(a, b), compare_runs(b, a)
    assert [one.name for one in forth] == ["shown", "held_out", "delta"]
    for one, other in zip(forth, back, strict=True):
        assert one.difference.value == pytest.approx(-other.difference.value)
        assert one.p == pytest.approx(other.p)
        assert one.p_holm >= one.p
        assert one.difference.low < one.difference.value < one.difference.high
    for rival, value in ((a, forth[2].first), (b, forth[2].second)):
        assert value == pytest.approx(rival.record.meaning.features["facing"].delta.value, abs=1e-6)
    assert forth[1].first == a.record.accuracy.held_out.value
    # Both are probed on the same programs, so their difference is surer than two separate deltas would make it.
    widths = [r.record.meaning.features["facing"].delta for r in (a, b)]
    apart = np.hypot(*(one.high - one.low for one in widths))
    assert forth[2].difference.high - forth[2].difference.low < apart


def test_a_model_does_not_differ_from_itself(capsys):
    assert main([GPT, GPT, "--json"]) == 0
    for one in json.loads(capsys.readouterr().out):
        assert one["difference"]["value"] == one["difference"]["low"] == one["difference"]["high"] == 0
        assert one["p"] == one["p_holm"] == 1
        assert one["smallest"] is None


def test_the_table_says_what_is_not_compared(capsys):
    assert main([SEARCH, str(SOURCE_ROOT / "submissions" / LLAMA)]) == 0
    out = capsys.readouterr().out
    assert "held-out %" in out
    assert "delta is not compared" in out


@pytest.fixture
def altered(tmp_path):
    """A copy of a row whose record can be changed."""
    folder = tmp_path / "altered"
    folder.mkdir()
    for name in ("record.json", "samples.jsonl.gz"):
        shutil.copy(SOURCE_ROOT / "submissions" / SEARCH / name, folder)

    def alter(change) -> str:
        record = json.loads((folder / "record.json").read_text())
        change(record)
        (folder / "record.json").write_text(json.dumps(record))
        return str(folder)

    return alter


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r["suite"].update(version=2), "suite version 2 and 1"),
        (lambda r: r["suite"].update(sha256="0" * 64), "test set"),
        (lambda r: r["suite"].update(seed=5), "suite seed"),
        (lambda r: r["protocol"].update(version=2), "protocol version 2 and 3"),
        (lambda r: r["protocol"].update(steps=5), "protocol "),
    ],
)
def test_other_suites_and_protocols_are_refused(altered, capsys, change, says):
    assert main([altered(change), LLAMA]) == 2
    message = capsys.readouterr().err
    assert says in message
    assert message.count("\n") == 1


def test_other_suites_are_refused_by_name(capsys):
    assert main([SEARCH, f"{SEARCH}-icml24"]) == 2
    assert "suite laptop and icml24" in capsys.readouterr().err
    assert main([SEARCH, "no-such-row"]) == 2
    assert "no record.json" in capsys.readouterr().err


def test_samples_that_are_not_the_records_are_found(altered, capsys):
    folder = altered(lambda r: r.update(samples_sha256="0" * 64))
    assert main([folder, LLAMA]) == 4
    assert "run the model again" in capsys.readouterr().err
    (Path(folder) / "samples.jsonl.gz").unlink()
    assert main([folder, LLAMA]) == 3
    assert "samples.jsonl.gz" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "says"),
    [(lambda row: row.pop("held_out"), "lacks a boolean"), (lambda row: row.update(task=7), "1000 tasks")],
)
def test_samples_that_do_not_fit_are_refused(altered, capsys, change, says):
    path = SOURCE_ROOT / "submissions" / SEARCH / "samples.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    change(rows[0])
    packed = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    folder = altered(lambda r: r.update(samples_sha256=hashlib.sha256(packed).hexdigest()))
    (Path(folder) / "samples.jsonl.gz").write_bytes(packed)
    assert main([folder, LLAMA]) == 4
    assert says in capsys.readouterr().err


def test_a_suite_that_is_not_the_records_is_refused():
    record = read_compared_run(SEARCH).record
    other = record.model_copy(update={"suite": record.suite.model_copy(update={"version": 9})})
    with pytest.raises(Exception, match="give its file with --suite"):
        load_recorded_suite(other)
