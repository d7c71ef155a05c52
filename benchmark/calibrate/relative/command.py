"""Options of the known answers of `relative`: `karel-bench calibrate relative`; see `calibration`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.cli.declare import option, parse_options
from benchmark.cli.fields import output_dir_option, suite_option
from benchmark.command import run_command, silence_libraries
from karel_env.command import integer


@dataclass(frozen=True, kw_only=True)
class RelativeCalibrateOptions:
    """Measure pseudo-models with known outcomes on programs with control flow."""

    suite: str = suite_option("control", purpose=" that gives worlds and programs")
    draws: int = option(1, "set the number of draws", read_with=integer(1, 1000), metavar="N")
    prompts: int = option(
        600, "set the number of prompts, with four programs each", read_with=integer(30, 100_000), metavar="N"
    )
    folds: int = option(3, "set the number of folds and of probe seeds", read_with=integer(3, 100), metavar="N")
    samples: int = option(
        32, "set the number of samples of a record per word", read_with=integer(8, 10_000), metavar="N"
    )
    only: tuple[str, ...] = option((), "measure this pseudo-model; repeatable", metavar="NAME", many=True)
    output_dir: Path = output_dir_option(Path("runs/calibration-relative"), "write the record into this folder")


def execute(options: RelativeCalibrateOptions) -> int:
    """Calibrate; returns the exit code."""
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    from benchmark.calibrate.relative.calibration import run

    silence_libraries()
    return run(options)


def main(arguments: Sequence[str]) -> int:
    """Run the command line, without its first word; returns the exit code."""
    return run_command(
        lambda: execute(
            parse_options(
                RelativeCalibrateOptions, arguments, "calibrate relative", module="benchmark.calibrate relative"
            )
        )
    )
