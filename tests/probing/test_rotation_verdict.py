"""The verdict of protocol 4: intervals in closed form, coverage in simulation, and every outcome of the rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from benchmark.probing.control_gap import INCONCLUSIVE, RANDOM_INIT, RECORD_ONLY, REPRESENTS
from benchmark.probing.version4.readable_record import RECORDS
from benchmark.probing.version4.relative_labels import RELATIVE_FEATURES
from benchmark.probing.version4.rotation_evidence import (
    NUM_DISPLACEMENT_LABELS,
    JudgedRows,
    RotationEvidence,
    select_on_validation,
)
from benchmark.probing.version4.rotation_interval import (
    GapSample,
    compute_skills,
    estimate_gap,
    subtract_controls,
    welch_satterthwaite_half_width,
)
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.probing.version4.rotation_verdict import (
    MODEL,
    NOTHING_READ,
    TOKEN_HISTORY,
    represents_conditions,
    verdict_from_rotation_evidence,
)
from benchmark.probing.version4.turn_pairs import ALL_PAIRS, MARKER_PAIRS, POSE_PAIRS, SEMANTIC_PAIRS, TURN_COUNT_PAIR

PROTOCOL = replace(ROTATION_STANDARD, seeds=(0, 1, 2, 3), folds=4, random_inits=2, resamples=300)
POSITIONS, GROUPS, ROWS = 2, 160, 10


def sample(value: float, spread: float, seeds: np.ndarray, random: np.random.Generator) -> GapSample:
    return GapSample(value, value + spread * random.normal(size=2000), seeds)


def judged_rows(unseen: int = ROWS) -> JudgedRows:
    """Every group has `ROWS` rows at each position, of which the last position's are unseen."""
    num_rows = np.zeros((POSITIONS, 2, GROUPS), np.int64)
    num_rows[0, 0], num_rows[1, 1] = ROWS, unseen
    prior = evidence(np.zeros(len(ALL_PAIRS)))
    return JudgedRows([], [], [], [], [], num_rows, np.ones(GROUPS, np.int64), prior, [])


def evidence(skills: np.ndarray, head_skill: float | None = None, seed: int = 0) -> RotationEvidence:
    """Evidence with these skills of rotation under the labels, equal at both positions and for every feature."""
    random = np.random.default_rng(seed)
    displacements = len(RELATIVE_FEATURES) - 1
    # [K, T, 2, U]: half of the rows at each position, those of the last one unseen.
    loss = np.zeros((len(ALL_PAIRS), POSITIONS, 2, GROUPS))
    loss[:, 0, 0] = loss[:, 1, 1] = (1 - skills)[:, None] * ROWS
    loss *= 1 + 0.001 * random.normal(size=loss.shape)
    moved = np.stack([loss[:NUM_DISPLACEMENT_LABELS].sum((1, 2))] * displacements)
    heads = np.zeros((4, 2, 0)) if head_skill is None else np.array([[[1 - head_skill] * 3, [1.0] * 3]] * 4)
    parts = (
        loss.sum(1), moved, loss.sum((2, 3)),
        loss.sum(1).reshape(len(ALL_PAIRS), 2, 4, -1).sum(-1).transpose(2, 0, 1),
        moved.reshape(displacements, NUM_DISPLACEMENT_LABELS, 4, -1).sum(-1).transpose(2, 0, 1), heads,
    )  # fmt: skip
    return RotationEvidence(*(part.astype(np.float32) for part in parts))


def skills(original: float, marker: float, pose: float, same_words: float = 0.4) -> np.ndarray:
    values = np.full(len(ALL_PAIRS), marker)
    values[len(SEMANTIC_PAIRS) :] = same_words
    values[0] = original
    values[[ALL_PAIRS.index(pair) for pair in POSE_PAIRS]] = pose
    return values


def verdict(
    model: np.ndarray, record: np.ndarray, head_skill: float = 0.9, judged: JudgedRows | None = None, **options
):
    history = skills(0.7, 0.7, 0.7)
    sources = {MODEL: evidence(model, seed=1), TOKEN_HISTORY: evidence(history, seed=2)}
    sources |= {name: evidence(record, head_skill, seed=3 + i) for i, name in enumerate(RECORDS)}
    sources[RANDOM_INIT] = evidence(skills(0.2, 0.2, 0.2), seed=9)
    return verdict_from_rotation_evidence(sources, judged or judged_rows(), PROTOCOL, **options)


