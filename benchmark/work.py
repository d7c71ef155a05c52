"""What a worker holds and computes: task sets, shards of one model, fits of probes. It writes aside and commits nothing.

Each `...Work` is sent to a worker once and made ready there by `begin`; calls then name what to compute. The same code
runs in this process (`SerialCrew`) and in actors.
"""

from __future__ import annotations

import errno
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import load_file

from benchmark.checkpoint import open_checkpoint
from benchmark.errors import ModelError, StorageError, is_panic, panic_message
from benchmark.evaluation import CHECK, Job, Shard, Worker
from benchmark.folder import attempt_of
from benchmark.labels import Split
from benchmark.models import ModelSpec
from benchmark.pool import DONE, INVALID, MEMORY, RAISED, STORAGE, Answer, Piece
from benchmark.probing import fit_probes
from benchmark.protocol import Protocol
from benchmark.shards import Attempt, Shards, StoredRows
from benchmark.suites import TASK_FIELDS, Suite, adopt_tasks, stored_tasks, tasks_for
from karel_env.command import was_interrupted

TASKS, EVALUATION, FIT = KINDS = ("tasks", "evaluation", "fit")
Compute = Callable[[Any, float], list[Attempt]]


@dataclass(frozen=True)
class TaskWork:
    """Draws the task sets of a suite; a call is the (name, suite purpose) of one, see `evaluation.task_sets`."""

    suite: Suite
    root: Path

    def begin(self) -> Compute:
        """Nothing is held."""
        shards = Shards(self.root)

        def compute(call: tuple[str, str], share: float) -> list[Attempt]:
            name, purpose = call
            arrays = stored_tasks(tasks_for(self.suite, purpose))
            return [shards.attempt(name, arrays, {"count": len(arrays[TASK_FIELDS[-1]])})]

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

    def begin(self) -> Compute:
        """Reads the task sets; the model is loaded by the first call."""
        for purpose, path in self.task_files:
            adopt_tasks(self.job.suite, purpose, load_file(path))
        worker, shards = Worker(_here(self.job)), Shards(self.root)

        def compute(shard: Shard, share: float) -> list[Attempt]:
            began = time.perf_counter()
            if shard.stage == CHECK:
                with _threads(self.job.threads):
                    worker.check()
                return []
            with _threads(self.job.threads):
                result = worker.evaluate(shard, share)
            seconds = round(time.perf_counter() - began, 3)
            return [attempt_of(shards, shard, replace(result, seconds=seconds))]

        return compute


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Within, torch has so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _here(job: Job) -> Job:
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
class FitCall:
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

    def begin(self) -> Compute:
        """Nothing is held."""
        shards = Shards(self.root)

        def compute(call: FitCall, share: float) -> list[Attempt]:
            began = time.perf_counter()
            labels = load_file(call.labels)
            states = [StoredRows.of(files, tensor) for files, tensor in call.rows]
            splits = [_split(path) for path in call.splits]
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
                found.append(shards.attempt(name, arrays, {"seconds": seconds}))
            return found

        return compute


def _split(path: Path) -> Split:
    parts = load_file(path)
    return Split(parts["train"], parts["validation"], parts["test"])


ENDED = "the model's own code ended the process ({}); expected it to return or to raise an error"


class Desk:
    """Where a worker keeps what it holds, one thing at a time, and answers calls."""

    def __init__(self) -> None:
        self.held: object = None
        self.compute: Compute | None = None

    def answer(self, held: object, work: Any, call: Any, share: float) -> Answer:
        """The answer to a call; what goes wrong is put in words, since an exception may not survive the way back."""
        try:
            if self.compute is None or self.held != held:
                self.compute = None
                self.compute, self.held = work.begin(), held
            return Answer(DONE, self.compute(call, share))
        except StorageError as problem:
            return Answer(STORAGE, why=str(problem))
        except KeyboardInterrupt:
            if was_interrupted():
                raise
            return Answer(INVALID, why=ENDED.format("KeyboardInterrupt"))
        except (SystemExit, GeneratorExit) as problem:
            return Answer(INVALID, why=ENDED.format(f"{type(problem).__name__}: {problem}"))
        except BaseException as problem:
            shortage = _shortage(problem)
            if shortage is not None:
                return Answer(MEMORY, why=str(shortage) or "no memory")
            if isinstance(problem, ModelError):
                return Answer(INVALID, why=str(problem))
            if is_panic(problem):
                return Answer(INVALID, why=panic_message(problem))
            last = traceback.extract_tb(problem.__traceback__)[-1]
            place = f"{Path(last.filename).name}:{last.lineno}"
            return Answer(RAISED, why=f"{type(problem).__name__} at {place}: {problem}")


SHORTAGES = ("out of memory", "allocate memory", "not enough memory", "bad_alloc")
"""Words by which libraries say that memory is short, in errors of other kinds."""


def _shortage(problem: BaseException) -> BaseException | None:
    """The error among this one and those behind it that says that memory is short; a loader may have put its own around it."""
    cause: BaseException | None = problem
    while cause is not None:
        if isinstance(cause, MemoryError) or getattr(cause, "errno", None) == errno.ENOMEM:
            return cause
        if isinstance(cause, (RuntimeError, OSError)) and any(words in str(cause) for words in SHORTAGES):
            return cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None


class SerialCrew:
    """One worker: this process. A call is answered before it returns, so no deadline can end it."""

    computes_in_call = True

    def hire(self, kind: str) -> tuple[Desk, list[Answer]]:
        """See `Crew`."""
        return Desk(), [Answer(DONE)]

    def continue_start(self, handle: Desk, again: bool = False) -> list[Answer]:
        """See `Crew`."""
        return [Answer(DONE)]

    def call(self, handle: Desk, piece: Piece, share: float) -> list[Answer]:
        """See `Crew`."""
        return [handle.answer(piece.held, piece.work, piece.call, share)]

    def wait(self, calls: Sequence[Any], seconds: float) -> list[Any]:
        """See `Crew`."""
        return list(calls)

    def answer(self, call: list[Answer]) -> Answer:
        """See `Crew`."""
        return call[0]

    def dismiss(self, handle: Desk) -> None:
        """See `Crew`."""
        handle.compute = None

    def shortage(self) -> str:
        """See `Crew`."""
        return "this process is the only worker"
