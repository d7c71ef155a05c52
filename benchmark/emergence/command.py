"""Training dynamics: `karel-bench emergence RUN [RUN ...]` evaluates the checkpoints of training runs.

A RUN is a folder of `karel-bench train`: `checkpoints/step-N`, each a model with a `training.json` that gives step and
tokens seen. Runs of one recipe with different seeds share one figure. Points are stored, so the same command continues
where it stopped and adds new checkpoints. The points of each run are also written as `NAME.json`, which replaces the run
as an argument once its checkpoints are deleted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.cli.declare import argument, group, option, parse_options
from benchmark.cli.fields import device_option, dtype_option, output_dir_option, suite_option, threads_option
from benchmark.cli.options import BackendOptions, CacheOptions
from benchmark.command import run_command, silence_libraries
from benchmark.probing.protocol import Protocol


@dataclass(frozen=True, kw_only=True)
class EmergenceOptions:
    """Evaluate the checkpoints of training runs."""

    runs: tuple[Path, ...] = argument(
        "folder of a training run, or a .json file of its points; one per seed of a recipe", many=True, metavar="RUN"
    )
    suite: str = suite_option()
    full: bool = option(False, "use the programs, seeds and alternatives of a whole run; several times slower")
    output_dir: Path | None = output_dir_option(
        None, "write points, table and figure into this folder", default_text="RUN/emergence of the first run"
    )
    device: str = device_option()
    dtype: str = dtype_option()
    threads: int = threads_option()
    name: str | None = option(None, "name the model in the figure", default_text="name of the first folder")
    cache: CacheOptions = group(CacheOptions)
    backend: BackendOptions = group(BackendOptions)


def execute(options: EmergenceOptions, reduced_protocol: Protocol | None) -> int:
    """Evaluate the runs; returns the exit code."""
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    from benchmark.emergence.evaluation import evaluate_runs
    from benchmark.emergence.trajectory import REDUCED_PROTOCOL

    silence_libraries()
    return evaluate_runs(options, reduced_protocol or REDUCED_PROTOCOL)


def main(arguments: Sequence[str] | None = None, reduced_protocol: Protocol | None = None) -> int:
    """Run the command line, under another protocol than `REDUCED_PROTOCOL` if given; returns the exit code."""
    return run_command(lambda: execute(parse_options(EmergenceOptions, arguments, "emergence"), reduced_protocol))


if __name__ == "__main__":
    sys.exit(main())