def test_represents_needs_both_deltas() -> None:
    record = skills(0.5, 0.4, 0.4)
    result = verdict(skills(0.9, 0.3, 0.3), record)
    assert result.verdict == REPRESENTS
    assert result.reason == ""
    assert result.delta.value == pytest.approx(0.6 - 0.1, abs=0.002)
    assert result.pose_delta is not None
    assert result.pose_delta.value == pytest.approx(0.5, abs=0.002)
    assert result.surplus == pytest.approx(0.4, abs=0.002)
    assert result.p_rand == pytest.approx(1 / len(SEMANTIC_PAIRS))
    conditions = represents_conditions(result, PROTOCOL)
    assert [condition.bound for condition in conditions] == [0.03, 0.03, 0.01]
    assert all(condition.is_met for condition in conditions)
    without_pose = verdict(skills(0.9, 0.3, 0.9), record)
    assert without_pose.verdict == INCONCLUSIVE
    assert [condition.is_met for condition in represents_conditions(without_pose, PROTOCOL)] == [True, False, True]
    assert "pose words" in without_pose.reason
    counts = verdict(skills(0.9, 0.3, 0.3, same_words=0.9), record)
    assert counts.verdict == INCONCLUSIVE
    assert "same words" in counts.reason
    assert counts.arithmetic.value == pytest.approx(0.0, abs=0.002)
    assert verdict(skills(0.9, 0.3, 0.3, same_words=0.87), record).verdict == REPRESENTS
    turns = skills(0.9, 0.3, 0.3)
    turns[ALL_PAIRS.index(TURN_COUNT_PAIR)] = 0.91
    result = verdict(turns, record)
    assert result.verdict == REPRESENTS
    assert result.turn_count.value == pytest.approx(-0.01, abs=0.002)
    assert result.label_skills["lr11"] == pytest.approx(0.91, abs=0.002)
    none_kept = verdict(skills(0.9, 0.3, 0.3), record, pose_pairs=())
    assert none_kept.verdict == INCONCLUSIVE
    assert none_kept.pose_delta is None
    assert "kept" in none_kept.reason


def test_the_gap_of_the_readable_record_is_subtracted() -> None:
    result = verdict(skills(0.9, 0.3, 0.3), skills(0.95, 0.3, 0.3))
    assert result.verdict == INCONCLUSIVE
    assert result.delta.high < 0
    assert "readable record" in result.reason


def test_a_negative_control_gap_is_no_bonus() -> None:
    result = verdict(skills(0.6, 0.6, 0.6), skills(0.3, 0.7, 0.7))
    assert result.verdict == RECORD_ONLY
    assert result.delta.value == pytest.approx(0, abs=0.002)


def test_record_only_needs_that_no_alternative_is_read_better() -> None:
    better = skills(0.6, 0.6, 0.6)
    better[ALL_PAIRS.index(MARKER_PAIRS[0])] += 0.05
    better[ALL_PAIRS.index(MARKER_PAIRS[1])] -= 0.05
    result = verdict(better, skills(0.6, 0.6, 0.6))
    assert result.verdict == INCONCLUSIVE
    assert MARKER_PAIRS[0].name in result.reason


def test_nothing_read_comes_first_and_few_rows_are_inconclusive() -> None:
    nothing = verdict(skills(0.01, 0.02, 0.01), skills(0, 0, 0), head_skill=0.01)
    assert nothing.verdict == NOTHING_READ
    assert nothing.reason
    words_only = verdict(skills(0.01, 0.02, 0.01), skills(0, 0, 0), head_skill=0.5)
    assert words_only.verdict == RECORD_ONLY
    state_only = verdict(skills(0.25, 0.0, 0.0, same_words=0.1), skills(0.05, 0, 0), head_skill=0.01)
    assert state_only.verdict == REPRESENTS
    few = verdict(skills(0.9, 0.3, 0.3), skills(0.5, 0.4, 0.4), judged=judged_rows(unseen=2))
    assert few.verdict == INCONCLUSIVE
    assert "320 rows" in few.reason


def test_curve_is_by_position() -> None:
    result = verdict(skills(0.9, 0.3, 0.3), skills(0.5, 0.4, 0.4))
    assert [p.position for p in result.curve] == [0, 1]
    assert result.curve[1].rows == ROWS * GROUPS
    assert result.curve[0].gap == pytest.approx(0.6, abs=0.002)
    assert result.curve[1].record_skill == pytest.approx(0.5, abs=0.002)


