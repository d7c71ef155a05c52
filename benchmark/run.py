"""Evaluate a model: `karel-bench run --model path:FOLDER --suite laptop`, or `python -m benchmark.run`.

Checks the suite and the model, computes shards (in process or on Ray), scores, probes, writes the record and prints
the row. The same command continues where it stopped, and does nothing when the run is done. Exit codes: 0 done, 1 run
incomplete, 2 usage, 3 invalid model, 4 verification mismatch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.cli.declare import group, option, parse_options, program_name
from benchmark.cli.fields import model_option, suite_option
from benchmark.cli.model_spec import DEFAULT_MODEL, expand_models
from benchmark.cli.options import LimitOptions, open_backend
from benchmark.cli.run_options import EvaluationOptions, resolve, run_config
from benchmark.cli.suite_note import note_trained_suite
from benchmark.command import run_command, silence_libraries
from benchmark.errors import BenchmarkError, UsageError
from benchmark.probing.protocol import STANDARD, STANDARD_GRID, Protocol
from benchmark.tasks.suite import load_suite

if TYPE_CHECKING:
    from rich.console import Console

    from benchmark.runner.record import Record
    from benchmark.runner.run import Run

MEASUREMENT_NAMES = ("represents", "uses")
DETAIL_NAMES = ("reach", "uses-detail")
"""Measurements that are made in full detail only."""
PROTOCOL_3 = "protocol-3"
"""The probes of protocol 3, which give no verdict; three quarters of the time of a row."""
EXIT_CODES = (
    "Exit codes: 0 done, 1 run incomplete (run again to continue), 2 usage, 3 invalid model, 4 verification mismatch."
)


@dataclass(frozen=True, kw_only=True)
class RunOptions(EvaluationOptions):
    """Evaluate a causal language model on a suite.

    Does it write Karel programs, and represent what they mean?
    """

    model: str = model_option(DEFAULT_MODEL, "the shipped model", "; a series such as org/name@{one,two}: one run each")
    suite: str = suite_option()
    all_seeds: bool = option(
        False, "measure all that a leaderboard row has: every probe seed, and the probes of protocol 3. Without it a run is "
        "a preview, which takes the seeds that decide the verdict; --audit, --detail and other tracks are no previews",
    )  # fmt: skip
    audit: bool = option(False, "evaluate on tasks whose seed derives from the model's files; see docs/submitting.md")
    without: tuple[str, ...] = option(
        (), "leave out a measurement besides accuracy; repeatable",
        choices=(*MEASUREMENT_NAMES, PROTOCOL_3, *DETAIL_NAMES), many=True,
    )  # fmt: skip
    dry_run: bool = option(False, "print the plan with estimates of time and memory")
    limits: LimitOptions = group(LimitOptions)


def execute(options: RunOptions, command: str, protocol: Protocol) -> int:
    """Evaluate each revision of the model in turn; returns the exit code of the first failure, or 0."""
    if PROTOCOL_3 in options.without and options.detail != STANDARD_GRID:
        raise UsageError(
            f"--detail {options.detail} --without {PROTOCOL_3}: the detail is that of protocol 3; leave one of them out"
        )
    models = expand_models(options.model)
    load_suite(options.suite)  # now, so that a wrong name is told before anything heavy is loaded
    options = resolve(options)
    if len(models) == 1:
        evaluate_model(options, models[0], command, protocol)
        return 0
    problems: list[BenchmarkError] = []
    for model in models:
        try:
            evaluate_model(options, model, command, protocol)
        except BenchmarkError as error:
            problems.append(error)
            print(f"error: {error}", file=sys.stderr)
    return problems[0].exit_code if problems else 0


def evaluate_model(options: RunOptions, model: str, command: str, protocol: Protocol) -> None:
    """Evaluate one model and print its row."""
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    from rich.console import Console

    from benchmark.cli.progress import open_progress
    from benchmark.cluster.process_executor import default_processes
    from benchmark.models.checkpoint import open_checkpoint
    from benchmark.models.interface import ModelSpec
    from benchmark.runner.preflight import describe_plan, describe_start, estimate_resources
    from benchmark.runner.record import format_eligibility
    from benchmark.runner.run import Run
    from benchmark.submit.audit import derive_audit_seed

    silence_libraries()
    console = Console(stderr=True, highlight=False)
    device_map = options.loading.read_device_map(options.device, options.backend.address)
    checkpoint = open_checkpoint(ModelSpec.parse(model), options.loading.load_options(), device_map)
    options.limits.check_loads(checkpoint, options.dtype, options.device)
    config = run_config(options, options.suite, command, protocol)
    if options.audit:
        if options.seed is not None:
            raise UsageError("--audit: takes its seed from the model's files; leave --seed out")
        config = replace(config, seed=derive_audit_seed(checkpoint.digest, load_suite(options.suite).name))
    selected = tuple(name for name in config.measurements if name not in options.without)
    # The rule of a preview is that of the standard settings.
    is_preview = protocol == STANDARD and not (options.all_seeds or options.audit)
    probes = PROTOCOL_3 not in options.without
    run = Run(replace(config, measurements=selected, preview=is_preview, probes=probes), checkpoint)
    record = run.finished_record()
    if record is None or options.dry_run:
        note_trained_suite(checkpoint, run.suite)
        run.estimate = estimate = estimate_resources(run.job, run.protocol, run.measurements())
        processes = (
            default_processes(options.device, estimate.model_bytes, estimate.available_bytes)
            if run.is_preview and options.threads == 1 and device_map is None
            else 0
        )
        num_processes = options.backend.num_processes(processes)
        if options.dry_run:
            print(describe_plan(run.checkpoint, run.job, estimate, num_processes))
        estimate.check_memory(checkpoint.spec)
        if options.dry_run:
            return
        progress = open_progress(console)
        progress.write(describe_start(run.job, estimate, run.root(), num_processes))
        reasons = run.ineligibility_reasons(has_halved_batch=False)
        if reasons:
            progress.write(f"leaderboard-eligible: {format_eligibility(reasons)}")
        workers = open_backend(options.backend, options.device, options.threads, estimate.model_bytes, processes)
        with workers as (backend, line), progress.displayed():
            if line:
                progress.write(line)
            record = run.execute(backend, progress)
    else:
        console.print("[dim]this run is done already; nothing to compute[/dim]")
    _print_run(options, run, record, console)


def _print_run(options: RunOptions, run: Run, record: Record, console: Console) -> None:
    """Print the row and the measurements of a finished run, and what to do next."""
    from benchmark.board.tables import format_card, row_cells
    from benchmark.board.terminal.summary import format_summary
    from benchmark.runner.measurements.item_words import MEASUREMENT_WORDS
    from benchmark.runner.measurements.limited import describe_small_run
    from benchmark.runner.measurements.registry import MEASUREMENTS
    from benchmark.runner.measurements.stage import read_measured

    folder = run.root()
    measured = read_measured(run)
    if options.json:
        content = {"row": row_cells(record), "record": json.loads(record.to_json()), "folder": str(folder)}
        print(json.dumps(content | {name: json.loads(result.to_json()) for name, result in measured.items()}))
    else:
        print(f"{format_summary(record, measured)}\n\n{format_card(record)}")
        for name, result in measured.items():
            print(f"\n{MEASUREMENT_WORDS[name]}\n{MEASUREMENTS[name].format_card(result)}")
    notice = describe_small_run(run.suite, options.limit)
    if notice:
        console.print(f"note        {notice}", soft_wrap=True)
    if record.accuracy.valid.value == 0:
        from benchmark.board.comparison import read_test_samples
        from benchmark.board.terminal.show import describe_invalid

        console.print(f"\n{describe_invalid(record, read_test_samples(folder, record))}", markup=False, soft_wrap=True)
    console.print(f"record      {folder / 'record.json'}\nrun folder  {folder}", soft_wrap=True)
    console.print(describe_next(folder, record.official), markup=False, soft_wrap=True)


def describe_next(folder: Path, is_official: bool) -> str:
    """Commands that look at a finished run, and the one that submits it if it is eligible."""
    show = program_name("show", "benchmark.board.terminal.show")
    commands = [f"{show} {folder} --failed", f"{program_name('board')} {folder} --open"]
    if is_official:
        commands.append(f"{program_name('submit')} new --run {folder}")
    return "\n".join(f"{'' if i else 'next':<12}{command}" for i, command in enumerate(commands))


def main(arguments: Sequence[str] | None = None, protocol: Protocol = STANDARD) -> int:
    """Run the command line with a protocol, which no option sets; returns the exit code."""
    argv = sys.argv[1:] if arguments is None else list(arguments)
    command = " ".join([program_name("run"), *argv])
    return run_command(lambda: execute(parse_options(RunOptions, argv, "run", EXIT_CODES), command, protocol))


if __name__ == "__main__":
    sys.exit(main())
