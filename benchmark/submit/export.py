"""Export a row: `python -m benchmark.export NAME --format eval-results|model-index|every-eval-ever`.

- `eval-results`: the entries of `.eval_results/*.yaml` of a model repository of the Hugging Face hub.
- `model-index`: the metadata of a model card, for the top of its README.md.
- `every-eval-ever`: the JSON of the EvalEval Coalition, schema 0.3.0.

Only what verifies is exported. Accuracies are shares of tasks; facing's delta stands beside them where it is defined.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from benchmark.command import run_command
from benchmark.environment import SUBMISSIONS, package_versions
from benchmark.errors import UsageError
from benchmark.runner.redaction import redact_json_paths, redact_paths
from benchmark.statistics import Estimate
from benchmark.submit.command import raise_on_mismatch
from benchmark.submit.report import VerificationReport
from benchmark.submit.schema import LOCAL_WEIGHTS, SELF_REPORTED, WITHHELD, Status, read_status
from benchmark.submit.verify import verify
from karel_env.command import CommandParser
from karel_env.features import PRIMARY

SCHEMA = "0.3.0"
BENCHMARK = "karel-semantics-benchmark"


@dataclass(frozen=True)
class Metric:
    """A figure of a row.

    Attributes:
        name: of the metric; title: for readers.
        estimate: with its 95% interval.
        share: whether it is a share of tasks; a difference of skills otherwise.
        method: of the interval.
    """

    name: str
    title: str
    estimate: Estimate
    share: bool
    method: str


def list_metrics(found: VerificationReport) -> list[Metric]:
    """The figures of a row that are exported."""
    accuracy, meaning = found.record.accuracy, found.record.meaning
    titles = {
        "shown": "tasks with all shown examples right",
        "held_out": "tasks with all held-out examples right",
        "exact": "tasks whose program is the reference",
        "valid": "outputs that are programs",
    }
    rows = [Metric(name, title, getattr(accuracy, name), True, "Wilson") for name, title in titles.items()]
    if meaning is not None:
        delta = meaning.features[PRIMARY].delta
        title = f"skill of {PRIMARY} above alternative semantics and controls ({meaning.verdict})"
        rows.append(Metric("delta", title, delta, False, "bootstrap over programs, and probe seeds"))
    return rows


def to_eval_results(found: VerificationReport, dataset: str, status: Status | None) -> str:
    """YAML of `.eval_results/`; `dataset` is the hub's id of the benchmark's data set."""
    record = found.record
    notes = f"suite {record.suite.name} v{record.suite.version}, protocol v{record.protocol.version}, status {_status_text(status)}"
    entries = [
        EvalResultEntry(
            dataset_id=dataset,
            task_id=f"{record.suite.name}_{one.name}",
            value=one.estimate.value,
            date=record.provenance.finished,
            notes=f"{one.title}; 95% interval [{one.estimate.low:.4f}, {one.estimate.high:.4f}], n = {one.estimate.n}; {notes}",
        )
        for one in list_metrics(found)
    ]
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, width=100)


def to_model_index(found: VerificationReport, dataset: str, status: Status | None) -> str:
    """YAML of a model card's metadata, with its `model-index`."""
    record = found.record
    results = [
        EvalResult(
            task_type="text-generation",
            task_name="Karel programs from examples, and what their words mean in hidden states",
            dataset_type=dataset,
            dataset_name=f"Karel semantics benchmark, suite {record.suite.name} v{record.suite.version}",
            dataset_config=record.suite.name,
            dataset_split="test",
            metric_type=one.name,
            metric_name=f"{one.title}, 95% interval [{one.estimate.low:.4f}, {one.estimate.high:.4f}], n = {one.estimate.n}",
            metric_value=one.estimate.value,
        )
        for one in list_metrics(found)
    ]
    card = ModelCardData(model_name=found.submission.name, eval_results=results, tags=[BENCHMARK])
    return f"---\n{card.to_yaml()}\n---\n"


