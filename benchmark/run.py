"""Evaluate a model: `python -m benchmark.run --model path:FOLDER --suite laptop`.

Checks the suite and the model, computes shards (in process or on Ray), scores, probes, writes the record and prints
the row. The same command continues where it stopped, and does nothing when the run is done. Exit codes: 0 done, 1 run
incomplete, 2 usage, 3 invalid model, 4 verification mismatch.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from benchmark.board.tables import format_card, row_cells
from benchmark.cli.options import (
    add_limit_options,
    add_model_options,
    add_worker_options,
    check_loads,
    generation_options,
    load_options,
    normalize_options,
    open_backend,
)
from benchmark.cli.progress import open_progress
from benchmark.command import run_command
from benchmark.errors import BenchmarkError, UsageError
from benchmark.installation.paths import DEFAULT_MODEL, shipped_path
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import SPEC_FORMS, ModelSpec, expand_revisions
from benchmark.probing.protocol import STANDARD, Protocol
from benchmark.runner.preflight import check_fits, describe_plan, describe_start
from benchmark.runner.record import format_eligibility
from benchmark.runner.run import Run, RunConfig
from benchmark.submit.audit import derive_audit_seed
from benchmark.tasks.suite import load_suite
from karel_env.command import CommandParser


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser(
        prog="python -m benchmark.run",
        description="Evaluate a causal language model: does it write Karel programs, and represent what they mean?",
        epilog="Exit codes: 0 done, 1 run incomplete (run again to continue), 2 usage, 3 invalid model, 4 verification mismatch.",
    )
    add = parser.add_argument
    add(
        "--model",
        default=f"path:{shipped_path(DEFAULT_MODEL)}",
        help=f"{SPEC_FORMS}; hf:org/name@{{one,two}}: one run per revision (default: the shipped model)",
    )
    add("--suite", default="laptop", help="name of a suite, or a .yaml file of one's own (default: laptop)")
    add_worker_options(parser)
    add_model_options(parser)
    add_limit_options(parser, 0.0)
    add(
        "--audit",
        action="store_true",
        help="evaluate on tasks whose seed derives from the model's files; see docs/submitting.md",
    )
    add("--dry-run", action="store_true", help="print the plan with estimates of time and memory")
    add("--json", action="store_true", help="print the row as JSON on standard output")
    return parser.parse_args(arguments)


def run_config(options: argparse.Namespace, suite: str, command: str, protocol: Protocol) -> RunConfig:
    """Build the configuration of a run on one suite from the options."""
    return RunConfig(
        suite, options.limit, options.seed, options.dtype, options.device, options.grid, options.batch,
        options.threads, options.keep_states, options.out, command, generation_options(options), protocol,
    )  # fmt: skip


def execute(options: argparse.Namespace, command: str, protocol: Protocol) -> int:
    """Evaluate each revision of the model in turn; returns the exit code of the first failure, or 0."""
    normalize_options(options)
    models = expand_revisions(options.model)
    if len(models) == 1:
        evaluate_model(options, options.model, command, protocol)
        return 0
    problems: list[BenchmarkError] = []
    for model in models:
        try:
            evaluate_model(options, model, command, protocol)
        except BenchmarkError as problem:
            problems.append(problem)
            print(f"error: {problem}", file=sys.stderr)
    return problems[0].exit_code if problems else 0


def evaluate_model(options: argparse.Namespace, model: str, command: str, protocol: Protocol) -> None:
    """Evaluate one model and print its row."""
    console = Console(stderr=True, highlight=False)
    checkpoint = open_checkpoint(ModelSpec.parse(model), load_options(options))
    check_loads(options, checkpoint)
    config = run_config(options, options.suite, command, protocol)
    if options.audit:
        if options.seed is not None:
            raise UsageError("--audit: takes its seed from the model's files; leave --seed out")
        config = replace(config, seed=derive_audit_seed(checkpoint.digest, load_suite(options.suite).name))
    run = Run(config, checkpoint)
    record = run.finished_record()
    if record is None or options.dry_run:
        estimate = check_fits(run.job, run.protocol)
        if options.dry_run:
            print(describe_plan(run.checkpoint, run.job, estimate))
            return
        progress = open_progress(console)
        progress.write(describe_start(run.job, estimate, run.root()))
        reasons = run.ineligibility_reasons(has_halved_batch=False)
        if reasons:
            progress.write(f"leaderboard-eligible: {format_eligibility(reasons)}")
        with open_backend(options, estimate.model_bytes) as (backend, line), progress.displayed():
            if line:
                progress.write(line)
            record = run.execute(backend, progress)
    else:
        console.print("[dim]this run is done already; nothing to compute[/dim]")
    folder = run.root()
    if options.json:
        print(json.dumps({"row": row_cells(record), "record": json.loads(record.to_json()), "folder": str(folder)}))
    else:
        print(format_card(record))
    console.print(f"record      {folder / 'record.json'}\nrun folder  {folder}", soft_wrap=True)


def main(arguments: Sequence[str] | None = None, protocol: Protocol = STANDARD) -> int:
    """Run the command line with a protocol, which no option sets; returns the exit code."""
    argv = sys.argv[1:] if arguments is None else list(arguments)
    command = " ".join(["python -m benchmark.run", *argv])
    return run_command(lambda: execute(parse_options(arguments), command, protocol))


if __name__ == "__main__":
    sys.exit(main())
