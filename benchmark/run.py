"""Evaluate a model: `python -m benchmark.run --model path:FOLDER --suite laptop`.

Checks the suite and the model, computes shards (in process or on Ray), scores, probes, writes the record, prints
the row. The same command goes on where it stopped and does nothing when all is done. Exit codes: 0 done, 1 run
incomplete, 2 usage, 3 invalid model, 4 verification mismatch.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers.utils import logging as transformers_logging

from benchmark.checkpoint import open_checkpoint
from benchmark.cluster import run_on_ray, run_serially
from benchmark.content import Content, content_steps, generated_probe_set, measure_content
from benchmark.errors import BenchmarkError, ModelError, UsageError
from benchmark.evaluation import (
    BLIND,
    FULL_GRID,
    GENERATED,
    GRIDS,
    MEAN,
    RANDOM,
    STANDARD_GRID,
    TEST,
    Job,
    Shard,
    ShardResult,
    plan,
    plan_after,
)
from benchmark.figures import write_figures
from benchmark.folder import RunFolder, write_durably
from benchmark.full_grid import FullGrid
from benchmark.grid import Grid
from benchmark.huggingface import DTYPES
from benchmark.leaderboard import card, row
from benchmark.measurement import Meaning, blind_probe_set, blind_steps, measure_meaning
from benchmark.models import ModelSpec
from benchmark.preflight import check, describe
from benchmark.probing import Rows, fast_products
from benchmark.protocol import STANDARD, Protocol
from benchmark.record import ModelEntry, Provenance, Record, SuiteEntry, environment, read_record
from benchmark.scoring import OUTCOMES, check_references, score, summarize
from benchmark.suites import Suite, digest, load_suite, test_tasks

SUBMISSIONS = Path(__file__).parent.parent / "submissions"
SHIPPED = "2026-11-23_llama-laptop"
PROBES_PER_LIMITED_TASK = 5


class Run:
    """One run: its settings, its folder, its stages.

    Args:
        options: of the command line.
        command: the command line itself, for the record.
        console: where messages go (standard error).
    """

    def __init__(self, options: argparse.Namespace, command: str, console: Console) -> None:
        self.options, self.command, self.console = options, command, console
        self.protocol: Protocol = STANDARD
        full = load_suite(options.suite, options.seed)
        self.tasks_digest = digest(test_tasks(full))
        check_references(full, test_tasks(full))
        self.suite = limited(full, options.limit)
        self.checkpoint = open_checkpoint(ModelSpec.parse(options.model))
        device = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise UsageError(f"--device {device}: no CUDA device here; use --device cpu")
        threads = 0 if not options.workers else max(1, torch.get_num_threads() // options.workers)
        inits = self.protocol.random_inits
        self.job = Job(self.suite, self.checkpoint, options.dtype, device, inits, threads, options.grid)
        self.environment = environment()
        self.started = datetime.now(UTC).isoformat(timespec="seconds")

    @property
    def identity(self) -> str:
        """SHA-256 over everything that can change a result; not over workers, paths or times."""
        parts = {
            "model": self.checkpoint.digest,
            "dtype": self.job.dtype,
            "device": self.job.device.split(":")[0],
            "suite": asdict(self.suite),
            "tasks": self.tasks_digest,
            "protocol": self.protocol.digest(),
            "grid": self.options.grid,
            "source": self.environment["source"],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def folder(self) -> Path:
        """Where the run lives; found again by the same command."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", self.checkpoint.name)
        return Path(self.options.out).resolve() / f"{name}-{self.suite.name}-{self.identity[:12]}"

    def execute(self) -> tuple[Record, Path]:
        """All stages that are not done yet; the record, and the run folder."""
        root = self.folder()
        if (root / "record.json").is_file():
            self.console.print("[dim]this run is done already; nothing to compute[/dim]")
            return read_record(root / "record.json"), root
        folder = RunFolder(root)
        folder.log(f"started: {self.command}")
        shards = plan(self.job)
        self._compute(folder, self.job, shards)
        texts = tuple(sample["text"] for sample in folder.samples(shards, GENERATED))
        after = plan_after(self.job)
        if after:
            self._compute(folder, replace(self.job, texts=texts), after)
            shards += after
        seconds = folder.seconds(shards)
        began = time.perf_counter()
        meaning, content = self._probe(folder, shards, texts)
        grid = self._full_grid(folder, shards, texts) if self.options.grid == FULL_GRID else None
        seconds["probing"] = round(time.perf_counter() - began, 1)
        figures = write_figures(root, self.checkpoint.name, meaning, grid)
        record = self._record(folder, shards, (meaning, content, grid), figures, seconds)
        write_durably(root / "record.json", record.to_json().encode())
        folder.log("done")
        if not self.options.keep_states:
            folder.drop_states()
        return record, root

    def _compute(self, folder: RunFolder, job: Job, shards: list[Shard]) -> None:
        """Compute the shards that are not committed."""
        missing = [shard for shard in shards if not folder.committed(shard)]
        if len(missing) < len(shards):
            self.console.print(f"[dim]continuing: {len(shards) - len(missing)} of {len(shards)} shards are done[/dim]")
        with self._bar() as bar:
            total = sum(s.stop - s.start for s in shards)
            done = total - sum(s.stop - s.start for s in missing)
            shown = bar.add_task("evaluating", total=total, completed=done)

            def commit(shard: Shard, result: ShardResult) -> None:
                folder.commit(shard, result)
                folder.log(f"committed {shard.name} ({result.seconds} s)")
                bar.update(shown, advance=shard.stop - shard.start, description=f"evaluating: {shard.stage}")

            if missing and self.options.workers:
                run_on_ray(job, missing, commit, self.options.workers, self.options.address)
            elif missing:
                run_serially(job, missing, commit)

    def _probe(self, folder: RunFolder, shards: list[Shard], texts: Sequence[str]) -> tuple[Meaning, Content | None]:
        """The verdict and the paper's columns; writes what the verdict is computed from."""
        last = folder.views(shards, BLIND, "read")[-1]

        def pools(stage: str) -> list[Rows]:
            return [folder.states(shards, stage, f"read.{view}") for view in (MEAN, last)]

        with self._bar() as bar:
            shown = bar.add_task("probing: blind", total=blind_steps(self.protocol) + content_steps(self.protocol))

            def progress(steps: int) -> None:
                bar.update(shown, advance=steps)

            copies = [pools(f"{RANDOM}-{i}-{BLIND}") for i in range(self.job.random_inits)]
            folder.write_index(BLIND, blind_probe_set(self.suite, self.protocol))
            meaning, arrays = measure_meaning(self.suite, self.protocol, pools(BLIND), copies, progress)
            folder.write_probes(arrays)
            bar.update(shown, description="probing: generated")
            content = None
            if folder.views(shards, GENERATED, "emit"):
                folder.write_index(GENERATED, generated_probe_set(self.suite, self.protocol, texts))
                states = folder.states(shards, GENERATED, f"emit.{MEAN}")
                content = measure_content(self.suite, self.protocol, texts, states, progress)
        return meaning, content

    def _full_grid(self, folder: RunFolder, shards: list[Shard], texts: Sequence[str]) -> Grid:
        layers = [view for view in folder.views(shards, BLIND, "read") if view != MEAN]
        with self._bar() as bar:
            shown = bar.add_task("full grid", total=None)

            def told(what: str) -> None:
                folder.log(f"full grid: {what}")
                bar.update(shown, advance=1, description=f"full grid: {what}")

            def states(stage: str, position: str, view: str) -> Rows:
                return folder.states(shards, stage, f"{position}.{view}")

            return FullGrid(self.suite, self.protocol, states, layers, texts, told).measure()

    def _record(
        self,
        folder: RunFolder,
        shards: list[Shard],
        found: tuple[Meaning, Content | None, Grid | None],
        figures: list[str],
        seconds: dict[str, float],
    ) -> Record:
        meaning, content, grid = found
        samples = folder.samples(shards, TEST)
        scores = score(self.suite, test_tasks(self.suite), [sample["text"] for sample in samples])
        rows: list[dict[str, Any]] = [
            {"stage": TEST, **sample, "outcome": OUTCOMES[scores.outcome[i]], "shown": bool(scores.shown[i]),
             "held_out": bool(scores.held_out[i]), "exact": bool(scores.exact[i])}
            for i, sample in enumerate(samples)
        ]  # fmt: skip
        rows += [{"stage": GENERATED, **sample} for sample in folder.samples(shards, GENERATED)]
        written = folder.write_samples(rows)
        reasons = self._unofficial()
        checkpoint, suite = self.checkpoint, self.suite
        return Record(
            official=not reasons,
            unofficial=reasons,
            model=ModelEntry(
                spec=checkpoint.spec, name=checkpoint.name, digest=checkpoint.digest,
                parameters=checkpoint.parameters, dtype=self.job.dtype, device=self.job.device,
            ),
            suite=SuiteEntry(
                name=suite.name, version=suite.version, seed=suite.seed, sha256=self.tasks_digest,
                tasks=suite.tasks, equality=suite.equality,
            ),
            protocol=self.protocol,
            accuracy=summarize(scores),
            meaning=meaning,
            content=content,
            grid=grid,
            figures=figures,
            samples_sha256=hashlib.sha256(written.read_bytes()).hexdigest(),
            provenance=Provenance(
                command=self.command, identity=self.identity, workers=self.options.workers, started=self.started,
                finished=datetime.now(UTC).isoformat(timespec="seconds"), seconds=seconds,
                products=str(fast_products()).removeprefix("torch."), **self.environment,
            ),
        )  # fmt: skip

    def _unofficial(self) -> list[str]:
        """Why the run may not enter the leaderboard."""
        reasons = []
        if self.options.limit is not None:
            reasons.append(f"--limit {self.options.limit}")
        if not self.suite.sha256:
            reasons.append("the suite's test set is not the pinned one")
        elif not load_suite(self.options.suite).official:
            reasons.append(f"suite {self.suite.name} is never official")
        if self.environment["dirty"]:
            reasons.append("the source has uncommitted changes")
        return reasons

    def _bar(self) -> Progress:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console)


