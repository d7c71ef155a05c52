"""Known answers of the causal measurement: `karel-bench calibrate causal`; see `causal_calibration`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.cli.declare import option, parse_options
from benchmark.cli.fields import output_dir_option, suite_option
from benchmark.command import run_command
from karel_env.command import integer


@dataclass(frozen=True, kw_only=True)
class CausalCalibrateOptions:
    """Measure planners and trained networks whose use of their state is known."""

    suite: str = suite_option(purpose=" of straight-line programs")
    seeds: int = option(20, "set the number of seeds", read_with=integer(1, 10_000), metavar="N")
    draws: int = option(
        500, "set the number of simulated draws for the coverage; 0: none", read_with=integer(0, 100_000), metavar="N"
    )
    trainings: int = option(
        1, "set the number of trainings of each trained network, about a minute each; 0: none",
        read_with=integer(0, 1000), metavar="N",
    )  # fmt: skip
    output_dir: Path = output_dir_option(Path("runs/calibration"), "write the record into this folder")


def execute(options: CausalCalibrateOptions) -> int:
    """Calibrate; returns the exit code."""
    # What computes is imported here, after the options are known to be right.
    from benchmark.calibrate.causal_calibration import run

    return run(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(
        lambda: execute(
            parse_options(CausalCalibrateOptions, arguments, "calibrate causal", module="benchmark.calibrate causal")
        )
    )


if __name__ == "__main__":
    sys.exit(main())
