"""How far is rotation kept in longer programs? `karel-bench length --model SPEC`.

Reads blind programs that are several times as long as those of training, and prints skill by word, accuracy on longer tasks and
use after longer prefixes; writes NAME-SUITE-length.json and a figure. With JSON files of earlier measurements instead of a
model, prints their tables and draws them in one figure. Exit codes: 0 done, 2 usage, 3 the model cannot be loaded.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.cli.declare import argument, option, parse_options
from benchmark.cli.fields import (
    device_option,
    dtype_option,
    model_option,
    output_dir_option,
    suite_option,
    threads_option,
)
from benchmark.cli.measured_model import check_model_options, open_measured_model
from benchmark.cli.suite_note import note_trained_suite
from benchmark.command import make_folder, run_command
from benchmark.errors import UsageError
from karel_env.command import integer

FIGURE = "length.svg"


@dataclass(frozen=True, kw_only=True)
class LengthOptions:
    """Measure how far a model keeps the robot's rotation in longer programs."""

    records: tuple[str, ...] = argument(
        "JSON files of earlier measurements, to print and draw beside each other", (), many=True, metavar="RECORD",
        default_text="none",
    )  # fmt: skip
    model: str = model_option("", "none, unless records are given")
    suite: str = suite_option(purpose=" that gives worlds and programs")
    longest: int = option(
        4, "read programs up to this many times as long as those of training, each twice the one before",
        read_with=integer(1, 64), metavar="N",
    )  # fmt: skip
    prompts: int = option(
        500, "set the number of prompts, four programs each", read_with=integer(20, 100_000), metavar="N"
    )
    seeds: int = option(
        3, "set the number of probe seeds, each with a fold of its own", read_with=integer(1, 7), metavar="N"
    )
    tasks: int = option(
        200, "set the number of longer tasks per length; 0: none", read_with=integer(0, 100_000), metavar="N"
    )
    prefix_tasks: int = option(
        600, "set the number of tasks per length from which use is measured; 0: none", read_with=integer(0, 100_000),
        metavar="N",
    )  # fmt: skip
    dtype: str = dtype_option()
    device: str = device_option("cpu")
    threads: int = threads_option()
    output_dir: Path = output_dir_option(Path("runs/length"), "write the results into this folder")


def execute(options: LengthOptions) -> int:
    """Measure and print; returns the exit code."""
    if bool(options.model) == bool(options.records):
        raise UsageError("expected --model SPEC, or JSON files of earlier measurements")
    if options.records:
        make_folder(options.output_dir, "--output-dir")
        return _draw([Path(text) for text in options.records], options.output_dir)
    spec, device = check_model_options(options.model, options.dtype, options.device, options.output_dir)
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    from benchmark.cli.progress import show_progress
    from benchmark.cli.result_file import choose_result_file
    from benchmark.length.context_limit import read_limit
    from benchmark.length.long_programs import check_suite
    from benchmark.length.measurement import LengthSettings, measure_length
    from benchmark.length.report import draw_curves, format_content, to_json
    from benchmark.runner.plan import Job
    from benchmark.tasks.suite import load_suite

    suite = load_suite(options.suite)
    check_suite(suite)
    checkpoint = open_measured_model(spec, options.threads)
    note_trained_suite(checkpoint, suite)
    factors = [2**i for i in range(options.longest.bit_length()) if 2**i <= options.longest]
    settings = LengthSettings(
        factors, options.prompts, tuple(range(options.seeds)), options.tasks, options.prefix_tasks
    )
    start = time.process_time()
    job = Job(suite, checkpoint, options.dtype, device, 1, threads=options.threads)
    with show_progress() as progress:
        result = measure_length(job, settings, read_limit(checkpoint, suite, factors), progress.start)
    file = choose_result_file(
        options.output_dir, f"{checkpoint.name}-{suite.name}-length", "benchmark.length.command", suite,
        digest=checkpoint.digest, dtype=options.dtype, longest=options.longest, prompts=options.prompts,
        seeds=options.seeds, tasks=options.tasks, prefix_tasks=options.prefix_tasks,
    )  # fmt: skip
    content = {"name": checkpoint.name, "model": spec, "suite": suite.name, **to_json(result)}
    print(f"{checkpoint.spec}, suite {suite.name} ({time.process_time() - start:.0f} processor seconds)\n")
    print(format_content(content))
    file.write(content, indent=None)
    if content["rotation"]:
        draw_curves([content], file.beside(".png"))
    print(f"\nwrote {file.path}" + (" and .png" if content["rotation"] else ""))
    return 0


def _draw(paths: Sequence[Path], folder: Path) -> int:
    """Print the tables of earlier measurements and draw their curves."""
    from benchmark.length.report import draw_curves, format_content

    contents = [_read_record(path) for path in paths]
    for content in contents:
        print(f"{content['name']}, suite {content['suite']}\n\n{format_content(content)}\n")
    draw_curves([content for content in contents if content["rotation"]], folder / FIGURE)
    print(f"wrote {folder / FIGURE}")
    return 0


def _read_record(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict) or not {"name", "suite", "rotation", "carried"} <= content.keys():
            raise ValueError
    except (OSError, ValueError) as error:
        raise UsageError(
            f"RECORD {path}: {type(error).__name__}; expected a file that this command has written"
        ) from error
    return content


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(lambda: execute(parse_options(LengthOptions, arguments, "length", module="benchmark.length")))


if __name__ == "__main__":
    sys.exit(main())
