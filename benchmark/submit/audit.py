"""Audit: detect training on the test set.

The audit suite is the public suite with a seed derived from the digest of the weights, so its tasks are unknown until the
weights are fixed. A model that generalises has the same accuracy on both suites; a model that was trained on the public
tasks has a lower accuracy on the audit suite. The interval of the difference is the hybrid score interval for two
independent proportions (Newcombe 1998, Statistics in Medicine 17, method 10).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmark.models.checkpoint import resolve_digest
from benchmark.statistics import wilson
from benchmark.submit.report import VerificationReport
from benchmark.submit.rerun import DEFAULT_LIMITS, ProcessLimits, make_rerun_request, regenerate_samples
from benchmark.submit.schema import Audit
from benchmark.tasks.scoring import score_programs
from benchmark.tasks.stage import TEST
from benchmark.tasks.suite import Suite, load_suite, test_tasks

LEVEL = 0.99
"""Confidence level of the interval: the expected false alarm rate is 1 in 200 models."""


def derive_audit_seed(digest: str, suite: str) -> int:
    """Derive the seed of the audit tasks: 62 bits of a SHA-256 hash.

    Args:
        digest: SHA-256 of the model's files.
        suite: name of the suite.
    """
    return int.from_bytes(hashlib.sha256(f"audit {suite} {digest}".encode()).digest()[:8], "big") >> 2


def load_audit_suite(digest: str, suite: str) -> Suite:
    """Load a suite with the audit seed of a model; arguments as for `derive_audit_seed`."""
    return load_suite(suite, derive_audit_seed(digest, suite))


def generate_audit_texts(
    folder: Path, report: VerificationReport, suite: Suite, process_limits: ProcessLimits = DEFAULT_LIMITS
) -> list[str]:
    """Generate a program for every test task of an audit suite in a subprocess.

    Args:
        folder: folder of the submission.
        report: report of its verification; a mismatch of the model's digest is added to it.
        suite: audit suite.
        process_limits: time and memory limit of the subprocess.

    Returns:
        N program texts, in task order.
    """
    regenerated = regenerate_samples(
        make_rerun_request(folder, report.submission, report.record, suite, stage=TEST), process_limits
    )
    digest = resolve_digest(report.record.model.digest, regenerated.digest, report.submission.model)
    report.compare("audit.digest", report.record.model.digest, digest)
    return [sample["text"] for _, sample in regenerated.samples]


def compare_accuracy(suite: Suite, public_solved: np.ndarray, texts: Sequence[str]) -> Audit:
    """Compare pass@1 on the shown examples between the public suite and the audit suite.

    Args:
        suite: audit suite.
        public_solved: bool [N], whether the model solves the shown examples per task of the public suite.
        texts: N program texts that the model generated for the audit suite.
    """
    is_solved = score_programs(suite, test_tasks(suite), texts).shown
    low, high = newcombe_interval(
        int(public_solved.sum()), len(public_solved), int(is_solved.sum()), len(is_solved), LEVEL
    )
    accuracies = float(public_solved.mean()), float(is_solved.mean())
    return Audit(
        seed=suite.seed, tasks=len(is_solved), public=accuracies[0], audit=accuracies[1],
        difference=accuracies[0] - accuracies[1], low=low, high=high,
    )  # fmt: skip


def newcombe_interval(
    first_hits: int, first_n: int, second_hits: int, second_n: int, level: float
) -> tuple[float, float]:
    """Compute the interval of the difference of two independent proportions (Newcombe 1998, method 10).

    Args:
        first_hits, first_n: successes and size of the first sample.
        second_hits, second_n: successes and size of the second sample.
        level: confidence level, in (0, 1).

    Returns:
        Lower and upper bound of `first - second`.

    Raises:
        ValueError: a sample is empty.
    """
    first, second = wilson(first_hits, first_n, level), wilson(second_hits, second_n, level)
    if first is None or second is None:
        raise ValueError("newcombe: no tasks")
    difference = first.value - second.value
    lower_margin = float(np.hypot(first.value - first.low, second.high - second.value))
    upper_margin = float(np.hypot(first.high - first.value, second.value - second.low))
    return difference - lower_margin, difference + upper_margin


def is_alarming(audit: Audit) -> bool:
    """Whether the accuracy on the public suite exceeds that on the audit suite by more than the interval."""
    return audit.low > 0
