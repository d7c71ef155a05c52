"""Options of the known answers of protocol 4: `karel-bench calibrate --protocol 4`; see `rotation_calibration`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.cli.declare import option, parse_options
from benchmark.cli.fields import output_dir_option, suite_option
from benchmark.command import run_command, silence_libraries
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from karel_env.command import integer

PLANNED_DRAWS = 20
"""Draws of every pseudo-model in a complete calibration."""


@dataclass(frozen=True, kw_only=True)
class RotationCalibrateOptions:
    """Measure the pseudo-models of protocol 4."""

    suite: str = suite_option(purpose=" that gives worlds and programs")
    draws: int = option(1, "set the number of draws", read_with=integer(1, 999), metavar="N")
    first_draw: int = option(
        0, "start at this draw, so that parts run at other times", read_with=integer(0, 999), metavar="K"
    )
    planned_draws: int = option(
        PLANNED_DRAWS,
        "set the draws of the whole calibration, for the progress",
        read_with=integer(1, 999),
        metavar="N",
    )
    prompts: int = option(
        ROTATION_STANDARD.prompts, "set the prompts of a draw", read_with=integer(50, 100_000), metavar="N"
    )
    folds: int = option(ROTATION_STANDARD.folds, "set the folds of prompts", read_with=integer(3, 100), metavar="N")
    probe_seeds: int = option(
        len(ROTATION_STANDARD.seeds), "set the number of probe seeds", read_with=integer(2, 100), metavar="N"
    )
    networks: int = option(
        ROTATION_STANDARD.copies, "set the networks per label", read_with=integer(1, 16), metavar="N"
    )
    only: tuple[str, ...] = option((), "measure this pseudo-model; repeatable", metavar="NAME", many=True)
    trained: bool = option(
        False, "measure networks that are trained to copy words or to track the robot instead; a draw is a training"
    )
    suite_controls: Path | None = option(
        None, "only write the suite's token histories, one per track, into this folder", metavar="FOLDER"
    )
    redecide: Path | None = option(
        None, "only decide the cells of a record again, from their figures", metavar="RECORD"
    )
    combine: Path | None = option(
        None, "only put the finished cells of the output folder into this record", metavar="RECORD"
    )
    output_dir: Path = output_dir_option(Path("runs/calibration4"), "write cells and record into this folder")


def execute(options: RotationCalibrateOptions) -> int:
    """Calibrate; returns the exit code."""
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    from benchmark.calibrate.rotation_calibration import run

    silence_libraries()
    return run(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, without `--protocol 4`; returns the exit code."""
    return run_command(
        lambda: execute(
            parse_options(
                RotationCalibrateOptions, arguments, "calibrate --protocol 4",
                module="benchmark.calibrate --protocol 4",
            )
        )
    )  # fmt: skip
