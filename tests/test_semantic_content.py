"""The whole analysis, from sums over programs to delta, against a simulation whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmark import semantic_content
from benchmark.evaluation import first_inputs
from benchmark.labels import build_probe_set, with_original
from benchmark.protocol import STANDARD
from benchmark.semantic_content import (
    INCONCLUSIVE,
    RECORD_ONLY,
    REPRESENTS,
    Evidence,
    above_zero,
    analyse,
    verdict,
)
from benchmark.statistics import Estimate, bootstrap_weights
from benchmark.suites import blind_tasks, load_suite
from karel_env.features import FEATURES
from karel_env.screen import kept

PROTOCOL = replace(STANDARD, alternatives=3, resamples=200, units=10_000)
TRUTH = {"model": 0.30, "random-init": -0.05, "recorder": 0.10}
"""Gap of each source; the larger control is always the recorder, so that delta's truth is 0.20 exactly."""
SIMULATIONS = 80
ALLOWED = {name: kept(name) for name in FEATURES}


@pytest.fixture(scope="module")
def setting():
    tasks = blind_tasks(replace(load_suite("smoke"), probe_programs=300))
    probe_set = build_probe_set(tasks.programs, first_inputs(tasks), with_original(PROTOCOL), PROTOCOL)
    return probe_set, semantic_content.Tested.of(probe_set, PROTOCOL)


def simulated(setting, rng, truth, of_seed, of_program) -> dict[str, Evidence]:
    """Evidence of probes that fall short by chance: a program's part, in common and apart, and a seed's part."""
    probe_set, tested = setting
    shape = tested.prior.shape
    fold = probe_set.fold[tested.programs]
    assert len(fold) == shape[-1]
    common = rng.normal(size=(1, 1, shape[-1]))
    found = {}
    for name, gap in truth.items():
        skill = np.where(np.arange(shape[0]) == 0, 0.2 + gap, 0.2)[:, None, None]
        short = of_program * (common + rng.normal(size=shape)) / np.sqrt(2)
        short = short + of_seed * rng.normal(size=(*shape[:2], PROTOCOL.folds))[..., fold]
        probe = tested.prior * (1 - skill) + tested.prior.mean() * short
        totals = np.stack([probe[..., fold == seed].sum(-1) for seed in PROTOCOL.seeds])
        found[name] = Evidence(probe, totals, np.zeros(totals.shape, int))
    return found


@pytest.mark.parametrize("of_seed", [0.0, pytest.param(0.01, marks=pytest.mark.slow), 0.04])
def test_the_intervals_of_delta_cover_the_truth(setting, of_seed):
    """93 to 97% at 95%: where a fit has no chance in it, as much as programs bring, and several times as much."""
    rng = np.random.default_rng(round(1000 * of_seed))
    covered = []
    for _ in range(SIMULATIONS):
        evidence = simulated(setting, rng, TRUTH, of_seed, 0.3)
        results = analyse(evidence, *setting, ALLOWED, PROTOCOL, ["one"], 1)
        covered += [r.delta.low <= 0.20 <= r.delta.high for r in results.values()]
    assert len(covered) == SIMULATIONS * len(FEATURES)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_groups_of_programs_tell_the_same_variance():
    """Of a mean over 10,000 programs, by resampling 500 groups of them, against the closed form."""
    rng = np.random.default_rng(0)
    values = rng.exponential(size=(1, 10_000))
    groups = semantic_content.in_units(values, 500)
    assert groups.shape == (1, 500)
    assert groups.sum() == pytest.approx(values.sum())
    assert np.array_equal(semantic_content.in_units(values[:, :7], 500), values[:, :7])
    resampled = bootstrap_weights(500, 2000, 1) @ groups[0] / 10_000
    assert resampled.std() == pytest.approx(values.std() / 100, rel=0.12)


def test_delta_is_less_by_the_larger_control(setting):
    for truth, expected in ((TRUTH, 0.20), ({**TRUTH, "random-init": 0.25}, 0.05)):
        exact = simulated(setting, np.random.default_rng(0), truth, 0.0, 0.0)
        results = analyse(exact, *setting, ALLOWED, PROTOCOL, ["one"], 1)
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
    assert verdict(analyse(evidence, *setting, ALLOWED, PROTOCOL, ["one"], 1), PROTOCOL) == expected


def test_p_is_that_of_the_normal_distribution():
    assert above_zero(Estimate(1.96, 0.0, 3.92, 10)) == pytest.approx(0.025, abs=1e-4)
    assert above_zero(Estimate(0.0, -1.0, 1.0, 10)) == pytest.approx(0.5)
    assert above_zero(Estimate(0.0, 0.0, 0.0, 10)) == 1.0
