"""The JSON of the EvalEval Coalition's every-eval-ever, schema 0.3.0."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from benchmark.environment import package_versions
from benchmark.runner.redaction import redact_json_paths, redact_paths
from benchmark.submit.export.metrics import BENCHMARK, Metric, list_metrics, status_text
from benchmark.submit.report import VerificationReport
from benchmark.submit.schema import LOCAL_WEIGHTS, WITHHELD, Status, Submission

SCHEMA = "0.3.0"


def model_identity(submission: Submission) -> str:
    """The identity of a model as `developer/name`: that of the hub, or the first author and the name of the row."""
    if submission.model.startswith("hf:"):
        return submission.model.removeprefix("hf:").partition("@")[0]
    developer = re.sub(r"[^A-Za-z0-9._-]+", "-", submission.authors[0]).strip("-.") or "unknown"
    return f"{developer}/{submission.name}"


def to_datastore(report: VerificationReport, folder: Path, dataset: str, status: Status | None) -> dict[str, str]:
    """Render the document under the path that the data store has for it, `data/BENCHMARK/DEVELOPER/MODEL/UUID.json`.

    The UUID comes from the content, so that the same submission is the same file. Arguments as of `lm_eval.to_lm_eval`.
    """
    text = to_every_eval_ever(report, dataset, status)
    identity = UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=4)
    return {f"data/{BENCHMARK}/{model_identity(report.submission)}/{identity}.json": text}


def to_every_eval_ever(report: VerificationReport, dataset: str, status: Status | None) -> str:
    """Render the JSON of the every-eval-ever schema 0.3.0; arguments as for `to_eval_results`."""
    record, submission = report.record, report.submission
    model_id = model_identity(submission)
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
            "additional_details": {"status": status_text(status)},
        },
        "eval_library": {"name": BENCHMARK, "version": package_versions((BENCHMARK,))[BENCHMARK] or "unknown", "additional_details": {"source": record.provenance.source}},
        "model_info": {
            "name": submission.name,
            "id": model_id,
            "developer": model_id.partition("/")[0],
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
