"""The stages that evaluating a model goes through in a folder: task sets, shards, probe fits, each as pieces of a pool.

Whoever runs them (`driver`, `trajectory`) says which shards, and makes figures of what is committed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from safetensors.numpy import load_file

from benchmark.cluster.executor import EVALUATION, TASKS
from benchmark.cluster.local_executor import LocalExecutor
from benchmark.cluster.executor import OUT_OF_MEMORY, WorkItem
from benchmark.cluster.pool import Pool
from benchmark.errors import ModelError, ShardsFailed
from benchmark.runner.cached_fits import CachedProbeTrainer
from benchmark.runner.folder import RETRIED, RunFolder
from benchmark.runner.jobs import EvaluationWork, TaskWork
from benchmark.runner.plan import Job, Shard, task_sets
from benchmark.runner.store import CORRUPT, VALID, StagedResult
from benchmark.tasks.stage import CHECK
from benchmark.tasks.suite import cache_tasks
from karel_env.control_flow import ControlRecipe

BATCH_HALVED = "half the batch"
TASK_STAGE = "tasks"
REPEAT_NOTICE = 10
"""Pieces with one trouble after which it is said once more, with their number."""


class Progress(Protocol):
    """Who watches a run: a bar, a row of a table, or nobody."""

    def start(self, description: str, total: int | None, completed: int = 0) -> None:
        """A stage of so many steps, some of which are done already."""
        ...

    def advance(self, steps: int, description: str | None = None) -> None:
        """Steps that are done, and what is being done now."""
        ...

    def write(self, message: str) -> None:
        """A line for whoever reads along."""
        ...


@dataclass(frozen=True)
class Backend:
    """Where a run computes.

    Attributes:
        pool: the workers.
        workers: Ray actors at a time, 0 for this process.
        threads: of one worker that fits probes.
        processors: of the workers; filled as they start.
    """

    pool: Pool
    workers: int
    threads: int
    processors: set[str]


class Stages:
    """The stages of one model in one folder.

    Args:
        job: what is evaluated.
        identity: of everything that can change a result.
        folder: of the run.
        place: who computes.
        view: who watches.
    """

    def __init__(self, job: Job, identity: str, folder: RunFolder, backend: Backend, progress: Progress) -> None:
        self.job, self.identity, self.folder, self.backend, self.progress = job, identity, folder, place, view
        self.suite = job.suite
        self.shards: list[Shard] = []
        self.model_checked = False
        self.reported: Counter[str] = Counter()

    def _missing(self, names: dict[str, dict[str, Any]]) -> list[str]:
        """The pieces, by name and what is expected of their entries, that are not there whole; damage is reported."""
        conditions = {name: self.folder.store.status(name, **expected) for name, expected in names.items()}
        for name, found in conditions.items():
            if found == CORRUPT:
                self.folder.log(RETRIED, piece=name, cause=CORRUPT, why="its checksum or entry does not fit")
                self.progress.write(f"{name}: stored files are damaged (checksum); computed again")
        return [name for name, found in conditions.items() if found != VALID]

    def _piece(self, name: str, kind: str, held: str, work: Any, call: Any, steps: int, what: str) -> WorkItem:
        def commit(attempts: list[StagedResult]) -> None:
            for attempt in attempts:
                self.folder.store.commit(attempt)
                self._committed(attempt)
            self.progress.advance(steps, what)

        return WorkItem(name, kind, held, work, call, commit, partial(self._again, name))

    def _committed(self, attempt: StagedResult) -> None:
        self.folder.log("committed", piece=attempt.name, seconds=attempt.entry.get("seconds"))

    def _again(self, name: str, cause: str, why: str) -> None:
        """Log what a piece is computed again for, or given up for."""
        if cause == "failed":
            self.folder.log("failed", piece=name, why=why)
        else:
            self.folder.log(RETRIED, piece=name, cause=cause, why=why)
            if cause == OUT_OF_MEMORY:
                self.folder.log(BATCH_HALVED, piece=name)
        line = f"{cause}: {' '.join(why.split())[:200]}"
        self.reported[line] += 1
        # The rest of a kind is counted: hundreds of shards may fail for one reason.
        if self.reported[line] == 1:
            self.progress.write(f"{name}: {line}")
        elif self.reported[line] == REPEAT_NOTICE:
            self.progress.write(f"{REPEAT_NOTICE} pieces so far: {line}")

    def draw_tasks(self) -> None:
        sets = task_sets(self.job)
        missing = self._missing({name: {} for name in sets})
        self.progress.start("drawing tasks", len(sets), len(sets) - len(missing))
        work = TaskWork(self.suite, self.folder.store.root)
        # Straight-line tasks are drawn faster than a worker starts; those with control flow take seconds to minutes.
        slow = isinstance(self.suite.recipe, ControlRecipe)
        pool = self.backend.pool if slow else Pool(LocalExecutor(), 1)
        pool.drain(
            [self._piece(name, TASKS, self.identity, work, (name, sets[name]), 1, TASK_STAGE) for name in missing]
        )
        for purpose, path in self._task_files():
            cache_tasks(self.suite, purpose, load_file(path))

    def _task_files(self) -> list[tuple[str, Path]]:
        return [(purpose, self.folder.store.arrays_path(name)) for name, purpose in task_sets(self.job).items()]

    def evaluate(self, job: Job, shards: list[Shard]) -> None:
        """Compute the shards that are not committed."""
        self.shards += shards
        missing = set(self._missing({shard.name: {"stop": shard.stop} for shard in shards}))
        left = [shard for shard in shards if shard.name in missing]
        if len(left) < len(shards):
            self.progress.write(f"continuing: {len(shards) - len(left)} of {len(shards)} shards are done")
        if shards:
            total = sum(s.stop - s.start for s in shards)
            self.progress.start("evaluating", total, total - sum(s.stop - s.start for s in left))
        work = EvaluationWork(job, self.folder.store.root, tuple(self._task_files()))
        held = f"{self.identity} {len(job.texts)}"
        if left and job.checkpoint.network and not self.model_checked:
            self._check_model(held, work)
        self.backend.pool.drain(
            [
                self._piece(s.name, EVALUATION, held, work, s, s.stop - s.start, f"evaluating: {s.stage}")
                for s in left
            ]
        )  # fmt: skip

    def _check_model(self, held: str, work: EvaluationWork) -> None:
        """One worker loads the model and looks at it before the others do; it stays loaded there.

        Raises:
            ModelError: it must not be evaluated.
        """
        try:
            self.backend.pool.drain(
                [self._piece(CHECK, EVALUATION, held, work, Shard(CHECK, 0, 0), 0, "checking the model")]
            )
        except ShardsFailed as problem:
            if problem.exit_code == ModelError.exit_code:
                raise ModelError(problem.reasons[CHECK]) from problem
            raise
        self.model_checked = True

    def fits(self, kept: bool) -> CachedProbeTrainer:
        pieces, place = self.folder.store, self.backend
        return CachedProbeTrainer(pieces, backend.pool, backend.threads, kept, self._again, self._committed)
