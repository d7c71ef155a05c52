"""The audit: an alarm for training on the test set.

The same suite is drawn from a seed that comes from the weights' digest, so nobody can have trained on its tasks before
the weights were fixed. A model that is as good as it seems does as well there; one that has seen the public tasks does
worse. The interval of the difference is Newcombe's hybrid score interval (Newcombe 1998, method 10), of two independent
samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmark.statistics import wilson
from benchmark.submit.report import VerificationReport
from benchmark.submit.rerun import DEFAULT_LIMITS, ProcessLimits, make_rerun_request, regenerate_samples
from benchmark.submit.schema import Audit
from benchmark.tasks.scoring import score
from benchmark.tasks.stage import TEST
from benchmark.tasks.suite import Suite, load_suite, test_tasks

LEVEL = 0.99
"""Of the interval: one honest model in 200 is flagged."""


def derive_audit_seed(digest: str, suite: str) -> int:
    """The seed of the audit tasks of a model (SHA-256 of its files) on a suite: 62 bits of a hash over both."""
    return int.from_bytes(hashlib.sha256(f"audit {suite} {digest}".encode()).digest()[:8], "big") >> 2


def load_audit_suite(digest: str, suite: str) -> Suite:
    """The suite with that seed."""
    return load_suite(suite, derive_audit_seed(digest, suite))


def generate_audit_texts(
    folder: Path, report: VerificationReport, suite: Suite, process_limits: ProcessLimits = DEFAULT_LIMITS
) -> list[str]:
    """What a submission's model writes for all test tasks of an audit suite, in a process of its own.

    Args:
        folder: of the submission.
        found: of its verification; what the files of the model say otherwise is noted in it.
        suite: the audit suite.
        limits: of the process.
    """
    regenerated = regenerate_samples(
        make_rerun_request(folder, report.submission, report.record, suite, stage=TEST), process_limits
    )
    report.compare("audit.digest", report.record.model.digest, regenerated.digest)
    return [sample["text"] for _, sample in regenerated.samples]


def compare_accuracy(suite: Suite, public_solved: np.ndarray, texts: Sequence[str]) -> Audit:
    """Share of tasks whose shown examples are right, on the public suite and on the audit suite.

    Args:
        suite: the audit suite.
        public: bool [N], by task of the public suite.
        texts: what the model wrote for each task of the audit suite.
    """
    is_solved = score(suite, test_tasks(suite), texts).shown
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
    """Interval of a difference of two proportions of independent samples; both n above 0."""
    first, second = wilson(first_hits, first_n, level), wilson(second_hits, second_n, level)
    if first is None or second is None:
        raise ValueError("newcombe: no tasks")
    difference = first.value - second.value
    lower_margin = float(np.hypot(first.value - first.low, second.high - second.value))
    upper_margin = float(np.hypot(first.high - first.value, second.value - second.low))
    return difference - lower_margin, difference + upper_margin


def is_alarming(audit: Audit) -> bool:
    """Whether the public tasks were easier for the model than fresh ones, beyond the interval."""
    return audit.low > 0
