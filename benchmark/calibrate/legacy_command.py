"""Options of the released recipe: `karel-bench legacy --model SPEC`; see `legacy`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.cli.declare import option, parse_options
from benchmark.cli.fields import model_option, output_dir_option, suite_option
from benchmark.cli.model_spec import read_model
from benchmark.command import run_command, silence_libraries
from karel_env.command import integer


@dataclass(frozen=True, kw_only=True)
class LegacyOptions:
    """Probe a model by the released recipe of Jin & Rinard 2024, flaws included.

    The results are not comparable with any row of this benchmark.
    """

    model: str = model_option()
    suite: str = suite_option(purpose=" of straight-line programs")
    programs: int | None = option(
        None, "set the number of probe tasks that the model answers", read_with=integer(1, 1_000_000), metavar="N",
        default_text="the suite's",
    )  # fmt: skip
    repeats: int = option(
        5, "set the number of trainings of each network", read_with=integer(1, 1000), metavar="N",
        default_text="5, as released",
    )  # fmt: skip
    epochs: int = option(
        200, "set the epochs of each training", read_with=integer(1, 100_000), metavar="N",
        default_text="200, as released",
    )  # fmt: skip
    seed_unset: bool = option(False, "leave seeds to the machine, as released", default_text="seed 0")
    fixed: bool = option(False, "beside it: chosen on validation, programs apart, seed 0")
    output_dir: Path = output_dir_option(Path("runs/legacy"), "write legacy.json into this folder")


def execute(options: LegacyOptions) -> int:
    """Measure, write and print; returns the exit code."""
    model = read_model(options.model)
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    from benchmark.calibrate.legacy import run

    silence_libraries()
    return run(options, model)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(lambda: execute(parse_options(LegacyOptions, arguments, "legacy")))


if __name__ == "__main__":
    sys.exit(main())
