"""Training dynamics: `karel-bench emergence RUN [RUN ...]` measures the checkpoints of one or several series.

A RUN is a folder of `karel-bench train` or of a Trainer, or a spec of several models such as `path:FOLDER/checkpoint-{100,200}`
(`emergence.series`). Series of one recipe with different seeds share one figure. Each checkpoint has a run folder, so the
same command continues where it stopped and adds new checkpoints. The points of each series are also written as `NAME.json`,
which replaces the series as an argument when its checkpoints are deleted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.cli.declare import argument, group, option, parse_options
from benchmark.cli.fields import device_option, dtype_option, output_dir_option, suite_option, threads_option
from benchmark.cli.options import COUNT, BackendOptions, CacheOptions, LoadingOptions
from benchmark.command import run_command, silence_libraries

ACCURACY, REPRESENTS, USES, REACH = "accuracy", "represents", "uses", "reach"
MEASURES = (ACCURACY, REPRESENTS, USES, REACH)


@dataclass(frozen=True, kw_only=True)
class EmergenceOptions:
    """Measure the checkpoints of training runs."""

    runs: tuple[str, ...] = argument(
        "folder of a training run or of a Trainer, a spec such as path:FOLDER/checkpoint-{100,200} or "
        "hf:org/name@{step1,step2}, or a .json file of its points; one per seed of a recipe",
        many=True, metavar="RUN",
    )  # fmt: skip
    suite: str = suite_option()
    measure: tuple[str, ...] = option(
        (), "select what is measured besides accuracy; repeatable; accuracy: nothing; reach: the paper's semantic content "
        "with its floors, and planning ahead", choices=MEASURES, many=True, default_text="represents and uses",
    )  # fmt: skip
    test_tasks: int | None = option(
        None, "measure accuracy on the first N test tasks, such as 1000 of the 10,000 of icml24; the other measurements "
        "have sets of their own and stay as they are", read_with=COUNT, metavar="N", default_text="all",
    )  # fmt: skip
    all_seeds: bool = option(
        False, "take all seven probe seeds of a leaderboard row instead of three; twice as long", old=("--full",)
    )
    output_dir: Path | None = output_dir_option(
        None, "write points, table, figure and run folders into this folder",
        default_text="RUN/emergence of the first run, or runs/emergence",
    )  # fmt: skip
    device: str = device_option()
    dtype: str = dtype_option()
    threads: int = threads_option()
    name: str | None = option(
        None, "name the model in the figure", default_text="what the names of the series have in common"
    )
    loading: LoadingOptions = group(LoadingOptions)
    cache: CacheOptions = group(CacheOptions)
    backend: BackendOptions = group(BackendOptions)

    @property
    def measurements(self) -> tuple[str, ...]:
        """Names of the measurements besides accuracy."""
        return tuple(name for name in self.measure or (REPRESENTS, USES) if name != ACCURACY)


def execute(options: EmergenceOptions) -> int:
    """Measure the series; returns the exit code."""
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    from benchmark.emergence.evaluation import evaluate_runs

    silence_libraries()
    return evaluate_runs(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(lambda: execute(parse_options(EmergenceOptions, arguments, "emergence")))


if __name__ == "__main__":
    sys.exit(main())
