"""The analysis from sums over programs to delta, on simulated evidence with a known delta."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from worlds import WORLDS_SUITE

from benchmark.probing import control_gap as semantic_content
from benchmark.probing.control_gap import (
    INCONCLUSIVE,
    RECORD_ONLY,
    REPRESENTS,
    Evidence,
    analyze_features,
    decide_verdict,
    one_sided_p,
)
from benchmark.probing.labels import build_probe_set, list_semantics
from benchmark.probing.protocol import STANDARD
from benchmark.statistics import Estimate, bootstrap_weights
from benchmark.tasks.probe_sets import first_inputs
from benchmark.tasks.suite import blind_tasks, load_suite
from karel_env.features import FEATURES
from karel_env.screen import valid_alternatives

PROTOCOL = replace(STANDARD, alternatives=3, resamples=200, units=10_000)
TRUTH = {"model": 0.30, "random-init": -0.05, "recorder": 0.10}
"""Gap of each source; the larger control gap is always that of the token-history baseline, so that delta is exactly 0.20."""
SIMULATIONS = 80
ALLOWED = {name: valid_alternatives(name) for name in FEATURES}


@pytest.fixture(scope="module")
def setting():
    tasks = blind_tasks(replace(load_suite(WORLDS_SUITE), probe_programs=300))
    probe_set = build_probe_set(tasks.programs, first_inputs(tasks), list_semantics(PROTOCOL), PROTOCOL)
    return probe_set, semantic_content.PriorBaseline.from_probe_set(probe_set, PROTOCOL)


def simulated(setting, rng, truth, of_seed, of_program) -> dict[str, Evidence]:
    """Simulated evidence with random errors per program (shared and per source) and per seed."""
    probe_set, baseline = setting
    shape = baseline.prior.shape
    fold = probe_set.fold[baseline.programs]
    assert len(fold) == shape[-1]
    common = rng.normal(size=(1, 1, shape[-1]))
    results = {}
    for name, gap in truth.items():
        skill = np.where(np.arange(shape[0]) == 0, 0.2 + gap, 0.2)[:, None, None]
        short = of_program * (common + rng.normal(size=shape)) / np.sqrt(2)
        short = short + of_seed * rng.normal(size=(*shape[:2], PROTOCOL.folds))[..., fold]
        probe = baseline.prior * (1 - skill) + baseline.prior.mean() * short
        totals = np.stack([probe[..., fold == seed].sum(-1) for seed in PROTOCOL.seeds])
        results[name] = Evidence(probe, totals, np.zeros(totals.shape, int))
    return results


@pytest.mark.parametrize("of_seed", [0.0, pytest.param(0.01, marks=pytest.mark.slow), 0.04])
def test_the_intervals_of_delta_cover_the_truth(setting, of_seed):
    """Coverage of 93 to 97% at 95%: without variance between fits, with as much as between programs, and with several times as much."""
    rng = np.random.default_rng(round(1000 * of_seed))
    covered = []
    for _ in range(SIMULATIONS):
        evidence = simulated(setting, rng, TRUTH, of_seed, 0.3)
        results = analyze_features(evidence, *setting, ALLOWED, PROTOCOL, ["one"], 1)
        covered += [r.delta.low <= 0.20 <= r.delta.high for r in results.values()]
    assert len(covered) == SIMULATIONS * len(FEATURES)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_group_bootstrap_estimates_the_same_variance():
    """The variance of a mean over 10,000 programs, by resampling 500 groups, against the closed form."""
    rng = np.random.default_rng(0)
    values = rng.exponential(size=(1, 10_000))
    groups = semantic_content.group_sums(values, 500)
    assert groups.shape == (1, 500)
    assert groups.sum() == pytest.approx(values.sum())
    assert np.array_equal(semantic_content.group_sums(values[:, :7], 500), values[:, :7])
    resampled = bootstrap_weights(500, 2000, 1) @ groups[0] / 10_000
    assert resampled.std() == pytest.approx(values.std() / 100, rel=0.12)


def test_delta_subtracts_the_larger_control_gap(setting):
    for truth, expected in ((TRUTH, 0.20), ({**TRUTH, "random-init": 0.25}, 0.05)):
        exact = simulated(setting, np.random.default_rng(0), truth, 0.0, 0.0)
        results = analyze_features(exact, *setting, ALLOWED, PROTOCOL, ["one"], 1)
        for result in results.values():
            assert result.delta.value == pytest.approx(expected)
            assert result.gap.value == pytest.approx(truth["model"])
            assert result.skill.value == pytest.approx(0.2 + truth["model"])
            assert result.p_rand == pytest.approx(1 / (1 + len(result.alternatives)))


@pytest.mark.parametrize(
    ("gap", "of_program", "expected"),
    [(0.30, 0.1, REPRESENTS), (0.0, 0.02, RECORD_ONLY), (0.0, 3.0, INCONCLUSIVE), (-0.3, 0.1, INCONCLUSIVE)],
)
def test_the_verdict_needs_evidence_for_either_side(setting, gap, of_program, expected):
    truth = {"model": gap, "random-init": -0.001, "recorder": 0.0}
    evidence = simulated(setting, np.random.default_rng(2), truth, 0.0, of_program)
    assert decide_verdict(analyze_features(evidence, *setting, ALLOWED, PROTOCOL, ["one"], 1), PROTOCOL) == expected


def test_p_matches_the_normal_distribution():
    assert one_sided_p(Estimate(1.96, 0.0, 3.92, 10)) == pytest.approx(0.025, abs=1e-4)
    assert one_sided_p(Estimate(0.0, -1.0, 1.0, 10)) == pytest.approx(0.5)
    assert one_sided_p(Estimate(0.0, 0.0, 0.0, 10)) == 1.0
