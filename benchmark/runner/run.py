"""One run: its settings, its folder, its stages. The driver hands out, commits, scores, and writes the record.

Stages: task sets; what the model writes and its hidden states; probe fits; the record. The first three are pieces of work
of a pool, so they may be computed anywhere and are kept; the last is computed from them in this process.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmark.artifacts import FRAME, READINGS
from benchmark.environment import describe_environment, gpu_name
from benchmark.errors import UsageError
from benchmark.models.checkpoint import Checkpoint, check_unchanged
from benchmark.probing.figures import write_figures
from benchmark.probing.full_grid import FullGrid
from benchmark.probing.grid import Grid
from benchmark.probing.probe_fit import StateArray
from benchmark.probing.probes import select_matmul_dtype
from benchmark.probing.protocol import FULL_GRID, LAST, MEAN, STANDARD, STANDARD_GRID
from benchmark.probing.protocol import Protocol as Settings
from benchmark.probing.readout import pack_readout
from benchmark.probing.semantic_content import (
    SemanticContent,
    count_content_steps,
    generated_probe_set,
    pack_hits,
    probe_semantic_content,
    semantic_content_from_hits,
)
from benchmark.probing.verdict import CONTENT_HITS, ProbeResult, blind_probe_set, count_blind_steps, measure
from benchmark.runner.folder import RETRIED, RunFolder
from benchmark.runner.plan import DEFAULT_GENERATION, GenerationOptions, Job, plan, plan_dependent, task_sets
from benchmark.runner.record import FrameEntry, ModelEntry, Provenance, Record, SuiteEntry, read_record
from benchmark.runner.redaction import redact_paths
from benchmark.runner.stages import TASK_STAGE, Backend, Progress, Stages
from benchmark.runner.store import CORRUPT, VALID
from benchmark.runner.worker import Worker
from benchmark.tasks.pass_at_k import summarize_constrained, summarize_sampled
from benchmark.tasks.prompt_template import FEWSHOT, TRAINED, template_to_bytes
from benchmark.tasks.scoring import OUTCOMES, check_references, score, summarize
from benchmark.tasks.stage import BLIND, CONSTRAINED, GENERATED, RANDOM, SAMPLED, TEST
from benchmark.tasks.suite import hash_tasks, limit_suite, load_suite, test_tasks

GRID_STAGE, PROBING = "grid", "probing"
RECORD = "record.json"


@dataclass(frozen=True)
class RunConfig:
    """What is to be evaluated, as the command line says it.

    Attributes:
        suite: name or file.
        limit, seed: of its tasks, None for all and its own.
        dtype, device, grid, batch, threads: how the model computes, what is read, prompts a forward pass (None: the
            suite's), CPU threads of one.
        keep_states: whether stored states stay.
        out: folder in which the run folder is made.
        command: for the record.
        asked: how programs are asked for.
    """

    suite: str
    limit: int | None = None
    seed: int | None = None
    dtype: str = "float32"
    device: str = "cpu"
    grid: str = "standard"
    batch: int | None = None
    threads: int = 1
    keep_states: bool = False
    out: Path = Path("runs")
    command: str = ""
    generation: GenerationOptions = DEFAULT_GENERATION


class Run:
    """One model on one suite.

    Args:
        request: what is asked.
        checkpoint: the model.
    """

    def __init__(self, config: RunConfig, checkpoint: Checkpoint) -> None:
        self.config, self.checkpoint = request, checkpoint
        self.protocol: Settings = STANDARD
        full = load_suite(request.suite, request.seed)
        self.tasks_digest = full.sha256 or hash_tasks(test_tasks(full))
        self.suite = limit_suite(full, request.limit)
        if request.batch is not None:
            self.suite = replace(self.suite, batch=request.batch)
        inits = self.protocol.random_inits
        asked = config.generation
        if checkpoint.own and asked.track == FEWSHOT:
            # Elsewhere always so there; but only a class itself can hold its decoding to the grammar.
            asked = replace(asked, constrained=False)
        self.job = Job(
            self.suite,
            checkpoint,
            request.dtype,
            request.device,
            inits,
            request.grid,
            (),
            request.threads,
            asked,
        )
        track = TRAINED if checkpoint.own else asked.track
        if replace(asked, track=track, states=True) != DEFAULT_GENERATION and not checkpoint.network:
            who = "class without states has no" if checkpoint.own else "baseline that is no network has no other track,"
            raise UsageError(f"{checkpoint.spec}: a {who} draws or grammar")
        if asked.track != TRAINED:
            # Rendered once: it is part of the identity, and the same for every worker.
            self.job = replace(self.job, prompt_template=Worker(self.job).prompt_template)
        self.environment = describe_environment()
        self.started = datetime.now(UTC).isoformat(timespec="seconds")

    @property
    def identity(self) -> str:
        """SHA-256 over everything that can change a result; not over workers, paths or times."""
        parts = {
            "model": self.checkpoint.digest,
            "loading": asdict(self.checkpoint.loading),
            "dtype": self.job.dtype,
            "device": self.job.device.split(":")[0],
            "threads": self.job.threads,
            "suite": asdict(self.suite),
            "tasks": self.tasks_digest,
            "protocol": self.protocol.digest(),
            "grid": self.job.grid,
            "asked": asdict(self.job.generation),
            "frame": None if self.job.prompt_template is None else self.job.prompt_template.digest,
            "source": self.environment["source"],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def root(self) -> Path:
        """Where the run lives; found again by the same command."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self.checkpoint.name)
        return self.config.out.resolve() / f"{name}-{self.suite.name}-{self.identity[:12]}"

    def finished(self) -> Record | None:
        """The record, if the run is done already and the record is as it was written."""
        if RunFolder.file_status(self.root(), RECORD) != VALID:
            return None
        return read_record(self.root() / RECORD)

    def execute(self, backend: Backend, progress: Progress) -> Record:
        """All stages that are not done yet."""
        folder = RunFolder(self.root())
        with folder.lock(), backend.pool.reporting(folder.log, view.write):
            done = self.finished()
            if done is not None:
                return done
            folder.store.delete_staged()
            stages = _EvaluationStages(self, folder, place, view)
            if RunFolder.file_status(self.root(), RECORD) == CORRUPT:
                folder.log(RETRIED, piece=RECORD, cause=CORRUPT, why="it is not what the run wrote")
                view.write(
                    f"{RECORD}: not what the run wrote (its SHA-256 is another than the logged one); computed again"
                )
            folder.log(
                "started",
                command=self.config.command,
                model=self.checkpoint.spec,
                workers=backend.workers,
                total=stages.total(),
            )
            record = stages.execute()
            check_unchanged(self.checkpoint)
            folder.finish(RECORD, record.to_json().encode())
            folder.log("finished")
            if self.config.keep_states:
                folder.store.delete_staged()
            else:
                folder.delete_states()
        return record

    def unofficial(self, halved: bool) -> list[str]:
        """Why the run may not enter the leaderboard."""
        request, reasons = self.config, []
        if request.limit is not None:
            reasons.append(f"--limit {request.limit}")
        if request.batch is not None and request.batch != load_suite(request.suite).batch:
            reasons.append(f"--batch {request.batch}")
        if halved:
            reasons.append("a batch was halved where memory was short")
        if not load_suite(request.suite, request.seed).sha256:
            reasons.append("the suite's test set is not the pinned one")
        elif not load_suite(request.suite).official:
            reasons.append(f"suite {self.suite.name} is never official")
        loading = self.checkpoint.loading
        if loading.quantization:
            reasons.append(f"--quantization {loading.quantization}")
        if loading.remote_code:
            reasons.append("--trust-remote-code: code that came with the model ran")
        if self.checkpoint.own:
            reasons.append("--allow-code: the model is a class of the user's")
        if self.environment["dirty"]:
            reasons.append("the source has uncommitted changes")
        return reasons


class _EvaluationStages(Stages):
    """The stages of a run in its folder, and its record."""

    def __init__(self, run: Run, folder: RunFolder, backend: Backend, progress: Progress) -> None:
        super().__init__(run.job, run.identity, folder, place, view)
        self.run, self.protocol = run, run.protocol

    def total(self) -> dict[str, int]:
        """Pieces of each stage that the run will commit, as far as is known at its start."""
        counts = {TASK_STAGE: len(task_sets(self.job))}
        for shard in plan(self.job) + plan_dependent(self.job):
            counts[shard.stage] = counts.get(shard.stage, 0) + 1
        return counts

    def execute(self) -> Record:
        """From what is committed to the record."""
        job, folder = self.job, self.folder
        self.draw_tasks()
        check_references(self.suite, test_tasks(self.suite))
        self.evaluate(job, plan(job))
        texts = tuple(sample["text"] for sample in folder.samples(self.shards, GENERATED))
        self.evaluate(replace(job, texts=texts), plan_dependent(job))
        if not job.reads_states:
            return self._record((None, None, None), [], folder.seconds(self.shards))
        began = time.perf_counter()
        meaning, content = self._probe(texts)
        grid = None if job.grid == STANDARD_GRID else self._grid(texts)
        seconds = folder.seconds(self.shards) | {PROBING: round(time.perf_counter() - began, 1)}
        figures = write_figures(folder.root, self.run.checkpoint.name, meaning, grid)
        return self._record((meaning, content, grid), figures, seconds)

    def _probe(self, texts: Sequence[str]) -> tuple[ProbeResult, SemanticContent | None]:
        """The verdict and the paper's columns; writes what the verdict is computed from."""
        folder, shards, suite, protocol = self.folder, self.shards, self.suite, self.protocol
        last = LAST if self.job.grid == STANDARD_GRID else folder.views(shards, BLIND, "read")[-1]

        def pools(stage: str) -> list[StateArray]:
            return [folder.states(shards, stage, f"read.{view}") for view in (MEAN, last)]

        self.progress.start("probing: blind", count_blind_steps(protocol) + count_content_steps(protocol))
        copies = [pools(f"{RANDOM}-{i}-{BLIND}") for i in range(protocol.random_inits)]
        fits = self.fits(kept=True)
        folder.write_index(BLIND, blind_probe_set(suite, protocol))
        meaning, arrays, readings = measure(suite, protocol, pools(BLIND), copies, self.progress.advance, fits)
        folder.write(READINGS, pack_readout(readings))
        self.progress.advance(0, "probing: generated")
        content = None
        if folder.views(shards, GENERATED, "emit"):
            folder.write_index(GENERATED, generated_probe_set(suite, protocol, texts))
            states = folder.states(shards, GENERATED, f"emit.{MEAN}")
            hits = probe_semantic_content(suite, protocol, texts, states, self.progress.advance, fits)
            if hits is not None:
                content = semantic_content_from_hits(suite, protocol, texts, hits)
                arrays[CONTENT_HITS] = pack_hits(hits)
        folder.write_probes(arrays)
        return meaning, content

    def _grid(self, texts: Sequence[str]) -> Grid:
        layers = [view for view in self.folder.views(self.shards, BLIND, "read") if view != MEAN]
        self.progress.start(GRID_STAGE, None)

        def told(what: str) -> None:
            self.folder.log(GRID_STAGE, what=what)
            self.progress.advance(1, f"{GRID_STAGE}: {what}")

        def states(stage: str, position: str, view: str) -> StateArray:
            return self.folder.states(self.shards, stage, f"{position}.{view}")

        grid = FullGrid(self.suite, self.protocol, states, layers, texts, told, self.fits(kept=False))
        return grid.measure() if self.job.grid == FULL_GRID else grid.measure_layers()

    def _record(
        self, found: tuple[ProbeResult | None, SemanticContent | None, Grid | None], figures: list[str], seconds: dict[str, float]
    ) -> Record:
        run, folder, suite, checkpoint = self.run, self.folder, self.suite, self.run.checkpoint
        meaning, content, grid = found
        samples = folder.samples(self.shards, TEST)
        scores = score(suite, test_tasks(suite), [sample["text"] for sample in samples])
        rows: list[dict[str, Any]] = [
            {"stage": TEST, **sample, "outcome": OUTCOMES[scores.outcome[i]], "shown": bool(scores.shown[i]),
             "held_out": bool(scores.held_out[i]), "exact": bool(scores.exact[i])}
            for i, sample in enumerate(samples)
        ]  # fmt: skip
        for stage in (GENERATED, CONSTRAINED, SAMPLED):
            rows += [{"stage": stage, **sample} for sample in folder.samples(self.shards, stage)]
        written = folder.write_samples(rows)
        reasons = run.unofficial(folder.has_halved_batch(self.shards))
        return Record(
            official=not reasons,
            unofficial=reasons,
            model=ModelEntry(
                spec=redact_paths(checkpoint.spec), name=checkpoint.name, digest=checkpoint.digest,
                parameters=checkpoint.parameters, dtype=run.job.dtype, device=run.job.device, **asdict(checkpoint.loading),
            ),
            suite=SuiteEntry(
                name=suite.name, version=suite.version, seed=suite.seed, sha256=run.tasks_digest,
                tasks=suite.tasks, equality=suite.equality,
            ),
            protocol=self.protocol,
            accuracy=summarize(scores),
            **self._besides(),
            meaning=meaning,
            content=content,
            grid=grid,
            figures=figures,
            samples_sha256=hashlib.sha256(written.read_bytes()).hexdigest(),
            provenance=Provenance(
                command=redact_paths(run.config.command), identity=run.identity, workers=self.backend.workers, started=run.started,
                finished=datetime.now(UTC).isoformat(timespec="seconds"), seconds=seconds,
                processors=sorted(self.backend.processors), retries=folder.retries(),
                products=str(select_matmul_dtype()).removeprefix("torch."),
                gpu=gpu_name(run.job.device), **run.environment,
            ),
        )  # fmt: skip

    def _besides(self) -> dict[str, Any]:
        """What a record says of the track, and of answers under the grammar and at a temperature."""
        asked, suite = self.job.generation, self.suite
        found: dict[str, Any] = {"track": asked.track}
        if asked.track != TRAINED:
            frame = Worker(self.job).prompt_template
            found["frame"] = FrameEntry(sha256=frame.digest, shots=frame.shots, chat_template=frame.chat)
            if frame.chat:
                self.folder.write(FRAME, template_to_bytes(frame))
        if asked.constrained:
            found["constrained"] = summarize_constrained(suite, self.folder.samples(self.shards, CONSTRAINED))
        if asked.samples:
            drawn = self.folder.samples(self.shards, SAMPLED)
            found["sampled"] = summarize_sampled(suite, drawn, asked.samples, asked.temperature)
        return found
