"""Run a random share of a submission's shards again with its weights, and compare the samples.

Everything that touches the model happens in a process of its own with a deadline and a memory limit: finding and
downloading its files, screening them, loading them, and writing. Only dtype, device and attention of the record are
used, each from a short list; nothing in it switches code on.
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
from benchmark.models.checkpoint import Checkpoint, available_memory, open_checkpoint
from benchmark.models.interface import Loading, ModelSpec
from benchmark.probing.protocol import Protocol
from benchmark.runner.plan import GenerationOptions, Job, Shard, plan, shards_of
from benchmark.runner.record import Record
from benchmark.runner.worker import Worker
from benchmark.submit.check_record import load_options_from_record
from benchmark.submit.check_samples import GENERATION_STAGES as STAGES
from benchmark.submit.check_samples import generation_options_from_record
from benchmark.submit.report import Sample, VerificationReport
from benchmark.submit.schema import LOCAL_WEIGHTS, WITHHELD, Rerun, Submission
from benchmark.submit.screening import screen_model_folder
from benchmark.tasks.suite import Suite, load_suite

COMPARED_FIELDS = ("prompt", "text", "tokens", "finished")
START_SECONDS, SHARD_SECONDS = 600.0, 900.0
"""Deadline of a rerun: to fetch and load the model, and for each shard."""
MEMORY_FRACTION = 0.8
"""Of the memory that is available when a rerun starts, what it may take."""


@dataclass(frozen=True)
class ProcessLimits:
    """Of a process that loads a submission's model.

    Attributes:
        seconds: of wall-clock time; None for `START_SECONDS` and `SHARD_SECONDS` per shard.
        memory: in bytes; None for `MEMORY_SHARE` of what is available.
    """

    seconds: float | None = None
    memory: int | None = None


DEFAULT_LIMITS = ProcessLimits()


@dataclass(frozen=True)
class RerunRequest:
    """What a process is asked to write again.

    Attributes:
        name: of the submission, for messages.
        folder: that holds the model's files; empty for a model from elsewhere.
        model: `hf:org/name@COMMIT` or `baseline:NAME`; empty for a model in `folder`.
        suite: whose tasks are answered.
        dtype, device, loading: how the model computes, see `screening.check_loading`.
        asked: how programs are asked for.
        protocol: of the record.
        share: of the shards that write programs, chosen at random; 0 for all shards of `stage`.
        stage: see `share`.
    """

    name: str
    folder: str
    model: str
    suite: Suite
    dtype: str
    device: str
    loading: Loading
    generation: GenerationOptions
    protocol: Protocol
    share: float = 0.0
    stage: str = ""


@dataclass(frozen=True)
class RegeneratedSamples:
    """What a process wrote.

    Attributes:
        digest, parameters: of the model's files as they are.
        shards, of: how many shards were written, of how many.
        samples: stage and sample of each task, in order.
    """

    digest: str
    parameters: int
    shards: int
    of: int
    samples: list[tuple[str, dict[str, Any]]]


def make_rerun_request(
    folder: Path, submission: Submission, record: Record, suite: Suite, fraction: float = 0.0, stage: str = ""
) -> RerunRequest:
    """What is written again of a submission.

    Raises:
        ModelError: its weights are not to be had.
        SubmissionError: its record asks for code, or for a way of loading that is not on the lists.
    """
    if submission.model == WITHHELD:
        raise ModelError(f"{submission.name}: its weights are withheld, so nothing can be run again")
    has_local_weights = submission.model == LOCAL_WEIGHTS
    return RerunRequest(
        submission.name, str(folder) if has_local_weights else "", "" if has_local_weights else submission.model, suite, record.model.dtype,
        record.model.device, load_options_from_record(record), generation_options_from_record(record), record.protocol, fraction, stage,
    )  # fmt: skip


def rerun(folder: Path, report: VerificationReport, fraction: float, limits: ProcessLimits = DEFAULT_LIMITS) -> Rerun:
    """Write the programs of some shards again; what differs is noted in `found`.

    Args:
        folder: of the submission.
        found: of its verification.
        share: of the shards that write programs, above 0 and at most 1; which ones, nobody can know before.
        limits: of the process.

    Raises:
        UsageError: another share.
        ModelError: the weights cannot be had or loaded, or not within the limits.
        SubmissionError: the record or a file of the model asks for code.
    """
    if not 0 < fraction <= 1:
        raise UsageError(f"--rerun {fraction:g}: expected a share above 0 and at most 1")
    suite = load_suite(report.record.suite.name)
    regenerated = regenerate_samples(
        make_rerun_request(folder, report.submission, report.record, suite, fraction), limits
    )
    report.compare("rerun.digest", report.record.model.digest, regenerated.digest)
    report.compare("rerun.parameters", report.record.model.parameters, regenerated.parameters)
    stored: dict[tuple[str, int, int | None], Sample] = {
        (row.stage, row.task, row.sample): row for row in report.samples
    }
    for stage, sample in regenerated.samples:
        submitted = stored.get((stage, sample["task"], sample.get("sample")))
        claimed = {name: getattr(submitted, name) for name in COMPARED_FIELDS} if submitted is not None else None
        report.compare(f"rerun.{stage}.{sample['task']}", claimed, {name: sample[name] for name in COMPARED_FIELDS})
    report.checks.append(
        f"rerun: {len(regenerated.samples):,} samples of {regenerated.shards} of {regenerated.of} shards, with the weights; not its states"
    )
    return Rerun(
        share=fraction, shards=regenerated.shards, samples=len(regenerated.samples), processor=processor_name()
    )


def regenerate_samples(request: RerunRequest, limits: ProcessLimits = DEFAULT_LIMITS) -> RegeneratedSamples:
    """Carry out an order in a process of its own; raises as `rerun` does."""
    num_shards = math.ceil(sum(len(shards_of(request.suite, stage)) for stage in STAGES) * (request.share or 1))
    seconds = limits.seconds if limits.seconds is not None else START_SECONDS + SHARD_SECONDS * num_shards
    memory = limits.memory if limits.memory is not None else int(MEMORY_FRACTION * available_memory())
    return run_bounded(_generate, request, seconds=seconds, memory=memory, subject=request.name)


def open_screened_checkpoint(request: RerunRequest) -> Checkpoint:
    """The model's files, fetched if they are on a hub, once no file among them asks for code."""
    if request.folder:
        # Before anything else reads them: their files were screened with the folder, perhaps a while ago.
        screen_model_folder(Path(request.folder), is_hub=False)
        return open_checkpoint(ModelSpec("path", request.folder), request.loading)
    checkpoint = open_checkpoint(ModelSpec.parse(request.model), request.loading)
    if checkpoint.network:
        screen_model_folder(checkpoint.folder, is_hub=True)
    return checkpoint


def _generate(request: RerunRequest) -> RegeneratedSamples:
    import torch
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    checkpoint = open_screened_checkpoint(request)
    job = Job(
        request.suite, checkpoint, request.dtype, request.device, request.protocol.random_inits, generation=request.generation
    )  # fmt: skip
    shards, total_shards = _choose_shards(job, request)
    from benchmark.runner.preflight import check_fits

    check_fits(job, request.protocol)
    torch.set_num_threads(job.threads)
    worker = Worker(job)
    samples = [(shard.stage, sample) for shard in shards for sample in worker.evaluate(shard).samples]
    return RegeneratedSamples(checkpoint.digest, checkpoint.parameters, len(shards), total_shards, samples)


def _choose_shards(job: Job, request: RerunRequest) -> tuple[Sequence[Shard], int]:
    """The shards to write, and of how many they were chosen."""
    if request.stage:
        shards = shards_of(job.suite, request.stage)
        return shards, len(shards)
    shards = [shard for shard in plan(job) if shard.stage in STAGES]
    return sorted(random.SystemRandom().sample(shards, math.ceil(request.share * len(shards)))), len(shards)
