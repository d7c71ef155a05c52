"""Check `represents.json` by `rotation.data`: every figure of protocol 4 is computed again, without the model.

The blind set of the suite is drawn and labelled again. Before anything is computed from the arrays, their bounds and the
sums that several of them must share are checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from benchmark.artifacts import REPRESENTS_RECORD, ROTATION_EVIDENCE
from benchmark.errors import SubmissionError
from benchmark.probing.version4.measure_rotation import judge_suite
from benchmark.probing.version4.readable_record import NUM_WORDS, RECORDS
from benchmark.probing.version4.rotation_evidence import JudgedRows, RotationEvidence, evidence_shapes
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.probing.version4.rotation_verdict import RotationResult
from benchmark.probing.version4.suite_controls import SuiteControls, shipped_suite_controls
from benchmark.probing.version4.track_protocol import rotation_protocol
from benchmark.probing.version4.turn_pairs import ALL_PAIRS
from benchmark.runner.measurement_record import RepresentsRecord
from benchmark.runner.measurements.represents import STORED_SOURCES, conclude_rotation, rotation_suite
from benchmark.submit.report import VerificationReport
from benchmark.tasks.suite import Suite

RECOMPUTE_TOLERANCE = 1e-6
"""Absolute tolerance of a recomputed figure: the order of a floating-point sum depends on the processor."""
SUM_TOLERANCE = 1e-4
"""Relative tolerance between float32 sums of the same losses."""
MAX_LOSS = 60.0 * 2 + 5
"""Largest cross-entropy of a row in nats: logits are clamped to 60 in magnitude."""


class RepresentsCheck:
    """See `check.MeasurementCheck`."""

    record_type = RepresentsRecord
    version = ROTATION_STANDARD.version

    def expected_arrays(
        self, record: RepresentsRecord, suite: Suite, names: set[str]
    ) -> dict[str, tuple[str, tuple[int, ...]]]:
        """See `MeasurementCheck.expected_arrays`."""
        judged_rows, _ = judged_suite(suite, record.track, record.few_programs)
        num_heads = judged_rows.num_rows.shape[0] + NUM_WORDS
        return {
            f"{source}.{name}": ("F32", tuple(shape))
            for source in STORED_SOURCES
            for name, shape in evidence_shapes(
                len(ALL_PAIRS), judged_rows, source in RECORDS, num_heads if source == RECORDS[0] else 0
            ).items()
        }

    def check(
        self, report: VerificationReport, record: RepresentsRecord, suite: Suite, evidence: Mapping[str, np.ndarray]
    ) -> None:
        """See `MeasurementCheck.check`."""
        if not evidence:
            raise SubmissionError(f"{REPRESENTS_RECORD}: without {ROTATION_EVIDENCE}; measure again")
        judged_rows, controls = judged_suite(suite, record.track, record.few_programs)
        sources = checked_evidence(evidence, judged_rows)
        recomputed = conclude_rotation(
            sources, controls, judged_rows, rotation_protocol(record.track, few_programs=record.few_programs)
        )
        report.compare("represents", _by_position(record.rotation), _by_position(recomputed), RECOMPUTE_TOLERANCE)
        report.checks.append(
            f"{REPRESENTS_RECORD}: blind set, labelled again; verdict, and every figure and interval, from {ROTATION_EVIDENCE}"
        )


def _by_position(result: RotationResult) -> dict[str, Any]:
    """The figures with a mapping as curve, whose entries are compared within the tolerance."""
    return {**vars(result), "curve": {str(point.position): point for point in result.curve}}


@lru_cache(maxsize=2)
def judged_suite(suite: Suite, track: str, few_programs: bool = False) -> tuple[JudgedRows, SuiteControls]:
    """The rows that are judged on a suite in a track, and the pinned controls; see `rotation_protocol`.

    Raises:
        SubmissionError: there are no pinned controls.
    """
    suite, protocol = rotation_suite(suite), rotation_protocol(track, few_programs=few_programs)
    controls = shipped_suite_controls(suite, protocol)
    if controls is None:
        raise SubmissionError(
            f"{REPRESENTS_RECORD}: suite {suite.name} has no pinned token history in track {track}; remove the file"
        )
    return judge_suite(suite, protocol).judged_rows, controls


def checked_evidence(arrays: Mapping[str, np.ndarray], judged_rows: JudgedRows) -> dict[str, RotationEvidence]:
    """The evidence by source.

    Args:
        arrays: arrays of the dtypes and shapes of `RepresentsCheck.expected_arrays`.
        judged_rows: rows that the seeds test.

    Raises:
        SubmissionError: an array has impossible values.
    """
    largest = MAX_LOSS * float(judged_rows.num_rows.sum())
    for name, array in arrays.items():
        if not np.isfinite(array).all() or (array.size and (array.min() < 0 or array.max() > largest)):
            raise SubmissionError(f"{ROTATION_EVIDENCE}: {name} has entries that are no cross-entropy")
    evidence = {source: RotationEvidence.from_arrays(arrays, source) for source in STORED_SOURCES}
    for source, part in evidence.items():
        _check_sums(source, part, judged_rows)
    return evidence


def _check_sums(source: str, evidence: RotationEvidence, judged_rows: JudgedRows) -> None:
    """Raise `SubmissionError` if arrays that sum the same losses differ, or a cell without rows has a loss."""
    num_rows = judged_rows.num_rows.sum(0)
    if evidence.rotation[:, num_rows == 0].any():
        raise SubmissionError(f"{ROTATION_EVIDENCE}: {source}.rotation has a loss where there are no rows")
    total = evidence.rotation.sum((1, 2), dtype=float)
    sums = {"by_position": (evidence.by_position.sum(1, dtype=float), total)}
    if (judged_rows.num_seeds == 1).all():
        # Each group is tested with one seed, so that sums by group and by seed have one total.
        by_seed = evidence.rotation_by_seed.sum(0, dtype=float), evidence.displacement_by_seed.sum(0, dtype=float)
        sums["rotation_by_seed"] = (by_seed[0], evidence.rotation.sum(2, dtype=float))
        sums["displacement_by_seed"] = (by_seed[1], evidence.displacement.sum(2, dtype=float))
    for name, (first, second) in sums.items():
        if not np.allclose(first, second, rtol=SUM_TOLERANCE, atol=SUM_TOLERANCE):
            raise SubmissionError(f"{ROTATION_EVIDENCE}: {source}.{name} and its sums by group have other totals")
