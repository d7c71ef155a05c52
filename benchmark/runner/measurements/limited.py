"""Measurements of a run with fewer test tasks, or with few programs to be read.

With `--limit` the probes have a fraction of the standard work, for a first look and no verdict; with `--test-tasks` all
measurements besides accuracy stay as they are.
"""

from __future__ import annotations

from dataclasses import replace

from benchmark.probing.protocol import STANDARD, Protocol
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.runner.measurements.measurement import Measurement
from benchmark.runner.measurements.represents import RepresentsMeasurement
from benchmark.runner.measurements.uses import UsesMeasurement, pair_settings
from benchmark.tasks.suite import Suite

MIN_TASKS, MIN_PROGRAMS = 300, 1000
"""Test tasks and probe programs below which a suite is too small for the verdicts of a row."""
SEEDS, STEPS = (0, 1, 2), 100
LIMITED = replace(STANDARD, alternatives=6, copies=1, seeds=SEEDS, folds=len(SEEDS), random_inits=1, steps=STEPS)
LIMITED_ROTATION = replace(ROTATION_STANDARD, seeds=SEEDS, folds=len(SEEDS), random_inits=1, steps=STEPS)


def limit_protocol(protocol: Protocol) -> Protocol:
    """The settings of a limited run; those that are not the standard ones stay."""
    return LIMITED if protocol == STANDARD else protocol


def limit_measurement(measurement: Measurement) -> Measurement:
    """The measurement of a limited run: with fewer probe seeds and steps, if its settings are the standard ones."""
    if isinstance(measurement, RepresentsMeasurement) and measurement.protocol == ROTATION_STANDARD:
        return replace(measurement, protocol=LIMITED_ROTATION)
    return measurement


def fix_pairs(measurement: Measurement, suite: Suite) -> Measurement:
    """The measurement of use with the pairs of a suite, whatever number of test tasks is evaluated; another as it is."""
    if isinstance(measurement, UsesMeasurement) and measurement.pairs is None:
        return replace(measurement, pairs=pair_settings(suite))
    return measurement


def read_few_programs(measurement: Measurement) -> Measurement:
    """The measurement of representation with few programs; another as it is."""
    return replace(measurement, few_programs=True) if isinstance(measurement, RepresentsMeasurement) else measurement


def is_small_suite(suite: Suite) -> bool:
    """Whether a suite has too few tasks or probe programs for the verdicts of a row."""
    return suite.tasks < MIN_TASKS or suite.probe_programs < MIN_PROGRAMS


def describe_small_run(suite: Suite, limit: int | None) -> str:
    """A line on a run that is too small for a verdict, with the reason and what to do; empty for any other run."""
    if not is_small_suite(suite):
        return ""
    size = f"{suite.tasks} test tasks and {suite.probe_programs} probe programs"
    if limit is None:
        return f"too small for a verdict: suite {suite.name} has {size}; use --suite laptop for figures to rely on"
    work = f"{len(LIMITED_ROTATION.seeds)} probe seeds of {LIMITED_ROTATION.steps} steps"
    return f"too small for a verdict: --limit {limit} leaves {size}, and {work}; run without --limit for figures to rely on"
