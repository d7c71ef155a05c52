"""`karel-bench compare A B`: paired comparison of two models on the same tasks and the same probed programs.

A and B are submissions or run folders of one suite and protocol. Shares of solved tasks are tested by the exact McNemar
test, delta by a bootstrap that resamples the same programs for both; p values are Holm-adjusted over the metrics.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmark.artifacts import MAX_BYTES, PROBES, SAMPLES
from benchmark.board.paired import (
    cluster_bootstrap_difference,
    mcnemar,
    min_detectable_difference,
    min_detectable_effect,
    normal_p_value,
)
from benchmark.board.suite_figures import DeltaBaseline, delta_baseline, program_clusters
from benchmark.causal.report import format_p
from benchmark.cli.declare import argument, option, parse_options
from benchmark.command import run_command
from benchmark.errors import SubmissionError, UsageError, VerificationError
from benchmark.files import read_bytes, read_rows
from benchmark.installation.paths import submissions_folder
from benchmark.probing.control_gap import (
    Bootstrap,
    Evidence,
    PriorBaseline,
    compute_delta,
    compute_gaps,
    compute_skills,
)
from benchmark.probing.protocol import BOOTSTRAP_SEED, Protocol
from benchmark.probing.state_source import RunEvidence
from benchmark.runner.folder import read_probes
from benchmark.runner.record import Record, read_record
from benchmark.statistics import Estimate, holm, interval_over_units_and_seeds
from benchmark.submit.artifacts.listing import is_stored_outside
from benchmark.submit.artifacts.sources import find_file
from benchmark.submit.schema import read_submission
from benchmark.tasks.stage import TEST
from benchmark.tasks.suite import Suite, hash_tasks, limit_suite, load_suite, test_tasks
from karel_env.command import nearest
from karel_env.features import FEATURES, PRIMARY

PASS_METRICS = ("shown", "held_out")
TEST_LINE = json.dumps(TEST).encode()
"""What the line of a test sample contains."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Compare two models on the same tasks and probed programs."""

    first: str = argument("submission name, or folder of a finished run", metavar="A")
    second: str = argument("second submission or run of the same suite and protocol", metavar="B")
    suite: str | None = option(
        None, "read the suite from this YAML file", metavar="FILE", default_text="a shipped suite"
    )
    json: bool = option(False, "print the comparison as JSON")


@dataclass(frozen=True)
class MetricComparison:
    """One metric of two models.

    Attributes:
        name: metric name.
        first, second: values of the two models.
        difference: first minus second, with its 95% interval.
        discordant: number of tasks that only the first and only the second solves; None if not a share of tasks.
        p, p_holm: two-sided p value, and the same after Holm adjustment over the metrics compared.
        smallest: smallest difference detectable with power 80% at 5%; None if none is.
    """

    name: str
    first: float
    second: float
    difference: Estimate
    discordant: tuple[int, int] | None
    p: float
    p_holm: float
    smallest: float | None


@dataclass(frozen=True)
class ComparedRun:
    """One side of a comparison: folder, record, and solved test tasks (bool [N] per name in `PASS_METRICS`)."""

    folder: Path
    record: Record
    solved: dict[str, np.ndarray]


def read_compared_run(name_or_folder: str) -> ComparedRun:
    """Read a submission by name, or a run folder with a record.

    Raises:
        UsageError: The folder has no record.json.
        VerificationError: The samples do not match the record.
    """
    folder, record = find_run(name_or_folder)
    return ComparedRun(folder, record, read_solved_tasks(folder, record))


def find_run(name_or_folder: str) -> tuple[Path, Record]:
    """The folder of a submission by name, or of a run, and its record.

    Raises:
        UsageError: The folder has no record.json.
    """
    folder = next(
        (path for path in (Path(name_or_folder), submissions_folder() / name_or_folder) if path.is_dir()),
        Path(name_or_folder),
    )
    if not (folder / "record.json").is_file():
        hint = nearest(name_or_folder, (path.name for path in submissions_folder().glob("*/")))
        raise UsageError(
            f"{name_or_folder}: no record.json; give the name of a submission in {submissions_folder()}, or the folder of a finished run{hint}"
        )
    return folder, read_record(folder / "record.json")


def read_solved_tasks(folder: Path, record: Record) -> dict[str, np.ndarray]:
    """Solved test tasks (bool [N]) on shown and on held-out examples, read from a run's samples.

    Where a submission lists its samples as an artifact, they are read from its excerpt, whether the artifact is at hand or
    not.

    Raises:
        SubmissionError: The samples cannot be read.
        VerificationError: The samples do not match the record.
    """
    if is_stored_outside(folder, SAMPLES):
        excerpt = read_submission(folder).excerpt
        assert excerpt is not None  # the schema says so
        return {name: excerpt.solved(name, record.suite.tasks) for name in PASS_METRICS}
    rows = read_test_samples(folder, record)
    return {name: np.array([row[name] for row in rows], bool) for name in PASS_METRICS}


