"""Run a random share of a submission's shards again with its weights, in a fresh process, and compare the samples."""

from __future__ import annotations

import math
import multiprocessing
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from benchmark.answer_check import WRITTEN as STAGES
from benchmark.answer_check import asked_of
from benchmark.checkpoint import Checkpoint, open_checkpoint
from benchmark.errors import ModelError, UsageError
from benchmark.evaluation import Job, Shard, Worker, plan
from benchmark.models import ModelSpec
from benchmark.preflight import check
from benchmark.record import Record, processor
from benchmark.submission import OWN_WEIGHTS, WITHHELD, Rerun, Submission
from benchmark.suites import Suite, load_suite
from benchmark.verified import Sample, Verified

WRITTEN = ("prompt", "text", "tokens", "finished")


def checkpoint_of(folder: Path, submission: Submission) -> Checkpoint:
    """The model of a submission; raises `ModelError` if its weights are not to be had."""
    if submission.model == WITHHELD:
        raise ModelError(f"{submission.name}: its weights are withheld, so nothing can be run again")
    own = submission.model == OWN_WEIGHTS
    return open_checkpoint(ModelSpec("path", str(folder)) if own else ModelSpec.parse(submission.model))


def job_of(suite: Suite, checkpoint: Checkpoint, record: Record) -> Job:
    """What a worker needs to write the programs of a record again."""
    model, inits = record.model, record.protocol.random_inits
    checkpoint = replace(checkpoint, loading=model.loading)
    return Job(suite, checkpoint, model.dtype, model.device, inits, asked=asked_of(record))


def rerun(folder: Path, found: Verified, share: float) -> Rerun:
    """Write the programs of some shards again; what differs is noted in `found`.

    Args:
        folder: of the submission.
        found: of its verification.
        share: of the shards that write programs, above 0 and at most 1; which ones, nobody can know before.

    Raises:
        UsageError: another share.
        ModelError: the weights cannot be had or loaded.
    """
    if not 0 < share <= 1:
        raise UsageError(f"--rerun {share:g}: expected a share above 0 and at most 1")
    job = job_of(load_suite(found.record.suite.name), checkpoint_of(folder, found.submission), found.record)
    shards = [shard for shard in plan(job) if shard.stage in STAGES]
    chosen = sorted(random.SystemRandom().sample(shards, math.ceil(share * len(shards))))
    samples = written_again(job, chosen, found.record.protocol)
    stored: dict[tuple[str, int, int | None], Sample] = {
        (one.stage, one.task, one.sample): one for one in found.samples
    }
    for stage, again in samples:
        said = stored.get((stage, again["task"], again.get("sample")))
        before = {name: getattr(said, name) for name in WRITTEN} if said is not None else None
        found.compare(f"rerun.{stage}.{again['task']}", before, {name: again[name] for name in WRITTEN})
    found.checked.append(f"rerun: {len(samples):,} samples of {len(chosen)} of {len(shards)} shards")
    return Rerun(share=share, shards=len(chosen), samples=len(samples), processor=processor())


def written_again(job: Job, shards: Sequence[Shard], protocol: Any) -> list[tuple[str, dict[str, Any]]]:
    """(stage, sample) of each task of some shards, computed in a process that is started for it."""
    check(job, protocol)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        try:
            return process.submit(_write, job, list(shards)).result()
        except BrokenProcessPool as problem:
            raise ModelError(f"{job.checkpoint.spec}: the process that ran it died, perhaps for memory") from problem


def _write(job: Job, shards: list[Shard]) -> list[tuple[str, dict[str, Any]]]:
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(job.threads)
    worker = Worker(job)
    return [(shard.stage, sample) for shard in shards for sample in worker.evaluate(shard).samples]
