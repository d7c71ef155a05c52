"""Verify `represents.json` of a submission: every figure from `rotation.data`, without the model.

The arrays are checked against the blind set of the suite, which is drawn and labelled again, before anything is computed
from them: names, dtypes, shapes, bounds, and the sums that several of them must share.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load

from benchmark.artifacts import MAX_BYTES, REPRESENTS_RECORD, ROTATION_EVIDENCE
from benchmark.errors import SubmissionError
from benchmark.files import read_bytes, read_json, read_tensor_header, sanitize
from benchmark.probing.version4.measure_rotation import judge_suite
from benchmark.probing.version4.readable_record import NUM_WORDS, RECORDS
from benchmark.probing.version4.rotation_evidence import JudgedRows, RotationEvidence, evidence_shapes
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.probing.version4.rotation_verdict import RotationResult
from benchmark.probing.version4.suite_controls import SuiteControls, shipped_suite_controls
from benchmark.probing.version4.turn_pairs import ALL_PAIRS
from benchmark.runner.measurement_record import RepresentsRecord
from benchmark.runner.measurements.represents import STORED_SOURCES, conclude_rotation, rotation_suite
from benchmark.submit.check_record import SHA256_PATTERN, check_figures, check_times
from benchmark.submit.report import VerificationReport
from benchmark.submit.schema import validate_schema
from benchmark.tasks.suite import Suite, load_suite

RECOMPUTE_TOLERANCE = 1e-6
"""Absolute tolerance of a recomputed figure: the order of a floating-point sum depends on the processor."""
SUM_TOLERANCE = 1e-4
"""Relative tolerance between float32 sums of the same losses."""
MAX_LOSS = 60.0 * 2 + 5
"""Largest cross-entropy of a row in nats: logits are clamped to 60 in magnitude."""


def read_submitted_represents(folder: Path) -> RepresentsRecord | None:
    """Read and bound `represents.json`; None if the folder has none.

    Raises:
        SubmissionError: it is not a record of an official measurement by protocol 4 as it stands, or only one of the record
            and its evidence is there.
    """
    has_record, has_evidence = ((folder / name).is_file() for name in (REPRESENTS_RECORD, ROTATION_EVIDENCE))
    if not has_record and not has_evidence:
        return None
    if has_record != has_evidence:
        present, missing = (
            (REPRESENTS_RECORD, ROTATION_EVIDENCE) if has_record else (ROTATION_EVIDENCE, REPRESENTS_RECORD)
        )
        raise SubmissionError(f"{present}: without {missing}; add both files of the measurement, or neither")
    content = read_json(folder / REPRESENTS_RECORD, MAX_BYTES[REPRESENTS_RECORD])
    record = validate_schema(RepresentsRecord, content, REPRESENTS_RECORD)
    if not record.official or record.unofficial:
        reasons = "; ".join(sanitize(reason) for reason in record.unofficial[:3]) or "official is false"
        raise SubmissionError(
            f"{REPRESENTS_RECORD}: not an official measurement ({reasons}); measure from a clean commit"
        )
    if record.version != ROTATION_STANDARD.version:
        raise SubmissionError(
            f"{REPRESENTS_RECORD}: version {record.version}; expected {ROTATION_STANDARD.version}, measure again"
        )
    check_figures(record, REPRESENTS_RECORD)
    check_times(record.provenance.started, record.provenance.finished, f"{REPRESENTS_RECORD}: provenance")
    digests = {"provenance.identity": record.provenance.identity, "provenance.source": record.provenance.source}
    for name, text in digests.items():
        if not SHA256_PATTERN.fullmatch(text):
            raise SubmissionError(f"{REPRESENTS_RECORD}: {name}: {sanitize(text)}; expected 64 digits of a SHA-256")
    return record


def check_represents(report: VerificationReport, folder: Path) -> None:
    """Check the measurement of protocol 4, if the folder has it, against its evidence and the record of the run.

    Raises:
        SubmissionError: a file is not as expected.
    """
    represents = read_submitted_represents(folder)
    if represents is None:
        return
    record, name = report.record, REPRESENTS_RECORD
    suite = load_suite(record.suite.name)
    for field in ("digest", "parameters"):
        report.compare(f"{name}: model.{field}", getattr(represents.model, field), getattr(record.model, field))
    report.compare(f"{name}: suite", represents.suite.model_dump(), record.suite.model_dump())
    report.compare(f"{name}: track", represents.track, record.track)
    report.compare(f"{name}: provenance.dirty", bool(represents.provenance.dirty), False)
    content = read_bytes(folder / ROTATION_EVIDENCE, MAX_BYTES[ROTATION_EVIDENCE])
    report.compare(f"{name}: evidence_sha256", represents.evidence_sha256, hashlib.sha256(content).hexdigest())
    recomputed = recompute_rotation(folder, suite)
    report.compare("represents", _by_position(represents.rotation), _by_position(recomputed), RECOMPUTE_TOLERANCE)
    report.checks.append(f"represents: verdict and every figure of protocol 4, from {ROTATION_EVIDENCE}")


def _by_position(result: RotationResult) -> dict[str, Any]:
    """The figures with a mapping as curve, whose entries are compared within the tolerance."""
    return {**vars(result), "curve": {str(point.position): point for point in result.curve}}


def recompute_rotation(folder: Path, suite: Suite) -> RotationResult:
    """Compute every figure of protocol 4 again from the stored arrays; raises `SubmissionError` on invalid ones."""
    judged_rows, controls = _judged_suite(suite)
    evidence = read_rotation_evidence(folder, judged_rows)
    return conclude_rotation(evidence, controls, judged_rows, ROTATION_STANDARD)


@lru_cache(maxsize=2)
def _judged_suite(suite: Suite) -> tuple[JudgedRows, SuiteControls]:
    suite = rotation_suite(suite)
    controls = shipped_suite_controls(suite, ROTATION_STANDARD)
    if controls is None:
        raise SubmissionError(f"{REPRESENTS_RECORD}: suite {suite.name} has no pinned token history; remove the file")
    return judge_suite(suite, ROTATION_STANDARD).judged_rows, controls


def read_rotation_evidence(folder: Path, judged_rows: JudgedRows) -> dict[str, RotationEvidence]:
    """Read `rotation.data`: evidence by source.

    Raises:
        SubmissionError: a name, dtype, shape or value is not as expected.
    """
    header = read_tensor_header(folder / ROTATION_EVIDENCE)
    num_heads = judged_rows.num_rows.shape[0] + NUM_WORDS
    expected = {
        f"{source}.{name}": shape
        for source in STORED_SOURCES
        for name, shape in evidence_shapes(
            len(ALL_PAIRS), judged_rows, source in RECORDS, num_heads if source == RECORDS[0] else 0
        ).items()
    }
    if set(header) != set(expected):
        unmatched = sorted(set(header) ^ set(expected))
        raise SubmissionError(f"{ROTATION_EVIDENCE}: array {sanitize(unmatched[0])} is missing or not expected")
    for name, shape in expected.items():
        if (header[name]["dtype"], header[name]["shape"]) != ("F32", shape):
            raise SubmissionError(
                f"{ROTATION_EVIDENCE}: {name} is {header[name]['dtype']} {header[name]['shape']}, not F32 {shape}"
            )
    arrays: dict[str, np.ndarray] = load(read_bytes(folder / ROTATION_EVIDENCE, MAX_BYTES[ROTATION_EVIDENCE]))
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