def read_test_samples(folder: Path, record: Record) -> list[dict[str, Any]]:
    """The samples of the test stage, in the order of the tasks.

    Raises:
        SubmissionError: The samples cannot be read.
        VerificationError: The samples do not match the record.
    """
    limit, path = MAX_BYTES[SAMPLES], find_file(folder, SAMPLES)
    if not path.is_file() and is_stored_outside(folder, SAMPLES):
        raise SubmissionError(
            f"{folder.name}: {SAMPLES} is an artifact and not at hand; get it by karel-bench submit fetch {folder.name}"
        )
    if hashlib.sha256(read_bytes(path, limit)).hexdigest() != record.samples_sha256:
        raise VerificationError(f"{folder}: {SAMPLES} does not match the SHA-256 in its record; run the model again")
    # Of the samples, whose digest is right, only those of the test stage are parsed.
    rows = [row for row in read_rows(path, limit, containing=TEST_LINE) if row.get("stage") == TEST]
    if [row.get("task") for row in rows] != list(range(record.suite.tasks)):
        raise VerificationError(f"{folder}: samples of {len(rows)} tasks; the record says {record.suite.tasks}")
    if any(not isinstance(row.get(name), bool) for row in rows for name in PASS_METRICS):
        raise VerificationError(f"{folder}: a sample lacks a boolean {' or '.join(PASS_METRICS)}; run the model again")
    return rows


def check_comparable(first: Record, second: Record) -> None:
    """Raise `UsageError` unless both runs have the same suite, tasks and protocol."""
    for field, a, b in (
        ("suite", first.suite.name, second.suite.name),
        ("suite version", first.suite.version, second.suite.version),
        ("suite seed", first.suite.seed, second.suite.seed),
        ("equality", first.suite.equality, second.suite.equality),
        ("number of tasks", first.suite.tasks, second.suite.tasks),
        ("test set", first.suite.sha256, second.suite.sha256),
        ("protocol version", first.protocol.version, second.protocol.version),
        ("protocol", first.protocol.digest(), second.protocol.digest()),
    ):
        if a != b:
            raise UsageError(f"{field} {a} and {b}; only runs of the same suite and protocol can be compared")


def load_recorded_suite(record: Record, suite_file: str | None = None) -> Suite:
    """Load the suite of a run.

    Args:
        record: the run record.
        suite_file: path of the suite's YAML file if the suite is not shipped.

    Raises:
        UsageError: The loaded suite is not the recorded one.
    """
    suite = load_suite(suite_file or record.suite.name, record.suite.seed)
    if suite.version != record.suite.version or (suite.sha256 or hash_tasks(test_tasks(suite))) != record.suite.sha256:
        raise UsageError(
            f"suite {suite.name} v{suite.version} does not match the record (v{record.suite.version}, "
            f"{record.suite.sha256[:12]}); give its file with --suite"
        )
    return limit_suite(suite, record.suite.tasks if record.suite.tasks < suite.tasks else None)


def bootstrap_delta(folder: Path, baseline: DeltaBaseline, protocol: Protocol) -> Bootstrap:
    """Delta of the primary feature from a run's stored arrays: value, bootstrap resamples, and per-seed values."""
    sources = RunEvidence.from_arrays(read_probes(find_file(folder, PROBES).parent)).sources
    evidence = {name: _of_primary(source, baseline.columns) for name, source in sources.items()}
    prior = PriorBaseline(np.arange(baseline.programs), baseline.prior[:, None], baseline.totals[:, :, None], priors=[])
    draws = compute_skills(evidence, prior, protocol, BOOTSTRAP_SEED)
    return compute_delta(compute_gaps(draws, 0, range(1, len(baseline.columns))))


def _of_primary(evidence: Evidence, columns: np.ndarray) -> Evidence:
    """The evidence of the primary feature, and of no other, under the semantics `columns`."""
    f = FEATURES.index(PRIMARY)
    return Evidence(
        evidence.probe[columns, f][:, None],
        evidence.totals[:, columns, f][:, :, None],
        evidence.pool[:, columns, f][:, :, None],
    )


