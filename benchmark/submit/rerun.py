"""Regenerate the samples of a random fraction of a submission's shards with its weights, and compare them.

The model is downloaded, screened, loaded and run in a subprocess with a time limit and a memory limit. Of the record, only
dtype, device and attention are used, each from an allowlist; no entry enables remote code.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.environment import processor_name
from benchmark.errors import ModelError, UsageError
from benchmark.isolation import run_bounded
from benchmark.models.checkpoint import Checkpoint, available_memory, open_checkpoint, resolve_digest
from benchmark.models.interface import LoadOptions, ModelSpec
from benchmark.probing.protocol import Protocol
from benchmark.runner.plan import GenerationOptions, Job, Shard, plan, shards_of
from benchmark.runner.record import Record, set_recorded_prompts
from benchmark.runner.worker import Worker
from benchmark.submit.check_record import load_options_from_record
from benchmark.submit.check_samples import generation_options_from_record
from benchmark.submit.report import Sample, VerificationReport
from benchmark.submit.schema import LOCAL_WEIGHTS, WITHHELD, Rerun, Submission
from benchmark.submit.screening import screen_model_folder
from benchmark.tasks.stage import GENERATION_STAGES, Stage
from benchmark.tasks.suite import Suite, load_suite

COMPARED_FIELDS = ("prompt", "text", "tokens", "finished")
START_SECONDS, SHARD_SECONDS = 600.0, 900.0
"""Time limit of a rerun in seconds: for fetching and loading the model, and per shard."""
MEMORY_FRACTION = 0.8
"""Memory limit of a rerun, as a fraction of the memory that is available when it starts."""


@dataclass(frozen=True)
class ProcessLimits:
    """Limits of a subprocess that loads the model of a submission.

    Attributes:
        seconds: wall-clock time; None for `START_SECONDS` plus `SHARD_SECONDS` per shard.
        memory: bytes; None for `MEMORY_FRACTION` of the available memory.
    """

    seconds: float | None = None
    memory: int | None = None


DEFAULT_LIMITS = ProcessLimits()


@dataclass(frozen=True)
class RerunRequest:
    """Arguments of the subprocess that regenerates samples.

    Attributes:
        name: name of the submission, for messages.
        folder: folder with the files of the model; empty if `model` is given.
        model: `hf:org/name@COMMIT` or `baseline:NAME`; empty if `folder` is given.
        suite: suite of the tasks.
        dtype, device, loading: load options; see `screening.check_loading`.
        asked: generation options.
        protocol: protocol of the record.
        fraction: fraction of the shards with samples, chosen at random; 0 for all shards of `stage`.
        stage: stage to regenerate if `fraction` is 0.
    """

    name: str
    folder: str
    model: str
    suite: Suite
    dtype: str
    device: str
    loading: LoadOptions
    generation: GenerationOptions
    protocol: Protocol
    fraction: float = 0.0
    stage: str = ""


@dataclass(frozen=True)
class RegeneratedSamples:
    """Samples that a subprocess generated.

    Attributes:
        digest, parameters: SHA-256 and number of weights of the model's files.
        num_shards, total_shards: number of regenerated shards, and of all shards.
        samples: (stage, sample) pairs in task order.
    """

    digest: str
    parameters: int
    num_shards: int
    total_shards: int
    samples: list[tuple[str, dict[str, Any]]]


def make_rerun_request(
    folder: Path, submission: Submission, record: Record, suite: Suite, fraction: float = 0.0, stage: str = ""
) -> RerunRequest:
    """Build the request that regenerates samples of a submission.

    Args:
        folder: folder of the submission.
        submission, record: its `submission.yaml` and `record.json`.
        suite: suite of the tasks.
        fraction, stage: see `RerunRequest`.

    Raises:
        ModelError: the weights are withheld.
        SubmissionError: the record requests remote code or load options that are not allowed.
    """
    if submission.model == WITHHELD:
        raise ModelError(f"{submission.name}: its weights are withheld, so nothing can be run again")
    has_local_weights = submission.model == LOCAL_WEIGHTS
    return RerunRequest(
        submission.name, str(folder) if has_local_weights else "", "" if has_local_weights else submission.model, suite, record.model.dtype,
        record.model.device, load_options_from_record(record), generation_options_from_record(record), record.protocol, fraction, stage,
    )  # fmt: skip


def rerun(folder: Path, report: VerificationReport, fraction: float, limits: ProcessLimits = DEFAULT_LIMITS) -> Rerun:
    """Regenerate the samples of randomly chosen shards; mismatches are added to `report`.

    Args:
        folder: folder of the submission.
        report: report of its verification.
        fraction: fraction of the shards with samples, in (0, 1]; the choice cannot be predicted.
        limits: time and memory limit of the subprocess.

    Raises:
        UsageError: the fraction is out of range.
        ModelError: the weights are not available, or cannot be loaded within the limits.
        SubmissionError: the record or a file of the model requests code.
    """
    if not 0 < fraction <= 1:
        raise UsageError(f"--rerun {fraction:g}: expected a share above 0 and at most 1")
    suite = set_recorded_prompts(load_suite(report.record.suite.name), report.record)
    regenerated = regenerate_samples(
        make_rerun_request(folder, report.submission, report.record, suite, fraction), limits
    )
    digest = resolve_digest(report.record.model.digest, regenerated.digest, report.submission.model)
    report.compare("rerun.digest", report.record.model.digest, digest)
    report.compare("rerun.parameters", report.record.model.parameters, regenerated.parameters)
    stored: dict[tuple[str, int, int | None], Sample] = {
        (row.stage, row.task, row.sample): row for row in report.samples
    }
    for stage, sample in regenerated.samples:
        submitted = stored.get((stage, sample["task"], sample.get("sample")))
        claimed = {name: getattr(submitted, name) for name in COMPARED_FIELDS} if submitted is not None else None
        report.compare(f"rerun.{stage}.{sample['task']}", claimed, {name: sample[name] for name in COMPARED_FIELDS})
    report.checks.append(
        f"rerun: {len(regenerated.samples):,} samples of {regenerated.num_shards} of {regenerated.total_shards} shards, with the weights; not its states"
    )
    return Rerun(
        share=fraction, shards=regenerated.num_shards, samples=len(regenerated.samples), processor=processor_name()
    )


def regenerate_samples(request: RerunRequest, limits: ProcessLimits = DEFAULT_LIMITS) -> RegeneratedSamples:
    """Run a request in a subprocess; errors as for `rerun`."""
    num_shards = math.ceil(
        sum(len(shards_of(request.suite, Stage(stage))) for stage in GENERATION_STAGES) * (request.fraction or 1)
    )
    seconds = limits.seconds if limits.seconds is not None else START_SECONDS + SHARD_SECONDS * num_shards
    memory = limits.memory if limits.memory is not None else int(MEMORY_FRACTION * available_memory())
    return run_bounded(_generate, request, seconds=seconds, memory=memory, subject=request.name)


def open_screened_checkpoint(request: RerunRequest) -> Checkpoint:
    """Fetch and screen the files of the model; raises `SubmissionError` if a file requests code."""
    if request.folder:
        # Screen again: the files may have changed since the folder was screened.
        screen_model_folder(Path(request.folder), is_hub=False)
        return open_checkpoint(ModelSpec("path", request.folder), request.loading)
    checkpoint = open_checkpoint(ModelSpec.parse(request.model), request.loading)
    if checkpoint.has_hidden_states:
        screen_model_folder(checkpoint.folder, is_hub=True)
    return checkpoint


def _generate(request: RerunRequest) -> RegeneratedSamples:
    checkpoint = open_screened_checkpoint(request)
    job = Job(
        request.suite, checkpoint, request.dtype, request.device, request.protocol.random_inits, generation=request.generation
    )  # fmt: skip
    shards, total_shards = _choose_shards(job, request)
    if checkpoint.has_hidden_states or checkpoint.is_custom:
        _prepare_network(job, request.protocol)
    worker = Worker(job)
    samples = [(shard.stage.kind, sample) for shard in shards for sample in worker.evaluate(shard).samples]
    return RegeneratedSamples(checkpoint.digest, checkpoint.parameters, len(shards), total_shards, samples)


def _prepare_network(job: Job, protocol: Protocol) -> None:
    """What a baseline does without: its libraries take 5 s to import, and it fits any machine."""
    import torch
    from transformers.utils import logging as transformers_logging

    from benchmark.runner.preflight import check_fits

    transformers_logging.disable_progress_bar()
    check_fits(job, protocol)
    torch.set_num_threads(job.threads)


def _choose_shards(job: Job, request: RerunRequest) -> tuple[Sequence[Shard], int]:
    """Choose the shards to regenerate; returns them and the number of all shards."""
    if request.stage:
        shards = shards_of(job.suite, Stage(request.stage))
        return shards, len(shards)
    shards = [shard for shard in plan(job) if shard.stage.is_generating]
    chosen = random.SystemRandom().sample(shards, math.ceil(request.fraction * len(shards)))
    return sorted(chosen, key=lambda shard: shard.name), len(shards)
