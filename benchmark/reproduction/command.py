"""Measure the paper's semantic content with its floors: `python -m benchmark.reproduction --model SPEC`.

Prints a table per offset and writes `NAME-SUITE.json`. Exit codes: 0 done, 2 usage, 3 the model cannot be loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.cli.declare import option, parse_options
from benchmark.cli.fields import (
    device_option,
    dtype_option,
    model_option,
    output_dir_option,
    suite_option,
    threads_option,
)
from benchmark.cli.measured_model import check_model_options, open_measured_model
from benchmark.command import run_command
from karel_env.command import integer

SHALLOW, ALL_DEPTHS = "shallow", "all"
MAX_AHEAD = 2


@dataclass(frozen=True, kw_only=True)
class ReproductionOptions:
    """Measure the semantic content of Jin & Rinard 2024, beside what needs no state to reach it."""

    model: str = model_option()
    suite: str = suite_option("icml24", purpose=" of straight-line programs")
    programs: int | None = option(
        None, "set the number of probe tasks that the model answers", read_with=integer(100, 1_000_000), metavar="N",
        default_text="the suite's",
    )  # fmt: skip
    ahead: int = option(
        MAX_AHEAD, "set the largest number of states ahead", read_with=integer(0, MAX_AHEAD), metavar="N"
    )
    probes: str = option(
        SHALLOW, "select the probes; shallow: linear, one hidden layer; all: also two", choices=(SHALLOW, ALL_DEPTHS)
    )
    floors_only: bool = option(False, "measure the floors of the model's programs, not its states")
    dtype: str = dtype_option()
    device: str = device_option("cpu")
    threads: int = threads_option()
    output_dir: Path = output_dir_option(Path("runs/reproduction"), "write the result into this folder")


def execute(options: ReproductionOptions) -> int:
    """Measure and print; returns the exit code."""
    spec, device = check_model_options(options.model, options.dtype, options.device, options.output_dir)
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    from benchmark.cli.progress import show_progress
    from benchmark.cli.result_file import choose_result_file
    from benchmark.probing.protocol import STANDARD
    from benchmark.probing.written.content import DEPTHS, measure_content
    from benchmark.reproduction.report import format_content, to_json
    from benchmark.reproduction.written import write_programs
    from benchmark.tasks.suite import load_suite

    checkpoint, suite = open_measured_model(spec, options.threads), load_suite(options.suite)
    with show_progress() as progress:
        progress.start("writing programs")
        written, states = write_programs(
            checkpoint, options.suite, options.programs, options.dtype, device, options.threads
        )
        content = measure_content(
            written,
            None if options.floors_only else states,
            STANDARD,
            tuple(range(options.ahead + 1)),
            DEPTHS if options.probes == SHALLOW else (*DEPTHS, "mlp2"),
            on_fit=progress.start,
        )
    print(f"{checkpoint.spec}, suite {options.suite}")
    print(format_content(content))
    file = choose_result_file(
        options.output_dir, f"{checkpoint.name}-{Path(options.suite).stem}", "benchmark.reproduction.command", suite,
        digest=checkpoint.digest, dtype=options.dtype, programs=options.programs, ahead=options.ahead,
        probes=options.probes, floors_only=options.floors_only,
    )  # fmt: skip
    file.write({"model": checkpoint.spec, **to_json(content)})
    print(f"\nwrote {file.path}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(lambda: execute(parse_options(ReproductionOptions, arguments, "reproduction")))


if __name__ == "__main__":
    sys.exit(main())
