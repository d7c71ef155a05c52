"""Measure speed and memory: `karel-bench bench probing|generation|cluster`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmark.cli.declare import option, parse_options, subcommand
from benchmark.cli.fields import dtype_option, model_option, suite_option, track_option
from benchmark.cli.model_spec import DEFAULT_MODEL, read_model
from benchmark.command import run_command, silence_libraries
from karel_env.command import integer


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
class BenchOptions:
    """Measure speed and memory of probing, of generation, or of Ray workers."""

    benchmark: ProbingBenchOptions | GenerationBenchOptions | ClusterBenchOptions = subcommand(
        {"probing": ProbingBenchOptions, "generation": GenerationBenchOptions, "cluster": ClusterBenchOptions}
    )


def execute(options: BenchOptions) -> int:
    """Measure and print; returns the exit code."""
    selected = options.benchmark
    if not isinstance(selected, ProbingBenchOptions):
        selected = replace(selected, model=read_model(selected.model))
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    from benchmark.bench import cluster, generation, probing

    silence_libraries()
    if isinstance(selected, ProbingBenchOptions):
        return probing.run(selected)
    return generation.run(selected) if isinstance(selected, GenerationBenchOptions) else cluster.run(selected)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(lambda: execute(parse_options(BenchOptions, arguments, "bench")))


if __name__ == "__main__":
    sys.exit(main())
