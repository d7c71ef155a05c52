"""Measure a part of `rotation.data` again with the weights: one probe seed of the model and of an untrained copy.

A probe seed needs the states of every prompt, so the states of the whole blind set are read again. The seed is chosen at
random, and the copy is the one that it reads. Runs in the same bounded process as a rerun of samples.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.artifacts import ROTATION_EVIDENCE
from benchmark.isolation import run_bounded
from benchmark.models.checkpoint import available_memory
from benchmark.probing.control_gap import RANDOM_INIT
from benchmark.probing.device.trainer import trainer_on
from benchmark.probing.version4.measure_rotation import judge_suite
from benchmark.probing.version4.readable_record import RECORDS
from benchmark.probing.version4.rotation_protocol import RotationProtocol
from benchmark.probing.version4.rotation_sources import probe_rotation
from benchmark.probing.version4.rotation_verdict import MODEL
from benchmark.probing.version4.track_protocol import rotation_protocol
from benchmark.runner.measurement_record import RepresentsRecord
from benchmark.runner.measurements.represents import probe_model_on, read_views, rotation_suite
from benchmark.runner.plan import Job
from benchmark.runner.record import set_recorded_prompts
from benchmark.submit.measurements.check import read_evidence, read_submitted_measurement
from benchmark.submit.measurements.check_represents import RepresentsCheck, checked_evidence, judged_suite
from benchmark.submit.report import VerificationReport
from benchmark.submit.rerun import (
    DEFAULT_LIMITS,
    MEMORY_FRACTION,
    START_SECONDS,
    ProcessLimits,
    RerunRequest,
    make_rerun_request,
    open_screened_checkpoint,
)
from benchmark.tasks.suite import load_suite

READ_SECONDS = 3600.0
"""Time limit for reading the states of the model and of one copy, and for fitting one seed, besides that of a start."""
SKILL_TOLERANCE = 0.02
"""Largest difference of a skill of one seed between two processors: products are bfloat16 on some and float32 on others."""


@dataclass(frozen=True)
class SeedRequest:
    """Arguments of the subprocess: the model, and the probe seed to fit."""

    rerun: RerunRequest
    protocol: RotationProtocol
    seed: int


def repeat_represents(folder: Path, report: VerificationReport, limits: ProcessLimits = DEFAULT_LIMITS) -> None:
    """Fit one probe seed again and compare its skills with the stored ones; mismatches are added to `report`.

    Does nothing for a folder without `represents.json`.

    Raises:
        ModelError: the weights are not available, or cannot be loaded within the limits.
        SubmissionError: a file is not as expected.
    """
    record = read_submitted_measurement(RepresentsRecord, folder)
    if record is None:
        return
    suite = load_suite(report.record.suite.name)
    protocol = rotation_protocol(record.track, few_programs=record.few_programs)
    judged_rows, _ = judged_suite(suite, record.track, record.few_programs)
    stored = checked_evidence(read_evidence(RepresentsCheck(), record, suite, folder), judged_rows)
    seed = random.SystemRandom().choice(protocol.seeds)
    prompted = set_recorded_prompts(suite, report.record)
    request = SeedRequest(make_rerun_request(folder, report.submission, report.record, prompted), protocol, seed)
    measured: dict[str, np.ndarray] = run_bounded(
        measure_seed, request,
        seconds=limits.seconds if limits.seconds is not None else START_SECONDS + READ_SECONDS,
        memory=limits.memory if limits.memory is not None else int(MEMORY_FRACTION * available_memory()),
        subject=report.submission.name,
    )  # fmt: skip
    assert judged_rows.prior is not None
    q = list(protocol.seeds).index(seed)
    for source, losses in measured.items():
        claimed, recomputed = (
            seed_skills(part, judged_rows.prior.rotation_by_seed[q])
            for part in (stored[source].rotation_by_seed[q], losses)
        )
        differing = float(np.abs(claimed - recomputed).max())
        entry = f"rerun.{ROTATION_EVIDENCE}: skills of {source}, seed {seed}, differ by at most {SKILL_TOLERANCE}"
        report.compare(entry, True, differing <= SKILL_TOLERANCE)
    report.checks.append(
        f"rerun: states of the blind set and probe seed {seed} of {len(protocol.seeds)}, of the model, its records and one "
        "untrained copy"
    )


def seed_skills(losses: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """float64 [K], skills of rotation of one seed on all rows, from sums float [K, 2] of its losses and of the prior's."""
    return np.asarray(1 - losses.sum(-1, dtype=float) / prior.sum(-1, dtype=float))


def measure_seed(request: SeedRequest) -> dict[str, np.ndarray]:
    """float32 [K, 2] by source, `rotation_by_seed` of one seed, measured with the weights."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    rerun, protocol, seed = request.rerun, request.protocol, request.seed
    checkpoint = open_screened_checkpoint(rerun)
    job = Job(rerun.suite, checkpoint, rerun.dtype, rerun.device, protocol.random_inits, generation=rerun.generation)
    judged = judge_suite(rotation_suite(rerun.suite), protocol)
    rows = judged.judged_rows.select([seed])
    evidence = probe_model_on(job.device, judged, rows, read_views(job, judged, None), protocol)
    copy = read_views(job, judged, seed % protocol.random_inits)
    evidence[RANDOM_INIT] = probe_rotation(judged.probe_set, rows, [copy], protocol, trainer_on(job.device))
    return {source: evidence[source].rotation_by_seed[0] for source in (MODEL, *RECORDS, RANDOM_INIT)}
