"""Verify a submission without its model: everything that can be computed again is, and compared with what is said.

The tasks are drawn anew from the suite's seed, prompts digested, every submitted program executed, accuracy and its
intervals computed, the verdict and each figure of the blind set judged again from `probes.data`. This finds what is
inconsistent; figures of the right form that were invented as a whole need `rerun`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load

from benchmark.artifacts import MAX_BYTES, PROBES, READINGS, README, SAMPLES
from benchmark.environment import source_digest
from benchmark.errors import BenchmarkError, SubmissionError, VerificationError
from benchmark.files import read_bytes, read_text, sanitize, read_tensor_header
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.probing.control_gap import CONTROLS, PriorBaseline
from benchmark.probing.diagnostics import DiagnosticEvidence, compute_diagnostics, count_labels
from benchmark.probing.labels import ProbeSet
from benchmark.probing.protocol import GRIDS, POOLS, Protocol
from benchmark.probing.readout import load_readout
from benchmark.probing.semantic_content import CONTENT_DEPTHS
from benchmark.probing.verdict import (
    CONTENT_HITS,
    DIAGNOSTICS,
    ProbeResult,
    blind_probe_set,
    diagnostic_evidence_from_arrays,
    verdict_from_evidence,
)
from benchmark.runner.record import Record
from benchmark.submit.check_readout import check_readout
from benchmark.submit.check_record import check_privacy, read_submitted_record
from benchmark.submit.check_samples import (
    check_samples,
    check_semantic_content,
    generation_options_of_record,
    read_samples,
)
from benchmark.submit.folder import check_dates, files_digest, screen_folder
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
from benchmark.tasks.suite import Suite, load_suite
from karel_env.features import FEATURES, PAPER_FEATURES, PRIMARY

RECOMPUTE_TOLERANCE = 1e-6
"""Largest difference of a recomputed figure, which another processor may sum in another order."""
CLAIM_TOLERANCE = 5e-4
MAX_THREADS = 256
SUM_TOLERANCE = 1e-4
"""Relative difference of the sums of one array over its groups of programs and of another over its seeds, in float32."""


def read_probe_evidence(folder: Path, probe_set: ProbeSet, tested: PriorBaseline, protocol: Protocol) -> dict[str, np.ndarray]:
    """The arrays of `probes.data`, once they have the names, shapes and range that the verdict is computed from.

    Raises:
        SubmissionError: they do not.
    """
    header = read_tensor_header(folder / PROBES)
    if sum(prod(entry["shape"]) for entry in header.values()) > MAX_BYTES[PROBES]:
        raise SubmissionError(f"{PROBES}: more entries than bytes; at most {MAX_BYTES[PROBES]:,} are read")
    seeds, semantics, features, units = (
        len(protocol.seeds),
        len(probe_set.semantics),
        len(FEATURES),
        tested.prior.shape[-1],
    )
    shapes = {
        "probe": ("F32", [semantics, features, units]),
        "totals": ("F32", [seeds, semantics, features]),
        "pool": ("I64", [seeds, semantics, features]),
    }
    expected = {f"{source}.{part}": shapes[part] for source in ("model", *CONTROLS) for part in shapes}
    width = int(probe_set.counts.max())
    later = {
        f"{DIAGNOSTICS}.confusion": ("I64", [features, width, width]),
        f"{DIAGNOSTICS}.control_hits": ("I64", [features]),
        f"{DIAGNOSTICS}.unseen": ("F64", [features]),
    }
    # A run before these were stored has none of them.
    expected |= later if any(name in header for name in later) else {}
    if CONTENT_HITS in header:
        # Its last axis is as long as the model's own programs have states; see `compare_content_figures`.
        expected[CONTENT_HITS] = ("U8", [len(CONTENT_DEPTHS), len(PAPER_FEATURES), *header[CONTENT_HITS]["shape"][2:3]])
    if set(header) != set(expected):
        odd = sorted(set(header) ^ set(expected))
        raise SubmissionError(f"{PROBES}: array {sanitize(odd[0])} is missing or not expected")
    for name, (item, shape) in expected.items():
        if (header[name]["dtype"], header[name]["shape"]) != (item, shape):
            raise SubmissionError(
                f"{PROBES}: {name} is {header[name]['dtype']} {header[name]['shape']}, not {item} {shape}"
            )
    arrays: dict[str, np.ndarray] = load(read_bytes(folder / PROBES, MAX_BYTES[PROBES]))
    for name, array in arrays.items():
        if name.endswith(".pool"):
            # One view is always there; the last of the model's views is the last layer.
            if array.min() < 0 or array.max() >= len(POOLS):
                raise SubmissionError(f"{PROBES}: {name} names a view that there is not")
        elif name == CONTENT_HITS:
            continue
        elif array.dtype.kind == "i":
            if array.min() < 0 or array.max() > MAX_BYTES[PROBES]:
                raise SubmissionError(f"{PROBES}: {name} has entries that are no counts")
        elif not np.isfinite(array).all() or array.min() < 0:
            raise SubmissionError(f"{PROBES}: {name} has entries that are no cross-entropy")
    return arrays


def validate(folder: Path, incoming: bool = False) -> VerificationReport:
    """Read a submission; nothing is computed again yet.

    Args:
        folder: of the submission.
        incoming: it comes from outside, see `screen_folder`.

    Raises:
        SubmissionError: it cannot be read, or is no submission.
    """
    screen_folder(folder, incoming)
    read_text(folder / README)
    found = VerificationReport(read_submission(folder), read_submitted_record(folder), read_samples(folder))
    check_dates(folder.resolve().name, found.record.provenance.started)
    if incoming:
        check_privacy(folder, found.record, found.submission)
    return found


def verify(folder: Path, incoming: bool = False) -> VerificationReport:
    """Compute a submission again, as far as goes without its model; arguments and errors are those of `validate`.

    Whatever a file brings about is one line: an exception of any other class is a `SubmissionError` too.
    """
    try:
        return _verify(folder, incoming)
    except BenchmarkError:
        raise
    except Exception as problem:  # a fault of this code must not stop the verification of other folders
        raise SubmissionError(
            f"cannot be verified ({type(problem).__name__}: {sanitize(str(problem))}); submit a run as it is, or report this"
        ) from problem


def _verify(folder: Path, incoming: bool) -> VerificationReport:
    found = validate(folder, incoming)
    record = found.record
    suite = load_suite(record.suite.name)
    _check_suite(found, suite)
    _check_description(found, folder)
    _check_provenance(found, suite)
    written = hashlib.sha256(read_bytes(folder / SAMPLES, MAX_BYTES[SAMPLES])).hexdigest()
    found.compare("samples_sha256", record.samples_sha256, written)
    if (record.suite.version, record.suite.seed, record.suite.tasks) == (suite.version, suite.seed, suite.tasks):
        check_samples(found, suite, folder, incoming)
        _check_probe_result(found, suite, folder)
    _check_claims(found)
    _check_status(found, folder)
    return found


def _check_suite(found: VerificationReport, suite: Suite) -> None:
    said = found.record.suite
    for name in ("version", "seed", "sha256", "tasks", "equality"):
        found.compare(f"suite.{name}", getattr(said, name), getattr(suite, name))
    found.compare("official", found.record.official, suite.official)
    found.checked.append("suite: version, seed, size, equality, and the digest of its tasks, drawn again")


def _check_description(found: VerificationReport, folder: Path) -> None:
    """`submission.yaml` against the record and the model's files."""
    said, record = found.submission, found.record
    found.compare("submission.digest", said.digest, record.model.digest)
    found.compare("submission.parameters", said.parameters, record.model.parameters)
    found.compare("submission.evaluation.commit", said.evaluation.commit, record.provenance.commit)
    if said.model == LOCAL_WEIGHTS or said.model.startswith("baseline:"):
        own = said.model == LOCAL_WEIGHTS
        checkpoint = open_checkpoint(ModelSpec("path", str(folder)) if own else ModelSpec.parse(said.model))
        found.compare("model.digest", record.model.digest, checkpoint.digest)
        found.compare("model.parameters", record.model.parameters, checkpoint.parameters)
        found.checked.append("model: digest of its files and number of parameters")
    elif said.model == WITHHELD:
        found.checked.append("model: withheld; digest and number of parameters as claimed")
    else:
        found.checked.append("model: on a hub; digest and number of parameters as claimed, until a rerun fetches it")
    scheme = "path" if said.model in (LOCAL_WEIGHTS, WITHHELD) else said.model
    given = record.model.spec.partition(":")[0] if scheme == "path" else record.model.spec
    found.compare("model.spec", given, scheme)


