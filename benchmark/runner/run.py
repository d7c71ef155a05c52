"""One run: configuration, folder, stages and record.

Stages: task sets; generated programs and hidden states; probe fits; the record. The first three are work items of a pool,
computed on any worker and stored; the driver computes the record from them in this process.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmark.artifacts import FRAME, READINGS
from benchmark.environment import describe_environment, gpu_name
from benchmark.errors import UsageError
from benchmark.installation.source_state import source_state
from benchmark.models.checkpoint import Checkpoint, check_unchanged
from benchmark.probing.figures import write_figures
from benchmark.probing.full_grid import FullGrid
from benchmark.probing.grid import Grid
from benchmark.probing.probe_fit import StateArray
from benchmark.probing.probes import select_matmul_dtype
from benchmark.probing.protocol import FULL_GRID, LAST, MEAN, STANDARD, STANDARD_GRID
from benchmark.probing.readout import pack_readout
from benchmark.probing.semantic_content import (
    GeneratedPrograms,
    SemanticContent,
    count_content_steps,
    pack_hits,
    probe_semantic_content,
    semantic_content_from_hits,
)
from benchmark.probing.verdict import ProbeResult, blind_probe_set, count_blind_steps, measure
from benchmark.runner.folder import RETRIED, RunFolder
from benchmark.runner.measurements.limited import fix_pairs, limit_measurement, limit_protocol, read_few_programs
from benchmark.runner.measurements.measurement import Measurement
from benchmark.runner.measurements.preview import PreviewMeasurement
from benchmark.runner.measurements.registry import MEASUREMENTS
from benchmark.runner.measurements.represents import RepresentsMeasurement
from benchmark.runner.measurements.stage import is_measured, measure_missing
from benchmark.runner.plan import DEFAULT_GENERATION, Job, plan, plan_dependent, task_sets
from benchmark.runner.preflight import ResourceEstimate
from benchmark.runner.record import FrameEntry, ModelEntry, Provenance, Record, SuiteEntry, read_record
from benchmark.runner.redaction import redact_paths
from benchmark.runner.run_config import RunConfig
from benchmark.runner.stages import TASK_STAGE, Backend, Progress, RunStages
from benchmark.runner.store import CORRUPT, VALID
from benchmark.runner.worker import Worker
from benchmark.tasks.pass_at_k import summarize_constrained, summarize_sampled
from benchmark.tasks.probe_sets import first_inputs
from benchmark.tasks.prompt_template import FEWSHOT, TRAINED, template_to_bytes
from benchmark.tasks.scoring import OUTCOMES, check_references, describe_accuracy, score_programs, summarize
from benchmark.tasks.stage import BLIND, CONSTRAINED, GENERATED, SAMPLED, TEST, Stage
from benchmark.tasks.suite import (
    hash_tasks,
    identify_suite,
    limit_suite,
    limit_test_tasks,
    load_suite,
    set_prompts,
    test_tasks,
)
from karel_env.syntax.dialects import KAREL

GRID_STAGE, PROBING = "grid", "probing"
REPRESENTS, PREVIEW = RepresentsMeasurement.name, PreviewMeasurement.name
RECORD = "record.json"


class Run:
    """One model on one suite.

    Args:
        config: the configuration.
        checkpoint: the model.

    `estimate` is set by commands that check time and memory beforehand; deadlines of items derive from it.
    """

    def __init__(self, config: RunConfig, checkpoint: Checkpoint) -> None:
        self.config, self.checkpoint = config, checkpoint
        self.protocol = config.protocol if config.limit is None else limit_protocol(config.protocol)
        self.full_suite = load_suite(config.suite, config.seed)
        self.tasks_digest = self.full_suite.sha256 or hash_tasks(test_tasks(self.full_suite))
        limited_suite = limit_suite(limit_test_tasks(self.full_suite, config.test_tasks), config.limit)
        self.suite = set_prompts(limited_suite, config.num_fewshot, config.dialect)
        if config.batch is not None:
            self.suite = replace(self.suite, batch=config.batch)
        options = config.generation
        if checkpoint.is_custom and options.track == FEWSHOT:
            # The few-shot track always has constrained decoding, but a custom class decodes by itself.
            options = replace(options, constrained=False)
        self.job = Job(
            self.suite,
            checkpoint,
            config.dtype,
            config.device,
            self.protocol.random_inits,
            config.grid,
            (),
            config.threads,
            options,
            cache=config.cache,
        )
        if config.dialect != KAREL and checkpoint.is_custom:
            raise UsageError(
                f"{checkpoint.spec}: --dialect {config.dialect} with a class of one's own; expected weights"
            )
        track = TRAINED if checkpoint.is_custom else options.track
        if replace(options, track=track, states=True) != DEFAULT_GENERATION and not checkpoint.has_hidden_states:
            subject = (
                "class without states has no"
                if checkpoint.is_custom
                else "baseline that is no network has no other track,"
            )
            raise UsageError(f"{checkpoint.spec}: a {subject} draws or grammar")
        if options.track != TRAINED:
            # Rendered once, since it is part of the identity and must be equal on every worker.
            self.job = replace(self.job, prompt_template=Worker(self.job).prompt_template)
        if self.is_preview or not config.probes or options.track != TRAINED:
            # Protocol 3 is of models that were trained on the suite.
            self.job = replace(self.job, probes=False)
        self.estimate: ResourceEstimate | None = None
        self.environment = describe_environment()
        self.started = datetime.now(UTC).isoformat(timespec="seconds")

    @property
    def is_preview(self) -> bool:
        """Whether this run is a preview: only where there is something to leave out."""
        job = self.job
        is_standard = job.grid == STANDARD_GRID and job.generation.track == TRAINED
        return self.config.preview and job.reads_states and is_standard

    @property
    def identity(self) -> str:
        """SHA-256 of everything that can change a result; workers, paths and times are not part of it."""
        config = self.config
        parts = {
            "model": self.checkpoint.digest,
            "loading": asdict(self.checkpoint.loading),
            "dtype": self.job.dtype,
            "device": self.job.device.split(":")[0],
            "threads": self.job.threads,
            "suite": identify_suite(self.suite),
            "tasks": self.tasks_digest,
            "protocol": self.protocol.digest(),
            "grid": self.job.grid,
            "asked": asdict(self.job.generation),
            "frame": None if self.job.prompt_template is None else self.job.prompt_template.digest,
            "source": self.environment["source"],
        } | ({} if self.job.probes else {"preview": True} if config.preview or config.probes else {"probes": False})
        parts |= {"few_programs": True} if config.has_few_programs else {}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def root(self) -> Path:
        """The run folder; the same command gives the same folder."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self.checkpoint.name)
        return self.config.out.resolve() / f"{name}-{self.suite.name}-{self.identity[:12]}"

    def finished_record(self) -> Record | None:
        """The record, if the run and its measurements are complete and unaltered; else None."""
        record = self._valid_record()
        return record if all(is_measured(self.root(), measurement) for measurement in self.measurements()) else None

    def _valid_record(self) -> Record | None:
        return read_record(self.root() / RECORD) if RunFolder.file_status(self.root(), RECORD) == VALID else None

    def measurements(self) -> list[Measurement]:
        """The measurements that are made besides the record; those that do not fit the suite or the track are left out."""
        names = [PREVIEW if name == REPRESENTS and self.is_preview else name for name in self.config.measurements]
        selected = [MEASUREMENTS[name] for name in names]
        if self.config.limit is not None:
            selected = [limit_measurement(measurement) for measurement in selected]
        elif self.config.test_tasks is not None:
            selected = [fix_pairs(measurement, self.full_suite) for measurement in selected]
        if self.config.has_few_programs:
            selected = [read_few_programs(measurement) for measurement in selected]
        return [measurement for measurement in selected if measurement.skip_reason(self.job) is None]

    def execute(self, backend: Backend, progress: Progress) -> Record:
        """Run all stages that are not complete yet; returns the record.

        Raises:
            ItemsFailed: some items were given up.
            BenchmarkError: another driver holds the folder, or the run cannot go on.
        """
        folder = RunFolder(self.root())
        with folder.lock(), backend.pool.reporting(folder.log, progress.write):
            record = self.finished_record()
            if record is not None:
                return record
            folder.store.delete_staged()
            record = self._valid_record() or self._evaluate(folder, backend, progress)
            measure_missing(self, folder, backend, progress)
            check_unchanged(self.checkpoint)
            folder.log("finished")
            if self.config.keep_states:
                folder.store.delete_staged()
            else:
                folder.delete_states()
        return record

    def _evaluate(self, folder: RunFolder, backend: Backend, progress: Progress) -> Record:
        """Run all stages of the record that are not complete yet, and write it."""
        stages = _EvaluationStages(self, folder, backend, progress)
        if RunFolder.file_status(self.root(), RECORD) == CORRUPT:
            folder.log(RETRIED, piece=RECORD, cause=CORRUPT, why="it is not what the run wrote")
            progress.write(
                f"{RECORD}: not what the run wrote (its SHA-256 is another than the logged one); computed again"
            )
        folder.log(
            "started",
            command=self.config.command,
            model=self.checkpoint.spec,
            workers=backend.workers,
            total=stages.num_items(),
        )
        record = stages.execute()
        check_unchanged(self.checkpoint)
        folder.finish(RECORD, record.to_json().encode())
        progress.write(f"accuracy: {describe_accuracy(record.accuracy)}")
        return record

    def ineligibility_reasons(self, has_halved_batch: bool) -> list[str]:
        """Reasons why the run is not eligible for the leaderboard."""
        config, reasons = self.config, []
        if self.is_preview:
            reasons.append("a preview; run it with --all-seeds")
        if config.limit is not None:
            reasons.append(f"--limit {config.limit}")
        if config.test_tasks is not None:
            reasons.append(f"--test-tasks {config.test_tasks}")
        if config.batch is not None and config.batch != self.full_suite.batch:
            reasons.append(f"--batch-size {config.batch}")
        if has_halved_batch:
            reasons.append("a batch was halved where memory was short")
        if not self.full_suite.sha256:
            reasons.append("the suite's test set is not the pinned one")
        elif not self.full_suite.official:
            reasons.append(f"suite {self.suite.name} is never official")
        if config.protocol != STANDARD:
            reasons.append("the settings of the probes are not those of the protocol")
        loading = self.checkpoint.loading
        if loading.quantization:
            reasons.append(f"--quantization {loading.quantization}")
        if loading.remote_code:
            reasons.append("--trust-remote-code: code that came with the model ran")
        if self.checkpoint.is_in_memory:
            reasons.append("the model was held in memory: it has no files that could be checked")
        if self.checkpoint.is_custom:
            reasons.append("--allow-code: the model is a class of the user's")
        source = source_state()
        if source.problem:
            reasons.append(source.problem)
        return reasons

    def model_entry(self) -> ModelEntry:
        """The record's entry on the model."""
        checkpoint = self.checkpoint
        return ModelEntry(
            spec=redact_paths(checkpoint.spec), name=checkpoint.name, digest=checkpoint.digest,
            parameters=checkpoint.parameters, dtype=self.job.dtype, device=self.job.device, **asdict(checkpoint.loading),
        )  # fmt: skip

    def suite_entry(self) -> SuiteEntry:
        """The record's entry on the suite."""
        suite = self.suite
        return SuiteEntry(
            name=suite.name, version=suite.version, seed=suite.seed, sha256=self.tasks_digest, tasks=suite.tasks,
            equality=suite.equality,
        )  # fmt: skip

    def provenance(self, folder: RunFolder, backend: Backend, seconds: dict[str, float], started: str) -> Provenance:
        """The record's entry on command, code, hardware and time."""
        return Provenance(
            command=redact_paths(self.config.command), identity=self.identity, workers=backend.workers, started=started,
            finished=datetime.now(UTC).isoformat(timespec="seconds"), seconds=seconds,
            processors=sorted(backend.processors), retries=folder.retries(),
            products=str(select_matmul_dtype()).removeprefix("torch."),
            gpu=gpu_name(self.job.device), **self.environment,
        )  # fmt: skip


