"""The pinned figures of the shipped suites are those that their tasks and labels give, and no other suite gets them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy import stats

from benchmark.board import suite_figures
from benchmark.board.paired import mcnemar_power, sign_test
from benchmark.board.suite_figures import (
    compute_clusters,
    compute_delta_baseline,
    delta_baseline,
    pinned_path,
    program_clusters,
    write_pinned,
)
from benchmark.files import read_safetensors_metadata
from benchmark.probing.protocol import STANDARD
from benchmark.tasks.suite import SUITE_FOLDER, limit_suite, load_suite

SHIPPED = sorted(path.stem for path in SUITE_FOLDER.glob("*.yaml"))
QUICK = ("laptop", "smoke")


@pytest.fixture
def computing(monkeypatch):
    """What computes does not, and notes what it was asked for."""
    asked: list[str] = []
    monkeypatch.setattr(suite_figures, "compute_clusters", lambda suite: asked.append("clusters"))
    monkeypatch.setattr(suite_figures, "compute_delta_baseline", lambda suite, protocol: asked.append("delta"))
    return asked


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_suite_has_pinned_figures(name, computing):
    suite = load_suite(name)
    clusters, baseline = program_clusters(suite), delta_baseline(suite, STANDARD)
    assert computing == []
    assert clusters.shape == (suite.tasks,)
    assert clusters.max() + 1 == len(np.unique(clusters))
    kept = len(baseline.columns)
    assert baseline.columns[0] == 0
    assert baseline.prior.shape == (kept, min(STANDARD.units, baseline.programs))
    assert baseline.totals.shape == (len(STANDARD.seeds), kept)


@pytest.mark.parametrize("change", ["limit", "seed", "protocol", "field"])
def test_what_is_not_a_whole_shipped_suite_is_computed(change, computing):
    suite, protocol = load_suite("smoke"), STANDARD
    if change == "limit":
        suite = limit_suite(suite, 4)
    elif change == "seed":
        suite = load_suite("smoke", seed=5)
    elif change == "protocol":
        protocol = replace(STANDARD, folds=5)
    else:
        suite = replace(suite, blind_length=suite.blind_length - 1)
    program_clusters(suite)
    delta_baseline(suite, protocol)
    assert computing == (["delta"] if change == "protocol" else ["clusters", "delta"])


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SHIPPED]
)
def test_pinned_figures_are_those_that_are_computed(name):
    suite = load_suite(name)
    assert (program_clusters(suite) == compute_clusters(suite)).all()
    pinned, computed = delta_baseline(suite, STANDARD), compute_delta_baseline(suite, STANDARD)
    assert (pinned.columns == computed.columns).all()
    assert pinned.programs == computed.programs
    # Logarithms may differ in the last bit between processors.
    np.testing.assert_allclose(pinned.prior, computed.prior, rtol=1e-12)
    np.testing.assert_allclose(pinned.totals, computed.totals, rtol=1e-12)


def test_a_file_that_is_written_again_is_the_one_that_is_shipped(tmp_path):
    written, shipped = write_pinned("smoke", tmp_path), pinned_path("smoke")
    assert written.name == shipped.name
    assert read_safetensors_metadata(written) == read_safetensors_metadata(shipped)
    arrays = load_file(shipped)
    assert {name: (a.dtype, a.shape) for name, a in load_file(written).items()} == {
        name: (a.dtype, a.shape) for name, a in arrays.items()
    }


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 1), (0, 9), (12, 40), (300, 250), (5000, 4000)])
def test_the_sign_test_is_that_of_scipy(first, second):
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert sign_test(first, second) == pytest.approx(expected, rel=1e-8)
    assert sign_test(first, second) == sign_test(second, first)


def test_a_tail_too_small_for_a_float_is_zero():
    assert sign_test(0, 2000) == 0.0


@pytest.mark.parametrize(("n", "rate"), [(40, 0.05), (1000, 0.06), (1000, 1.0), (10_000, 0.3)])
def test_the_power_is_the_sum_over_discordant_tasks(n, rate):
    discordant = np.arange(n + 1)
    critical = stats.binom.isf(0.025, discordant, 0.5) + 1
    for share in (0.0, 0.1, 0.5, 1.0):
        rejects = stats.binom.sf(critical - 1, discordant, (1 + share) / 2)
        expected = float(stats.binom.pmf(discordant, n, rate) @ rejects)
        assert mcnemar_power(n, rate, share * rate) == pytest.approx(expected, abs=2e-8)
