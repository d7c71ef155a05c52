"""The rule of a preview: the verdict of the first seeds, where it stands, is that of all seeds."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from safetensors.numpy import load_file
from whole_runs import ROOT

from benchmark.probing.control_gap import INCONCLUSIVE, RECORD_ONLY, REPRESENTS
from benchmark.probing.version4.measure_rotation import judge_suite
from benchmark.probing.version4.rotation_evidence import RotationEvidence, merge_evidence
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.probing.version4.rotation_verdict import (
    MODEL,
    NOTHING_READ,
    TOKEN_HISTORY,
    decide_rotation,
    verdict_from_rotation_evidence,
)
from benchmark.probing.version4.sequential_verdict import (
    LOOKS,
    delta_of_seeds,
    groups_of_seeds,
    is_decided,
    list_looks,
    rows_of_seeds,
    select_seeds,
    verdict_of_seeds,
)
from benchmark.probing.version4.suite_controls import shipped_suite_controls
from benchmark.runner.measurement_record import RepresentsRecord, read_measurement
from benchmark.runner.measurements.represents import STORED_SOURCES, rotation_suite
from benchmark.statistics import Estimate
from benchmark.tasks.suite import load_suite

SEEDS = ROTATION_STANDARD.seeds
# Decided at the first look either way, at the second, and at no early one.
ROWS = {
    "2026-11-26_lstm-laptop": 3,
    "2026-11-23_llama-laptop": 3,
    "2026-11-26_neox-laptop": 5,
    "2026-11-26_gpt-laptop-2": 7,
}


@cache
def shipped(name):
    """Sources, judged rows and kept labels of a shipped row, and its record."""
    folder = ROOT / "submissions" / name
    suite = rotation_suite(load_suite("laptop"))
    rows = judge_suite(suite, ROTATION_STANDARD).judged_rows
    controls = shipped_suite_controls(suite, ROTATION_STANDARD)
    stored = load_file(folder / "rotation.data")
    sources = {source: RotationEvidence.from_arrays(stored, source) for source in STORED_SOURCES}
    record = read_measurement(RepresentsRecord, folder)
    return {**sources, TOKEN_HISTORY: controls.token_history}, rows, controls.kept_pairs(ROTATION_STANDARD), record


def results(name):
    """The looks with their result and whether the verdict stands."""
    sources, rows, kept, _ = shipped(name)
    for look in list_looks(ROTATION_STANDARD):
        seeds = SEEDS[: look.seeds]
        parts = {source: select_seeds(evidence, SEEDS, seeds, rows) for source, evidence in sources.items()}
        result = verdict_of_seeds(parts, rows, seeds, ROTATION_STANDARD, *kept)
        yield look, result, is_decided(result, ROTATION_STANDARD, look.widening, True)


@pytest.mark.parametrize(("name", "seeds"), ROWS.items())
def test_shipped_rows_keep_their_verdict_with_the_seeds_that_decide(name, seeds):
    record = shipped(name)[3]
    for look, result, stands in results(name):
        if stands or look.seeds == len(SEEDS):
            assert (look.seeds, result.verdict) == (seeds, record.rotation.verdict)
            break


def test_all_seeds_give_the_result_of_the_row():
    sources, rows, kept, record = shipped("2026-11-26_lstm-laptop")
    whole = verdict_of_seeds(sources, rows, SEEDS, ROTATION_STANDARD, *kept)
    assert whole == verdict_from_rotation_evidence(sources, rows, ROTATION_STANDARD, *kept)
    assert whole.delta == record.rotation.delta


def test_the_delta_of_some_seeds_is_resampled_as_for_its_interval():
    sources, rows, kept, _ = shipped("2026-11-26_lstm-laptop")
    seeds = SEEDS[:3]
    parts = {source: select_seeds(evidence, SEEDS, seeds, rows) for source, evidence in sources.items()}
    sample = delta_of_seeds(parts, rows, seeds, ROTATION_STANDARD, kept[0])
    delta = verdict_of_seeds(parts, rows, seeds, ROTATION_STANDARD, *kept).delta
    assert sample.value == delta.value
    assert len(sample.resampled) == ROTATION_STANDARD.resamples
    assert sample.resampled.mean() == pytest.approx(delta.value, abs=0.01)
    assert sample.resampled.std(ddof=1) <= (delta.high - delta.low) / 3.9


def test_seeds_are_parts_that_sum_to_the_whole():
    sources, rows, _, _ = shipped("2026-11-26_lstm-laptop")
    whole = sources[MODEL]
    parts = [([seed], select_seeds(whole, SEEDS, [seed], rows)) for seed in SEEDS]
    merged = merge_evidence(parts, SEEDS)
    for name in ("rotation", "displacement", "rotation_by_seed", "displacement_by_seed"):
        assert np.array_equal(vars(merged)[name], vars(whole)[name])
    groups = [groups_of_seeds(rows, [seed]) for seed in SEEDS]
    assert np.array_equal(np.sort(np.concatenate(groups)), np.arange(rows.num_rows.shape[2]))
    assert sum(rows_of_seeds(rows, [seed]).num_rows.sum() for seed in SEEDS) == rows.num_rows.sum()


def test_sums_over_a_seed_are_those_of_its_groups():
    sources, rows, _, _ = shipped("2026-11-26_neox-laptop")
    part = select_seeds(sources[MODEL], SEEDS, [4], rows)
    assert np.allclose(part.rotation.sum(-1), part.rotation_by_seed[0], rtol=1e-4)
    prior = rows_of_seeds(rows, [4]).prior
    assert np.allclose(prior.rotation_by_seed[0], rows.prior.rotation_by_seed[4], rtol=1e-6)


def test_seeds_that_share_prompts_cannot_be_told_apart():
    sources, rows, _, _ = shipped("2026-11-26_lstm-laptop")
    shared = replace(rows, num_seeds=rows.num_seeds + 1)
    with pytest.raises(ValueError, match="as many folds as seeds"):
        select_seeds(sources[MODEL], SEEDS, [0], shared)


def estimate(value, half):
    return Estimate(value, value - half, value + half, 350)


def result_with(verdict=None, **changes):
    """The result of a shipped row with other figures, and the verdict that the rule takes from them."""
    result = replace(shipped("2026-11-26_lstm-laptop")[3].rotation, **changes)
    if verdict is None:
        verdict = decide_rotation(result, ROTATION_STANDARD)[0]
    return replace(result, verdict=verdict)


BEYOND = {name: estimate(0.2, 0.01) for name in ("delta", "delta90", "pose_delta", "arithmetic")}
NONE = {name: estimate(0.0, 0.005) for name in ("delta", "delta90", "pose_delta", "arithmetic")} | {
    "delta90_all": {name: estimate(0.0, 0.005) for name in ("rotation", "forward", "sideways")},
    "excess": {"mplur": 0.0},
}


def test_a_verdict_stands_if_the_widened_intervals_decide():
    assert is_decided(result_with(**BEYOND), ROTATION_STANDARD, 1.5, True)
    record = result_with(**NONE)
    assert record.verdict == RECORD_ONLY
    assert is_decided(record, ROTATION_STANDARD, 1.5, True)


@pytest.mark.parametrize("name", ["delta", "pose_delta", "arithmetic"])
def test_a_bound_within_the_widened_interval_leaves_it_open(name):
    bound = ROTATION_STANDARD.arithmetic_margin if name == "arithmetic" else ROTATION_STANDARD.margin
    # Beyond the bound by 1.2 half-widths: REPRESENTS as it is, and open with wider intervals.
    open_result = result_with(**BEYOND | {name: estimate(bound + 0.012, 0.01)})
    assert open_result.verdict == REPRESENTS
    assert not is_decided(open_result, ROTATION_STANDARD, 1.5, True)
    assert is_decided(open_result, ROTATION_STANDARD, 1.0, True)
    below = result_with(**BEYOND | {name: estimate(bound - 0.012, 0.01)})
    assert below.verdict == INCONCLUSIVE
    assert not is_decided(below, ROTATION_STANDARD, 1.5, True)


def test_what_is_not_represents_stands_only_if_it_is_clear_which_of_the_others():
    wide = {name: estimate(0.0, 0.025) for name in ("rotation", "forward", "sideways")}
    result = result_with(**NONE | {"delta90_all": wide})
    assert result.verdict == RECORD_ONLY
    assert not is_decided(result, ROTATION_STANDARD, 1.5, True)
    outside = {**wide, "forward": estimate(0.2, 0.025)}
    assert is_decided(result_with(**NONE | {"delta90_all": outside}), ROTATION_STANDARD, 1.5, True)


@pytest.mark.parametrize(("skill", "stands"), [(0.01, True), (0.04, False), (0.08, False)])
def test_nothing_read_stands_only_far_below_its_bound(skill, stands):
    result = result_with(**NONE, skill_all=skill, skill_alternatives_all=0.0, head_skill=0.0)
    assert (result.verdict == NOTHING_READ) == (skill < ROTATION_STANDARD.read_skill)
    assert is_decided(result, ROTATION_STANDARD, 1.5, True) == stands


def test_without_enough_rows_no_further_seed_helps():
    result = result_with(**BEYOND | {"delta": estimate(0.03, 0.01)})
    assert is_decided(result, ROTATION_STANDARD, 1.5, False)
    assert not is_decided(result, ROTATION_STANDARD, 1.5, True)


def test_looks_end_with_all_seeds():
    assert [look.seeds for look in list_looks(ROTATION_STANDARD)] == [3, 5, 7]
    assert [look.seeds for look in list_looks(replace(ROTATION_STANDARD, seeds=(0, 1, 2)))] == [3]


def test_early_looks_add_little_error_at_the_bound():
    """At a figure that is exactly at its bound, all seeds are beyond it in 2.5% of draws; early looks add at most 1%."""
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((200_000, len(SEEDS)))
    quantile = 1.96
    is_beyond = {n: draws[:, :n].mean(1) * np.sqrt(n) for n in [*(look.seeds for look in LOOKS), len(SEEDS)]}
    open_draws = np.ones(len(draws), bool)
    found = np.zeros(len(draws), bool)
    for look in LOOKS:
        found |= open_draws & (is_beyond[look.seeds] > look.widening * quantile)
        open_draws &= np.abs(is_beyond[look.seeds]) <= look.widening * quantile
    at_the_end = is_beyond[len(SEEDS)] > quantile
    found |= open_draws & at_the_end
    assert found.mean() < 0.025 + 0.01
    assert (found != at_the_end).mean() < 0.01
