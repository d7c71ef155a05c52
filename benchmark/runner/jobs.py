"""The work of a worker: task sets, shards of one model, probe fits. Workers stage results; only the driver commits them.

Each `...Work` is sent to a worker once and initialized there by `prepare`; the payload of a work item then says what to
compute. The same code runs in this process (`LocalExecutor`) and in actors.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
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
from benchmark.tasks.suite import Suite
from benchmark.tasks.task_sets import TASK_FIELDS, TaskSets, tasks_to_arrays


@dataclass(frozen=True)
class TaskWork:
    """Draws the task sets of a suite; the payload is (name of the result, name of the task set)."""

    suite: Suite
    root: Path

    def prepare(self) -> ComputeFn:
        """Return the compute function; it holds the sets that it has drawn, which the next ones must exclude."""
        store, task_sets = ResultStore(self.root), TaskSets(self.suite)

        def compute(payload: tuple[str, str], batch_scale: float) -> list[StagedResult]:
            result_name, set_name = payload
            arrays = tasks_to_arrays(task_sets.get(set_name))
            return [store.stage(result_name, arrays, {"count": len(arrays[TASK_FIELDS[-1]])})]

        return compute


@dataclass(frozen=True)
class EvaluationWork:
    """Computes shards of one model; the payload is a `Shard`.

    Attributes:
        job: the job of the run.
        root: folder of the committed results.
        task_files: (name, file) of each committed task set; a set without a file is drawn.
    """

    job: Job
    root: Path
    task_files: tuple[tuple[str, Path], ...] = ()

    def prepare(self) -> ComputeFn:
        """Read the task sets; the first shard loads the model."""
        task_sets = read_task_sets(self.job.suite, self.task_files)
        worker, store = Worker(localize(self.job), task_sets), ResultStore(self.root)

        def compute(shard: Shard, batch_scale: float) -> list[StagedResult]:
            start = time.perf_counter()
            if shard.stage.kind == CHECK:
                with num_threads(self.job.threads):
                    worker.check()
                return []
            with num_threads(self.job.threads):
                result = worker.evaluate(shard, batch_scale)
            seconds = round(time.perf_counter() - start, 3)
            return [stage_result(store, shard, replace(result, seconds=seconds))]

        return compute


def read_task_sets(suite: Suite, files: Iterable[tuple[str, Path]]) -> TaskSets:
    """Read committed task sets.

    Args:
        suite: the suite.
        files: (name, file) per task set.

    Raises:
        VerificationError: the digest of the test set differs from the pinned one.
    """
    return TaskSets.from_arrays(suite, {name: load_file(path) for name, path in files})


@contextmanager
def num_threads(count: int) -> Iterator[None]:
    """Set the number of torch threads while the context lasts."""
    previous = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(previous)


def localize(job: Job) -> Job:
    """The job with its model's files on this node; the files of a hub model are fetched if they are missing.

    Raises:
        ModelError: the files are missing or have another digest.
    """
    checkpoint = job.checkpoint
    if checkpoint.is_in_memory or checkpoint.folder.is_dir():
        return job
    if not checkpoint.spec.startswith("hf:"):
        raise ModelError(f"{checkpoint.folder}: not there on this node; put the model on storage that all nodes share")
    local = open_checkpoint(ModelSpec.parse(checkpoint.spec), checkpoint.loading, checkpoint.device_map)
    if local.digest != checkpoint.digest:
        raise ModelError(f"{checkpoint.spec}: this node has files of SHA-256 {local.digest}, not {checkpoint.digest}")
    return replace(job, checkpoint=local)


@dataclass(frozen=True)
class FitPayload:
    """Arguments of `fit_probes` for some seeds, as files.

    Attributes:
        names: name of the stored result per seed.
        seeds: seeds of the probes.
        states: (files, tensor name) of the hidden states per seed.
        labels: file of the arrays `targets`, `counts` and `inits`.
        splits: file of the split per seed.
        widths, protocol: as in `fit_probes`.
    """

    names: tuple[str, ...]
    seeds: tuple[int, ...]
    states: tuple[tuple[tuple[Path, ...], str], ...]
    labels: Path
    splits: tuple[Path, ...]
    widths: tuple[int, ...]
    protocol: Protocol


@dataclass(frozen=True)
class FitWork:
    """Fits probes to stored states; the payload is a `FitPayload`."""

    root: Path

    def prepare(self) -> ComputeFn:
        """Return the compute function; it has no state."""
        store = ResultStore(self.root)

        def compute(payload: FitPayload, batch_scale: float) -> list[StagedResult]:
            start = time.perf_counter()
            labels = load_file(payload.labels)
            states = [MemmapStates.open(files, tensor) for files, tensor in payload.states]
            splits = [_load_split(path) for path in payload.splits]
            inits = labels["inits"].tolist()
            fit = fit_probes(
                states,
                labels["targets"],
                labels["counts"],
                splits,
                payload.widths,
                payload.seeds,
                payload.protocol,
                inits=inits,
            )
            seconds = round((time.perf_counter() - start) / len(payload.seeds), 3)
            results = []
            for q, name in enumerate(payload.names):
                arrays = {
                    "validation": fit.validation[q], "log_prob": fit.log_prob[q], "predicted": fit.predicted[q]
                }  # fmt: skip
                results.append(store.stage(name, arrays, {"seconds": seconds}))
            return results

        return compute


def _load_split(path: Path) -> Split:
    parts = load_file(path)
    return Split(parts["train"], parts["validation"], parts["test"])
