"""Measure pseudo-models whose answer is known: `karel-bench calibrate`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.cli.declare import option, parse_options
from benchmark.cli.fields import output_dir_option, suite_option
from benchmark.command import run_command, silence_libraries
from benchmark.probing.protocol import STANDARD
from karel_env.command import integer

PROTOCOL_OPTION, PROTOCOL_3, PROTOCOL_4 = "--protocol", "3", "4"
CAUSAL, REACH, PREVIEW, RELATIVE = "causal", "reach", "preview", "relative"
EPILOG = (
    "With options of their own, see --help after them: --protocol 4, the pseudo-models of protocol 4; causal, planners "
    "whose use of their state is known; reach, states that hold the rotation at known words ahead; preview, the verdict of a "
    "preview beside that of all probe seeds; relative, states on programs with control flow."
)
NUM_ALTERNATIVES = 8
"""Default number of alternatives: fewer than for a model, so the intervals are slightly wider."""
NUM_SWEEP_ALTERNATIVES = 3
"""Number of alternatives in sweeps over offsets and layers, which only locate the largest gap."""


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions:
    """Measure pseudo-models with known outcomes."""

    suite: str = suite_option(purpose=" that gives worlds and program lengths")
    protocol: str = option(PROTOCOL_3, "select the protocol", choices=(PROTOCOL_3, PROTOCOL_4), flag=PROTOCOL_OPTION)
    programs: int | None = option(
        None, "set the label budget of a probe, in programs", read_with=integer(STANDARD.min_programs, 1_000_000),
        metavar="N", default_text="the suite's",
    )  # fmt: skip
    seeds: int = option(1, "set the number of seeds", read_with=integer(1, 10_000), metavar="N")
    alternatives: int = option(
        NUM_ALTERNATIVES,
        "set the number of alternative semantics",
        read_with=integer(NUM_SWEEP_ALTERNATIVES, 1000),
        metavar="N",
    )
    output_dir: Path = output_dir_option(Path("runs/calibration"), "write the record into this folder")


def execute(options: CalibrateOptions) -> int:
    """Calibrate; returns the exit code."""
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    from benchmark.calibrate.calibration import run

    silence_libraries()
    return run(options)


def without_protocol_4(argv: Sequence[str]) -> list[str] | None:
    """The words without `--protocol 4`; None if it is not among them."""
    for i, word in enumerate(argv):
        if word == f"{PROTOCOL_OPTION}={PROTOCOL_4}":
            return [*argv[:i], *argv[i + 1 :]]
        if word == PROTOCOL_OPTION and argv[i + 1 : i + 2] == [PROTOCOL_4]:
            return [*argv[:i], *argv[i + 2 :]]
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, or that which its first word or `--protocol 4` names; returns the exit code."""
    argv = sys.argv[1:] if arguments is None else list(arguments)
    if argv[:1] == [CAUSAL]:
        from benchmark.calibrate import causal

        return causal.main(argv[1:])
    if argv[:1] == [REACH]:
        from benchmark.calibrate.reach import command as reach_command

        return reach_command.main(argv[1:])
    if argv[:1] == [PREVIEW]:
        from benchmark.calibrate.preview import command as preview_command

        return preview_command.main(argv[1:])
    if argv[:1] == [RELATIVE]:
        from benchmark.calibrate.relative import command as relative_command

        return relative_command.main(argv[1:])
    remaining = without_protocol_4(argv)
    if remaining is not None:
        from benchmark.calibrate import rotation_command

        return rotation_command.main(remaining)
    return run_command(lambda: execute(parse_options(CalibrateOptions, argv, "calibrate", EPILOG)))


if __name__ == "__main__":
    sys.exit(main())
