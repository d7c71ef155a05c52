"""What a worker holds and computes: task sets, shards of one model, fits of probes. It writes aside and commits nothing.

Each `...Work` is sent to a worker once and made ready there by `begin`; calls then name what to compute. The same code
runs in this process (`SerialCrew`) and in actors.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.numpy import load_file

from benchmark.cluster.local_executor import ComputeFn
from benchmark.errors import ModelError
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.probing.labels import Split
from benchmark.probing.probes import fit_probes
from benchmark.probing.protocol import Protocol
from benchmark.runner.folder import stage_result
from benchmark.runner.plan import Job, Shard
from benchmark.runner.store import MemmapStates, ResultStore, StagedResult
from benchmark.runner.worker import Worker
from benchmark.tasks.stage import CHECK
from benchmark.tasks.suite import TASK_FIELDS, Suite, cache_tasks, get_tasks, tasks_to_arrays


@dataclass(frozen=True)
class TaskWork:
    """Draws the task sets of a suite; a call is the (name, suite purpose) of one, see `evaluation.task_sets`."""

    suite: Suite
    root: Path

    def prepare(self) -> ComputeFn:
        """Nothing is held."""
        shards = ResultStore(self.root)

        def compute(call: tuple[str, str], share: float) -> list[StagedResult]:
            name, purpose = call
            arrays = tasks_to_arrays(get_tasks(self.suite, purpose))
            return [shards.stage(name, arrays, {"count": len(arrays[TASK_FIELDS[-1]])})]

        return compute


@dataclass(frozen=True)
class EvaluationWork:
    """Computes shards of one model; a call is a `Shard`.

    Attributes:
        job: of the run.
        root: of the committed pieces.
        task_files: file of each task set by purpose, already committed.
    """

    job: Job
    root: Path
    task_files: tuple[tuple[str, Path], ...] = ()

    def prepare(self) -> ComputeFn:
        """Reads the task sets; the model is loaded by the first call."""
        for purpose, path in self.task_files:
            cache_tasks(self.job.suite, purpose, load_file(path))
        worker, shards = Worker(_localize(self.job)), ResultStore(self.root)

        def compute(shard: Shard, share: float) -> list[StagedResult]:
            began = time.perf_counter()
            if shard.stage == CHECK:
                with _num_threads(self.job.threads):
                    worker.check()
                return []
            with _num_threads(self.job.threads):
                result = worker.evaluate(shard, share)
            seconds = round(time.perf_counter() - began, 3)
            return [stage_result(shards, shard, replace(result, seconds=seconds))]

        return compute


@contextmanager
def _num_threads(count: int) -> Iterator[None]:
    """Within, torch has so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _localize(job: Job) -> Job:
    """The job with its model's files on this node: those of a hub model are fetched where they are not there.

    Raises:
        ModelError: they are not there, or are others.
    """
    checkpoint = job.checkpoint
    if checkpoint.folder.is_dir():
        return job
    if not checkpoint.spec.startswith("hf:"):
        raise ModelError(f"{checkpoint.folder}: not there on this node; put the model on storage that all nodes share")
    found = open_checkpoint(ModelSpec.parse(checkpoint.spec), checkpoint.loading)
    if found.digest != checkpoint.digest:
        raise ModelError(f"{checkpoint.spec}: this node has files of SHA-256 {found.digest}, not {checkpoint.digest}")
    return replace(job, checkpoint=found)


@dataclass(frozen=True)
class FitPayload:
    """Probes of some seeds of one view; names of the pieces that come of it stand beside the seeds.

    Attributes:
        names: of the pieces, one a seed.
        seeds: of the probes.
        rows: a seed, the (files, tensor) of the states that it reads.
        labels: file of `targets`, `counts` and `inits` as `fit_probes` takes them.
        splits: a seed, file of its split.
        widths, protocol: as `fit_probes` takes them.
    """

    names: tuple[str, ...]
    seeds: tuple[int, ...]
    rows: tuple[tuple[tuple[Path, ...], str], ...]
    labels: Path
    splits: tuple[Path, ...]
    widths: tuple[int, ...]
    protocol: Protocol


@dataclass(frozen=True)
class FitWork:
    """Fits probes to stored states; a call is a `FitCall`."""

    root: Path

    def prepare(self) -> ComputeFn:
        """Nothing is held."""
        shards = ResultStore(self.root)

        def compute(call: FitPayload, share: float) -> list[StagedResult]:
            began = time.perf_counter()
            labels = load_file(call.labels)
            states = [MemmapStates.open(files, tensor) for files, tensor in call.rows]
            splits = [_load_split(path) for path in call.splits]
            inits = labels["inits"].tolist()
            fit = fit_probes(
                states, labels["targets"], labels["counts"], splits, call.widths, call.seeds, call.protocol, inits=inits
            )
            seconds = round((time.perf_counter() - began) / len(call.seeds), 3)
            found = []
            for q, name in enumerate(call.names):
                arrays = {
                    "validation": fit.validation[q], "log_prob": fit.log_prob[q], "predicted": fit.predicted[q]
                }  # fmt: skip
                found.append(shards.stage(name, arrays, {"seconds": seconds}))
            return found

        return compute


def _load_split(path: Path) -> Split:
    parts = load_file(path)
    return Split(parts["train"], parts["validation"], parts["test"])
