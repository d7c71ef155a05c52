"""Measure speed and memory: `karel-bench bench probing|generation|cluster|training|interpreter`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmark.cli.declare import argument, option, parse_options, subcommand
from benchmark.cli.dtype_note import note_slow_dtype
from benchmark.cli.fields import (
    MAX_THREADS,
    dtype_option,
    model_option,
    suite_option,
    threads_option,
    track_option,
)
from benchmark.cli.model_spec import DEFAULT_MODEL, read_model
from benchmark.command import run_command, silence_libraries
from karel_env.command import integer

TRAINING_SPEED = "baselines.speed"


@dataclass(frozen=True, kw_only=True)
class ProbingBenchOptions:
    """Measure speed and memory of probing."""

    suite: str = suite_option(purpose=" that gives the blind set")
    programs: int | None = option(
        None, "set the training programs per probe", read_with=integer(1, 1_000_000), metavar="N",
        default_text="the suite's",
    )  # fmt: skip
    sample: int = option(
        6, "set the number of plain torch networks to measure", read_with=integer(1, 100_000), metavar="K"
    )
    width: int = option(128, "set the width of the states", read_with=integer(1, 100_000), metavar="D")
    layers: int = option(
        3, "set the number of layers stored and probed in the memory test", read_with=integer(1, 1000), metavar="N",
        default_text="3; all: 25",
    )  # fmt: skip
    json: Path | None = option(None, "also write the figures as JSON", metavar="FILE")


@dataclass(frozen=True, kw_only=True)
class GenerationBenchOptions:
    """Measure the cost of hidden states and of the grammar in generation."""

    model: str = model_option(DEFAULT_MODEL, "the shipped model")
    suite: str = suite_option(purpose=" that gives the test tasks")
    track: str = track_option()
    prompts: int = option(16, "set the prompts per batch", read_with=integer(1, 100_000), metavar="B")
    dtype: str = dtype_option()


@dataclass(frozen=True, kw_only=True)
class ClusterBenchOptions:
    """Measure the cost of Ray workers."""

    model: str = model_option(DEFAULT_MODEL, "the shipped model")
    suite: str = suite_option(purpose=" that gives the blind set")
    shards: int = option(20, "set the shards per run", read_with=integer(1, 100_000), metavar="N")
    json: Path | None = option(None, "also write the figures as JSON", metavar="FILE")


@dataclass(frozen=True, kw_only=True)
class TrainingBenchOptions:
    """Measure the training speed of recipes."""

    recipes: tuple[str, ...] = argument(
        "names of recipes, or YAML files", (), many=True, default_text="all shipped ones of the suite laptop"
    )
    steps: int = option(5, "set the timed steps per recipe", read_with=integer(1, 1_000_000), metavar="N")
    threads: int = threads_option(0, "", integer(0, MAX_THREADS), default_text="as torch chooses")
    compile: bool = option(False, "compile the model")
    precision: str = option("no", "select the autocast", choices=("no", "bf16"))


@dataclass(frozen=True, kw_only=True)
class InterpreterBenchOptions:
    """Measure the speed of the interpreter and of other implementations."""

    programs: int = option(2000, "set the programs per class", read_with=integer(1, 10_000_000), metavar="N")
    rounds: int = option(
        5, "set the rounds of calls; the fastest call counts", read_with=integer(1, 100_000), metavar="N"
    )


Selected = (
    ProbingBenchOptions | GenerationBenchOptions | ClusterBenchOptions | TrainingBenchOptions | InterpreterBenchOptions
)


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Measure speed: of probing, generation, Ray workers, training or the interpreter."""

    benchmark: Selected = subcommand(
        {
            "probing": ProbingBenchOptions, "generation": GenerationBenchOptions, "cluster": ClusterBenchOptions,
            "training": TrainingBenchOptions, "interpreter": InterpreterBenchOptions,
        }
    )  # fmt: skip


def execute(options: BenchOptions) -> int:
    """Measure and print; returns the exit code."""
    selected = options.benchmark
    if isinstance(selected, InterpreterBenchOptions):
        from karel_env.speed import print_speeds

        return print_speeds(selected.programs, selected.rounds)
    if isinstance(selected, TrainingBenchOptions):
        # By its name, since `benchmark` does not depend on `baselines`.
        exit_code: int = importlib.import_module(TRAINING_SPEED).print_speeds(selected)
        return exit_code
    if not isinstance(selected, ProbingBenchOptions):
        selected = replace(selected, model=read_model(selected.model))
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    from benchmark.bench import cluster, generation, probing

    silence_libraries()
    if isinstance(selected, GenerationBenchOptions):
        note_slow_dtype(selected.dtype, "cpu")
    if isinstance(selected, ProbingBenchOptions):
        return probing.run(selected)
    return generation.run(selected) if isinstance(selected, GenerationBenchOptions) else cluster.run(selected)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(lambda: execute(parse_options(BenchOptions, arguments, "bench")))


if __name__ == "__main__":
    sys.exit(main())
