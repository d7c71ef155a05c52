"""Write the probe prompts of a suite for another engine: `python -m benchmark.exchange.prompts --suite S --output-file FILE.jsonl`.

The engine reads the text of each line and stores the state at each of its rows; `python -m benchmark.exchange.measure` then
gives the verdict. Exit codes: 0 done, 2 usage.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.cli.declare import parse_options
from benchmark.cli.fields import output_file_option, probe_seed_option, programs_option, suite_option
from benchmark.command import check_folder, run_command
from benchmark.errors import UsageError

MODULE = "benchmark.exchange.prompts"
EXIT_CODES = "Exit codes: 0 done, 2 usage. The form of the file: docs/api.md."


@dataclass(frozen=True, kw_only=True)
class PromptsOptions:
    """Write the probe prompts of a suite for another engine."""

    suite: str = suite_option()
    output_file: Path = output_file_option(..., "write the prompts as JSON lines into this file", "")
    programs: int | None = programs_option("the suite's own")
    seed: int | None = probe_seed_option("the suite's own")


def execute(options: PromptsOptions) -> int:
    """Write the file and print what it holds."""
    # After the options are known to be right: what computes takes a second to import.
    from benchmark.api.probe_set import blind_probe_set
    from benchmark.api.prompts_file import write_prompts

    path = options.output_file
    if path.is_dir():
        raise UsageError(f"--output-file {path}: is a folder; expected a file, such as {path / 'prompts.jsonl'}")
    check_folder(path.parent, "--output-file")
    probes = blind_probe_set(options.suite, options.programs, options.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_prompts(path, probes)
    print(f"{path}: {len(probes)} prompts, {probes.num_rows} rows, set {probes.digest}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(lambda: execute(parse_options(PromptsOptions, arguments, "prompts", EXIT_CODES, MODULE)))


if __name__ == "__main__":
    sys.exit(main())
