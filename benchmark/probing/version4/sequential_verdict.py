"""A verdict of protocol 4 from the first probe seeds, where it cannot change any more: the rule of a preview.

Probe seed q tests the prompts of fold q and no others, so the first seeds are a part of all of them, on their own test
rows. After each look the intervals are widened, the earlier the look the more, since a rule that may stop at several looks
errs more often than one that has a single look (group-sequential tests: O'Brien & Fleming 1979). The verdict stands if the
widened intervals decide every condition; after the last look it is the verdict of all seeds.

Letters: see `rotation_evidence`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmark.probing.version4.rotation_evidence import JudgedRows, RotationEvidence
from benchmark.probing.version4.rotation_interval import GapSample
from benchmark.probing.version4.rotation_protocol import RotationProtocol
from benchmark.probing.version4.rotation_verdict import (
    RotationResult,
    represents_conditions,
    sample_delta,
    verdict_from_rotation_evidence,
)
from benchmark.probing.version4.turn_pairs import TurnPair
from benchmark.statistics import Estimate

READ_SKILL_FACTOR = 2.0
"""A skill this many times below or above the bound of NOTHING READ counts as decided before the last look."""


@dataclass(frozen=True)
class Look:
    """When the rule is applied: after the first `seeds` seeds, to half-widths of intervals times `widening`."""

    seeds: int
    widening: float


LOOKS = (Look(3, 1.5), Look(5, 1.25))
"""The looks before that at all seeds."""


def list_looks(protocol: RotationProtocol) -> list[Look]:
    """The looks of a protocol, the last one at all of its seeds."""
    num_seeds = len(protocol.seeds)
    return [look for look in LOOKS if look.seeds < num_seeds] + [Look(num_seeds, 1.0)]


def select_seeds(
    evidence: RotationEvidence, own: Sequence[int], seeds: Sequence[int], judged_rows: JudgedRows
) -> RotationEvidence:
    """The part of a source's evidence that comes from some of its seeds.

    Args:
        evidence: evidence of the seeds `own`, with all groups of prompts.
        own: the seeds of `evidence`.
        seeds: the seeds to select, all of them in `own`.
        judged_rows: the rows of all seeds of the protocol.

    Returns:
        Evidence with all groups; `by_position` is NaN if `seeds` are not all of `own`, since it has no groups.

    Raises:
        ValueError: several seeds test one group of prompts, so that their parts cannot be told apart.
    """
    if list(own) == list(seeds):
        return evidence
    if judged_rows.num_seeds.max() > 1:
        raise ValueError("a group of prompts is tested by several seeds; expected as many folds as seeds")
    is_tested = np.zeros(judged_rows.num_rows.shape[2], bool)
    is_tested[groups_of_seeds(judged_rows, seeds)] = True
    indices = [list(own).index(seed) for seed in seeds]
    return RotationEvidence(
        np.where(is_tested, evidence.rotation, 0),
        np.where(is_tested, evidence.displacement, 0),
        np.full_like(evidence.by_position, np.nan),
        evidence.rotation_by_seed[indices],
        evidence.displacement_by_seed[indices],
        evidence.heads[indices],
    )


def groups_of_seeds(judged_rows: JudgedRows, seeds: Sequence[int]) -> np.ndarray:
    """int64, ascending indices of the groups of prompts that some seeds test."""
    shape = judged_rows.num_rows.shape
    indices = [list(judged_rows.seeds).index(seed) for seed in seeds]
    return np.unique(np.concatenate([np.unravel_index(judged_rows.cell[q], shape)[2] for q in indices]))


def rows_of_seeds(judged_rows: JudgedRows, seeds: Sequence[int]) -> JudgedRows:
    """The rows as if the protocol had these seeds only: their groups of prompts, and the label prior on them."""
    groups = groups_of_seeds(judged_rows, seeds)
    part = judged_rows.select(seeds)
    old_shape = judged_rows.num_rows.shape
    new_shape = (*old_shape[:2], len(groups))
    cells = []
    for cell in part.cell:
        position, novelty, group = np.unravel_index(cell, old_shape)
        cells.append(np.ravel_multi_index((position, novelty, np.searchsorted(groups, group)), new_shape))
    num_rows = np.zeros(int(np.prod(new_shape)), np.int64)
    for cell in cells:
        num_rows += np.bincount(cell, minlength=len(num_rows))
    num_seeds = np.zeros(len(groups), np.int64)
    for cell in cells:
        num_seeds[np.unique(cell % len(groups))] += 1
    part = replace(part, cell=cells, num_rows=num_rows.reshape(new_shape), num_seeds=num_seeds)
    return replace(part, prior=part.sum_losses(part.prior_loss))


def verdict_of_seeds(
    evidence: Mapping[str, RotationEvidence],
    judged_rows: JudgedRows,
    seeds: Sequence[int],
    protocol: RotationProtocol,
    marker_pairs: Sequence[TurnPair],
    pose_pairs: Sequence[TurnPair],
) -> RotationResult:
    """Figures and verdict of some seeds, on the rows that they test.

    Args:
        evidence: evidence of each source on `seeds`, with all groups of prompts (`select_seeds`).
        judged_rows: the rows of all seeds.
        seeds: the seeds.
        protocol: the settings; enough rows are judged if all seeds together judge enough.
        marker_pairs, pose_pairs: the alternatives that the screen of the suite keeps.
    """
    return verdict_from_rotation_evidence(
        *_part_of_seeds(evidence, judged_rows, seeds, protocol), marker_pairs, pose_pairs
    )


def delta_of_seeds(
    evidence: Mapping[str, RotationEvidence],
    judged_rows: JudgedRows,
    seeds: Sequence[int],
    protocol: RotationProtocol,
    marker_pairs: Sequence[TurnPair],
) -> GapSample:
    """Delta of some seeds in each bootstrap resample of their prompts; arguments as for `verdict_of_seeds`."""
    return sample_delta(*_part_of_seeds(evidence, judged_rows, seeds, protocol), marker_pairs)


def _part_of_seeds(
    evidence: Mapping[str, RotationEvidence], judged_rows: JudgedRows, seeds: Sequence[int], protocol: RotationProtocol
) -> tuple[dict[str, RotationEvidence], JudgedRows, RotationProtocol]:
    """Evidence, rows and protocol as if there were these seeds only."""
    groups = groups_of_seeds(judged_rows, seeds)
    parts = {
        name: replace(source, rotation=source.rotation[..., groups], displacement=source.displacement[..., groups])
        for name, source in evidence.items()
    }
    min_unseen = 0 if judged_rows.num_unseen >= protocol.min_unseen else protocol.min_unseen
    return parts, rows_of_seeds(judged_rows, seeds), replace(protocol, seeds=tuple(seeds), min_unseen=min_unseen)


def is_decided(result: RotationResult, protocol: RotationProtocol, widening: float, has_enough_rows: bool) -> bool:
    """Whether the verdict of an early look stands.

    Args:
        result: figures and verdict of the first seeds.
        protocol: the settings.
        widening: factor of the half-widths of all intervals.
        has_enough_rows: whether all seeds judge enough rows; without them every verdict but NOTHING READ is INCONCLUSIVE.
    """
    largest_skill = max(result.skill_all, result.skill_alternatives_all, result.head_skill)
    if largest_skill < protocol.read_skill * READ_SKILL_FACTOR:
        return largest_skill < protocol.read_skill / READ_SKILL_FACTOR
    if not has_enough_rows:
        return True
    conditions = [(_widen(c.estimate, widening), c.bound) for c in represents_conditions(result, protocol)]
    if all(estimate is not None and estimate.low > bound for estimate, bound in conditions):
        return True
    if not any(estimate is None or estimate.high < bound for estimate, bound in conditions):
        return False
    # It is not REPRESENTS. RECORD-ONLY needs every interval of delta within the margin, INCONCLUSIVE one outside it.
    margin = protocol.margin
    bands = [_widen(band, widening) for band in (result.delta90, *result.delta90_all.values())]
    is_outside = any(band.low > margin or band.high < -margin for band in bands if band is not None)
    is_inside = all(-margin <= band.low and band.high <= margin for band in bands if band is not None)
    excess = max(result.excess.values())
    return is_outside or (is_inside and not margin / READ_SKILL_FACTOR < excess < margin * READ_SKILL_FACTOR)


def _widen(estimate: Estimate | None, factor: float) -> Estimate | None:
    """The estimate with half-widths times `factor`."""
    if estimate is None:
        return None
    value = estimate.value
    return Estimate(
        value, value - factor * (value - estimate.low), value + factor * (estimate.high - value), estimate.n
    )
