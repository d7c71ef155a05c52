"""Export a submission: `karel-bench export NAME --format eval-results|model-index|every-eval-ever`.

- `eval-results`: entries of `.eval_results/*.yaml` in a model repository on the Hugging Face Hub.
- `model-index`: metadata of a model card, for the top of its README.md.
- `every-eval-ever`: JSON of the EvalEval Coalition, schema 0.3.0.

Only a submission that verifies is exported. Accuracies are fractions of tasks; the delta of `facing` is added if defined.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from benchmark.cli.declare import argument, option, parse_options
from benchmark.cli.fields import output_file_option, submissions_option
from benchmark.command import run_command
from benchmark.environment import package_versions
from benchmark.errors import UsageError
from benchmark.runner.redaction import redact_json_paths, redact_paths
from benchmark.statistics import Estimate
from benchmark.submit.artifacts.sources import Sources
from benchmark.submit.command import raise_on_mismatch
from benchmark.submit.report import VerificationReport, raise_on_missing
from benchmark.submit.schema import LOCAL_WEIGHTS, SELF_REPORTED, WITHHELD, Status, read_status
from benchmark.submit.verify import verify
from karel_env.command import nearest
from karel_env.features import PRIMARY

SCHEMA = "0.3.0"
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


def to_eval_results(report: VerificationReport, dataset: str, status: Status | None) -> str:
    """Render the YAML of `.eval_results/`.

    Args:
        report: report of the verification.
        dataset: id of the benchmark's data set on the Hub.
        status: verification status; None if there is none.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    record = report.record
    notes = f"suite {record.suite.name} v{record.suite.version}, protocol v{record.protocol.version}, status {_status_text(status)}"
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


def to_every_eval_ever(report: VerificationReport, dataset: str, status: Status | None) -> str:
    """Render the JSON of the every-eval-ever schema 0.3.0; arguments as for `to_eval_results`."""
    record, submission = report.record, report.submission
    model_id = f"{submission.authors[0].replace(' ', '-')}/{submission.name}"
    timestamp = str(int(datetime.fromisoformat(record.provenance.finished).timestamp()))
    source = {
        "dataset_name": f"{BENCHMARK} {record.suite.name}",
        "source_type": "other",
        "additional_details": {
            "suite_version": str(record.suite.version), "seed": str(record.suite.seed), "sha256": record.suite.sha256,
            "tasks": str(record.suite.tasks), "protocol": str(record.protocol.version),
        },
    }  # fmt: skip
    has_network = not submission.model.startswith("baseline:")
    availability = ("closed_weights" if submission.model == WITHHELD else "open_weights") if has_network else "unknown"
    engine = {"name": "transformers", "version": record.provenance.packages.get("transformers") or "unknown"}
    document = {
        "schema_version": SCHEMA,
        "evaluation_id": f"{BENCHMARK}-{record.suite.name}/{model_id}/{timestamp}",
        "evaluation_timestamp": record.provenance.finished,
        "retrieved_timestamp": timestamp,
        "source_metadata": {
            "source_name": "Karel semantics benchmark",
            "source_type": "evaluation_run",
            "source_organization_name": ", ".join(submission.authors),
            "evaluator_relationship": "first_party",
            "additional_details": {"status": _status_text(status)},
        },
        "eval_library": {"name": BENCHMARK, "version": package_versions((BENCHMARK,))[BENCHMARK] or "unknown", "additional_details": {"source": record.provenance.source}},
        "model_info": {
            "name": submission.name,
            "id": model_id,
            "developer": submission.authors[0],
            **({"inference_engine": engine} if has_network else {}),
            "additional_details": {
                "deployment_type": "self_deployed",
                "model_availability": availability,
                "family": submission.family, "parameters": str(submission.parameters), "sha256": submission.digest, "licence": submission.licence,
                "source": "the submission's folder" if submission.model == LOCAL_WEIGHTS else submission.model,
            },
        },
        "evaluation_results": [_metric_entry(metric, source, report) for metric in list_metrics(report)],
    }  # fmt: skip
    return json.dumps(redact_json_paths(document), indent=1) + "\n"


def _metric_entry(metric: Metric, source: dict[str, Any], report: VerificationReport) -> dict[str, Any]:
    estimate = metric.estimate
    return {
        "evaluation_name": f"{BENCHMARK} {report.record.suite.name} {metric.name}",
        "source_data": source,
        "metric_config": {
            "evaluation_description": metric.title,
            "metric_id": f"{BENCHMARK}.{metric.name}",
            "metric_name": metric.name,
            "metric_unit": "proportion" if metric.is_proportion else "points",
            "lower_is_better": False,
            "score_type": "continuous",
            "min_score": 0 if metric.is_proportion else "-Infinity",
            "max_score": 1 if metric.is_proportion else "Infinity",
        },
        "score_details": {
            "score": estimate.value,
            "uncertainty": {
                "confidence_interval": {
                    "lower": estimate.low, "upper": estimate.high, "confidence_level": 0.95, "method": metric.method,
                },
                "num_samples": estimate.n,
            },
        },
        "generation_config": {"generation_args": {"temperature": 0, "execution_command": redact_paths(report.submission.evaluation.command)}},
    }  # fmt: skip


def _status_text(status: Status | None) -> str:
    return status.status if status is not None else SELF_REPORTED


FORMATS: dict[str, Callable[[VerificationReport, str, Status | None], str]] = {
    "eval-results": to_eval_results, "model-index": to_model_index, "every-eval-ever": to_every_eval_ever,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Export a submission to a format of the Hugging Face Hub or of every-eval-ever."""

    name: str = argument("name of the submission")
    format: str = option(..., "select the format", choices=tuple(sorted(FORMATS)))
    dataset: str = option(BENCHMARK, "name the benchmark's data set on the Hub", metavar="ID")
    submissions: Path = submissions_option()
    output_file: Path | None = output_file_option(None, "write this file", "standard output")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(lambda: run(parse_options(ExportOptions, arguments, "export")))


def run(options: ExportOptions) -> int:
    """Verify a submission and write it in the selected format; returns the exit code."""
    folder = options.submissions / options.name
    if not folder.is_dir():
        hint = nearest(options.name, (path.name for path in options.submissions.glob("*/")))
        raise UsageError(f"{options.name}: no such submission; give a folder of {options.submissions}{hint}")
    report = verify(folder, sources=Sources.of_user())
    raise_on_mismatch(report)
    raise_on_missing(report)
    text = FORMATS[options.format](report, options.dataset, read_status(folder))
    if options.output_file is None:
        sys.stdout.write(text)
    else:
        options.output_file.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
