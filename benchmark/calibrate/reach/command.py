"""Options of the known answers of `reach`: `karel-bench calibrate reach`; see `calibration`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.cli.declare import option, parse_options
from benchmark.cli.fields import output_dir_option, suite_option
from benchmark.command import run_command, silence_libraries
from karel_env.command import integer


@dataclass(frozen=True, kw_only=True)
class ReachCalibrateOptions:
    """Measure pseudo-models that hold the rotation at a known number of words ahead."""

    suite: str = suite_option(purpose=" that gives worlds and programs")
    draws: int = option(1, "set the number of draws", read_with=integer(1, 1000), metavar="N")
    programs: int | None = option(
        None, "set the number of programs", read_with=integer(200, 1_000_000), metavar="N", default_text="the suite's"
    )
    output_dir: Path = output_dir_option(Path("runs/calibration-reach"), "write the record into this folder")


def execute(options: ReachCalibrateOptions) -> int:
    """Calibrate; returns the exit code."""
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    from benchmark.calibrate.reach.calibration import run

    silence_libraries()
    return run(options.suite, options.draws, options.programs, options.output_dir)


def main(arguments: Sequence[str]) -> int:
    """Run the command line, without its first word; returns the exit code."""
    return run_command(
        lambda: execute(
            parse_options(ReachCalibrateOptions, arguments, "calibrate reach", module="benchmark.calibrate reach")
        )
    )