class _EvaluationStages(RunStages):
    """The stages of a run, and its record."""

    def __init__(self, run: Run, folder: RunFolder, backend: Backend, progress: Progress) -> None:
        super().__init__(run.job, run.identity, folder, backend, progress, run.estimate)
        self.run, self.protocol = run, run.protocol

    def num_items(self) -> dict[str, int]:
        """Number of results per stage that the run will commit, as far as it is known at the start."""
        counts = {TASK_STAGE: len(task_sets(self.job))}
        for shard in plan(self.job) + plan_dependent(self.job):
            counts[str(shard.stage)] = counts.get(str(shard.stage), 0) + 1
        return counts

    def execute(self) -> Record:
        """Run all stages and compute the record."""
        job, folder = self.job, self.folder
        self.draw_tasks()
        check_references(self.suite, self.task_sets.test)
        self.evaluate(job, plan(job))
        texts = tuple(sample["text"] for sample in folder.samples(self.shards, Stage(GENERATED)))
        self.evaluate(replace(job, texts=texts), plan_dependent(job))
        if not job.has_probes:
            return self._record(None, None, None, [], folder.seconds(self.shards))
        start = time.perf_counter()
        result, content = self._probe(texts)
        grid = None if job.grid == STANDARD_GRID else self._grid(texts)
        seconds = folder.seconds(self.shards) | {PROBING: round(time.perf_counter() - start, 1)}
        figures = write_figures(folder.root, self.run.checkpoint.name, result, grid)
        return self._record(result, content, grid, figures, seconds)

    def _probe(self, texts: Sequence[str]) -> tuple[ProbeResult, SemanticContent | None]:
        """Probe for the verdict and the semantic content; writes the evidence of the verdict."""
        folder, shards, protocol = self.folder, self.shards, self.protocol
        blind, generated = Stage(BLIND), Stage(GENERATED)
        last_view = LAST if self.job.grid == STANDARD_GRID else folder.views(shards, blind, "read")[-1]

        def pooled_states(stage: Stage) -> list[StateArray]:
            return [folder.states(shards, stage, f"read.{view}") for view in (MEAN, last_view)]

        self.progress.start(
            "training probes on states at given programs", count_blind_steps(protocol) + count_content_steps(protocol)
        )
        random_init_states = [pooled_states(blind.of_random_init(i)) for i in range(protocol.random_inits)]
        trainer = self.probe_trainer(keep=True)
        tasks = self.task_sets.blind
        probe_set = blind_probe_set(self.suite, protocol, tasks)
        folder.write_index(blind, probe_set)
        result, evidence, readouts = measure(
            tasks, probe_set, protocol, pooled_states(blind), random_init_states, self.progress.advance, trainer
        )
        folder.write(READINGS, pack_readout(readouts))
        self.progress.advance(0, "training probes on states at the model's programs")
        content = None
        programs = GeneratedPrograms.from_texts(texts, first_inputs(self.task_sets.probe), protocol)
        if programs is not None:
            folder.write_index(generated, programs.probe_set)
            states = folder.states(shards, generated, f"emit.{MEAN}")
            hits = probe_semantic_content(programs, protocol, states, self.progress.advance, trainer)
            if hits is not None:
                content = semantic_content_from_hits(programs, protocol, hits)
                evidence = replace(evidence, content_hits=pack_hits(hits))
        folder.write_probes(evidence.to_arrays())
        return result, content

    def _grid(self, texts: Sequence[str]) -> Grid:
        layers = [view for view in self.folder.views(self.shards, Stage(BLIND), "read") if view != MEAN]
        self.progress.start(GRID_STAGE, None)

        def on_event(description: str) -> None:
            self.folder.log(GRID_STAGE, what=description)
            self.progress.advance(1, f"{GRID_STAGE}: {description}")

        def states(stage: Stage, position: str, view: str) -> StateArray:
            return self.folder.states(self.shards, stage, f"{position}.{view}")

        grid = FullGrid(self.task_sets, self.protocol, states, layers, texts, on_event, self.probe_trainer(keep=False))
        return grid.measure() if self.job.grid == FULL_GRID else grid.measure_layers()

    def _record(
        self,
        result: ProbeResult | None,
        content: SemanticContent | None,
        grid: Grid | None,
        figures: list[str],
        seconds: dict[str, float],
    ) -> Record:
        run, folder, suite = self.run, self.folder, self.suite
        samples = folder.samples(self.shards, Stage(TEST))
        scores = score_programs(suite, self.task_sets.test, [sample["text"] for sample in samples])
        rows: list[dict[str, Any]] = [
            {"stage": TEST, **sample, "outcome": OUTCOMES[scores.outcome[i]], "shown": bool(scores.shown[i]),
             "held_out": bool(scores.held_out[i]), "exact": bool(scores.exact[i])}
            for i, sample in enumerate(samples)
        ]  # fmt: skip
        for stage in (GENERATED, CONSTRAINED, SAMPLED):
            rows += [{"stage": stage, **sample} for sample in folder.samples(self.shards, Stage(stage))]
        samples_file = folder.write_samples(rows)
        reasons = run.ineligibility_reasons(folder.has_halved_batch(self.shards))
        return Record(
            official=not reasons,
            unofficial=reasons,
            model=run.model_entry(),
            suite=run.suite_entry(),
            protocol=self.protocol,
            accuracy=summarize(scores),
            **self._track_metrics(),
            meaning=result,
            content=content,
            grid=grid,
            figures=figures,
            samples_sha256=hashlib.sha256(samples_file.read_bytes()).hexdigest(),
            provenance=run.provenance(folder, self.backend, seconds, run.started),
        )  # fmt: skip

    def _track_metrics(self) -> dict[str, Any]:
        """The record's entries on the track, constrained decoding and sampling."""
        options, suite = self.job.generation, self.suite
        entries: dict[str, Any] = {"track": options.track}
        if options.track != TRAINED:
            template = self.job.prompt_template
            assert template is not None, "rendered once per run"
            entries["frame"] = FrameEntry(
                sha256=template.digest, shots=template.shots, chat_template=template.chat, dialect=suite.dialect
            )
            if template.chat:
                self.folder.write(FRAME, template_to_bytes(template))
        if options.constrained:
            samples = self.folder.samples(self.shards, Stage(CONSTRAINED))
            entries["constrained"] = summarize_constrained(suite, self.task_sets.test, samples)
        if options.samples:
            samples = self.folder.samples(self.shards, Stage(SAMPLED))
            entries["sampled"] = summarize_sampled(
                suite, self.task_sets.test, samples, options.samples, options.temperature
            )
        return entries
