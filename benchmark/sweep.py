"""Many models and suites as one queue on one set of workers: `python -m benchmark.sweep --models FILE.yaml`.

The file lists models; `suites` is for those that name none of their own:

    suites: [laptop]
    models:
      - path:models/one
      - {model: "hf:org/name@revision", suites: [laptop, control]}
      - hf:org/name@{step1000,step2000}

Each model and suite is a run like any other, in the folder that `python -m benchmark.run` would give it, so a sweep goes
on after any stop, and what a single run has done is not done again. A run that fails does not hold up the rest. Exit
codes: 0 all are done, 1 some are not, 2 usage, 3 as 1 and every one that is not has an invalid model.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import yaml
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from tabulate import tabulate

from benchmark.board.tables import row_cells
from benchmark.cli.options import add_model_options, add_worker_options, load_options, normalize_options, open_backend
from benchmark.command import explain, run_command
from benchmark.errors import BenchmarkError, ModelError, UsageError
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import FORMS, ModelSpec, series
from benchmark.run import run_config
from benchmark.runner.preflight import check_fits
from benchmark.runner.record import Record
from benchmark.runner.run import Run
from benchmark.runner.stages import Backend
from karel_env.command import CommandParser

WAITING, WORKING, FINISHED, FAILED = "waiting", "running", "done", "failed"
REFRESH_SECONDS = 0.25
NUM_MESSAGES = 8
"""Latest messages shown below the table."""


@dataclass
class SweepRun:
    """One model and suite of a sweep, and how far it is; a `View` of its run."""

    model: str
    suite: str
    state: str = WAITING
    what: str = ""
    done: int = 0
    total: int | None = None
    problem: BenchmarkError | None = None
    record: Record | None = None
    lines: list[str] | None = None

    def start(self, description: str, total: int | None, completed: int = 0) -> None:
        """See `View`."""
        self.what, self.total, self.done = what, total, done

    def advance(self, steps: int, description: str | None = None) -> None:
        """See `View`."""
        self.done += steps
        self.what = what or self.what

    def write(self, message: str) -> None:
        """See `View`."""
        if self.lines is not None:
            self.lines.append(f"{self.model} on {self.suite}: {message}")

    @property
    def progress(self) -> str:
        """In words."""
        if self.state != WORKING:
            return ""
        return f"{self.what} {self.done:,}" + (f" of {self.total:,}" if self.total else "")


class Sweep:
    """Runs several at a time on one pool, in the order of the list.

    Args:
        options: of the command line.
        entries: what is to be run.
        command: for the records.
    """

    def __init__(self, options: argparse.Namespace, entries: Sequence[SweepRun], command: str) -> None:
        self.options, self.entries, self.command = options, list(entries), command
        self.lines: list[str] = []
        self.next, self.lock = 0, Lock()
        for entry in self.entries:
            entry.lines = self.lines

    def execute(self, backend: Backend, console: Console) -> None:
        """All of them; returns when each is done or has failed."""
        # One more than there are workers, so that one can be scored while the others' work fills the workers.
        count = min(len(self.entries), max(1, backend.workers) + 1)
        threads = [Thread(target=self._work, args=(place,), daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            with Live(self._table(), console=console, auto_refresh=False) as live:
                while any(thread.is_alive() for thread in threads):
                    time.sleep(REFRESH_SECONDS)
                    live.update(self._table(), refresh=True)
                live.update(self._table(), refresh=True)
        except BaseException:
            backend.pool.stop()
            for thread in threads:
                thread.join(timeout=30)
            raise

    def _work(self, backend: Backend) -> None:
        while True:
            with self.lock:
                if self.next >= len(self.entries):
                    return
                entry = self.entries[self.next]
                self.next += 1
            entry.state = WORKING
            try:
                entry.record = self._one(entry, place)
                entry.state = FINISHED
            except BaseException as problem:
                # Also what would end a process: in a thread it would end the thread, and nobody would hear of it.
                entry.state, entry.problem = FAILED, as_benchmark_error(problem)
                entry.write(str(entry.problem))

    def _one(self, entry: SweepRun, backend: Backend) -> Record:
        checkpoint = open_checkpoint(ModelSpec.parse(entry.model), load_options(self.options))
        run = Run(run_config(self.options, entry.suite, self.command), checkpoint)
        done = run.finished()
        if done is None:
            check_fits(run.job, run.protocol)
            done = run.execute(place, entry)
        return done

    def _table(self) -> Group:
        table = Table("model", "suite", "state", "progress", "held-out %", "delta", "verdict")
        for entry in self.entries:
            cells = row_cells(entry.record) if entry.record else {}
            results = (cells.get(name, "") for name in ("held-out %", "delta", "verdict"))
            table.add_row(entry.model.rpartition("/")[2], entry.suite, entry.state, entry.progress, *results)
        return Group(
            table, *(Text(line, style="dim", overflow="ellipsis", no_wrap=True) for line in self.lines[-NUM_MESSAGES:])
        )


def as_benchmark_error(problem: BaseException) -> BenchmarkError:
    """A problem of a run as an error of the benchmark; a fault of the program names the line that raised it."""
    if isinstance(problem, BenchmarkError):
        return problem
    explanation = explain(problem)
    if explanation is None:
        last = traceback.extract_tb(problem.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        return BenchmarkError(" ".join(f"{type(problem).__name__} at {where}: {problem}".split()))
    error = BenchmarkError(explanation[0])
    error.exit_code = explanation[1]
    return error


def read_models(path: Path, suites: Sequence[str]) -> list[SweepRun]:
    """The entries of a file of models.

    Raises:
        UsageError: it is not there, or not as the module's docstring says.
    """
    try:
        found = yaml.safe_load(path.read_bytes())
        default = list(suites) or found.get("suites") or ["laptop"]
        entries = []
        for item in found["models"]:
            item = {"model": item} if isinstance(item, str) else dict(item)
            model, own = str(item.pop("model")), item.pop("suites", None)
            if item:
                raise ValueError(f"unknown entry {next(iter(item))!r}")
            entries += [SweepRun(one, str(suite)) for one in series(model) for suite in own or default]
    except OSError as problem:
        raise UsageError(f"--models {path}: {problem.strerror}; give the path of a .yaml file") from problem
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as problem:
        said = " ".join(str(problem).split())[:200]
        raise UsageError(
            f"--models {path}: {said}; expected a list `models` of specs or of entries model, suites"
        ) from problem
    return entries


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options."""
    parser = CommandParser(prog="python -m benchmark.sweep", description="Evaluate many models as one queue.")
    add = parser.add_argument
    add("--models", type=Path, metavar="FILE.yaml", help="a list of models and suites")
    add("--model", action="append", default=[], metavar="SPEC", help=f"{FORMS}; repeatable")
    add("--suite", action="append", default=[], help="repeatable (default: those of the file, or laptop)")
    add_worker_options(parser)
    add_model_options(parser)
    add("--json", action="store_true", help="the rows as JSON on standard output")
    return parser.parse_args(arguments)