def to_every_eval_ever(found: VerificationReport, dataset: str, status: Status | None) -> str:
    """JSON of the every-eval-ever schema, 0.3.0."""
    record, said = found.record, found.submission
    identity = f"{said.authors[0].replace(' ', '-')}/{said.name}"
    stamp = str(int(datetime.fromisoformat(record.provenance.finished).timestamp()))
    source = {
        "dataset_name": f"{BENCHMARK} {record.suite.name}",
        "source_type": "other",
        "additional_details": {
            "suite_version": str(record.suite.version), "seed": str(record.suite.seed), "sha256": record.suite.sha256,
            "tasks": str(record.suite.tasks), "protocol": str(record.protocol.version),
        },
    }  # fmt: skip
    network = not said.model.startswith("baseline:")
    availability = ("closed_weights" if said.model == WITHHELD else "open_weights") if network else "unknown"
    engine = {"name": "transformers", "version": record.provenance.packages.get("transformers") or "unknown"}
    whole = {
        "schema_version": SCHEMA,
        "evaluation_id": f"{BENCHMARK}-{record.suite.name}/{identity}/{stamp}",
        "evaluation_timestamp": record.provenance.finished,
        "retrieved_timestamp": stamp,
        "source_metadata": {
            "source_name": "Karel semantics benchmark",
            "source_type": "evaluation_run",
            "source_organization_name": ", ".join(said.authors),
            "evaluator_relationship": "first_party",
            "additional_details": {"status": _status_text(status)},
        },
        "eval_library": {"name": BENCHMARK, "version": package_versions((BENCHMARK,))[BENCHMARK] or "unknown", "additional_details": {"source": record.provenance.source}},
        "model_info": {
            "name": said.name,
            "id": identity,
            "developer": said.authors[0],
            **({"inference_engine": engine} if network else {}),
            "additional_details": {
                "deployment_type": "self_deployed",
                "model_availability": availability,
                "family": said.family, "parameters": str(said.parameters), "sha256": said.digest, "licence": said.licence,
                "source": "the submission's folder" if said.model == LOCAL_WEIGHTS else said.model,
            },
        },
        "evaluation_results": [_result(one, source, found) for one in list_metrics(found)],
    }  # fmt: skip
    return json.dumps(redact_json_paths(whole), indent=1) + "\n"


def _result(one: Metric, source: dict[str, Any], found: VerificationReport) -> dict[str, Any]:
    estimate = one.estimate
    return {
        "evaluation_name": f"{BENCHMARK} {found.record.suite.name} {one.name}",
        "source_data": source,
        "metric_config": {
            "evaluation_description": one.title,
            "metric_id": f"{BENCHMARK}.{one.name}",
            "metric_name": one.name,
            "metric_unit": "proportion" if one.share else "points",
            "lower_is_better": False,
            "score_type": "continuous",
            "min_score": 0 if one.share else "-Infinity",
            "max_score": 1 if one.share else "Infinity",
        },
        "score_details": {
            "score": estimate.value,
            "uncertainty": {
                "confidence_interval": {
                    "lower": estimate.low, "upper": estimate.high, "confidence_level": 0.95, "method": one.method,
                },
                "num_samples": estimate.n,
            },
        },
        "generation_config": {"generation_args": {"temperature": 0, "execution_command": redact_paths(found.submission.evaluation.command)}},
    }  # fmt: skip


def _status_text(status: Status | None) -> str:
    return status.status if status is not None else SELF_REPORTED


FORMATS: dict[str, Callable[[VerificationReport, str, Status | None], str]] = {
    "eval-results": to_eval_results, "model-index": to_model_index, "every-eval-ever": to_every_eval_ever,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = CommandParser(prog="python -m benchmark.export", description="Export a row of the board.")
    parser.add_argument("name", help="a folder of submissions")
    parser.add_argument("--format", choices=sorted(FORMATS), required=True)
    parser.add_argument("--dataset", default=BENCHMARK, metavar="ID", help="of the benchmark's data set on the hub")
    parser.add_argument("--submissions", type=Path, default=SUBMISSIONS, help="folder of submissions")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: standard output")
    return run_command(lambda: run(parser.parse_args(arguments)))


def run(options: argparse.Namespace) -> int:
    """Write the row in the form asked for; returns the exit code."""
    folder = options.submissions / options.name
    if not folder.is_dir():
        raise UsageError(f"{options.name}: no such submission; give a folder of {options.submissions}")
    found = verify(folder)
    raise_on_mismatch(found)
    text = FORMATS[options.format](found, options.dataset, read_status(folder))
    if options.out is None:
        sys.stdout.write(text)
    else:
        options.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
