"""Evaluate a model: `python -m benchmark.run --model path:FOLDER --suite laptop`.

Checks the suite and the model, computes shards (in process or on Ray), scores, probes, writes the record, prints
the row. The same command goes on where it stopped and does nothing when all is done. Exit codes: 0 done, 1 run
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
from benchmark.cli.progress import RichProgress
from benchmark.command import run_command
from benchmark.environment import SHIPPED, SUBMISSIONS
from benchmark.errors import BenchmarkError, UsageError
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import FORMS, ModelSpec, series
from benchmark.runner.preflight import check_fits, describe_plan
from benchmark.runner.run import Run, RunConfig
from benchmark.submit.audit import derive_audit_seed
from benchmark.tasks.suite import load_suite
from karel_env.command import CommandParser


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options."""
    parser = CommandParser(
        prog="python -m benchmark.run",
        description="Evaluate a causal language model: does it write Karel programs, and represent what they mean?",
        epilog="Exit codes: 0 done, 1 run incomplete (run again to continue), 2 usage, 3 invalid model, 4 verification mismatch.",
    )
    add = parser.add_argument
    add(
        "--model",
        default=f"path:{SUBMISSIONS / SHIPPED}",
        help=f"{FORMS}; hf:org/name@{{one,two}}: one run a revision (default: the shipped model)",
    )
    add("--suite", default="laptop", help="name of a suite, or a .yaml file of one's own (default: laptop)")
    add_worker_options(parser)
    add_model_options(parser)
    add_limit_options(parser, 0.0)
    add("--audit", action="store_true", help="on tasks whose seed comes from the model's files; see docs/submitting.md")
    add("--dry-run", action="store_true", help="say what would run, with estimates of time and memory")
    add("--json", action="store_true", help="the row as JSON on standard output")
    return parser.parse_args(arguments)


def run_config(options: argparse.Namespace, suite: str, command: str) -> RunConfig:
    """What the options ask for one suite."""
    return RunConfig(
        suite, options.limit, options.seed, options.dtype, options.device, options.grid, options.batch,
        options.threads, options.keep_states, options.out, command, generation_options(options),
    )  # fmt: skip


def execute(options: argparse.Namespace, command: str) -> int:
    """Carry out the options, of a series one revision after the other; returns the exit code, of a series the first failure's."""
    normalize_options(options)
    models = series(options.model)
    if len(models) == 1:
        evaluate_model(options, options.model, command)
        return 0
    problems: list[BenchmarkError] = []
    for model in models:
        try:
            evaluate_model(options, model, command)
        except BenchmarkError as problem:
            problems.append(problem)
            print(f"error: {problem}", file=sys.stderr)
    return problems[0].exit_code if problems else 0


def evaluate_model(options: argparse.Namespace, model: str, command: str) -> None:
    """One model's run and its row."""
    console = Console(stderr=True, highlight=False)
    checkpoint = open_checkpoint(ModelSpec.parse(model), load_options(options))
    check_loads(options, checkpoint)
    request = run_config(options, options.suite, command)
    if options.audit:
        if options.seed is not None:
            raise UsageError("--audit: takes its seed from the model's files; leave --seed out")
        request = replace(request, seed=derive_audit_seed(checkpoint.digest, load_suite(options.suite).name))
    whole = Run(request, checkpoint)
    record = whole.finished()
    if record is None or options.dry_run:
        estimate = check_fits(whole.job, whole.protocol)
        if options.dry_run:
            print(describe_plan(whole.checkpoint, whole.job, estimate))
            return
        view = RichProgress(console)
        with open_backend(options, estimate.model_bytes) as (place, line), view.displayed():
            if line:
                view.write(line)
            record = whole.execute(place, view)
    else:
        console.print("[dim]this run is done already; nothing to compute[/dim]")
    folder = whole.root()
    if options.json:
        print(json.dumps({"row": row_cells(record), "record": json.loads(record.to_json()), "folder": str(folder)}))
    else:
        print(format_card(record))
    console.print(f"record      {folder / 'record.json'}\nrun folder  {folder}", soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    return run_command(lambda: execute(parse_options(arguments), " ".join(["python -m benchmark.run", *words])))


if __name__ == "__main__":
    sys.exit(main())
