"""Results of lm-evaluation-harness 0.4: `results_<date>.json` and `samples_<task>_<date>.jsonl`, as its tracker writes them.

The harness reports a standard error, not an interval; that of a share is its sample standard deviation over the root of n, as
its own `mean_stderr`. A figure whose interval comes from a bootstrap over programs and seeds has none, "N/A" in the format.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmark.runner.redaction import redact_json_paths
from benchmark.statistics import Estimate
from benchmark.submit.export.every_eval_ever import model_identity
from benchmark.submit.export.metrics import Metric, list_metrics
from benchmark.submit.export.samples import SAMPLE_METRICS, ExportedSample, list_samples
from benchmark.submit.report import VerificationReport
from benchmark.submit.schema import Status
from benchmark.tasks.suite import load_suite

FILTER, NO_ERROR = "none", "N/A"


def to_lm_eval(report: VerificationReport, folder: Path, dataset: str, status: Status | None) -> dict[str, str]:
    """Render the two files, by name.

    Args:
        report: report of the verification.
        folder: folder of the submission.
        dataset: id of the benchmark's data set on the Hub.
        status: verification status; None if there is none.
    """
    record = report.record
    task = f"karel_{record.suite.name}"
    started = datetime.fromisoformat(record.provenance.started).astimezone(UTC)
    date = started.strftime("%Y-%m-%dT%H-%M-%S.%f")
    samples = list_samples(report, folder)
    rows = [_sample_row(sample, _generation(report)) for sample in samples]
    document = _results(report, dataset, task, started, list_metrics(report), rows)
    return {
        f"results_{date}.json": json.dumps(redact_json_paths(document), indent=2) + "\n",
        f"samples_{task}_{date}.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
    }


def _results(
    report: VerificationReport,
    dataset: str,
    task: str,
    started: datetime,
    metrics: Sequence[Metric],
    rows: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    record, submission = report.record, report.submission
    values: dict[str, Any] = {"name": task, "alias": task, "sample_len": record.suite.tasks}
    for metric in metrics:
        values[f"{metric.name},{FILTER}"] = metric.estimate.value
        values[f"{metric.name}_stderr,{FILTER}"] = standard_error(metric.estimate) if metric.is_proportion else NO_ERROR
    shots = record.frame.shots if record.frame is not None else 0
    finished = datetime.fromisoformat(record.provenance.finished)
    name = model_identity(submission)
    return {
        "results": {task: values},
        "group_subtasks": {task: []},
        "configs": {
            task: {
                "task": task, "dataset_path": dataset, "dataset_name": record.suite.name, "test_split": "test",
                "output_type": "generate_until", "num_fewshot": shots, "generation_kwargs": _generation(report),
                "repeats": 1, "should_decontaminate": False,
                "metric_list": [{"metric": metric.name, "aggregation": "mean", "higher_is_better": True} for metric in metrics],
                "metadata": {"version": record.suite.version, "protocol": record.protocol.version, "sha256": record.suite.sha256},
            }
        },
        "versions": {task: record.suite.version},
        "n-shot": {task: shots},
        "higher_is_better": {task: {metric.name: True for metric in metrics}},
        "n-samples": {task: {"original": record.suite.tasks, "effective": len(rows)}},
        "config": {
            "model": "hf" if record.provenance.packages.get("transformers") and submission.parameters else "karel",
            "model_args": {"pretrained": name, "dtype": record.model.dtype},
            "model_num_parameters": submission.parameters, "model_dtype": record.model.dtype, "model_sha": submission.digest,
            "batch_size": None, "device": record.model.device, "limit": None, "bootstrap_iters": 0, "gen_kwargs": _generation(report),
        },
        "git_hash": record.provenance.commit,
        "date": started.timestamp(),
        "transformers_version": record.provenance.packages.get("transformers"),
        "model_source": "hf",
        "model_name": name,
        "model_name_sanitized": name.replace("/", "__"),
        "task_hashes": {task: hashlib.sha256("".join(row["doc_hash"] + row["prompt_hash"] + row["target_hash"] for row in rows).encode()).hexdigest()},
        "total_evaluation_time_seconds": str((finished - datetime.fromisoformat(record.provenance.started)).total_seconds()),
    }  # fmt: skip


def standard_error(share: Estimate) -> float:
    """Standard error of a share: the sample standard deviation of its outcomes over the root of n."""
    return float((share.value * (1 - share.value) / (share.n - 1)) ** 0.5) if share.n > 1 else 0.0


def _generation(report: VerificationReport) -> dict[str, Any]:
    suite = load_suite(report.record.suite.name, report.record.suite.seed)
    return {"until": ["}"], "do_sample": False, "temperature": 0.0, "max_gen_toks": suite.max_new_words}


def _sample_row(sample: ExportedSample, generation: dict[str, Any]) -> dict[str, Any]:
    doc = {"task": sample.task, "prompt": sample.prompt, "reference": sample.reference}
    return {
        "doc_id": sample.task,
        "doc": doc,
        "target": sample.reference,
        "arguments": {"gen_args_0": {"arg_0": sample.prompt, "arg_1": generation}},
        "resps": [[sample.answer]],
        "filtered_resps": [sample.answer],
        "filter": FILTER,
        "metrics": list(SAMPLE_METRICS),
        "doc_hash": hashlib.sha256(json.dumps(doc).encode()).hexdigest(),
        "prompt_hash": sample.prompt_sha256,
        "target_hash": hashlib.sha256(sample.reference.encode()).hexdigest(),
        **{name: float(value) for name, value in sample.scores.items()},
    }
