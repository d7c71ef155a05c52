"""Make and check the excerpt of a submission: what ranking needs of its samples and of `probes.data`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmark.artifacts import DESCRIPTION, PROBES, SAMPLES
from benchmark.files import read_tensor_header
from benchmark.submit.artifacts.listing import Excerpt, pack_solved
from benchmark.submit.report import VerificationReport
from benchmark.tasks.stage import TEST

TOLERANCE = 1e-9
METRICS = ("shown", "held_out")


def make_excerpt(report: VerificationReport, folder: Path) -> Excerpt:
    """The excerpt of a submission whose samples and evidence are in a folder.

    Args:
        report: its report, with samples.
        folder: folder with its evidence.
    """
    rows = [row for row in report.samples if row.stage == TEST]
    bits = {metric: pack_solved(np.array([bool(getattr(row, metric)) for row in rows])) for metric in METRICS}
    arrays = sorted(read_tensor_header(folder / PROBES)) if (folder / PROBES).is_file() else []
    return Excerpt(**bits, arrays=arrays)


def check_excerpt(report: VerificationReport, folder: Path) -> None:
    """Check the excerpt, if there is one: against samples and evidence where they are at hand, else against the record.

    Args:
        report: report of the verification; mismatches are added to it.
        folder: folder with the artifacts that are at hand.

    Raises:
        SubmissionError: the excerpt is of another number of tasks.
    """
    excerpt, record = report.submission.excerpt, report.record
    if excerpt is None:
        return
    for metric in METRICS:
        share = float(excerpt.solved(metric, record.suite.tasks).mean())
        report.compare(
            f"excerpt.{metric}: share of solved tasks", share, getattr(record.accuracy, metric).value, TOLERANCE
        )
    if not report.lacks(SAMPLES, "excerpt: solved tasks"):
        recomputed = make_excerpt(report, folder)
        for metric in METRICS:
            report.compare(f"excerpt.{metric}", getattr(excerpt, metric), getattr(recomputed, metric))
        if not report.lacks(PROBES, "excerpt: arrays"):
            report.compare("excerpt.arrays", sorted(excerpt.arrays), recomputed.arrays)
            report.checks.append(f"excerpt of {DESCRIPTION}: solved tasks and names of arrays")
