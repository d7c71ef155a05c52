"""Evaluate many models and suites as one queue on one set of workers: `karel-bench sweep --models FILE.yaml`.

The file lists models; `suites` is for those that name none of their own:

    suites: [laptop]
    models:
      - path:models/one
      - {model: "hf:org/name@revision", suites: [laptop, control]}
      - hf:org/name@{step1000,step2000}

Each pair of model and suite is one run, in the folder that `karel-bench run` would use, so a sweep can be stopped
and continued, and finished runs are not repeated. A failed run does not stop the others. Exit codes: 0 all runs are done,
1 some are not, 2 usage, 3 some are not and each of those has an invalid model.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

import yaml
from tabulate import tabulate

from benchmark.cli.declare import option, parse_options, program_name
from benchmark.cli.fields import DEFAULT_SUITE
from benchmark.cli.model_spec import MODEL_HELP, expand_models
from benchmark.cli.options import open_backend
from benchmark.cli.run_options import EvaluationOptions, resolve, run_config
from benchmark.command import explain, run_command, silence_libraries
from benchmark.errors import BenchmarkError, ModelError, UsageError
from benchmark.models.interface import ModelSpec
from benchmark.probing.protocol import STANDARD, Protocol

if TYPE_CHECKING:
    from rich.console import Console, Group

    from benchmark.runner.plain_progress import PlainProgress
    from benchmark.runner.record import Record
    from benchmark.runner.stages import Backend

WAITING, WORKING, FINISHED, FAILED = "waiting", "running", "done", "failed"
REFRESH_SECONDS = 0.25
NUM_MESSAGES = 8
"""Number of messages shown below the table."""


@dataclass(frozen=True, kw_only=True)
class SweepOptions(EvaluationOptions):
    """Evaluate many models as one queue."""

    models: Path | None = option(None, "read models and suites from this file", metavar="FILE.yaml")
    model: tuple[str, ...] = option((), f"{MODEL_HELP}; repeatable", metavar="SPEC", many=True)
    suite: tuple[str, ...] = option(
        (), "name a suite; repeatable", many=True, default_text=f"those of the file, or {DEFAULT_SUITE}"
    )


@dataclass
class SweepRun:
    """One run of a sweep: model, suite and state; also the `Progress` of that run."""

    model: str
    suite: str
    state: str = WAITING
    description: str = ""
    completed: int = 0
    total: int | None = None
    problem: BenchmarkError | None = None
    record: Record | None = None
    messages: list[str] | None = None

    def start(self, description: str, total: int | None = None, completed: int = 0) -> None:
        """See `runner.stages.Progress`."""
        self.description, self.total, self.completed = description, total, completed

    def advance(self, steps: int, description: str | None = None) -> None:
        """See `runner.stages.Progress`."""
        self.completed += steps
        self.description = description or self.description

    def write(self, message: str) -> None:
        """See `runner.stages.Progress`."""
        if self.messages is not None:
            self.messages.append(f"{self.model} on {self.suite}: {message}")

    @property
    def progress(self) -> str:
        """Description and step count of the current stage, empty unless the run is in progress."""
        if self.state != WORKING or not self.description:
            return ""
        return f"{self.description} {self.completed:,}" + (f" of {self.total:,}" if self.total else "")


class Sweep:
    """Executes runs in order on one pool, several at a time.

    Args:
        options: the command-line options.
        runs: the runs.
        command: the command line, for the records.
        protocol: settings of the probes.
    """

    def __init__(self, options: SweepOptions, runs: Sequence[SweepRun], command: str, protocol: Protocol) -> None:
        self.options, self.runs, self.command, self.protocol = options, list(runs), command, protocol
        self.messages: list[str] = []
        self.next_index, self.lock = 0, Lock()
        for run in self.runs:
            run.messages = self.messages

    def execute(self, backend: Backend, console: Console) -> None:
        """Execute all runs; returns when each is done or has failed."""
        from rich.live import Live

        from benchmark.runner.plain_progress import PlainProgress, can_redraw

        # One thread more than workers, so that one run can be scored while the others keep the workers busy.
        count = min(len(self.runs), max(1, backend.workers) + 1)
        threads = [Thread(target=self._work, args=(backend,), daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            if not can_redraw(console):
                self._follow_plainly(threads, PlainProgress(console))
                return
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

    def _follow_plainly(self, threads: Sequence[Thread], progress: PlainProgress) -> None:
        """Print what changes as plain lines until the threads end."""
        progress.start("runs", len(self.runs))
        states, num_messages = [WAITING] * len(self.runs), 0
        is_over = False
        while not is_over:
            is_over = not any(thread.is_alive() for thread in threads)
            current = [f"{r.model} on {r.suite}: {r.progress or 'starting'}" for r in self.runs if r.state == WORKING]
            progress.advance(0, f"runs ({'; '.join(current)})" if current else "runs")
            for index, run in enumerate(self.runs):
                if run.state != states[index]:
                    states[index] = run.state
                    progress.write(f"{run.model} on {run.suite}: {run.state}")
                    progress.advance(int(run.state in (FINISHED, FAILED)))
            for message in self.messages[num_messages:]:
                num_messages += 1
                progress.write(message)
            if not is_over:
                time.sleep(REFRESH_SECONDS)

    def _work(self, backend: Backend) -> None:
        while True:
            with self.lock:
                if self.next_index >= len(self.runs):
                    return
                run = self.runs[self.next_index]
                self.next_index += 1
            run.state = WORKING
            try:
                run.record = self._execute_run(run, backend)
                run.state = FINISHED
            except BaseException as error:
                # SystemExit too: in a thread it would end the thread without any message.
                run.state, run.problem = FAILED, as_benchmark_error(error)
                run.write(str(run.problem))

    def _execute_run(self, sweep_run: SweepRun, backend: Backend) -> Record:
        from benchmark.models.checkpoint import open_checkpoint
        from benchmark.runner.preflight import check_fits, describe_start
        from benchmark.runner.record import format_eligibility
        from benchmark.runner.run import Run

        options = self.options
        device_map = options.loading.read_device_map(options.device, options.backend.address)
        checkpoint = open_checkpoint(ModelSpec.parse(sweep_run.model), options.loading.load_options(), device_map)
        run = Run(run_config(options, sweep_run.suite, self.command, self.protocol), checkpoint)
        record = run.finished_record()
        if record is None:
            run.estimate = estimate = check_fits(run.job, run.protocol, run.measurements())
            self.messages.append(describe_start(run.job, estimate, run.root()))
            reasons = run.ineligibility_reasons(has_halved_batch=False)
            if reasons:
                sweep_run.write(f"leaderboard-eligible: {format_eligibility(reasons)}")
            record = run.execute(backend, sweep_run)
        return record

    def _table(self) -> Group:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        from benchmark.board.tables import row_cells

        table = Table("model", "suite", "state", "progress", "held-out %", "delta", "verdict")
        for run in self.runs:
            cells = row_cells(run.record) if run.record else {}
            results = (cells.get(name, "") for name in ("held-out %", "delta", "verdict"))
            table.add_row(run.model.rpartition("/")[2], run.suite, run.state, run.progress, *results)
        return Group(
            table,
            *(Text(line, style="dim", overflow="ellipsis", no_wrap=True) for line in self.messages[-NUM_MESSAGES:]),
        )


def as_benchmark_error(problem: BaseException) -> BenchmarkError:
    """Convert any exception of a run to a `BenchmarkError`; an unexpected one names the line that raised it."""
    if isinstance(problem, BenchmarkError):
        return problem
    explanation = explain(problem)
    if explanation is None:
        last_frame = traceback.extract_tb(problem.__traceback__)[-1]
        location = f"{Path(last_frame.filename).name}:{last_frame.lineno}"
        return BenchmarkError(" ".join(f"{type(problem).__name__} at {location}: {problem}".split()))
    error = BenchmarkError(explanation[0])
    error.exit_code = explanation[1]
    return error


def read_models(path: Path, suites: Sequence[str]) -> list[SweepRun]:
    """Read the runs of a file of models.

    Raises:
        UsageError: the file is missing, or not in the format of the module's docstring.
    """
    try:
        content = yaml.safe_load(path.read_bytes())
        default_suites = list(suites) or content.get("suites") or [DEFAULT_SUITE]
        runs = []
        for item in content["models"]:
            item = {"model": item} if isinstance(item, str) else dict(item)
            model, model_suites = str(item.pop("model")), item.pop("suites", None)
            if item:
                raise ValueError(f"unknown entry {next(iter(item))!r}")
            runs += [
                SweepRun(spec, str(suite)) for spec in expand_models(model) for suite in model_suites or default_suites
            ]
    except OSError as error:
        raise UsageError(f"--models {path}: {error.strerror}; give the path of a .yaml file") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        message = " ".join(str(error).split())[:200]
        raise UsageError(
            f"--models {path}: {message}; expected a list `models` of specs or of entries model, suites"
        ) from error
    return runs


def execute(options: SweepOptions, command: str, protocol: Protocol) -> int:
    """Execute the command; returns the exit code."""
    runs = read_models(options.models, options.suite) if options.models else []
    runs += [
        SweepRun(spec, suite)
        for model in options.model
        for spec in expand_models(model)
        for suite in options.suite or [DEFAULT_SUITE]
    ]
    unique_runs = {(run.model, run.suite): run for run in runs}
    if not unique_runs:
        raise UsageError("nothing to evaluate: give --models FILE.yaml or --model SPEC")
    for sweep_run in unique_runs.values():
        ModelSpec.parse(sweep_run.model)
    options = resolve(options)
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    from rich.console import Console

    import benchmark.runner.run  # noqa: F401

    silence_libraries()
    console = Console(stderr=True, highlight=False)
    sweep = Sweep(options, list(unique_runs.values()), command, protocol)
    with open_backend(options.backend, options.device, options.threads) as (backend, line):
        if line:
            console.print(line, style="dim")
        sweep.execute(backend, console)
    rows = [result_row(sweep_run) for sweep_run in sweep.runs]
    print(
        json.dumps(rows) if options.json else tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)
    )
    problems = [sweep_run.problem for sweep_run in sweep.runs if sweep_run.problem]
    for message, count in Counter(str(problem) for problem in problems).items():
        print(f"error: {f'{count} runs: ' if count > 1 else ''}{message}", file=sys.stderr)
    all_invalid = bool(problems) and all(problem.exit_code == ModelError.exit_code for problem in problems)
    return ModelError.exit_code if all_invalid else int(bool(problems))


def result_row(run: SweepRun) -> dict[str, Any]:
    """The leaderboard row of a run, with its spec, suite and state."""
    from benchmark.board.tables import row_cells

    cells = {"spec": run.model, "suite": run.suite, "state": run.state}
    return cells | (row_cells(run.record) if run.record else {})


def main(arguments: Sequence[str] | None = None, protocol: Protocol = STANDARD) -> int:
    """Run the command line with a protocol, which no option sets; returns the exit code."""
    argv = sys.argv[1:] if arguments is None else list(arguments)
    command = " ".join([program_name("sweep"), *argv])
    return run_command(lambda: execute(parse_options(SweepOptions, argv, "sweep"), command, protocol))


if __name__ == "__main__":
    sys.exit(main())
