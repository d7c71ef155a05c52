"""Speed of the interpreter and the generators: `python -m karel_env.bench`; see `karel_env.speed`."""

from __future__ import annotations

import sys

from karel_env.command import CommandParser, integer, run_command


def main(argv: list[str] | None = None) -> int:
    """Command-line entry point; returns the exit code."""
    parser = CommandParser(
        prog="python -m karel_env.bench", description="Measure the speed of this package and of other implementations."
    )
    parser.add_argument(
        "--programs",
        type=integer(1, 10_000_000),
        default=2000,
        metavar="N",
        help="programs per class (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds",
        type=integer(1, 100_000),
        default=5,
        metavar="N",
        help="rounds of calls; the fastest call counts (default: %(default)s)",
    )

    def measure() -> int:
        options = parser.parse_args(argv)
        # What compiles is imported here, after the options are known to be right.
        from karel_env.speed import print_speeds

        return print_speeds(options.programs, options.rounds)

    return run_command(measure)


if __name__ == "__main__":
    sys.exit(main())
