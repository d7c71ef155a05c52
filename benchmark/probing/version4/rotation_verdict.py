"""The verdict of protocol 4, from stored evidence. NumPy and SciPy only.

docs/protocol4.md has the question, the controls and the rule. Letters: see `rotation_interval`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmark.probing.control_gap import INCONCLUSIVE, RANDOM_INIT, RECORD_ONLY, REPRESENTS, skill_score
from benchmark.probing.protocol import BOOTSTRAP_SEED
from benchmark.probing.version4.readable_record import RECORDS
from benchmark.probing.version4.relative_labels import RELATIVE_FEATURES
from benchmark.probing.version4.rotation_evidence import JudgedRows, RotationEvidence
from benchmark.probing.version4.rotation_interval import (
    ALL_ROWS,
    UNSEEN_ROWS,
    GapSample,
    compute_skills,
    estimate_gap,
    subtract_controls,
)
from benchmark.probing.version4.rotation_protocol import RotationProtocol
from benchmark.probing.version4.turn_pairs import (
    ALL_PAIRS,
    ARITHMETIC_PAIRS,
    MARKER_PAIRS,
    POSE_PAIRS,
    SEMANTIC_PAIRS,
    TURN_COUNT_PAIR,
    TurnPair,
)
from benchmark.statistics import Estimate, bootstrap_weights

NOTHING_READ = "NOTHING READ"
MODEL, TOKEN_HISTORY = "model", "token-history"
VERDICTS = (REPRESENTS, NOTHING_READ, RECORD_ONLY, INCONCLUSIVE)


@dataclass(frozen=True)
class PositionResult:
    """Rotation at one word position: skill and gap of the model, skill of its best executed record, and rows tested."""

    position: int
    skill: float
    gap: float
    record_skill: float
    rows: int


@dataclass(frozen=True)
class RotationResult:
    """The probing result of protocol 4; every figure is on unseen prefixes unless it says otherwise.

    With fewer judged rows than the protocol needs, the figures are those of all rows and the verdict is INCONCLUSIVE.

    Attributes:
        verdict: one of `VERDICTS`.
        reason: why the verdict is not REPRESENTS or RECORD-ONLY; empty for these two.
        skill, skill_alternatives, gap: rotation of the model under the original, under the marker alternatives, and the
            difference.
        control_gaps: gap of each control.
        delta, delta90: gap minus the largest control gap (at least 0), 95% and 90% intervals.
        delta90_all: the same on all rows by relative feature, 90% intervals.
        pose_gap, pose_delta: gap and delta against the pose-word alternatives; None if the screen keeps none.
        arithmetic: skill of rotation minus mean skill of `ARITHMETIC_PAIRS`, the same two words with another arithmetic.
        turn_count: skill of rotation minus skill of the number of turns modulo 4.
        label_skills: skill of the model under every label, by name of the pair.
        surplus: skill of the rotation probe minus the skill of the best executed record, both under the original.
        excess: by alternative, how much better than the original it is read on all rows, beyond the token history.
        p_rand: (1 + number of labels read as well as the original) / (labels + 1).
        head_skill: mean skill of the word and count heads on validation.
        curve: results by word position, on all rows.
        unseen_rows: number of distinct judged rows.
        skill_all, skill_alternatives_all: `skill` and `skill_alternatives` on all rows.
    """

    verdict: str
    reason: str
    skill: Estimate
    skill_alternatives: float
    gap: Estimate
    control_gaps: dict[str, float]
    delta: Estimate
    delta90: Estimate
    delta90_all: dict[str, Estimate]
    pose_gap: float | None
    pose_delta: Estimate | None
    arithmetic: Estimate
    turn_count: Estimate
    label_skills: dict[str, float]
    surplus: float
    excess: dict[str, float]
    p_rand: float
    head_skill: float
    curve: list[PositionResult]
    unseen_rows: int
    skill_all: float
    skill_alternatives_all: float


class _Analysis:
    """Gaps and deltas of one row on a selection of test rows."""

    def __init__(
        self,
        evidence: Mapping[str, RotationEvidence],
        judged_rows: JudgedRows,
        protocol: RotationProtocol,
        novelties: Sequence[int],
        weights: np.ndarray,
    ) -> None:
        assert judged_rows.prior is not None
        self.protocol, self.n, self.novelties, self.weights = (
            protocol,
            judged_rows.num_rows.shape[2],
            novelties,
            weights,
        )
        self.evidence, self.prior = evidence, judged_rows.prior
        self.rotation = {
            name: compute_skills(source, self.prior, weights, novelties) for name, source in evidence.items()
        }
        self.copy_of_seed = [seed % protocol.random_inits for seed in protocol.seeds]

    def gaps(self, pairs: Sequence[TurnPair], displacement: int | None = None) -> dict[str, GapSample]:
        """Gap of every source in rotation or in a displacement, of which the executed records have none."""
        columns = [ALL_PAIRS.index(pair) for pair in pairs]
        skills = self.rotation if displacement is None else {
            name: compute_skills(source, self.prior, self.weights, displacement=displacement)
            for name, source in self.evidence.items()
            if name not in RECORDS
        }  # fmt: skip
        return {name: of_source.gap(columns) for name, of_source in skills.items()}

    def delta_sample(self, pairs: Sequence[TurnPair]) -> GapSample:
        """Gap of the model minus the largest control gap in rotation, in each resample."""
        controls = self.gaps(pairs)
        return subtract_controls(controls.pop(MODEL), controls)[0]

    def delta(self, pairs: Sequence[TurnPair], level: float, displacement: int | None = None) -> Estimate:
        """Gap of the model minus the largest control gap."""
        controls = self.gaps(pairs, displacement)
        sample, shares = subtract_controls(controls.pop(MODEL), controls)
        return estimate_gap(
            sample, self.n, level, controls.get(RANDOM_INIT), shares.get(RANDOM_INIT, 0.0), self.copy_of_seed
        )

    def model_gap(self, pairs: Sequence[TurnPair], level: float) -> Estimate:
        """Gap of the model alone, in rotation."""
        return estimate_gap(self.gaps(pairs)[MODEL], self.n, level)

    def skill(self, source: str) -> np.ndarray:
        """float64 [K], skills of rotation."""
        return self.rotation[source].value


def verdict_from_rotation_evidence(
    evidence: Mapping[str, RotationEvidence],
    judged_rows: JudgedRows,
    protocol: RotationProtocol,
    marker_pairs: Sequence[TurnPair] = MARKER_PAIRS,
    pose_pairs: Sequence[TurnPair] = POSE_PAIRS,
) -> RotationResult:
    """Compute every figure and the verdict.

    Args:
        evidence: evidence of `model`, `token-history`, optionally `random-init`, and the executed records.
        judged_rows: rows that the seeds test.
        protocol: margin, levels, resamples.
        marker_pairs, pose_pairs: alternatives that the screen of the suite keeps for the judged rows.
    """
    weights = bootstrap_weights(judged_rows.num_rows.shape[2], protocol.resamples, BOOTSTRAP_SEED)
    everything = _Analysis(evidence, judged_rows, protocol, ALL_ROWS, weights)
    unseen_rows = judged_rows.num_unseen
    has_enough = unseen_rows >= protocol.min_unseen
    unseen = _Analysis(evidence, judged_rows, protocol, UNSEEN_ROWS if has_enough else ALL_ROWS, weights)
    skills = unseen.skill(MODEL)
    marker_columns = [ALL_PAIRS.index(pair) for pair in marker_pairs]
    gaps = unseen.gaps(marker_pairs)
    history, model = everything.skill(TOKEN_HISTORY), everything.skill(MODEL)
    figures = {
        "skill": estimate_gap(unseen.rotation[MODEL].original(), unseen.n, 0.95),
        "skill_alternatives": float(skills[marker_columns].mean()),
        "skill_all": float(model[0]),
        "skill_alternatives_all": float(model[marker_columns].mean()),
        "gap": estimate_gap(gaps[MODEL], unseen.n, 0.95),
        "control_gaps": {name: gap.value for name, gap in gaps.items() if name != MODEL},
        "delta": unseen.delta(marker_pairs, 0.95),
        "delta90": unseen.delta(marker_pairs, 0.90),
        "delta90_all": {
            name: everything.delta(marker_pairs, 0.90, f - 1 if f else None) for f, name in enumerate(RELATIVE_FEATURES)
        },
        "pose_gap": unseen.gaps(pose_pairs)[MODEL].value if pose_pairs else None,
        "pose_delta": unseen.delta(pose_pairs, 0.95) if pose_pairs else None,
        "arithmetic": unseen.model_gap(ARITHMETIC_PAIRS, 0.95),
        "turn_count": unseen.model_gap([TURN_COUNT_PAIR], 0.95),
        "label_skills": {pair.name: float(skill) for pair, skill in zip(ALL_PAIRS, skills, strict=True)},
        "surplus": float(skills[0] - max(unseen.skill(name)[0] for name in RECORDS)),
        "excess": {
            pair.name: float((model[k] - model[0]) - (history[k] - history[0]))
            for k, pair in enumerate(SEMANTIC_PAIRS)
            if k
        },
        "p_rand": float((1 + (skills[1 : len(SEMANTIC_PAIRS)] >= skills[0]).sum()) / len(SEMANTIC_PAIRS)),
        "head_skill": _head_skill(evidence[RECORDS[0]]),
        "curve": _curve(evidence, judged_rows, marker_columns),
        "unseen_rows": unseen_rows,
    }  # fmt: skip
    result = RotationResult("", "", **figures)  # type: ignore[arg-type]
    verdict, reason = decide_rotation(result, protocol)
    return replace(result, verdict=verdict, reason=reason)


def sample_delta(
    evidence: Mapping[str, RotationEvidence],
    judged_rows: JudgedRows,
    protocol: RotationProtocol,
    marker_pairs: Sequence[TurnPair] = MARKER_PAIRS,
) -> GapSample:
    """Delta in each bootstrap resample of the prompts; arguments as for `verdict_from_rotation_evidence`.

    Resample w draws the same prompts for every model of a suite.
    """
    weights = bootstrap_weights(judged_rows.num_rows.shape[2], protocol.resamples, BOOTSTRAP_SEED)
    novelties = UNSEEN_ROWS if judged_rows.num_unseen >= protocol.min_unseen else ALL_ROWS
    return _Analysis(evidence, judged_rows, protocol, novelties, weights).delta_sample(marker_pairs)


def _head_skill(record: RotationEvidence) -> float:
    """Mean skill of the word and count heads on validation."""
    loss, prior = record.heads.astype(np.float64).mean(0)
    return float(np.mean(skill_score(loss, np.maximum(prior, 1e-9))))


@dataclass(frozen=True)
class Condition:
    """A condition of REPRESENTS: the lower end of the interval of a figure exceeds a bound; a figure may be undefined."""

    name: str
    estimate: Estimate | None
    bound: float

    @property
    def is_met(self) -> bool:
        """Whether the lower end exceeds the bound."""
        return self.estimate is not None and self.estimate.low > self.bound


def represents_conditions(result: RotationResult, protocol: RotationProtocol) -> tuple[Condition, Condition, Condition]:
    """The conditions of REPRESENTS, all of which must be met: delta, pose delta, arithmetic."""
    return (
        Condition("delta", result.delta, protocol.margin),
        Condition("pose delta", result.pose_delta, protocol.margin),
        Condition("arithmetic", result.arithmetic, protocol.arithmetic_margin),
    )


def decide_rotation(result: RotationResult, protocol: RotationProtocol) -> tuple[str, str]:
    """The verdict and, unless it is REPRESENTS or RECORD-ONLY, its reason.

    Args:
        result: every figure.
        protocol: margins, smallest number of judged rows.
    """
    margin = protocol.margin
    largest_skill = max(result.skill_all, result.skill_alternatives_all, result.head_skill)
    if largest_skill < protocol.read_skill:
        return NOTHING_READ, "these probes, at this label budget, read neither rotation nor words"
    if result.unseen_rows < protocol.min_unseen:
        return INCONCLUSIVE, f"{result.unseen_rows} rows with unseen prefixes, {protocol.min_unseen} are needed"
    is_beyond_controls, is_beyond_pose, is_beyond_counts = (
        condition.is_met for condition in represents_conditions(result, protocol)
    )
    if is_beyond_controls and is_beyond_pose and is_beyond_counts:
        return REPRESENTS, ""
    bands = [result.delta90, *result.delta90_all.values()]
    best = max(result.excess, key=lambda name: result.excess[name])
    if all(-margin <= band.low and band.high <= margin for band in bands):
        if result.excess[best] <= margin:
            return RECORD_ONLY, ""
        return INCONCLUSIVE, f"the label of {best} is read better than the original"
    if is_beyond_controls:
        if result.pose_delta is None:
            return INCONCLUSIVE, "no pose-word alternative is kept"
        return INCONCLUSIVE, (
            "another arithmetic of the same words is read as well" if is_beyond_pose else "not beyond the pose words"
        )
    if result.delta.high < -margin:
        return INCONCLUSIVE, "the readable record explains more than the rotation probe reads"
    return INCONCLUSIVE, "an interval of delta crosses the margin"


def _curve(
    evidence: Mapping[str, RotationEvidence], judged_rows: JudgedRows, marker_columns: Sequence[int]
) -> list[PositionResult]:
    """Results by word position, on all rows."""
    assert judged_rows.prior is not None
    prior = judged_rows.prior.by_position.astype(np.float64)
    skills = {name: skill_score(evidence[name].by_position.astype(np.float64), prior) for name in (MODEL, *RECORDS)}
    return [
        PositionResult(
            position,
            float(skills[MODEL][0, position]),
            float(skills[MODEL][0, position] - skills[MODEL][list(marker_columns), position].mean()),
            float(max(skills[name][0, position] for name in RECORDS)),
            int(judged_rows.num_rows[position].sum()),
        )
        for position in range(prior.shape[1])
    ]
