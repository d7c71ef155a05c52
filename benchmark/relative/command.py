"""Measure displacement and programs with control flow: `python -m benchmark.relative --model SPEC --suite NAME`.

Prints the figures and writes `NAME-SUITE.json`. Exit codes: 0 done, 2 usage, 3 the model cannot be loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.cli.declare import option, parse_options
from benchmark.cli.fields import (
    device_option,
    dtype_option,
    model_option,
    output_dir_option,
    suite_option,
    threads_option,
)
from benchmark.cli.measured_model import check_model_options, open_measured_model
from benchmark.command import run_command
from karel_env.command import integer

NUM_PROMPTS, NUM_COPIES, NUM_SAMPLES = 1750, 2, 64


@dataclass(frozen=True, kw_only=True)
class RelativeOptions:
    """Measure rotation and displacement with sampled records, control flow included."""

    model: str = model_option()
    suite: str = suite_option("control", purpose=" that gives worlds and programs")
    prompts: int = option(
        NUM_PROMPTS, "set the number of prompts, with four programs each", read_with=integer(30, 100_000), metavar="N"
    )
    copies: int = option(
        NUM_COPIES, "set the number of randomly initialised copies", read_with=integer(0, 5), metavar="N"
    )
    samples: int = option(
        NUM_SAMPLES, "set the number of samples of a record per word", read_with=integer(8, 10_000), metavar="N"
    )
    dtype: str = dtype_option()
    device: str = device_option("cpu")
    threads: int = threads_option()
    output_dir: Path = output_dir_option(Path("runs/relative"), "write the result into this folder")


def execute(options: RelativeOptions) -> int:
    """Measure and print; returns the exit code."""
    spec, device = check_model_options(options.model, options.dtype, options.device, options.output_dir)
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    from dataclasses import replace

    from benchmark.cli.progress import show_progress
    from benchmark.cli.result_file import choose_result_file
    from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
    from benchmark.relative.measure import RelativeSuite
    from benchmark.relative.report import format_relative, to_json
    from benchmark.relative.word_views import read_word_views
    from benchmark.tasks.suite import load_suite

    checkpoint = open_measured_model(spec, options.threads)
    protocol = replace(ROTATION_STANDARD, prompts=options.prompts, random_inits=max(1, options.copies))
    probe_suite = load_suite(options.suite)
    suite = RelativeSuite(probe_suite, protocol, options.samples, device=device)
    views, condition_views, random_views = [], [], []
    with show_progress() as progress:
        for copy in [None, *range(options.copies)]:
            progress.start("reading the model" if copy is None else f"reading randomly initialised copy {copy}")
            of_actions, of_conditions = read_word_views(checkpoint, suite, options.dtype, device, copy)
            if copy is None:
                views, condition_views = of_actions, of_conditions
            else:
                random_views.append(of_actions)
        progress.start("probing")
        random_init = suite.probe(random_views) if random_views else None
        result = suite.measure(views, random_init, condition_views)
    print(f"{checkpoint.spec}, suite {options.suite}")
    print(format_relative(result, protocol))
    file = choose_result_file(
        options.output_dir, f"{checkpoint.name}-{Path(options.suite).stem}", "benchmark.relative.command", probe_suite,
        digest=checkpoint.digest, dtype=options.dtype, prompts=options.prompts, copies=options.copies,
        samples=options.samples,
    )  # fmt: skip
    file.write({"model": checkpoint.spec, **to_json(result)})
    print(f"\nwrote {file.path}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(lambda: execute(parse_options(RelativeOptions, arguments, "relative")))


if __name__ == "__main__":
    sys.exit(main())
