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
    folder: Path, found: VerificationReport, suite: Suite, limits: ProcessLimits = DEFAULT_LIMITS
) -> list[str]:
    """What a submission's model writes for all test tasks of an audit suite, in a process of its own.

    Args:
        folder: of the submission.
        found: of its verification; what the files of the model say otherwise is noted in it.
        suite: the audit suite.
        limits: of the process.
    """
    again = regenerate_samples(make_rerun_request(folder, found.submission, found.record, suite, stage=TEST), limits)
    found.compare("audit.digest", found.record.model.digest, again.digest)
    return [sample["text"] for _, sample in again.samples]


def compare_accuracy(suite: Suite, public: np.ndarray, texts: Sequence[str]) -> Audit:
    """Share of tasks whose shown examples are right, on the public suite and on the audit suite.

    Args:
        suite: the audit suite.
        public: bool [N], by task of the public suite.
        texts: what the model wrote for each task of the audit suite.
    """
    hits = score(suite, test_tasks(suite), texts).shown
    low, high = newcombe_interval(int(public.sum()), len(public), int(hits.sum()), len(hits), LEVEL)
    shares = float(public.mean()), float(hits.mean())
    return Audit(
        seed=suite.seed, tasks=len(hits), public=shares[0], audit=shares[1],
        difference=shares[0] - shares[1], low=low, high=high,
    )  # fmt: skip


def newcombe_interval(hits: int, n: int, other_hits: int, other_n: int, level: float) -> tuple[float, float]:
    """Interval of a difference of two proportions of independent samples; both n above 0."""
    one, other = wilson(hits, n, level), wilson(other_hits, other_n, level)
    if one is None or other is None:
        raise ValueError("newcombe: no tasks")
    difference = one.value - other.value
    below = float(np.hypot(one.value - one.low, other.high - other.value))
    above = float(np.hypot(one.high - one.value, other.value - other.low))
    return difference - below, difference + above


def is_alarming(audit: Audit) -> bool:
    """Whether the public tasks were easier for the model than fresh ones, beyond the interval."""
    return audit.low > 0
