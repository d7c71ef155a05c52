"""A protocol and a suite so small that a whole run of a tiny model takes less than a second."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import benchmark.run
import benchmark.runner.preflight
import benchmark.runner.run
from benchmark.probing.protocol import STANDARD

QUICK = replace(
    STANDARD, steps=6, checks=2, folds=3, seeds=(0, 1, 2), copies=2, random_inits=2, hidden=8, deep_hidden=(8, 8),
    alternatives=3, resamples=50, min_programs=5,
)  # fmt: skip
SMALL_SUITE = str(Path(__file__).parent / "small_suite.yaml")
"""8 tasks and 28 probe programs, for `--suite`."""
SHORT_SUITE = str(Path(__file__).parent / "short_suite.yaml")
"""The same with answers of 5 words, for models that never end theirs and write each word in many tokens."""


def fsync(file: int) -> None:
    """Nothing: a run waits for the disk some 200 times, which only a machine that loses its power could tell."""


def make_runs_quick(assign: Callable[..., object] = setattr) -> None:
    """No figures, which `test_figures` and `test_grids` draw, no waiting for the disk, no measured speed.

    `assign` may be a patch's `setattr`.
    """
    assign(os, "fsync", fsync)
    # Measured for 0.3 s before each run, only to estimate how long it will take.
    assign(benchmark.runner.preflight, "matmul_flops", lambda dtype: 5e10)
    assign(benchmark.runner.run, "write_figures", lambda *_: [])
    # Tests of measurements select them.
    assign(benchmark.runner.run.Run, "measurements", lambda run: [])


def run_quickly(words: Sequence[str] | None = None) -> int:
    """`python -m benchmark.run` with the quick protocol; the words of this process if None."""
    return benchmark.run.main(words, QUICK)
