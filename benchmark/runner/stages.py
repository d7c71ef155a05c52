"""The stages of evaluating a model: task sets, shards and probe fits, each as work items of a pool.

`runner.run` chooses the shards and computes figures from the committed results.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from benchmark.cluster.executor import EVALUATION, OUT_OF_MEMORY, TASKS, WorkItem
from benchmark.cluster.local_executor import LocalExecutor
from benchmark.cluster.pool import Pool
from benchmark.errors import ItemsFailed, ModelError
from benchmark.runner.cached_fits import CachedProbeTrainer
from benchmark.runner.folder import RETRIED, RunFolder
from benchmark.runner.jobs import EvaluationWork, TaskWork, read_task_sets
from benchmark.runner.plan import Job, Shard, task_sets
from benchmark.runner.preflight import ResourceEstimate
from benchmark.runner.store import CORRUPT, VALID, StagedResult
from benchmark.tasks.stage import CHECK, Stage
from benchmark.tasks.task_sets import TaskSets
from karel_env.generation.control_flow import ControlRecipe

BATCH_HALVED = "half the batch"
TASK_STAGE = "tasks"
REPEAT_NOTICE = 10
"""Number of items with the same error after which the error is reported a second time, with their number."""


class Progress(Protocol):
    """Displays the progress of a run: a bar, a row of a table, or nothing."""

    def start(self, description: str, total: int | None = None, completed: int = 0) -> None:
        """Start a stage of `total` steps (None if unknown), of which `completed` are done already."""
        ...

    def advance(self, steps: int, description: str | None = None) -> None:
        """Count `steps` more as completed; a description replaces the one displayed."""
        ...

    def write(self, message: str) -> None:
        """Print a line above the display."""
        ...


@dataclass(frozen=True)
class Backend:
    """The compute resources of a run.

    Attributes:
        pool: the pool of workers.
        workers: Ray actors at a time, 0 for this process.
        threads: threads of one worker that fits probes.
        processors: processor names of the workers; filled as they start.
    """

    pool: Pool
    workers: int
    threads: int
    processors: set[str]


class RunStages:
    """The stages of one run: computes the results of one model in one folder.

    Args:
        job: the model, the suite and the options.
        identity: SHA-256 of everything that can change a result.
        folder: the run folder.
        backend: the compute resources.
        progress: the progress display.
        estimate: what the run takes, roughly, from which deadlines derive; None if unknown.
    """

    def __init__(
        self,
        job: Job,
        identity: str,
        folder: RunFolder,
        backend: Backend,
        progress: Progress,
        estimate: ResourceEstimate | None = None,
    ) -> None:
        self.estimate = estimate
        self.job, self.identity, self.folder, self.backend, self.progress = job, identity, folder, backend, progress
        self.suite, self.task_sets = job.suite, TaskSets(job.suite)
        self.shards: list[Shard] = []
        self.is_model_checked = False
        self.retry_counts: Counter[str] = Counter()

    def _missing(self, names: dict[str, dict[str, Any]]) -> list[str]:
        """Names of the items without a valid stored result, given the expected entries by name; corrupt files are reported."""
        statuses = {name: self.folder.store.status(name, **expected) for name, expected in names.items()}
        for name, status in statuses.items():
            if status == CORRUPT:
                self.folder.log(RETRIED, piece=name, cause=CORRUPT, why="its checksum or entry does not fit")
                self.progress.write(f"{name}: stored files are damaged (checksum); computed again")
        return [name for name, status in statuses.items() if status != VALID]

    def _work_item(
        self,
        name: str,
        kind: str,
        affinity_key: str,
        work: Any,
        payload: Any,
        steps: int,
        description: str,
        size: int = 0,
    ) -> WorkItem:
        def commit(results: list[StagedResult]) -> None:
            for result in results:
                self.folder.store.commit(result)
                self._on_commit(result)
            self.progress.advance(steps, description)

        return WorkItem(name, kind, affinity_key, work, payload, commit, partial(self._on_retry, name), size)

    def _on_commit(self, result: StagedResult) -> None:
        self.folder.log("committed", piece=result.name, seconds=result.entry.get("seconds"))

    def _on_retry(self, name: str, status: str, message: str) -> None:
        """Log why an item is computed again or given up."""
        if status == "failed":
            self.folder.log("failed", piece=name, why=message)
        else:
            self.folder.log(RETRIED, piece=name, cause=status, why=message)
            if status == OUT_OF_MEMORY:
                self.folder.log(BATCH_HALVED, piece=name)
        line = f"{status}: {' '.join(message.split())[:200]}"
        self.retry_counts[line] += 1
        # Further items with the same error are only counted: hundreds of shards may fail for one reason.
        if self.retry_counts[line] == 1:
            self.progress.write(f"{name}: {line}")
        elif self.retry_counts[line] == REPEAT_NOTICE:
            self.progress.write(f"{REPEAT_NOTICE} items so far: {line}")

    def draw_tasks(self) -> None:
        """Draw the task sets that are not committed yet, and load all of them into `task_sets`."""
        sets = {f"tasks-{name}": name for name in task_sets(self.job)}
        missing = self._missing({name: {} for name in sets})
        self.progress.start("drawing tasks", len(sets), len(sets) - len(missing))
        work = TaskWork(self.suite, self.folder.store.root)
        # Drawing straight-line tasks takes less time than starting a worker; control flow takes seconds to minutes.
        is_slow = isinstance(self.suite.recipe, ControlRecipe)
        pool = self.backend.pool if is_slow else Pool(LocalExecutor(), 1)
        pool.drain(
            [
                self._work_item(name, TASKS, self.identity, work, (name, sets[name]), 1, "drawing tasks")
                for name in missing
            ]
        )
        self.task_sets = read_task_sets(self.suite, self._task_files())

    def _task_files(self) -> list[tuple[str, Path]]:
        return [(name, self.folder.store.arrays_path(f"tasks-{name}")) for name in task_sets(self.job)]

    def evaluate(self, job: Job, shards: list[Shard]) -> None:
        """Compute the shards that are not committed yet."""
        self.shards += shards
        missing = set(self._missing({shard.name: {"stop": shard.stop} for shard in shards}))
        remaining = [shard for shard in shards if shard.name in missing]
        if len(remaining) < len(shards):
            self.progress.write(f"continuing: {len(shards) - len(remaining)} of {len(shards)} parts are done")
        if shards:
            total = sum(s.stop - s.start for s in shards)
            self.progress.start("evaluating", total, total - sum(s.stop - s.start for s in remaining))
        work = EvaluationWork(job, self.folder.store.root, tuple(self._task_files()))
        affinity_key = f"{self.identity} {len(job.texts)}"
        if self.estimate is not None:
            self.backend.pool.deadlines.expect(affinity_key, self.estimate.shard_seconds)
        if remaining and job.checkpoint.has_hidden_states and not self.is_model_checked:
            self._check_model(affinity_key, work)
        self._drain(
            affinity_key, work,
            [(s.name, s, s.stop - s.start, f"evaluating: {s.stage.describe(job.random_inits)}") for s in remaining],
            steps_are_tasks=True,
        )  # fmt: skip

    def _drain(
        self, affinity_key: str, work: Any, items: Sequence[tuple[str, Any, int, str]], steps_are_tasks: bool = False
    ) -> None:
        """Compute items (name, payload, steps, words). An item may take minutes, so the words are those of the next one.

        Args:
            affinity_key: see `WorkItem`.
            work: see `WorkItem`.
            items: the items.
            steps_are_tasks: whether the steps of an item are its `WorkItem.size`; else it has none.
        """
        if items:
            self.progress.advance(0, items[0][-1])
        following = [words for *_, words in (*items[1:], *items[-1:])]
        self.backend.pool.drain(
            [
                self._work_item(
                    name, EVALUATION, affinity_key, work, payload, steps, words, steps if steps_are_tasks else 0
                )
                for (name, payload, steps, _), words in zip(items, following, strict=True)
            ]
        )

    def _check_model(self, affinity_key: str, work: EvaluationWork) -> None:
        """Check the model on one worker before the others load it; it stays loaded there.

        Raises:
            ModelError: the model fails a check.
        """
        try:
            self._drain(affinity_key, work, [(CHECK, Shard(Stage(CHECK), 0, 0), 0, "checking the model")])
        except ItemsFailed as error:
            if error.exit_code == ModelError.exit_code:
                raise ModelError(error.reasons[CHECK]) from error
            raise
        self.is_model_checked = True

    def probe_trainer(self, keep: bool) -> CachedProbeTrainer:
        """Trainer of probes on the backend; `keep` tells whether fits stay in the folder after they are read."""
        store, backend = self.folder.store, self.backend
        return CachedProbeTrainer(store, backend.pool, backend.threads, keep, self._on_retry, self._on_commit)
