"""Verify a submission without its model: recompute every figure for which the folder holds the evidence, and compare.

The tasks are generated from the suite's seed, prompt digests are recomputed, every submitted program is executed, accuracy
and its intervals are recomputed, and the verdict and every figure of the blind set are recomputed from `probes.data`. This
detects inconsistent figures. Figures that were invented consistently are detected by `rerun` only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load

from benchmark.artifacts import FIGURES, MAX_BYTES, MODEL_FILES, PROBES, READINGS, README, SAMPLES
from benchmark.environment import source_digest
from benchmark.errors import BenchmarkError, SubmissionError, VerificationError
from benchmark.files import read_bytes, read_tensor_header, read_text, sanitize
from benchmark.models.checkpoint import open_checkpoint, resolve_digest
from benchmark.models.interface import ModelSpec
from benchmark.probing.control_gap import CONTROLS, Evidence, PriorBaseline
from benchmark.probing.diagnostics import DiagnosticEvidence, compute_diagnostics, count_labels
from benchmark.probing.labels import ProbeSet
from benchmark.probing.protocol import GRIDS, POOLS, Protocol
from benchmark.probing.readout import Readout, load_readout
from benchmark.probing.semantic_content import CONTENT_DEPTHS
from benchmark.probing.state_source import CONTENT_HITS, DIAGNOSTICS, RunEvidence
from benchmark.probing.verdict import ProbeResult, load_blind_set, verdict_from_evidence
from benchmark.runner.record import Record, set_recorded_prompts
from benchmark.submit.artifacts.excerpt import check_excerpt
from benchmark.submit.artifacts.sources import NO_SOURCES, Sources, complete_folder, obtain
from benchmark.submit.check_readout import check_readout
from benchmark.submit.check_record import check_privacy, read_submitted_record
from benchmark.submit.check_samples import (
    check_samples,
    check_semantic_content,
    generation_options_from_record,
    read_samples,
)
from benchmark.submit.folder import check_dates, files_digest, screen_folder
from benchmark.submit.measurements.check import check_measurements
from benchmark.submit.report import VerificationReport, find_mismatches
from benchmark.submit.schema import (
    FLAGGED,
    LOCAL_WEIGHTS,
    REPRODUCED,
    WITHDRAWN,
    WITHHELD,
    read_status,
    read_submission,
)
from benchmark.submit.screening import WEIGHT_FILE
from benchmark.tasks.prompt_template import TRAINED
from benchmark.tasks.suite import Suite, identify_suite, load_suite
from benchmark.tasks.task_sets import TaskSets
from karel_env.features import FEATURES, PAPER_FEATURES, PRIMARY

RECOMPUTE_TOLERANCE = 1e-6
"""Absolute tolerance of a recomputed figure: the order of a floating-point sum depends on the processor."""
CLAIM_TOLERANCE = 5e-4
MAX_THREADS = 256
SUM_TOLERANCE = 1e-4
"""Relative tolerance between the float32 sums over groups of programs and over seeds."""


def read_probe_evidence(folder: Path, probe_set: ProbeSet, tested: PriorBaseline, protocol: Protocol) -> RunEvidence:
    """Read `probes.data`.

    Args:
        folder: folder of the submission.
        probe_set, tested: blind probe set and its prior baseline.
        protocol: protocol of the record.

    Raises:
        SubmissionError: a name, dtype, shape or value is not as expected.
    """
    header = read_tensor_header(folder / PROBES)
    if sum(prod(entry["shape"]) for entry in header.values()) > MAX_BYTES[PROBES]:
        raise SubmissionError(f"{PROBES}: more entries than bytes; at most {MAX_BYTES[PROBES]:,} are read")
    expected = _expected_arrays(header, probe_set, tested, protocol)
    if set(header) != set(expected):
        unmatched = sorted(set(header) ^ set(expected))
        raise SubmissionError(f"{PROBES}: array {sanitize(unmatched[0])} is missing or not expected")
    for name, (dtype, shape) in expected.items():
        if (header[name]["dtype"], header[name]["shape"]) != (dtype, shape):
            raise SubmissionError(
                f"{PROBES}: {name} is {header[name]['dtype']} {header[name]['shape']}, not {dtype} {shape}"
            )
    arrays: dict[str, np.ndarray] = load(read_bytes(folder / PROBES, MAX_BYTES[PROBES]))
    for name, array in arrays.items():
        if name != CONTENT_HITS:
            _check_entries(name, array)
    return RunEvidence.from_arrays(arrays)


def _expected_arrays(
    header: dict[str, dict[str, Any]], probe_set: ProbeSet, tested: PriorBaseline, protocol: Protocol
) -> dict[str, tuple[str, list[int]]]:
    """dtype and shape of each array that `probes.data` must hold, given the names of those that it holds."""
    seeds, semantics, features = len(protocol.seeds), len(probe_set.semantics), len(FEATURES)
    units = tested.prior.shape[-1]
    shapes = {
        "probe": ("F32", [semantics, features, units]),
        "totals": ("F32", [seeds, semantics, features]),
        "pool": ("I64", [seeds, semantics, features]),
    }
    expected = {f"{source}.{part}": shapes[part] for source in ("model", *CONTROLS) for part in shapes}
    width = int(probe_set.counts.max())
    diagnostic_shapes = {
        f"{DIAGNOSTICS}.confusion": ("I64", [features, width, width]),
        f"{DIAGNOSTICS}.control_hits": ("I64", [features]),
        f"{DIAGNOSTICS}.unseen": ("F64", [features]),
    }
    # An older run stored none of these arrays.
    expected |= diagnostic_shapes if any(name in header for name in diagnostic_shapes) else {}
    if CONTENT_HITS in header:
        # The length of the last axis depends on the generated programs; `check_semantic_content` checks it.
        expected[CONTENT_HITS] = ("U8", [len(CONTENT_DEPTHS), len(PAPER_FEATURES), *header[CONTENT_HITS]["shape"][2:3]])
    return expected


def _check_entries(name: str, array: np.ndarray) -> None:
    """Raise `SubmissionError` if an array of `probes.data` has impossible entries."""
    if name.endswith(".pool"):
        # An index into POOLS.
        if array.min() < 0 or array.max() >= len(POOLS):
            raise SubmissionError(f"{PROBES}: {name} names a view that there is not")
    elif array.dtype.kind == "i":
        if array.min() < 0 or array.max() > MAX_BYTES[PROBES]:
            raise SubmissionError(f"{PROBES}: {name} has entries that are no counts")
    elif not np.isfinite(array).all() or array.min() < 0:
        raise SubmissionError(f"{PROBES}: {name} has entries that are no cross-entropy")


def validate(folder: Path, is_proposed: bool = False, sources: Sources = NO_SOURCES) -> VerificationReport:
    """Read and validate a submission without recomputing anything.

    Args:
        folder: folder of the submission.
        is_proposed: whether the submission comes from a pull request; see `screen_folder`.
        sources: where its artifacts may be had from; those that cannot be had are named in the report.

    Raises:
        SubmissionError: the folder is not a valid submission.
    """
    with _opened(folder, is_proposed, sources) as (report, _):
        return report


@contextmanager
def _opened(folder: Path, is_proposed: bool, sources: Sources) -> Iterator[tuple[VerificationReport, Path]]:
    """Within, the report of a validated submission, and a folder with its artifacts; as for `validate`."""
    screen_folder(folder, is_proposed)
    submission = read_submission(folder)
    missing = obtain(folder, submission.artifacts, sources) if submission.artifacts else {}
    with complete_folder(folder, submission.artifacts) as complete:
        if complete != folder:
            screen_folder(complete)
        read_text(complete / README)
        record = read_submitted_record(complete)
        samples = [] if SAMPLES in missing else read_samples(complete)
        report = VerificationReport(submission, record, samples, missing=missing)
        check_dates(folder.resolve().name, record.provenance.started)
        if is_proposed:
            check_privacy(complete, record, submission)
        yield report, complete


def verify(folder: Path, is_proposed: bool = False, sources: Sources = NO_SOURCES) -> VerificationReport:
    """Verify a submission without its model; arguments and errors as for `validate`.

    Returns:
        Report with the completed checks, the mismatches, and what could not be verified. Any other exception is raised as
        a `SubmissionError`.
    """
    try:
        with _opened(folder, is_proposed, sources) as (report, complete):
            _verify(report, complete, is_proposed)
            _check_status(report, folder)
            return report
    except BenchmarkError:
        raise
    except Exception as error:  # a bug in a reader must not stop the verification of other folders
        raise SubmissionError(
            f"cannot be verified ({type(error).__name__}: {sanitize(str(error))}); submit a run as it is, or report this"
        ) from error


def _verify(report: VerificationReport, folder: Path, is_proposed: bool) -> None:
    record = report.record
    suite = load_suite(record.suite.name)
    _check_suite(report, suite)
    _check_description(report, folder)
    check_provenance(report, suite)
    if not report.lacks(SAMPLES, "samples, accuracy and semantic content"):
        samples_digest = hashlib.sha256(read_bytes(folder / SAMPLES, MAX_BYTES[SAMPLES])).hexdigest()
        report.compare("samples_sha256", record.samples_sha256, samples_digest)
    if (record.suite.version, record.suite.seed, record.suite.tasks) == (suite.version, suite.seed, suite.tasks):
        task_sets = _task_sets(suite)
        if SAMPLES not in report.missing:
            check_samples(report, task_sets, folder, is_proposed)
        _check_probe_result(report, task_sets, folder)
        check_measurements(report, suite, folder, is_proposed)
    _check_claims(report)
    check_excerpt(report, folder)
    for name in report.missing:
        if name.startswith(f"{FIGURES}/"):
            report.lacks(name, "figures as files of a known format")


@lru_cache(maxsize=2)
def _task_sets(suite: Suite) -> TaskSets:
    """One draw for all submissions of a suite, of which there are two on the board."""
    return TaskSets(suite)


def _check_suite(report: VerificationReport, suite: Suite) -> None:
    claimed = report.record.suite
    for name in ("version", "seed", "sha256", "tasks", "equality"):
        report.compare(f"suite.{name}", getattr(claimed, name), getattr(suite, name))
    report.compare("official", report.record.official, suite.official)
    report.checks.append("suite: version, seed, size, equality, and the digest of its tasks, drawn again")


def _check_description(report: VerificationReport, folder: Path) -> None:
    """Check `submission.yaml` against the record and the files of the model."""
    submission, record = report.submission, report.record
    missing_model_files = [name for name in report.missing if name in MODEL_FILES or WEIGHT_FILE.fullmatch(name)]
    report.compare("submission.digest", submission.digest, record.model.digest)
    report.compare("submission.parameters", submission.parameters, record.model.parameters)
    if SAMPLES in submission.artifacts:
        listed = submission.artifacts[SAMPLES].sha256
        report.compare(f"submission.artifacts.{SAMPLES}.sha256", listed, record.samples_sha256)
    report.compare("submission.evaluation.commit", submission.evaluation.commit, record.provenance.commit)
    if missing_model_files:
        for name in missing_model_files:
            report.lacks(name, "digest of the model's files and number of parameters")
    elif submission.model == LOCAL_WEIGHTS or submission.model.startswith("baseline:"):
        has_local_weights = submission.model == LOCAL_WEIGHTS
        checkpoint = open_checkpoint(
            ModelSpec("path", str(folder)) if has_local_weights else ModelSpec.parse(submission.model)
        )
        digest = resolve_digest(record.model.digest, checkpoint.digest, submission.model)
        report.compare("model.digest", record.model.digest, digest)
        report.compare("model.parameters", record.model.parameters, checkpoint.parameters)
        report.checks.append("model: digest of its files and number of parameters")
    elif submission.model == WITHHELD:
        report.checks.append("model: withheld; digest and number of parameters as claimed")
    else:
        report.checks.append("model: on a hub; digest and number of parameters as claimed, until a rerun fetches it")
    scheme = "path" if submission.model in (LOCAL_WEIGHTS, WITHHELD) else submission.model
    claimed_scheme = record.model.spec.partition(":")[0] if scheme == "path" else record.model.spec
    report.compare("model.spec", claimed_scheme, scheme)


def check_provenance(report: VerificationReport, suite: Suite) -> None:
    """Check that the source was clean, and recompute the identity of the run if it was made with the current source."""
    record, provenance = report.record, report.record.provenance
    report.compare("provenance.dirty", bool(provenance.dirty), False)
    if provenance.source != source_digest():
        return
    identity: dict[str, Any] = {
        "model": record.model.digest, "dtype": record.model.dtype, "device": record.model.device.split(":")[0],
        "suite": identify_suite(set_recorded_prompts(suite, record)), "tasks": suite.sha256, "protocol": record.protocol.digest(), "source": provenance.source,
        "loading": asdict(record.model.loading),
    }  # fmt: skip
    identity["frame"] = None if record.frame is None else record.frame.sha256
    variants = [identity | parts for parts in _unrecorded_parts(record)]
    for threads, grid, variant in product(range(1, MAX_THREADS + 1), GRIDS, variants):
        text = json.dumps(variant | {"threads": threads, "grid": grid}, sort_keys=True)
        if hashlib.sha256(text.encode()).hexdigest() == provenance.identity:
            report.checks.append("identity of the run")
            return
    report.compare("provenance.identity", provenance.identity, "another, whatever its threads and grid")


def _unrecorded_parts(record: Record) -> list[dict[str, Any]]:
    """What the identity of a run holds of its options besides what its record tells: a record without probes does not tell why."""
    asked = asdict(generation_options_from_record(record))
    variants: list[dict[str, Any]] = [{"asked": asked}]
    if record.meaning is None:
        reasons: tuple[dict[str, bool], ...] = ({"preview": True}, {"probes": False})
        variants += [{"asked": asked | {"states": s}, **reason} for s in (True, False) for reason in reasons]
    if record.track == TRAINED:
        variants += [variant | {"few_programs": True} for variant in variants]
    return variants


def recompute_verdict(folder: Path, record: Record) -> ProbeResult:
    """Recompute the probe result from the stored arrays, without diagnostics; raises `SubmissionError` on invalid arrays."""
    probe_set, tested = load_blind_set(load_suite(record.suite.name), record.protocol)
    evidence = read_probe_evidence(folder, probe_set, tested, record.protocol)
    return verdict_from_evidence(probe_set, tested, evidence.sources, record.protocol)


def _check_probe_result(report: VerificationReport, task_sets: TaskSets, folder: Path) -> None:
    """Check the verdict and every figure of the blind set against the stored arrays."""
    record = report.record
    has_network = not record.model.spec.startswith("baseline:")
    if record.meaning is None:
        # A run without hidden states, or a baseline.
        report.compare("content and grid are there", (record.content, record.grid), (None, None))
        return
    report.compare("meaning is there", True, has_network)
    if not has_network or report.lacks(PROBES, "verdict and figures of the blind set, diagnostics and readings"):
        return
    protocol = record.protocol
    probe_set, tested = load_blind_set(task_sets.suite, protocol)
    evidence = read_probe_evidence(folder, probe_set, tested, protocol)
    recomputed = verdict_from_evidence(probe_set, tested, evidence.sources, protocol)
    for name in ("verdict", "features", "semantics", "programs", "dropped", "test_programs", "test_states"):
        report.compare(f"meaning.{name}", getattr(record.meaning, name), getattr(recomputed, name), RECOMPUTE_TOLERANCE)
    if sorted(seed % protocol.folds for seed in protocol.seeds) == list(range(protocol.folds)):
        # Each program is tested with one seed, so both arrays have the same total cross-entropy.
        for source in ("model", *CONTROLS):
            group_sum = evidence.sources[source].probe.sum(-1, dtype=float)
            seed_sum = evidence.sources[source].totals.sum(0, dtype=float)
            is_close = bool(np.allclose(group_sum, seed_sum, rtol=SUM_TOLERANCE, atol=SUM_TOLERANCE))
            report.compare(f"{PROBES}: {source}.probe and .totals give one sum", is_close, True)
    _check_diagnostics(report, evidence.diagnostics, probe_set, tested)
    if SAMPLES not in report.missing:
        check_semantic_content(report, task_sets, evidence)
    if record.grid is not None:
        report.checks.append("grid: not recomputed, since a run stores no evidence of it; not on the board")
    if not report.lacks(READINGS, "readings"):
        _check_readings(report, load_readout(folder, probe_set), evidence.sources["model"], probe_set, tested)
    report.checks.append("meaning: verdict, and every figure and interval of each feature, from probes.data")


def _check_readings(
    report: VerificationReport, readings: Readout | None, model: Evidence, probe_set: ProbeSet, tested: PriorBaseline
) -> None:
    report.compare(f"{READINGS} is there", readings is not None, True)
    if readings is not None:
        check_readout(report, readings, model, probe_set, tested, report.record.protocol)
        report.checks.append(f"{READINGS}: labels, and that they are of the fits that probes.data sums")


def _check_diagnostics(
    report: VerificationReport, evidence: DiagnosticEvidence | None, probe_set: ProbeSet, tested: PriorBaseline
) -> None:
    """Check the diagnostics against their stored counts; without counts, only the entries that depend on the labels."""
    assert report.record.meaning is not None
    claimed, protocol = report.record.meaning.diagnostics, report.record.protocol
    labels = count_labels(probe_set, protocol)
    if evidence is not None:
        has_same_labels = bool((evidence.confusion.sum(-1) == labels).all())
        report.compare(f"{PROBES}: {DIAGNOSTICS}.confusion has the labels of the blind set", has_same_labels, True)
        if has_same_labels:
            recomputed = compute_diagnostics(evidence, probe_set, tested, protocol)
            report.compare("meaning.diagnostics", claimed, recomputed, RECOMPUTE_TOLERANCE)
            report.checks.append("diagnostics: every figure, from probes.data")
        return
    # Counts of a probe without errors: they depend on the labels only.
    confusion = np.stack([np.diag(row) for row in labels])
    zeros = np.zeros(len(FEATURES))
    expected = compute_diagnostics(
        DiagnosticEvidence(confusion, zeros.astype(np.int64), zeros), probe_set, tested, protocol
    )
    report.compare("meaning.diagnostics: features", sorted(claimed), sorted(expected))
    for feature in sorted(claimed.keys() & expected.keys()):
        for name in ("states", "majority"):
            claimed_value, expected_value = getattr(claimed[feature], name), getattr(expected[feature], name)
            report.compare(f"meaning.diagnostics.{feature}.{name}", claimed_value, expected_value, RECOMPUTE_TOLERANCE)
    report.checks.append("diagnostics: states and majority; the run stored no evidence of the others, not on the board")


def _check_claims(report: VerificationReport) -> None:
    """Check the claimed numbers of `submission.yaml`."""
    accuracy, meaning = report.record.accuracy, report.record.meaning
    recomputed: dict[str, Any] = {
        name: getattr(accuracy, name).value for name in ("shown", "held_out", "exact", "valid")
    }
    if meaning is not None and PRIMARY in meaning.features:
        facing = meaning.features[PRIMARY]
        recomputed |= {"skill": facing.skill.value, "delta": facing.delta.value, "verdict": meaning.verdict}
    for name, claimed in report.submission.claimed:
        if claimed is not None:
            report.compare(f"claimed.{name}", claimed, recomputed.get(name), CLAIM_TOLERANCE)
    report.checks.append("claimed numbers, with the record as it is" if report.missing else "claimed numbers")


def _check_status(report: VerificationReport, folder: Path) -> None:
    """Check that `status.json`, if present, is consistent with the files."""
    status = read_status(folder)
    if status is None:
        return
    if status.status in (FLAGGED, WITHDRAWN):
        report.compare("status.reason is there", status.reason is not None, True)
        return
    report.compare("status.files", status.files, files_digest(folder))
    report.compare("status.rerun is there", status.rerun is not None, status.status == REPRODUCED)


def check_stored_verdict(folder: Path, record: Record) -> None:
    """Check the verdict and every figure of the blind set of a record against the stored arrays, if it has a verdict.

    Raises:
        VerificationError: the arrays are missing or give other values than the record.
    """
    if record.meaning is None:
        return
    try:
        recomputed = recompute_verdict(folder, record)
    except SubmissionError as error:
        raise VerificationError(f"{folder}: cannot be judged ({error}); run the model again") from error
    for name in ("features", "verdict"):
        for mismatch in find_mismatches(
            name, getattr(record.meaning, name), getattr(recomputed, name), RECOMPUTE_TOLERANCE
        ):
            entry = mismatch.entry.removeprefix("features.")
            raise VerificationError(
                f"{folder}: {entry}: the record says {mismatch.claimed}, probes.data gives {mismatch.recomputed}; run the model again"
            )
