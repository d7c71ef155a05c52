"""A protocol so small that a whole run takes seconds."""

from __future__ import annotations

from dataclasses import replace

from benchmark.protocol import STANDARD

QUICK = replace(
    STANDARD, steps=6, checks=2, folds=5, seeds=(0, 1, 2, 3, 4), copies=2, hidden=8, deep_hidden=(8, 8), alternatives=3,
    resamples=50, min_programs=5,
)  # fmt: skip
