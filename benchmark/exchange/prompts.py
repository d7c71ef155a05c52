"""Write the probe prompts of a suite for another engine: `python -m benchmark.exchange.prompts --suite S --out FILE.jsonl`.

The engine reads the text of each line and stores the state at each of its rows; `python -m benchmark.exchange.measure` then
gives the verdict. Exit codes: 0 done, 2 usage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmark.command import check_folder, run_command
from benchmark.errors import UsageError
from karel_env.command import CommandParser, integer


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser(
        prog="python -m benchmark.exchange.prompts",
        description="Write the probe prompts of a suite as JSON lines, with the positions of their words.",
        epilog="Exit codes: 0 done, 2 usage. The form of the file: docs/api.md.",
    )
    add = parser.add_argument
    add("--suite", default="laptop", help="name of a suite, or a .yaml file of one's own (default: laptop)")
    add("--out", required=True, metavar="FILE.jsonl", help="file to write")
    add("--programs", type=integer(1, 10_000_000), metavar="N", help="label budget (default: the suite's own)")
    add("--seed", type=integer(0, 2**63 - 1), help="seed of the programs and worlds (default: the suite's own)")
    return parser.parse_args(arguments)


def execute(options: argparse.Namespace) -> int:
    """Write the file and print what it holds."""
    # After the options are known to be right: what computes takes a second to import.
    from benchmark.api.probe_set import blind_probe_set
    from benchmark.api.prompts_file import write_prompts

    path = Path(options.out)
    if path.is_dir():
        raise UsageError(f"--out {path}: is a folder; expected a file, such as {path / 'prompts.jsonl'}")
    check_folder(path.parent, "--out")
    probes = blind_probe_set(options.suite, options.programs, options.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_prompts(path, probes)
    print(f"{path}: {len(probes)} prompts, {probes.num_rows} rows, set {probes.digest}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(lambda: execute(parse_options(arguments)))


if __name__ == "__main__":
    sys.exit(main())