def limited(suite: Suite, limit: int | None) -> Suite:
    """The suite with only its first `limit` tasks, and probe sets in proportion."""
    if limit is None:
        return suite
    if limit < 1:
        raise UsageError(f"--limit {limit}: expected at least 1")
    probes = min(suite.probe_programs, max(200, PROBES_PER_LIMITED_TASK * limit))
    return replace(suite, tasks=min(limit, suite.tasks), probe_programs=probes, sha256="", official=False)


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmark.run",
        description="Evaluate a causal language model: does it write Karel programs, and represent what they mean?",
        epilog="Exit codes: 0 done, 1 run incomplete (run again to continue), 2 usage, 3 invalid model, 4 verification mismatch.",
    )
    add = parser.add_argument
    add(
        "--model",
        default=f"path:{SUBMISSIONS / SHIPPED}",
        help="path:FOLDER or hf:org/name@revision (default: the shipped model)",
    )
    add("--suite", default="laptop", help="name of a suite, or a .yaml file of one's own (default: laptop)")
    add("--workers", type=int, default=0, help="actors on Ray; 0 computes in this process, without Ray (default: 0)")
    add("--address", help="of a Ray cluster to join, such as auto or ray://HOST:10001 (needs --workers)")
    add("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    add("--dtype", choices=sorted(DTYPES), default="float32", help="of the model (default: float32)")
    add(
        "--grid",
        choices=GRIDS,
        default=STANDARD_GRID,
        help="standard: the verdict and the paper's columns; full: also every layer, offset, position, depth and label "
        "budget, codelength, reach, crossed prompts (default: standard)",
    )
    add("--keep-states", action="store_true", help="keep the stored hidden states in the run folder")
    add("--limit", type=int, help="only the first N test tasks, and smaller probe sets; not official")
    add("--seed", type=int, help="another seed of the suite's tasks; not official")
    add("--out", default="runs", help="folder in which the run folder is made (default: runs)")
    add("--dry-run", action="store_true", help="say what would run, with estimates of time and memory")
    add("--json", action="store_true", help="the row as JSON on standard output")
    options = parser.parse_args(arguments)
    if options.workers < 0:
        parser.error(f"--workers {options.workers}: expected 0 or more")
    if options.address and not options.workers:
        parser.error("--address: needs --workers, the number of actors on that cluster")
    return options


def run(options: argparse.Namespace, command: str) -> int:
    """Carry out the options; returns the exit code."""
    console = Console(stderr=True, highlight=False)
    whole = Run(options, command, console)
    estimate = check(whole.job, whole.protocol)
    if options.dry_run:
        print(describe(whole.checkpoint, whole.job, estimate))
        return 0
    record, folder = whole.execute()
    if options.json:
        print(json.dumps({"row": row(record), "record": json.loads(record.to_json()), "folder": str(folder)}))
    else:
        print(card(record))
    console.print(f"record      {folder / 'record.json'}\nrun folder  {folder}", soft_wrap=True)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; every foreseen failure is one line on standard error and an exit code."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    words = sys.argv[1:] if arguments is None else list(arguments)
    options = parse_options(arguments)
    try:
        return run(options, " ".join(["python -m benchmark.run", *words]))
    except BenchmarkError as problem:
        return _fail(str(problem), problem.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; what is computed is kept, run the same command again to continue", 1)
    except MemoryError:
        return _fail("out of memory; free some, or use --dtype bfloat16, and run the same command again", 1)
    except RuntimeError as problem:
        if "out of memory" not in str(problem) and "can't allocate memory" not in str(problem):
            raise
        return _fail(
            "out of memory; free some, or use --dtype bfloat16, and run the same command again", ModelError.exit_code
        )


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
