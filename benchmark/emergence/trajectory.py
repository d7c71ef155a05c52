"""Evaluation of training checkpoints on a reduced grid; each checkpoint gives one point of the curves.

Everything is measured as in a complete run, with fewer programs, seeds and alternatives (`REDUCED_PROTOCOL`). The controls
(randomly initialised copies and token history) depend on the architecture only, so all checkpoints share their states and
probe fits in one folder. Source of the curves: Jin & Rinard 2024, sections 3 and 4.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from benchmark.emergence.shared_controls import open_controls
from benchmark.environment import source_digest
from benchmark.errors import UsageError
from benchmark.installation.cache_settings import DEFAULT_CACHE, CacheSettings
from benchmark.models.checkpoint import Checkpoint, check_unchanged
from benchmark.probing.control_gap import PriorBaseline
from benchmark.probing.full_grid import FUTURE, READ, FullGrid
from benchmark.probing.labels import ProbeSet, build_probe_set, list_semantics
from benchmark.probing.mdl import measure_codelengths
from benchmark.probing.probe_fit import ProbeFit, ProbeTrainer, StateArray
from benchmark.probing.protocol import MEAN, POOLS, STANDARD, Protocol
from benchmark.probing.semantic_content import GeneratedPrograms, measure_semantic_content
from benchmark.probing.state_source import Views, probe_source
from benchmark.probing.token_history import token_history_states
from benchmark.probing.verdict import verdict_from_evidence
from benchmark.runner.cached_fits import CachedProbeTrainer
from benchmark.runner.evidence_cache import controls_key
from benchmark.runner.folder import RunFolder
from benchmark.runner.plan import Job, Shard, shards_of
from benchmark.runner.stages import Backend, Progress, RunStages
from benchmark.runner.store import VALID, MemmapStates, write_atomic
from benchmark.statistics import Estimate
from benchmark.tasks.probe_sets import first_inputs
from benchmark.tasks.scoring import Summary, score_programs, summarize
from benchmark.tasks.stage import BLIND, GENERATED, LIKELIHOOD, TEST, Stage
from benchmark.tasks.suite import Suite, blind_tasks
from karel_env.features import PRIMARY
from karel_env.language import HEADER

REDUCED_PROTOCOL = replace(STANDARD, alternatives=6, copies=2, seeds=(0, 1, 2, 3, 4), folds=5, random_inits=2)
REDUCED_PROBE_TASKS = 2_500
"""Probe tasks that the model answers. The blind set is not reduced: with fewer programs, probes do not find facing."""
NUM_MDL_ALTERNATIVES = 4
"""Number of alternatives in the MDL codelength, which uses the mean over layers only."""
RECORDER = "recorder"
POINT_FILE = "point.json"


@dataclass(frozen=True)
class CurvePoint:
    """Metrics of one checkpoint.

    Attributes:
        step, tasks, tokens: training steps, tasks and tokens seen at the checkpoint.
        accuracy: scores on the test tasks.
        distinct: number of distinct valid programs / number of test tasks.
        perplexity: perplexity per token of the reference programs of the test tasks.
        reference_words: mean length of the reference programs, in the unit of `accuracy.mean_words`.
        content: the paper's semantic content by probe depth; None with too few distinct programs.
        skill, gap, delta: figures of facing on the blind set.
        verdict: verdict on the blind set, under the reduced protocol.
        mdl_delta: delta in bits per label.
        future: delta of facing by offset ahead, on the model's own programs; empty with too few distinct programs.
    """

    step: int
    tasks: int
    tokens: int
    accuracy: Summary
    distinct: float
    perplexity: float
    reference_words: float
    content: dict[str, Estimate] | None
    skill: Estimate
    gap: Estimate
    delta: Estimate
    verdict: str
    mdl_delta: Estimate
    future: dict[int, Estimate]


_POINT, _POINTS = TypeAdapter(CurvePoint), TypeAdapter(list[CurvePoint])


def read_point(path: Path) -> CurvePoint:
    """Read one point."""
    return _POINT.validate_json(path.read_bytes())


def read_points(path: Path) -> list[CurvePoint]:
    """Read the points of a run, in order, from a file of `write_points`.

    Raises:
        UsageError: The file cannot be read or is not such a file.
    """
    try:
        return _POINTS.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        message = " ".join(str(error).split())[:200]
        raise UsageError(f"{path}: {message}; expected a file of points that this command wrote") from error


def write_points(path: Path, points: Sequence[CurvePoint]) -> None:
    """Write all points of a run as one JSON file, one line per point."""
    write_atomic(path, ("[" + ",\n".join(_POINT.dump_json(point).decode() for point in points) + "]\n").encode())


@dataclass(frozen=True)
class TrainingCheckpoint:
    """A checkpoint with the training step, tasks and tokens at which it was saved."""

    checkpoint: Checkpoint
    step: int
    tasks: int
    tokens: int


class Trajectory:
    """Evaluate the checkpoints of training runs of one architecture.

    Args:
        suite: task suite; the model answers only `REDUCED_PROBE_TASKS` of its probe tasks unless `full`.
        out: folder of all points and controls.
        backend: compute backend.
        progress: progress reporter.
        full: use the settings of a complete run instead of the reduced ones.
        device, threads, dtype: device, CPU threads and dtype of the model.
        reduced_protocol: settings of the probes unless `full`.
        cache: where controls are shared with other evaluations, if its folder is named.
    """

    def __init__(
        self,
        suite: Suite,
        out: Path,
        backend: Backend,
        progress: Progress,
        full: bool = False,
        device: str = "cpu",
        threads: int = 1,
        dtype: str = "float32",
        reduced_protocol: Protocol = REDUCED_PROTOCOL,
        cache: CacheSettings = DEFAULT_CACHE,
    ) -> None:
        self.suite, self.protocol = suite, STANDARD if full else reduced_protocol
        self.answers = suite.probe_programs if full else min(REDUCED_PROBE_TASKS, suite.probe_programs)
        self.out, self.backend, self.progress = out, backend, progress
        self.device, self.threads, self.dtype, self.cache = device, threads, dtype, cache

    def measure(self, checkpoint: TrainingCheckpoint) -> CurvePoint:
        """Evaluate a checkpoint, or read its stored point."""
        identity = self._identity(checkpoint.checkpoint.digest)
        folder = RunFolder(self.out / f"step-{checkpoint.step:07d}-{identity[:12]}")
        with folder.lock(), self.backend.pool.reporting(folder.log, self.progress.write):
            if folder.file_status(folder.root, POINT_FILE) != VALID:
                stages = self._stages(checkpoint.checkpoint, identity, folder)
                with self._open_controls(checkpoint.checkpoint) as controls:
                    point = self._point(checkpoint, stages, controls)
                check_unchanged(checkpoint.checkpoint)
                folder.finish(POINT_FILE, _POINT.dump_json(point, indent=1) + b"\n")
                folder.delete_states()
        return read_point(folder.root / POINT_FILE)

    def _identity(self, subject_digest: str) -> str:
        """SHA-256 of a digest and all settings that can change a point."""
        parts = [
            subject_digest,
            asdict(self.suite),
            self.protocol.digest(),
            source_digest(),
            self.device,
            self.threads,
            self.dtype,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @cached_property
    def _blind(self) -> ProbeSet:
        """Labels of the blind set, the same for every checkpoint."""
        tasks, semantics = blind_tasks(self.suite), list_semantics(self.protocol)
        budget = self.suite.probe_programs
        return build_probe_set(tasks.programs, first_inputs(tasks), semantics, self.protocol, budget=budget)

    def _shards(self, stage: Stage) -> list[Shard]:
        shards = shards_of(self.suite, stage)
        return [s for s in shards if s.start < self.answers] if stage.kind == GENERATED else shards

    def _stages(self, checkpoint: Checkpoint, identity: str, folder: RunFolder) -> RunStages:
        job = Job(self.suite, checkpoint, self.dtype, self.device, self.protocol.random_inits, threads=self.threads)
        folder.store.delete_staged()
        stages = RunStages(job, identity, folder, self.backend, self.progress)
        stages.draw_tasks()
        return stages

    @contextmanager
    def _open_controls(self, checkpoint: Checkpoint) -> Iterator[RunStages]:
        """Stages in the folder of the controls, which checkpoints share."""
        architecture = hashlib.sha256((checkpoint.folder / "config.json").read_bytes()).hexdigest()
        identity = self._identity(architecture)
        own = self.out / f"controls-{identity[:12]}"
        with open_controls(own, self.cache, controls_key(checkpoint, identity)) as folder:
            yield self._stages(checkpoint, identity, folder)

    def _evaluate_controls(self, stages: RunStages) -> None:
        """Evaluate the controls (randomly initialised copies, token history) on the blind set, in a separate folder."""
        for copy in range(self.protocol.random_inits):
            stages.evaluate(stages.job, self._shards(Stage(BLIND, random_init=copy)))
        store = stages.folder.store
        if store.status(RECORDER) != VALID:
            tasks = stages.task_sets.blind
            states = token_history_states(tasks.programs, first_inputs(tasks), self._blind)
            store.commit(store.stage(RECORDER, {"states": np.asarray(states, np.float32)}, {}))

    def _point(self, checkpoint: TrainingCheckpoint, stages: RunStages, controls: RunStages) -> CurvePoint:
        suite, protocol, folder, task_sets = self.suite, self.protocol, stages.folder, stages.task_sets
        for stage in (TEST, LIKELIHOOD, GENERATED, BLIND):
            stages.evaluate(stages.job, self._shards(Stage(stage)))
        texts = tuple(sample["text"] for sample in folder.samples(stages.shards, Stage(GENERATED)))
        self._evaluate_controls(controls)
        trainer = _SharedControlTrainer(controls.probe_trainer(keep=True), stages.probe_trainer(keep=True))
        tasks, samples = task_sets.test, folder.samples(stages.shards, Stage(TEST))
        scores = score_programs(suite, tasks, [sample["text"] for sample in samples])
        likelihoods = folder.samples(stages.shards, Stage(LIKELIHOOD))
        num_tokens = sum(sample["tokens"] for sample in likelihoods)
        nats = -sum(sample["log_likelihood"] for sample in likelihoods) / num_tokens
        content = None
        programs = GeneratedPrograms.from_texts(texts, first_inputs(task_sets.probe), protocol)
        if programs is not None:
            states = folder.states(stages.shards, Stage(GENERATED), f"emit.{MEAN}")
            content = measure_semantic_content(programs, protocol, states, trainer=trainer)
        return CurvePoint(
            checkpoint.step, checkpoint.tasks, checkpoint.tokens,
            accuracy=summarize(scores),
            distinct=len({text for text in scores.programs if text}) / len(scores.programs),
            perplexity=exp(nats),
            reference_words=float(tasks.programs.lengths.mean()) - len(HEADER),
            content=content.arithmetic if content else None,
            **self._meaning(stages, controls, trainer),
            future=self._future(stages, texts, trainer) if content else {},
        )  # fmt: skip

    def _meaning(self, stages: RunStages, controls: RunStages, trainer: ProbeTrainer) -> dict[str, Any]:
        """Skill, gap, delta, verdict and mdl_delta on the blind set."""
        protocol, probe_set = self.protocol, self._blind
        baseline = PriorBaseline.from_probe_set(probe_set, protocol)

        def pools(owner: RunStages, stage: Stage) -> list[StateArray]:
            return [owner.folder.states(owner.shards, stage, f"{READ}.{view}") for view in POOLS]

        model = pools(stages, Stage(BLIND))
        random_inits = [pools(controls, Stage(BLIND, random_init=copy)) for copy in range(protocol.random_inits)]
        recorder = MemmapStates.open([controls.folder.store.arrays_path(RECORDER)], "states")
        views: dict[str, Sequence[Views]] = {"model": [model], "random-init": random_inits, RECORDER: [[recorder]]}
        sources = {
            name: probe_source(probe_set, baseline, source_views, protocol, trainer=trainer)
            for name, source_views in views.items()
        }
        evidence = {name: source.evidence for name, source in sources.items()}
        result = verdict_from_evidence(probe_set, baseline, evidence, protocol)
        primary = result.features[PRIMARY]
        last = len(probe_set.semantics) - 1
        semantics_indices = [0, *np.linspace(1, last, min(NUM_MDL_ALTERNATIVES, last)).round().astype(int)]
        reduced_set = replace(
            probe_set,
            classes_by_offset=probe_set.classes_by_offset[:, semantics_indices],
            semantics=tuple(probe_set.semantics[i] for i in semantics_indices),
        )
        means: dict[str, Sequence[Views]] = {
            name: [copy[:1] for copy in source_views] for name, source_views in views.items()
        }
        code = measure_codelengths(reduced_set, means, replace(protocol, copies=1), trainer)
        return {
            "skill": primary.skill, "gap": primary.gap, "delta": primary.delta, "verdict": result.verdict,
            "mdl_delta": code[PRIMARY].mdl_delta,
        }  # fmt: skip

    def _future(self, stages: RunStages, texts: tuple[str, ...], trainer: ProbeTrainer) -> dict[int, Estimate]:
        job = replace(stages.job, texts=texts)
        for copy in range(self.protocol.random_inits):
            stages.evaluate(job, self._shards(Stage(GENERATED, random_init=copy)))

        def states(stage: Stage, position: str, view: str) -> StateArray:
            return stages.folder.states(stages.shards, stage, f"{position}.{view}")

        grid = FullGrid(stages.task_sets, self.protocol, states, POOLS, texts, trainer=trainer)
        if grid.generated is None:
            return {}
        return {offset: grid.measure_future(grid.generated, offset, MEAN).features[PRIMARY].delta for offset in FUTURE}


class _SharedControlTrainer:
    """Probe trainer that caches fits of control states with the controls, and all others with the checkpoint."""

    def __init__(self, controls: CachedProbeTrainer, checkpoint_fits: CachedProbeTrainer) -> None:
        self.controls, self.checkpoint_fits = controls, checkpoint_fits

    def __call__(self, states: Sequence[StateArray], *arguments: Any, **named: Any) -> ProbeFit:
        """See `fit_probes`."""
        root = self.controls.store.root
        shared = all(isinstance(rows, MemmapStates) and rows.files[0].parent == root for rows in states)
        trainer: Callable[..., ProbeFit] = self.controls if shared else self.checkpoint_fits
        return trainer(states, *arguments, **named)
