"""A log of Inspect, version 2 in JSON: the evaluation, its results, and a sample with messages and scores for each task.

`inspect view` shows it and `inspect_ai.log.read_eval_log` reads it. The task for new runs is `examples/inspect/karel_task.py`.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from benchmark.environment import package_versions
from benchmark.runner.redaction import redact_json_paths
from benchmark.statistics import Estimate
from benchmark.submit.export.every_eval_ever import model_identity
from benchmark.submit.export.lm_eval import standard_error
from benchmark.submit.export.metrics import BENCHMARK, list_metrics, status_text
from benchmark.submit.export.samples import SAMPLE_METRICS, ExportedSample, list_samples
from benchmark.submit.report import VerificationReport
from benchmark.submit.schema import Status

LOG_VERSION = 2
CORRECT, INCORRECT = "C", "I"


def to_inspect_log(report: VerificationReport, folder: Path, dataset: str, status: Status | None) -> dict[str, str]:
    """Render the log, by its file name; arguments as of `lm_eval.to_lm_eval`."""
    record, samples = report.record, list_samples(report, folder)
    task = f"karel_{record.suite.name}"
    started, finished = record.provenance.started, record.provenance.finished
    identity = hashlib.sha256(f"{record.samples_sha256} {started}".encode()).hexdigest()[:22]
    model = f"{_provider(report.submission.model)}/{model_identity(report.submission)}"
    document = {
        "version": LOG_VERSION,
        "status": "success",
        "eval": {
            "eval_id": identity, "run_id": identity, "task_id": identity, "created": started, "task": task,
            "task_version": record.suite.version, "task_file": None, "task_display_name": task, "task_attribs": {},
            "task_args": {"suite": record.suite.name, "track": record.track}, "task_args_passed": {},
            "dataset": {
                "name": dataset, "samples": len(samples), "sample_ids": [sample.task for sample in samples], "shuffled": False,
            },
            "model": model, "model_generate_config": {"temperature": 0.0}, "model_args": {}, "config": {"epochs": 1},
            "revision": {"type": "git", "origin": "", "commit": record.provenance.commit},
            "packages": {BENCHMARK: package_versions((BENCHMARK,))[BENCHMARK] or "unknown"},
            "metadata": _metadata(report, status),
            "scorers": [
                {"name": name, "options": {}, "metrics": [{"name": "accuracy", "options": {}}, {"name": "stderr", "options": {}}], "metadata": {}}
                for name in SAMPLE_METRICS
            ],
        },
        "plan": {"name": "plan", "steps": [{"solver": "generate", "params": {}}], "config": {"temperature": 0.0}},
        "results": {
            "total_samples": len(samples), "completed_samples": len(samples),
            "scores": [_result(name, getattr(record.accuracy, name)) for name in SAMPLE_METRICS],
        },
        "stats": {"started_at": started, "completed_at": finished, "model_usage": {}},
        "samples": [_sample(sample, model) for sample in samples],
    }  # fmt: skip
    stamp = re.sub(r"[:+]", "-", started)
    return {
        f"{stamp}_{task.replace('_', '-')}_{identity}.json": json.dumps(redact_json_paths(document), indent=1) + "\n"
    }


def _provider(model: str) -> str:
    """Inspect's name of what runs a model: `hf` is transformers; a baseline without a network has none."""
    return "karel" if model.startswith("baseline:") else "hf"


def _metadata(report: VerificationReport, status: Status | None) -> dict[str, Any]:
    """Figures with their intervals, which a log has no place for, and what identifies them."""
    record, submission = report.record, report.submission
    return {
        "suite": {"name": record.suite.name, "version": record.suite.version, "sha256": record.suite.sha256},
        "protocol": record.protocol.version, "track": record.track, "model_sha256": submission.digest,
        "parameters": submission.parameters, "family": submission.family, "authors": submission.authors,
        "licence": submission.licence, "status": status_text(status),
        "intervals_95": {
            metric.name: {"value": metric.estimate.value, "low": metric.estimate.low, "high": metric.estimate.high, "n": metric.estimate.n}
            for metric in list_metrics(report)
        },
    }  # fmt: skip


def _result(name: str, share: Estimate) -> dict[str, Any]:
    values = {"accuracy": share.value, "stderr": standard_error(share)}
    return {
        "name": name, "scorer": name, "scored_samples": share.n, "unscored_samples": 0, "params": {},
        "metrics": {metric: {"name": metric, "value": value, "params": {}} for metric, value in values.items()},
    }  # fmt: skip


def _sample(sample: ExportedSample, model: str) -> dict[str, Any]:
    answer = {"role": "assistant", "content": sample.answer, "source": "generate", "model": model}
    return {
        "id": sample.task, "epoch": 1, "input": sample.prompt, "target": sample.reference,
        "messages": [{"role": "user", "content": sample.prompt, "source": "input"}, answer],
        "output": {
            "model": model, "completion": sample.answer,
            "choices": [{"message": answer, "stop_reason": "stop" if sample.finished else "max_tokens"}],
        },
        "scores": {
            name: {"value": CORRECT if is_right else INCORRECT, "answer": sample.answer, "explanation": sample.outcome}
            for name, is_right in sample.scores.items()
        },
        "metadata": {"prompt_sha256": sample.prompt_sha256, "tokens": sample.tokens, "outcome": sample.outcome},
    }  # fmt: skip
