"""Formats of the Hugging Face Hub: `.eval_results/*.yaml` of a model's repository, and `model-index` of a model card."""

from __future__ import annotations

import yaml

from benchmark.submit.export.metrics import BENCHMARK, list_metrics, status_text
from benchmark.submit.report import VerificationReport
from benchmark.submit.schema import Status


def to_eval_results(report: VerificationReport, dataset: str, status: Status | None) -> str:
    """Render the YAML of `.eval_results/`.

    Args:
        report: report of the verification.
        dataset: id of the benchmark's data set on the Hub.
        status: verification status; None if there is none.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    record = report.record
    notes = f"suite {record.suite.name} v{record.suite.version}, protocol v{record.protocol.version}, status {status_text(status)}"
    entries = [
        EvalResultEntry(
            dataset_id=dataset,
            task_id=f"{record.suite.name}_{metric.name}",
            value=metric.estimate.value,
            date=record.provenance.finished,
            notes=f"{metric.title}; 95% interval [{metric.estimate.low:.4f}, {metric.estimate.high:.4f}], n = {metric.estimate.n}; {notes}",
        )
        for metric in list_metrics(report)
    ]
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, width=100)


def to_model_index(report: VerificationReport, dataset: str, status: Status | None) -> str:
    """Render the YAML metadata of a model card with a `model-index`; arguments as for `to_eval_results`."""
    from huggingface_hub import EvalResult, ModelCardData

    record = report.record
    results = [
        EvalResult(
            task_type="text-generation",
            task_name="Karel programs from examples, and what their words mean in hidden states",
            dataset_type=dataset,
            dataset_name=f"Karel semantics benchmark, suite {record.suite.name} v{record.suite.version}",
            dataset_config=record.suite.name,
            dataset_split="test",
            metric_type=metric.name,
            metric_name=f"{metric.title}, 95% interval [{metric.estimate.low:.4f}, {metric.estimate.high:.4f}], n = {metric.estimate.n}",
            metric_value=metric.estimate.value,
        )
        for metric in list_metrics(report)
    ]
    card = ModelCardData(model_name=report.submission.name, eval_results=results, tags=[BENCHMARK])
    return f"---\n{card.to_yaml()}\n---\n"
