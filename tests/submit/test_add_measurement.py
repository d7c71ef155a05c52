"""Measurements added to a folder: nothing else changes there, wrong weights and ineligible results are refused."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from forged import SHIPPED, copy_small, put
from safetensors.numpy import load_file, save_file

from benchmark.causal import command
from benchmark.errors import SubmissionError, UsageError
from benchmark.runner.run import Run
from benchmark.submit.command import write_status
from benchmark.submit.folder import files_digest
from benchmark.submit.measurements.addition import Addition, prepare_addition
from benchmark.submit.report import Mismatch, VerificationReport
from benchmark.submit.schema import REPRODUCED, SELF_REPORTED, VALIDATED, Audit, Rerun, read_status
from benchmark.submit.screening import screen_model_folder

REAL_MEASUREMENTS = Run.measurements


@pytest.fixture
def run_folder(smoke_run, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(Run, "measurements", REAL_MEASUREMENTS)
    folder = tmp_path / smoke_run.name
    shutil.copytree(smoke_run, folder)
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_run_gets_two_files_and_keeps_the_others(run_folder, tmp_path, capsys):
    before = digests(run_folder)
    assert command.main(["--add-to", str(run_folder), "--output-dir", str(tmp_path / "out")]) == 0
    after = digests(run_folder)
    assert after.keys() - before.keys() == {"uses.json", "causal.data"}
    assert {name: after[name] for name in before} == before
    content = json.loads((run_folder / "uses.json").read_text())
    record = json.loads((run_folder / "record.json").read_text())
    assert content["model"] == record["model"]
    assert content["suite"] == record["suite"]
    assert content["evidence_sha256"] == after["causal.data"]
    assert "verdict    N/A" in capsys.readouterr().out
    # What is there is not computed again, and gives the same bytes.
    assert command.main(["--add-to", str(run_folder), "--output-dir", str(tmp_path / "out")]) == 0
    assert digests(run_folder) == after


def test_other_weights_are_refused(run_folder, tiny_folder, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(tiny_folder, other)
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    arguments = ["--add-to", str(run_folder), "--model", f"path:{other}", "--output-dir", str(tmp_path / "out")]
    assert command.main(arguments) == 4
    error = capsys.readouterr().err
    assert "the model of the record" in error
    assert error.count("\n") == 1


def test_a_submission_gets_nothing_that_is_not_eligible(tmp_path, monkeypatch):
    from benchmark.submit.measurements import addition

    folder = copy_small(tmp_path)
    for name in ("uses.json", "causal.data"):
        (folder / name).unlink(missing_ok=True)
    prepared = prepare_addition(Addition(folder, ("uses",), tmp_path / "out"))
    assert prepared.suite_entry().name == "laptop"
    record = addition.read_record(folder / "record.json")
    kind = addition.MEASUREMENTS["uses"].record_type
    unofficial = kind(
        version=1, official=False, unofficial=["--limit 8"], model=record.model, suite=record.suite, evidence_sha256=None,
        provenance=record.provenance, sites=[], use={"verdict": "N/A", "reason": "none"}, merges=None,
    )  # fmt: skip
    monkeypatch.setattr(addition, "read_measurement", lambda *_: unofficial)
    with pytest.raises(SubmissionError, match="uses is not eligible"):
        addition._copy(prepared, addition.MEASUREMENTS["uses"], record, folder)
    assert not (folder / "uses.json").exists()


def test_few_programs_are_read_where_they_are_asked_for(tmp_path):
    folder = copy_small(tmp_path)
    for few_programs in (False, True):
        addition = Addition(folder, ("represents",), tmp_path / "out", few_programs=few_programs)
        (measurement,) = prepare_addition(addition).measurements()
        assert measurement.few_programs == few_programs


def test_reach_is_not_measured_where_the_samples_could_not_confirm_it(tmp_path):
    folder, addition = copy_small(tmp_path), ("reach",)
    prepare_addition(Addition(folder, addition, tmp_path / "out"))
    lines = gzip.decompress((folder / "samples.jsonl.gz").read_bytes()).splitlines(keepends=True)
    of_tests = [line for line in lines if json.loads(line)["stage"] == "test"]
    assert 0 < len(of_tests) < len(lines)
    put(folder, "samples.jsonl.gz", gzip.compress(b"".join(of_tests)))
    with pytest.raises(UsageError, match=r"reach is not measured: .* no programs for the probe tasks"):
        prepare_addition(Addition(folder, addition, tmp_path / "out"))


def test_a_row_whose_weights_are_withheld_needs_the_model(tmp_path, capsys):
    row = SHIPPED / "2026-11-28_smollm2-135m-instruct"
    assert command.main(["--add-to", str(row), "--output-dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "its weights are withheld; name them with --model" in error
    assert error.count("\n") == 1


def test_the_files_of_a_measurement_are_not_screened_as_the_models(tmp_path):
    folder = copy_small(tmp_path)
    for name in ("uses.json", "represents.json", "frame.json"):
        # The files of a copy are links to those of the shipped row.
        put(folder, name, b'{"model": {"remote_code": false}}')
    screen_model_folder(folder, is_hub=False)
    (folder / "other.json").write_text('{"model": {"remote_code": false}}')
    with pytest.raises(SubmissionError, match="remote_code"):
        screen_model_folder(folder, is_hub=False)


RERUN = Rerun(share=0.1, shards=3, samples=750, processor="AMD EPYC")
AUDIT = Audit(seed=1, tasks=1000, public=0.9, audit=0.9, difference=0.0, low=-0.01, high=0.01)


def test_a_status_names_no_rerun_of_what_was_not_rerun(tmp_path):
    folder = tmp_path / "2026-11-26_x"
    folder.mkdir()
    (folder / "record.json").write_text("{}")
    report = VerificationReport(None, None, [], ["suite"])  # type: ignore[arg-type]
    assert write_status(folder, report, RERUN, AUDIT).status == REPRODUCED
    (folder / "uses.json").write_text("{}")
    status = read_status(folder)
    assert status is not None
    assert status.status == SELF_REPORTED
    renewed = write_status(folder, report)
    assert (renewed.status, renewed.rerun, renewed.audit) == (VALIDATED, None, AUDIT)
    assert write_status(folder, report, RERUN).status == REPRODUCED
    # A change of any other file ends the audit as well.
    (folder / "record.json").write_text("[]")
    assert write_status(folder, report).audit is None
    report.mismatches.append(Mismatch("uses.use.verdict", "USES", "N/A"))
    assert write_status(folder, report).status == "flagged"
    assert files_digest(folder) == json.loads((folder / "status.json").read_text())["files"]