def _check_provenance(found: VerificationReport, suite: Suite) -> None:
    """The run's identity, which only the same source computes as it was; and whether that source was clean."""
    record, origin = found.record, found.record.provenance
    found.compare("provenance.dirty", bool(origin.dirty), False)
    if origin.source != source_digest():
        return
    parts: dict[str, Any] = {
        "model": record.model.digest, "dtype": record.model.dtype, "device": record.model.device.split(":")[0],
        "suite": asdict(suite), "tasks": suite.sha256, "protocol": record.protocol.digest(), "source": origin.source,
        "loading": asdict(record.model.loading),
    }  # fmt: skip
    parts["asked"] = asdict(generation_options_of_record(record))
    parts["frame"] = None if record.frame is None else record.frame.sha256
    for threads in range(1, MAX_THREADS + 1):
        for grid in GRIDS:
            text = json.dumps(parts | {"threads": threads, "grid": grid}, sort_keys=True)
            if hashlib.sha256(text.encode()).hexdigest() == origin.identity:
                found.checked.append("identity of the run")
                return
    found.compare("provenance.identity", origin.identity, "another, whatever its threads and grid")


@lru_cache(maxsize=2)
def _load_blind_set(suite: Suite, protocol: Protocol) -> tuple[ProbeSet, PriorBaseline]:
    probe_set = blind_probe_set(suite, protocol)
    return probe_set, PriorBaseline.of(probe_set, protocol)