def execute(options: argparse.Namespace, command: str) -> int:
    """Carry out the options; returns the exit code."""
    normalize_options(options)
    entries = read_models(options.models, options.suite) if options.models else []
    entries += [SweepRun(one, s) for model in options.model for one in series(model) for s in options.suite or ["laptop"]]
    unique = {(entry.model, entry.suite): entry for entry in entries}
    if not unique:
        raise UsageError("nothing to evaluate: give --models FILE.yaml or --model SPEC")
    for entry in unique.values():
        ModelSpec.parse(entry.model)
    console = Console(stderr=True, highlight=False)
    sweep = Sweep(options, list(unique.values()), command)
    with open_backend(options) as (place, line):
        if line:
            console.print(line, style="dim")
        sweep.execute(place, console)
    rows = [result_row(entry) for entry in sweep.entries]
    print(
        json.dumps(rows) if options.json else tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)
    )
    problems = [entry.problem for entry in sweep.entries if entry.problem]
    for message, count in Counter(str(problem) for problem in problems).items():
        print(f"error: {f'{count} runs: ' if count > 1 else ''}{message}", file=sys.stderr)
    invalid = bool(problems) and all(problem.exit_code == ModelError.exit_code for problem in problems)
    return ModelError.exit_code if invalid else int(bool(problems))


def result_row(entry: SweepRun) -> dict[str, Any]:
    found = {"spec": entry.model, "suite": entry.suite, "state": entry.state}
    return found | (row_cells(entry.record) if entry.record else {})


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    return run_command(lambda: execute(parse_options(arguments), " ".join(["python -m benchmark.sweep", *words])))


if __name__ == "__main__":
    sys.exit(main())
