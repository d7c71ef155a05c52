"""Options of the known answers of a preview: `karel-bench calibrate preview`; see `calibration`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.cli.declare import option, parse_options
from benchmark.cli.fields import output_dir_option, suite_option
from benchmark.command import run_command, silence_libraries
from karel_env.command import integer


@dataclass(frozen=True, kw_only=True)
class PreviewCalibrateOptions:
    """Compare the verdict of a preview with that of all probe seeds, on pseudo-models of protocol 4."""

    suite: str = suite_option(purpose=" that gives worlds and programs")
    draws: int = option(1, "set the number of draws", read_with=integer(1, 999), metavar="N")
    first_draw: int = option(
        0, "start at this draw, so that parts run at other times", read_with=integer(0, 999), metavar="K"
    )
    only: tuple[str, ...] = option((), "measure this pseudo-model; repeatable", metavar="NAME", many=True)
    prompts: int | None = option(
        None, "set the prompts of a draw", read_with=integer(50, 100_000), metavar="N", default_text="those of a run"
    )
    output_dir: Path = output_dir_option(Path("runs/calibration-preview"), "write cells and record into this folder")


def execute(options: PreviewCalibrateOptions) -> int:
    """Calibrate; returns the exit code."""
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    from benchmark.calibrate.preview.calibration import run

    silence_libraries()
    return run(options)


def main(arguments: Sequence[str]) -> int:
    """Run the command line, without its first word; returns the exit code."""
    return run_command(
        lambda: execute(
            parse_options(PreviewCalibrateOptions, arguments, "calibrate preview", module="benchmark.calibrate preview")
        )
    )