def recompute_verdict(folder: Path, record: Record) -> ProbeResult:
    """What the stored arrays of a submission say, its diagnostics left out; raises `SubmissionError`."""
    probe_set, tested = _load_blind_set(load_suite(record.suite.name), record.protocol)
    arrays = read_probe_evidence(folder, probe_set, tested, record.protocol)
    return verdict_from_evidence(probe_set, tested, arrays, record.protocol)


def _check_probe_result(found: VerificationReport, suite: Suite, folder: Path) -> None:
    """The verdict and every figure of the blind set, from the stored arrays."""
    record = found.record
    network = not record.model.spec.startswith("baseline:")
    if record.meaning is None:
        # A run with --no-states, or a baseline.
        found.compare("content and grid are there", (record.content, record.grid), (None, None))
        return
    found.compare("meaning is there", True, network)
    if not network:
        return
    again, protocol = recompute_verdict(folder, record), record.protocol
    for name in ("verdict", "features", "semantics", "programs", "dropped", "test_programs", "test_states"):
        found.compare(f"meaning.{name}", getattr(record.meaning, name), getattr(again, name), RECOMPUTE_TOLERANCE)
    probe_set, tested = _load_blind_set(suite, protocol)
    arrays = read_probe_evidence(folder, probe_set, tested, protocol)
    if sorted(seed % protocol.folds for seed in protocol.seeds) == list(range(protocol.folds)):
        # Each program is tested by one seed, so both arrays sum the same cross-entropies.
        for source in ("model", *CONTROLS):
            by_unit, by_seed = (
                arrays[f"{source}.probe"].sum(-1, dtype=float),
                arrays[f"{source}.totals"].sum(0, dtype=float),
            )
            same = bool(np.allclose(by_unit, by_seed, rtol=SUM_TOLERANCE, atol=SUM_TOLERANCE))
            found.compare(f"{PROBES}: {source}.probe and .totals give one sum", same, True)
    _check_diagnostics(found, arrays, probe_set, tested)
    check_semantic_content(found, suite, arrays)
    if record.grid is not None:
        found.checked.append("grid: not recomputed, since a run stores no evidence of it; not on the board")
    readings = load_readout(folder, probe_set)
    found.compare(f"{READINGS} is there", readings is not None, True)
    if readings is not None:
        check_readout(found, readings, arrays, probe_set, tested, protocol)
        found.checked.append(f"{READINGS}: labels, and that they are of the fits that probes.data sums")
    found.checked.append("meaning: verdict, and every figure and interval of each feature, from probes.data")


