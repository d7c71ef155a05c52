"""Forward and sideways as secondary features: gap, delta and a p adjusted for both. They decide nothing.

Letters: `W` resamples, `Q` seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmark.probing.control_gap import RANDOM_INIT
from benchmark.probing.protocol import BOOTSTRAP_SEED
from benchmark.probing.version4.relative_labels import RELATIVE_FEATURES
from benchmark.probing.version4.rotation_evidence import JudgedRows, RotationEvidence
from benchmark.probing.version4.rotation_interval import GapSample, compute_skills, estimate_gap, subtract_controls
from benchmark.probing.version4.rotation_protocol import RotationProtocol
from benchmark.probing.version4.rotation_verdict import MODEL
from benchmark.probing.version4.turn_pairs import ALL_PAIRS, MARKER_PAIRS, TurnPair
from benchmark.statistics import Estimate, bootstrap_weights, holm

DISPLACEMENTS = RELATIVE_FEATURES[1:]
_BISECTIONS = 40


@dataclass(frozen=True)
class DisplacementFigure:
    """One displacement, on all rows.

    Attributes:
        feature: `forward` or `sideways`.
        skill: under the original, 95% interval.
        gap: skill under the original minus mean skill under the marker alternatives.
        control_gaps: the same of every control and record.
        delta: gap minus the largest control gap (at least 0), 95% interval.
        p, p_holm: one-sided p of delta above 0, and the same adjusted over both displacements (Holm 1979).
    """

    feature: str
    skill: Estimate
    gap: float
    control_gaps: dict[str, float]
    delta: Estimate
    p: float
    p_holm: float


def displacement_figures(
    evidence: Mapping[str, RotationEvidence],
    judged_rows: JudgedRows,
    protocol: RotationProtocol,
    marker_pairs: Sequence[TurnPair] = MARKER_PAIRS,
) -> list[DisplacementFigure]:
    """The figures of both displacements.

    Args:
        evidence: evidence of the model and of every control, each with its displacement.
        judged_rows: rows that the seeds test.
        protocol: number of resamples and of randomly initialised copies.
        marker_pairs: alternatives that the screen of the suite keeps.
    """
    assert judged_rows.prior is not None
    num_groups = judged_rows.num_rows.shape[2]
    weights = bootstrap_weights(num_groups, protocol.resamples, BOOTSTRAP_SEED)
    columns = [ALL_PAIRS.index(pair) for pair in marker_pairs]
    copy_of_seed = [seed % protocol.random_inits for seed in judged_rows.seeds]
    figures: list[DisplacementFigure] = []
    p_values = {}
    for d, feature in enumerate(DISPLACEMENTS):
        skills = {
            name: compute_skills(source, judged_rows.prior, weights, displacement=d)
            for name, source in evidence.items()
        }
        gaps = {name: of_source.gap(columns) for name, of_source in skills.items()}
        controls = {name: gap for name, gap in gaps.items() if name != MODEL}
        sample, shares = subtract_controls(gaps[MODEL], controls)
        settings = (controls.get(RANDOM_INIT), shares.get(RANDOM_INIT, 0.0), copy_of_seed)
        p_values[feature] = _p_above_zero(sample, num_groups, *settings)
        figures.append(
            DisplacementFigure(
                feature,
                estimate_gap(skills[MODEL].original(), num_groups, 0.95),
                gaps[MODEL].value,
                {name: gap.value for name, gap in controls.items()},
                estimate_gap(sample, num_groups, 0.95, *settings),
                p_values[feature],
                1.0,
            )
        )
    adjusted = holm(p_values)
    return [DisplacementFigure(**{**vars(figure), "p_holm": adjusted[figure.feature]}) for figure in figures]


def _p_above_zero(
    sample: GapSample, n: int, random_init: GapSample | None, share: float, copy_of_seed: Sequence[int]
) -> float:
    """One-sided p of a value above 0: that of the level at which the interval ends at 0."""
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        level = (low + high) / 2
        estimate = estimate_gap(sample, n, level, random_init, share, copy_of_seed)
        is_below = (estimate.value - estimate.low) < abs(sample.value)
        low, high = (level, high) if is_below else (low, level)
    tail = (1 - low) / 2
    return tail if sample.value > 0 else 1 - tail
