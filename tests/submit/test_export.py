"""What is exported is read back by the machinery that it is for, and says what the record says."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from uuid import UUID

import pytest
import yaml
from hostile import entry
from huggingface_hub import ModelCard, parse_eval_result_entries

from benchmark.runner.record import read_record
from benchmark.statistics import Estimate
from benchmark.submit.export.command import DOCUMENTS, main
from benchmark.submit.export.every_eval_ever import to_datastore
from benchmark.submit.export.inspect_log import to_inspect_log
from benchmark.submit.export.lm_eval import standard_error, to_lm_eval
from benchmark.submit.verify import verify

SUBMISSIONS = Path(__file__).parents[2] / "submissions"
PLAIN, NETWORK = "2026-11-25_n-gram", "2026-11-25_gpt-laptop"


@pytest.fixture
def exported(capsys):
    """Call it with a submission and a format."""

    def export(name: str, form: str) -> str:
        assert main([name, "--format", form, "--dataset", "org/karel"]) == 0
        return capsys.readouterr().out

    return export


def figures(name: str) -> dict[str, float]:
    record = read_record(SUBMISSIONS / name / "record.json")
    report = {metric: getattr(record.accuracy, metric).value for metric in ("shown", "held_out", "exact", "valid")}
    return report | ({"delta": record.meaning.features["facing"].delta.value} if record.meaning else {})


@pytest.mark.parametrize("name", [PLAIN, NETWORK])
def test_eval_results_are_read_by_the_hub_client(name, exported):
    entries = parse_eval_result_entries(yaml.safe_load(exported(name, "eval-results")))
    assert {metric.task_id.removeprefix("laptop_"): metric.value for metric in entries} == figures(name)
    assert {metric.dataset_id for metric in entries} == {"org/karel"}
    assert all("95% interval" in metric.notes and "n = " in metric.notes for metric in entries)


@pytest.mark.parametrize("name", [PLAIN, NETWORK])
def test_a_model_index_is_read_as_a_model_card(name, exported):
    card = ModelCard(exported(name, "model-index") + "\ntext\n")
    assert {metric.metric_type: metric.metric_value for metric in card.data.eval_results} == figures(name)
    assert card.data.model_name == name.partition("_")[2]


REQUIRED = {
    "": ("schema_version", "evaluation_id", "retrieved_timestamp", "source_metadata", "model_info", "eval_library",
         "evaluation_results"),
    "source_metadata": ("source_type", "source_organization_name", "evaluator_relationship"),
    "eval_library": ("name", "version"),
    "model_info": ("name", "id", "additional_details"),
    "model_info.additional_details": ("deployment_type", "model_availability"),
    "evaluation_results.0": ("evaluation_name", "source_data", "metric_config", "score_details"),
    "evaluation_results.0.source_data": ("dataset_name", "source_type"),
    "evaluation_results.0.metric_config": ("lower_is_better", "min_score", "max_score"),
    "evaluation_results.0.score_details": ("score",),
    "evaluation_results.0.score_details.uncertainty.confidence_interval": ("lower", "upper"),
}  # fmt: skip
"""Of every-eval-ever 0.3.0; `test_export_readers` has its own reader read it, where that is installed."""
ALLOWED = {*REQUIRED[""], "evaluation_timestamp", "detailed_evaluation_results"}


@pytest.mark.parametrize("name", [PLAIN, NETWORK])
def test_every_eval_ever_has_what_its_schema_requires(name, exported):
    document = json.loads(exported(name, "every-eval-ever"))
    assert set(document) <= ALLOWED
    for field, required in REQUIRED.items():
        inner = document
        for step in filter(None, field.split(".")):
            inner = inner[int(step)] if step.isdigit() else inner[step]
        assert set(required) <= set(inner), field
    details = document["model_info"]["additional_details"]
    assert details["deployment_type"] in ("self_deployed", "externally_managed", "unknown")
    assert details["model_availability"] in ("open_weights", "closed_weights", "unknown")
    assert all(isinstance(value, str) for value in details.values())
    assert ("inference_engine" in document["model_info"]) == (name == NETWORK)
    scores = {
        metric["metric_config"]["metric_name"]: metric["score_details"]["score"]
        for metric in document["evaluation_results"]
    }
    assert scores == figures(name)


@pytest.fixture(scope="module")
def report():
    return verify(SUBMISSIONS / NETWORK)


def the_files(render, report) -> dict[str, str]:
    """What a format writes, and the same again: names and contents come from the submission alone."""
    files: dict[str, str] = render(report, SUBMISSIONS / NETWORK, "org/karel", None)
    assert render(report, SUBMISSIONS / NETWORK, "org/karel", None) == files
    return files


def test_lm_eval_results_have_figures_errors_and_a_line_per_task(report):
    files = the_files(to_lm_eval, report)
    results, rows = (
        json.loads(next(iter(files.values()))),
        [json.loads(line) for line in [*files.values()][1].splitlines()],
    )
    assert [name.rsplit("_", 1)[0] for name in files] == ["results", "samples_karel_laptop"]
    task = results["results"]["karel_laptop"]
    assert {name: task[f"{name},none"] for name in figures(NETWORK)} == figures(NETWORK)
    assert task["delta_stderr,none"] == "N/A"
    shown = report.record.accuracy.shown
    assert task["shown_stderr,none"] == pytest.approx((shown.value * (1 - shown.value) / (shown.n - 1)) ** 0.5)
    assert results["n-samples"]["karel_laptop"] == {"original": shown.n, "effective": len(rows)}
    assert {"configs", "versions", "n-shot", "higher_is_better", "config", "date", "model_name"} <= set(results)
    assert sum(row["shown"] for row in rows) / len(rows) == shown.value
    assert [row["doc_id"] for row in rows] == list(range(shown.n))
    prompt = rows[0]["arguments"]["gen_args_0"]["arg_0"]
    assert hashlib.sha256(prompt.encode()).hexdigest() == rows[0]["prompt_hash"] == report.samples[0].prompt
    assert {"target", "resps", "filtered_resps", "filter", "metrics", "doc_hash", "target_hash"} <= set(rows[0])


def test_an_inspect_log_has_messages_and_scores_for_each_task(report):
    ((name, text),) = the_files(to_inspect_log, report).items()
    log = json.loads(text)
    assert name.split("_")[1] == "karel-laptop"
    assert (log["version"], log["status"], log["eval"]["task"]) == (2, "success", "karel_laptop")
    assert log["eval"]["model"] == "hf/the-authors-of-this-benchmark/gpt-laptop"
    scores = {score["name"]: score["metrics"]["accuracy"]["value"] for score in log["results"]["scores"]}
    assert scores == {name: value for name, value in figures(NETWORK).items() if name != "delta"}
    assert log["eval"]["metadata"]["intervals_95"]["shown"]["n"] == len(log["samples"]) == 1000
    for name, value in scores.items():
        right = [sample["scores"][name]["value"] == "C" for sample in log["samples"]]
        assert sum(right) / len(right) == value
    first = log["samples"][0]
    assert first["input"] == first["messages"][0]["content"]
    assert first["input"].endswith("def run() {")
    assert first["target"].startswith("move();")


def test_a_standard_error_of_one_task_is_none():
    assert standard_error(Estimate(1.0, 0.2, 1.0, 1)) == 0.0


def test_the_data_store_finds_a_document_by_its_path(report):
    ((path, text),) = the_files(to_datastore, report).items()
    data, benchmark, developer, model, file = path.split("/")
    identity = json.loads(text)["model_info"]["id"]
    assert (data, benchmark, f"{developer}/{model}") == ("data", "karel-semantics-benchmark", identity)
    assert UUID(file.removesuffix(".json")).version == 4


def test_files_are_written_into_a_folder_and_options_must_fit(tmp_path, capsys):
    for words, says in (
        (["--format", "lm-eval"], "expected a folder for them by --output-dir"),
        (["--format", "model-index", "--output-dir", str(tmp_path / "out")], "only with --format"),
    ):
        assert main([PLAIN, *words]) == 2
        assert says in capsys.readouterr().err
    assert main([PLAIN, "--format", "every-eval-ever", "--output-dir", str(tmp_path / "out")]) == 0
    (path,) = (tmp_path / "out").rglob("*.json")
    assert str(path) in capsys.readouterr().out


@pytest.mark.parametrize("form", DOCUMENTS)
def test_what_does_not_verify_is_not_exported(form, tmp_path, capsys):
    shutil.copytree(SUBMISSIONS / PLAIN, tmp_path / PLAIN, ignore=shutil.ignore_patterns("status.json"))
    entry("accuracy.shown.value", 0.11, "record.json")(tmp_path / PLAIN)
    out = tmp_path / "out"
    assert main([PLAIN, "--format", form, "--submissions", str(tmp_path), "--out", str(out)]) == 4
    assert not out.exists()
    assert main(["nowhere", "--format", form]) == 2