def _check_diagnostics(
    found: VerificationReport, arrays: dict[str, np.ndarray], probe_set: ProbeSet, tested: PriorBaseline
) -> None:
    """Every diagnostic from its counts, where the run stored them; else those that the labels alone decide."""
    assert found.record.meaning is not None
    said, protocol = found.record.meaning.diagnostics, found.record.protocol
    labels = count_labels(probe_set, protocol)
    evidence = diagnostic_evidence_from_arrays(arrays)
    if evidence is not None:
        same = bool((evidence.confusion.sum(-1) == labels).all())
        found.compare(f"{PROBES}: {DIAGNOSTICS}.confusion has the labels of the blind set", same, True)
        if same:
            again = compute_diagnostics(evidence, probe_set, tested, protocol)
            found.compare("meaning.diagnostics", said, again, RECOMPUTE_TOLERANCE)
            found.checked.append("diagnostics: every figure, from probes.data")
        return
    # The counts that the labels alone give: those of a probe that is never wrong.
    perfect = np.stack([np.diag(row) for row in labels])
    zero = np.zeros(len(FEATURES))
    known = compute_diagnostics(DiagnosticEvidence(perfect, zero.astype(np.int64), zero), probe_set, tested, protocol)
    found.compare("meaning.diagnostics: features", sorted(said), sorted(known))
    for feature in sorted(said.keys() & known.keys()):
        for name in ("states", "majority"):
            claimed, counted = getattr(said[feature], name), getattr(known[feature], name)
            found.compare(f"meaning.diagnostics.{feature}.{name}", claimed, counted, RECOMPUTE_TOLERANCE)
    found.checked.append("diagnostics: states and majority; the run stored no evidence of the others, not on the board")


def _check_claims(found: VerificationReport) -> None:
    """The numbers of `submission.yaml`."""
    accuracy, meaning = found.record.accuracy, found.record.meaning
    known: dict[str, Any] = {name: getattr(accuracy, name).value for name in ("shown", "held_out", "exact", "valid")}
    if meaning is not None and PRIMARY in meaning.features:
        facing = meaning.features[PRIMARY]
        known |= {"skill": facing.skill.value, "delta": facing.delta.value, "verdict": meaning.verdict}
    for name, said in found.submission.claimed:
        if said is not None:
            found.compare(f"claimed.{name}", said, known.get(name), CLAIM_TOLERANCE)
    found.checked.append("claimed numbers")


def _check_status(found: VerificationReport, folder: Path) -> None:
    """A status that the folder brings must be one that this verification could have written."""
    status = read_status(folder)
    if status is None:
        return
    if status.status in (FLAGGED, WITHDRAWN):
        found.compare("status.reason is there", status.reason is not None, True)
        return
    found.compare("status.files", status.files, files_digest(folder))
    found.compare("status.rerun is there", status.rerun is not None, status.status == REPRODUCED)


def check_stored_verdict(folder: Path, record: Record) -> None:
    """Compute the verdict and every figure of the blind set again from the arrays that a submission stores, if it has one.

    Raises:
        VerificationError: the arrays are not there, or they do not give what the record says.
    """
    if record.meaning is None:
        return
    try:
        again = recompute_verdict(folder, record)
    except SubmissionError as problem:
        raise VerificationError(f"{folder}: cannot be judged ({problem}); run the model again") from problem
    for name in ("features", "verdict"):
        for one in find_mismatches(name, getattr(record.meaning, name), getattr(again, name), RECOMPUTE_TOLERANCE):
            entry = one.entry.removeprefix("features.")
            raise VerificationError(
                f"{folder}: {entry}: the record says {one.said}, probes.data gives {one.found}; run the model again"
            )
