"""Check the measurements of a submission besides its record: the common part of their files, then each by its own evidence.

A measurement has a record and an evidence file, see `runner.measurement_record`; both are optional, but come together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors.numpy import load

from benchmark.artifacts import MAX_BYTES
from benchmark.errors import SubmissionError
from benchmark.files import read_bytes, read_json, read_tensor_header, sanitize
from benchmark.runner.measurement_record import MeasurementRecord, RecordT
from benchmark.runner.redaction import has_paths
from benchmark.submit.artifacts.listing import listed_artifacts
from benchmark.submit.check_record import SHA256_PATTERN, check_figures, check_times
from benchmark.submit.measurements.check_reach import ReachCheck
from benchmark.submit.measurements.check_represents import RepresentsCheck
from benchmark.submit.measurements.check_uses import UsesCheck
from benchmark.submit.measurements.check_uses_detail import UsesDetailCheck
from benchmark.submit.report import VerificationReport
from benchmark.submit.schema import validate_schema
from benchmark.tasks.suite import Suite

Shapes = dict[str, tuple[str, tuple[int, ...]]]
"""dtype and shape by array, as in the header of a safetensors file."""


class MeasurementCheck(Protocol):
    """How the record of one measurement is checked by its evidence."""

    @property
    def record_type(self) -> type[MeasurementRecord]:
        """Class of its record."""
        ...

    @property
    def version(self) -> int:
        """The version that can be verified."""
        ...

    def expected_arrays(self, record: Any, suite: Suite, names: set[str]) -> Shapes:
        """dtype and shape of each array that the evidence must hold, given the names of those that it holds."""
        ...

    def check(self, report: VerificationReport, record: Any, suite: Suite, evidence: Mapping[str, np.ndarray]) -> None:
        """Compare every entry of the record with what the evidence gives; without evidence, with N/A.

        Raises:
            SubmissionError: an array has impossible values.
        """
        ...


CHECKS: tuple[MeasurementCheck, ...] = (RepresentsCheck(), UsesCheck(), ReachCheck(), UsesDetailCheck())


def check_measurements(report: VerificationReport, suite: Suite, folder: Path, is_proposed: bool = False) -> None:
    """Check all measurements of a submission; differences are added to the report.

    Raises:
        SubmissionError: a file is missing, malformed, or not of an official measurement of the current version.
    """
    for check in CHECKS:
        record = read_submitted_measurement(check.record_type, folder)
        if record is None:
            continue
        _check_origin(report, record, suite, is_proposed)
        if record.version != check.version:
            raise SubmissionError(
                f"{check.record_type.FILE}: version {record.version}; expected {check.version}, measure again"
            )
        if not report.lacks(record.EVIDENCE, f"every figure of {record.FILE}"):
            check.check(report, record, suite, read_evidence(check, record, suite, folder))


def read_submitted_measurement(kind: type[RecordT], folder: Path) -> RecordT | None:
    """Read the record of a measurement of a submission; None if it has none.

    Raises:
        SubmissionError: one of the two files is missing, or an entry is invalid.
    """
    artifact = listed_artifacts(folder).get(kind.EVIDENCE)
    has_record = (folder / kind.FILE).is_file()
    has_evidence = artifact is not None or (folder / kind.EVIDENCE).is_file()
    if not has_record and not has_evidence:
        return None
    if not has_record:
        raise SubmissionError(f"{kind.EVIDENCE}: there without {kind.FILE}; expected both or none")
    record = validate_schema(kind, read_json(folder / kind.FILE, MAX_BYTES[kind.FILE]), kind.FILE)
    if has_evidence != (record.evidence_sha256 is not None):
        state = "there, though the record has no digest of it" if has_evidence else "not there"
        raise SubmissionError(f"{kind.EVIDENCE}: {state}; expected the files as the measurement wrote them")
    if artifact is not None and artifact.sha256 != record.evidence_sha256:
        raise SubmissionError(
            f"{kind.EVIDENCE}: listed with another SHA-256 than {kind.FILE} has; publish the folder again"
        )
    check_figures(record, kind.FILE)
    return record


def read_evidence(
    check: MeasurementCheck, record: MeasurementRecord, suite: Suite, folder: Path
) -> dict[str, np.ndarray]:
    """Read the evidence of a measurement; empty if it has none.

    Raises:
        SubmissionError: the digest, or a name, dtype or shape, is not as expected.
    """
    name = check.record_type.EVIDENCE
    if record.evidence_sha256 is None:
        return {}
    header = read_tensor_header(folder / name)
    if sum(prod(entry["shape"]) for entry in header.values()) > MAX_BYTES[name]:
        raise SubmissionError(f"{name}: more entries than bytes; at most {MAX_BYTES[name]:,} are read")
    expected = check.expected_arrays(record, suite, set(header))
    if set(header) != set(expected):
        raise SubmissionError(
            f"{name}: array {sanitize(min(set(header) ^ set(expected)))} is missing or not expected; measure again"
        )
    for array, (dtype, shape) in expected.items():
        if (header[array]["dtype"], tuple(header[array]["shape"])) != (dtype, shape):
            raise SubmissionError(
                f"{name}: {array} is {header[array]['dtype']} {header[array]['shape']}, expected {dtype} {list(shape)}"
            )
    content = read_bytes(folder / name, MAX_BYTES[name])
    if hashlib.sha256(content).hexdigest() != record.evidence_sha256:
        raise SubmissionError(f"{name}: its SHA-256 is not that of {check.record_type.FILE}; measure again")
    arrays: dict[str, np.ndarray] = load(content)
    return arrays


def _check_origin(report: VerificationReport, record: MeasurementRecord, suite: Suite, is_proposed: bool) -> None:
    """Check what is common: official, of the same model and suite as the record, from a clean source."""
    file, origin = record.FILE, record.provenance
    if not record.official or record.unofficial:
        reasons = "; ".join(sanitize(reason) for reason in record.unofficial[:3]) or "official is false"
        raise SubmissionError(f"{file}: not an official measurement ({reasons}); measure from a clean commit")
    check_times(origin.started, origin.finished, f"{file}: provenance")
    digests = {
        "identity": origin.identity,
        "source": origin.source,
        "evidence_sha256": record.evidence_sha256 or "0" * 64,
    }
    for name, text in digests.items():
        if not SHA256_PATTERN.fullmatch(text):
            raise SubmissionError(f"{file}: {name}: {sanitize(text)}; expected 64 digits of a SHA-256")
    if is_proposed and any(map(has_paths, (record.model.spec, record.model.name, origin.command))):
        raise SubmissionError(
            f"{file}: names a folder of a machine; add it with python -m benchmark.submit.measurements"
        )
    # The device may differ: a measurement can be added on another machine than that of the run.
    claimed, expected = (model.model_dump(exclude={"device"}) for model in (record.model, report.record.model))
    report.compare(f"{file}: model", claimed, expected)
    report.compare(f"{file}: suite", record.suite.model_dump(), report.record.suite.model_dump())
    report.compare(f"{file}: track", record.track, report.record.track)
    report.compare(f"{file}: provenance.dirty", bool(origin.dirty), False)