def compare_runs(first: ComparedRun, second: ComparedRun, suite_file: str | None = None) -> list[MetricComparison]:
    """Compare every metric that both runs have; `suite_file` as in `load_recorded_suite`."""
    check_comparable(first.record, second.record)
    suite, protocol = load_recorded_suite(first.record, suite_file), first.record.protocol
    cluster = program_clusters(suite)
    comparisons = [compare_pass_rate(name, first, second, cluster, protocol) for name in PASS_METRICS]
    if all(find_file(compared.folder, PROBES).is_file() for compared in (first, second)):
        comparisons.append(_compare_delta(first, second, suite))
    adjusted = holm({comparison.name: comparison.p for comparison in comparisons})
    return [MetricComparison(**{**vars(comparison), "p_holm": adjusted[comparison.name]}) for comparison in comparisons]


def compare_pass_rate(
    name: str, first: ComparedRun, second: ComparedRun, cluster: np.ndarray, protocol: Protocol
) -> MetricComparison:
    """Compare the shares of solved tasks of one of `PASS_METRICS`; `cluster` int64 [N] as of `program_clusters`."""
    a, b = first.solved[name], second.solved[name]
    test = mcnemar(a, b)
    difference = cluster_bootstrap_difference(a, b, cluster, protocol.resamples, BOOTSTRAP_SEED)
    smallest = min_detectable_difference(test.n, test.rate)
    discordant = (test.first, test.second)
    return MetricComparison(name, float(a.mean()), float(b.mean()), difference, discordant, test.p, 1.0, smallest)


def _compare_delta(first: ComparedRun, second: ComparedRun, suite: Suite) -> MetricComparison:
    protocol = first.record.protocol
    baseline = delta_baseline(suite, protocol)
    a, b = (bootstrap_delta(compared.folder, baseline, protocol) for compared in (first, second))
    estimate, resampled, seeds = (first_part - second_part for first_part, second_part in zip(a, b, strict=True))
    difference = interval_over_units_and_seeds(float(estimate[0]), resampled, seeds, baseline.programs, 0.95)
    p, smallest = normal_p_value(difference), min_detectable_effect(difference)
    return MetricComparison("delta", float(a[0][0]), float(b[0][0]), difference, None, p, 1.0, smallest)


def format_table(first: ComparedRun, second: ComparedRun, comparisons: Sequence[MetricComparison]) -> str:
    """Format the comparisons as a table for a terminal."""
    record = first.record
    lines = [
        f"A  {first.folder.name}",
        f"B  {second.folder.name}",
        f"{record.suite.name} v{record.suite.version}, {record.suite.tasks} tasks, protocol v{record.protocol.version}",
        "",
    ]
    rows = [_table_row(comparison) for comparison in comparisons]
    lines.append(tabulate(rows, headers="keys", tablefmt="simple_outline", disable_numparse=True))
    lines.append(
        "A - B: difference with its 95% interval, from a bootstrap over n programs (all tasks of a program together). p: exact\n"
        "McNemar test on discordant tasks; for delta, from its interval. Holm: adjusted over these metrics. smallest: smallest\n"
        "difference detectable with power 80% at 5%, given this rate of discordant tasks; '-': none with so few tasks."
    )
    if len(comparisons) == len(PASS_METRICS):
        lines.append(
            f"delta is not compared: {PROBES} of at least one side is missing, or an artifact that is not at hand."
        )
    return "\n".join(lines)


def _table_row(comparison: MetricComparison) -> dict[str, str]:
    if comparison.discordant is not None:
        scale, sign, name, unit = 100, ".1f", f"{comparison.name.replace('_', '-')} %", " points"
    else:
        scale, sign, name, unit = 1, ".3f", comparison.name, ""
    d = comparison.difference
    return {
        "metric": name,
        "A": f"{scale * comparison.first:{sign}}",
        "B": f"{scale * comparison.second:{sign}}",
        "A - B": f"{scale * d.value:+{sign}} [{scale * d.low:+{sign}}, {scale * d.high:+{sign}}]",
        "n": str(d.n),
        "only A, only B": "-" if comparison.discordant is None else "{}, {}".format(*comparison.discordant),
        "p": format_p(comparison.p),
        "p Holm": format_p(comparison.p_holm),
        "smallest": "-" if comparison.smallest is None else f"{scale * comparison.smallest:{sign}}{unit}",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command-line entry point; returns the exit code."""
    return run_command(lambda: run(parse_options(CompareOptions, arguments, "compare")))


def run(options: CompareOptions) -> int:
    """Compare two runs and print the result; returns the exit code."""
    first, second = read_compared_run(options.first), read_compared_run(options.second)
    comparisons = compare_runs(first, second, options.suite)
    if options.json:
        print(
            json.dumps(
                [{**vars(comparison), "difference": vars(comparison.difference)} for comparison in comparisons],
                indent=1,
            )
        )
    else:
        print(format_table(first, second, comparisons))
    return 0


if __name__ == "__main__":
    sys.exit(main())
