"""The exported metrics of a submission: accuracies as fractions of tasks, and the delta of `facing` if it is defined."""

from __future__ import annotations

from dataclasses import dataclass

from benchmark.statistics import Estimate
from benchmark.submit.report import VerificationReport
from benchmark.submit.schema import SELF_REPORTED, Status
from karel_env.features import PRIMARY

BENCHMARK = "karel-semantics-benchmark"


@dataclass(frozen=True)
class Metric:
    """An exported metric.

    Attributes:
        name: identifier.
        title: description for readers.
        estimate: value and 95% interval.
        is_proportion: whether it is a fraction of tasks; otherwise a difference of skill scores.
        method: method of the interval.
    """

    name: str
    title: str
    estimate: Estimate
    is_proportion: bool
    method: str


def list_metrics(report: VerificationReport) -> list[Metric]:
    """List the exported metrics of a submission."""
    accuracy, probe_result = report.record.accuracy, report.record.meaning
    titles = {
        "shown": "tasks with all shown examples right",
        "held_out": "tasks with all held-out examples right",
        "exact": "tasks whose program is the reference",
        "valid": "outputs that are programs",
    }
    metrics = [Metric(name, title, getattr(accuracy, name), True, "Wilson") for name, title in titles.items()]
    if probe_result is not None:
        delta = probe_result.features[PRIMARY].delta
        title = f"skill of {PRIMARY} above alternative semantics and controls ({probe_result.verdict})"
        metrics.append(Metric("delta", title, delta, False, "bootstrap over programs, and probe seeds"))
    return metrics


def status_text(status: Status | None) -> str:
    """The verification status as text."""
    return status.status if status is not None else SELF_REPORTED