def test_skills_by_novelty_and_of_displacement() -> None:
    source, prior = evidence(skills(0.9, 0.3, 0.3)), evidence(np.zeros(len(ALL_PAIRS)), seed=5)
    source.rotation[:, 1] *= 2
    source.displacement[1] *= 3
    weights = np.ones((1, GROUPS))
    assert compute_skills(source, prior, weights, (1,)).value[0] == pytest.approx(0.8, abs=0.002)
    assert compute_skills(source, prior, weights, (0, 1)).value[0] == pytest.approx(0.85, abs=0.002)
    assert compute_skills(source, prior, weights, displacement=0).value[0] == pytest.approx(0.9, abs=0.002)
    assert compute_skills(source, prior, weights, displacement=1).resampled[0, 0] == pytest.approx(0.7, abs=0.002)


def test_validation_selects_view_and_prior_per_position() -> None:
    step = np.array([0, 1, 0, 1])
    good_first = np.array([0.1, 0.9, 5.0, 6.0])[None, None]
    good_last = np.array([0.8, 0.2, 7.0, 8.0])[None, None]
    prior = np.array([0.5, 0.5, 1.0, 1.0])[None, None]
    assert select_on_validation([good_first, good_last], prior, step, 2)[0, 0, 2:].tolist() == [5.0, 8.0]
    assert select_on_validation([good_first], prior, step, 2)[0, 0, 2:].tolist() == [5.0, 1.0]


def test_welch_satterthwaite_in_closed_form() -> None:
    assert welch_satterthwaite_half_width([(4.0, np.inf)], 0.95) == pytest.approx(2 * stats.norm.ppf(0.975))
    assert welch_satterthwaite_half_width([(4.0, 4)], 0.9) == pytest.approx(2 * stats.t.ppf(0.95, 4))
    # Two equal variances of 3 and 5 degrees of freedom: (2v)^2 / (v^2 / 3 + v^2 / 5) = 7.5.
    assert welch_satterthwaite_half_width([(1.0, 3), (1.0, 5)], 0.95) == pytest.approx(
        np.sqrt(2) * stats.t.ppf(0.975, 7.5)
    )
    assert welch_satterthwaite_half_width([(0.0, np.inf)], 0.95) == 0


def test_controls_are_subtracted_within_resamples() -> None:
    random = np.random.default_rng(0)
    low, high = (sample(value, 0.001, np.full(4, value), random) for value in (0.1, 0.3))
    delta, shares = subtract_controls(sample(0.5, 0.001, np.full(4, 0.5), random), {"a": low, "b": high})
    assert delta.value == pytest.approx(0.2)
    assert shares == {"a": 0.0, "b": 1.0}
    assert delta.by_seed == pytest.approx(np.full(4, 0.2))
    assert delta.resampled.mean() == pytest.approx(0.2, abs=1e-3)


PROMPT_NOISE, COPY_NOISE, SEED_NOISE = 0.005, 0.01, 0.006


def simulated_gap(centre: float, by_seed: np.ndarray, copies: int, random: np.random.Generator) -> GapSample:
    """A gap with noise of prompts, seeds and copies; seeds are tested on prompts of their own."""
    seeds = len(by_seed)
    shift = PROMPT_NOISE * random.normal()
    noise = SEED_NOISE * random.normal(size=seeds) + by_seed
    fold = PROMPT_NOISE * np.sqrt(seeds) * random.normal(size=seeds)
    value = centre + shift + noise.mean()
    resampled = value + PROMPT_NOISE * random.normal(size=400)
    return GapSample(value, resampled, centre + shift + noise + fold - fold.mean())


@pytest.mark.parametrize("num_controls", [1, 2, 3, 4])
def test_coverage_with_tied_controls(num_controls: int) -> None:
    """95% intervals of 500 simulated rows, each with a true delta of 0.2.

    The maximum of tied controls is above their common gap, so that delta is below its true value: an interval may miss
    the true value on that side only.
    """
    random, cases, seeds, copies = np.random.default_rng(num_controls), 500, 10, 5
    copy_of_seed = np.arange(seeds) % copies
    inside = above = 0
    for _ in range(cases):
        by_copy = (COPY_NOISE * random.normal(size=copies))[copy_of_seed]
        extras = [by_copy, *[np.zeros(seeds)] * (num_controls - 1)]
        controls = {f"control {i}": simulated_gap(0.1, extra, copies, random) for i, extra in enumerate(extras)}
        controls[RANDOM_INIT] = controls.pop("control 0")
        delta, shares = subtract_controls(simulated_gap(0.3, np.zeros(seeds), copies, random), controls)
        estimate = estimate_gap(delta, 100, 0.95, controls[RANDOM_INIT], shares[RANDOM_INIT], copy_of_seed.tolist())
        inside += estimate.low <= 0.2 <= estimate.high
        above += estimate.low > 0.2
    assert inside / cases > (0.92 if num_controls < 3 else 0.88)
    assert above / cases < 0.04
