"""What verification finds of a changed `represents.json` or `rotation.data`, and what a rerun finds."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load, save

from benchmark.artifacts import REPRESENTS_RECORD, ROTATION_EVIDENCE
from benchmark.errors import SubmissionError
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import DEFAULT_LOAD_OPTIONS, ModelSpec
from benchmark.probing.control_gap import RANDOM_INIT, REPRESENTS
from benchmark.probing.semantic_content import SemanticContent
from benchmark.probing.version4.measure_rotation import judge_suite
from benchmark.probing.version4.readable_record import NUM_WORDS, RECORDS
from benchmark.probing.version4.rotation_evidence import NUM_DISPLACEMENT_LABELS, RotationEvidence
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.probing.version4.suite_controls import shipped_suite_controls
from benchmark.probing.version4.track_protocol import rotation_protocol
from benchmark.probing.version4.turn_pairs import ALL_PAIRS
from benchmark.runner.measurement_record import RepresentsRecord
from benchmark.runner.measurements.represents import STORED_SOURCES, conclude_rotation, rotation_suite
from benchmark.runner.plan import DEFAULT_GENERATION
from benchmark.runner.record import ModelEntry, Provenance, SuiteEntry
from benchmark.statistics import Estimate
from benchmark.submit import command as submit_command
from benchmark.submit.check_record import check_figures
from benchmark.submit.measurements import repeat, repeat_represents
from benchmark.submit.measurements.check import check_measurements
from benchmark.submit.measurements.check_represents import checked_evidence
from benchmark.submit.measurements.repeat_represents import SeedRequest, measure_seed
from benchmark.submit.report import VerificationReport
from benchmark.submit.rerun import RerunRequest
from benchmark.tasks.prompt_template import TRAINED
from benchmark.tasks.suite import load_suite

SUITE = load_suite("smoke")


def scaled(prior: RotationEvidence, skills: np.ndarray, num_heads: int, has_displacement: bool) -> RotationEvidence:
    """Evidence with these skills of rotation, and of displacement where there is one."""
    factor = (1 - skills)[:, None]
    labels = NUM_DISPLACEMENT_LABELS if has_displacement else 0
    parts = (
        prior.rotation * factor[..., None], prior.displacement[:, :labels] * factor[:labels], prior.by_position * factor,
        prior.rotation_by_seed * factor, prior.displacement_by_seed[..., :labels] * factor[:labels, 0],
        np.tile(np.array([[0.2], [1.0]]), (len(prior.rotation_by_seed), 1, num_heads)),
    )  # fmt: skip
    return RotationEvidence(*(part.astype(np.float32) for part in parts))


@pytest.fixture(scope="module")
def judged():
    return judge_suite(rotation_suite(SUITE), ROTATION_STANDARD)


@pytest.fixture(scope="module")
def content():
    """Files of a measurement that finds REPRESENTS, by name."""
    return make_content(SUITE)


def make_content(suite, few_programs=False) -> dict[str, bytes]:
    protocol = rotation_protocol(TRAINED, few_programs=few_programs)
    rows = judge_suite(rotation_suite(suite), protocol).judged_rows
    model, record = np.full(len(ALL_PAIRS), 0.3), np.full(len(ALL_PAIRS), 0.4)
    model[0], record[0] = 0.9, 0.5
    num_heads = rows.num_rows.shape[0] + NUM_WORDS
    evidence = {
        source: scaled(
            rows.prior, record if source in RECORDS else model if source == "model" else record * 0,
            num_heads if source == RECORDS[0] else 0, source not in RECORDS,
        )
        for source in STORED_SOURCES
    }  # fmt: skip
    controls = shipped_suite_controls(suite, protocol)
    assert controls is not None
    result = conclude_rotation(evidence, controls, rows, protocol)
    arrays = save({name: array for source in STORED_SOURCES for name, array in evidence[source].arrays(source).items()})
    record_file = RepresentsRecord(
        version=4, official=True, unofficial=[], model=model_entry(), suite=suite_entry(suite), few_programs=few_programs,
        evidence_sha256=hashlib.sha256(arrays).hexdigest(), provenance=provenance(), rotation=result,
    )  # fmt: skip
    assert result.verdict == REPRESENTS
    return {REPRESENTS_RECORD: record_file.to_json().encode(), ROTATION_EVIDENCE: arrays}


def model_entry() -> ModelEntry:
    return ModelEntry(spec="path:m", name="m", digest="a" * 64, parameters=7, dtype="float32", device="cpu")


def suite_entry(suite=SUITE) -> SuiteEntry:
    return SuiteEntry(
        name=suite.name, version=suite.version, seed=suite.seed, sha256=suite.sha256, tasks=suite.tasks, equality=suite.equality
    )  # fmt: skip


def provenance() -> Provenance:
    return Provenance(
        command="measure", identity="b" * 64, source="c" * 64, commit="d" * 40, dirty=False, python="3", platform="p",
        processor="q", cores=2, packages={}, workers=0, started="2026-11-27T01:00:00+00:00",
        finished="2026-11-27T02:00:00+00:00", seconds={}, products="bfloat16",
    )  # fmt: skip


def written(folder, content):
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return folder


def checked(folder, suite=SUITE) -> VerificationReport:
    record = SimpleNamespace(model=model_entry(), suite=suite_entry(suite), track="trained")
    report = VerificationReport(SimpleNamespace(name="row"), record, [])
    check_measurements(report, suite, folder)
    return report


def changed_record(content, change) -> dict[str, bytes]:
    entries = json.loads(content[REPRESENTS_RECORD])
    change(entries)
    return {**content, REPRESENTS_RECORD: json.dumps(entries).encode()}


def changed_arrays(content, change) -> dict[str, bytes]:
    """Files with changed arrays, and the digest of these in the record."""
    arrays = load(content[ROTATION_EVIDENCE])
    arrays = change(arrays) or arrays
    data = save(arrays)
    digest = hashlib.sha256(data).hexdigest()
    changed = changed_record(content, lambda entries: entries.update(evidence_sha256=digest))
    return {**changed, ROTATION_EVIDENCE: data}


def test_what_was_measured_verifies(tmp_path, content) -> None:
    report = checked(written(tmp_path, content))
    assert not report.mismatches
    assert any("rotation.data" in line for line in report.checks)
    assert len(content[ROTATION_EVIDENCE]) < 1_000_000


def test_few_programs_are_checked_as_such(tmp_path) -> None:
    laptop = load_suite("laptop")
    content = make_content(laptop, few_programs=True)
    assert not checked(written(tmp_path, content), laptop).mismatches
    assert len(content[ROTATION_EVIDENCE]) < 500_000
    untold = changed_record(content, lambda entries: entries.pop("few_programs"))
    with pytest.raises(SubmissionError, match=r"is F32 \[13, 2, 245\], expected F32 \[13, 2, 350\]"):
        checked(written(tmp_path, untold), laptop)


def test_a_folder_without_the_measurement_has_nothing_to_check(tmp_path) -> None:
    report = checked(tmp_path)
    assert not report.checks
    assert not report.mismatches


@pytest.mark.parametrize(
    ("entry", "change"),
    [
        ("represents.verdict", lambda r: r["rotation"].update(verdict="RECORD-ONLY")),
        ("represents.delta.value", lambda r: r["rotation"]["delta"].update(value=0.51, high=0.52)),
        ("represents.arithmetic.low", lambda r: r["rotation"]["arithmetic"].update(low=0.01)),
        ("represents.label_skills.lr", lambda r: r["rotation"]["label_skills"].update(lr=0.95)),
        ("represents.curve.3.skill", lambda r: r["rotation"]["curve"][3].update(skill=0.99)),
        ("represents.control_gaps.random-init", lambda r: r["rotation"]["control_gaps"].update({"random-init": 0.2})),
        ("represents.json: model.digest", lambda r: r["model"].update(digest="e" * 64)),
        ("represents.json: suite.seed", lambda r: r["suite"].update(seed=8)),
        ("represents.json: track", lambda r: r.update(track="fewshot")),
        ("represents.json: provenance.dirty", lambda r: r["provenance"].update(dirty=True)),
    ],
)
def test_a_changed_entry_is_a_mismatch(tmp_path, content, entry, change) -> None:
    report = checked(written(tmp_path, changed_record(content, change)))
    assert entry in {mismatch.entry for mismatch in report.mismatches}


def lower(arrays) -> None:
    """A better model, in every array that sums its losses."""
    for name in ("rotation", "by_position", "rotation_by_seed"):
        arrays[f"model.{name}"] = arrays[f"model.{name}"] * np.float32(0.5)


def test_consistently_changed_arrays_give_other_figures(tmp_path, content) -> None:
    report = checked(written(tmp_path, changed_arrays(content, lower)))
    assert {"represents.skill.value", "represents.delta.value"} <= {mismatch.entry for mismatch in report.mismatches}


def renamed(arrays) -> None:
    arrays["model.other"] = arrays.pop("model.rotation")


def double(arrays) -> None:
    arrays["model.heads"] = arrays["model.heads"].astype(np.float64)


def shorter(arrays) -> None:
    arrays["random-init.rotation"] = arrays["random-init.rotation"][..., :-1].copy()


def not_a_number(arrays) -> None:
    arrays["model.by_position"][0, 0] = np.nan


def negative(arrays) -> None:
    arrays["record-sums.rotation"][0, 1, 0] = -1


def one_sum(arrays) -> None:
    arrays["model.rotation_by_seed"] *= np.float32(0.9)


def moved_rows(arrays) -> None:
    rotation = arrays["model.rotation"]
    rotation[:, 0] += rotation[:, 1]
    rotation[:, 1] = 0
    arrays["model.rotation_by_seed"][..., 0] += arrays["model.rotation_by_seed"][..., 1]
    arrays["model.rotation_by_seed"][..., 1] = 0
    rotation[:, :, 0] = rotation[:, ::-1, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [(renamed, "missing or not expected"), (double, "expected F32"), (shorter, "random-init.rotation is F32"),
     (not_a_number, "no cross-entropy"), (negative, "no cross-entropy"), (one_sum, "other totals"), (moved_rows, "model")],
)  # fmt: skip
def test_arrays_that_cannot_be_are_refused(tmp_path, content, change, message) -> None:
    with pytest.raises(SubmissionError, match=message):
        checked(written(tmp_path, changed_arrays(content, change)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(official=False, unofficial=["--limit 5"]), "not an official measurement"),
        (lambda r: r.update(version=5), "version 5"),
        (lambda r: r["provenance"].update(source="x"), "SHA-256"),
        (lambda r: r.update(evidence_sha256="f" * 64), "its SHA-256 is not that of"),
        (lambda r: r["provenance"].update(finished="2026-11-26T02:00:00+00:00"), "one after the other"),
        (lambda r: r["rotation"]["skill"].update(value=1.2, high=1.3), "at most 1"),
        (lambda r: r.update(extra=1), "extra"),
    ],
)
def test_records_out_of_bounds_are_refused(tmp_path, content, change, message) -> None:
    with pytest.raises(SubmissionError, match=message):
        checked(written(tmp_path, changed_record(content, change)))


@pytest.mark.parametrize("name", [REPRESENTS_RECORD, ROTATION_EVIDENCE])
def test_one_file_without_the_other_is_refused(tmp_path, content, name) -> None:
    with pytest.raises(SubmissionError, match="there"):
        checked(written(tmp_path, {name: content[name]}))


def test_a_record_without_evidence_is_refused(tmp_path, content) -> None:
    alone = changed_record(content, lambda r: r.update(evidence_sha256=None))
    with pytest.raises(SubmissionError, match=r"without rotation\.data"):
        checked(written(tmp_path, {REPRESENTS_RECORD: alone[REPRESENTS_RECORD]}))


SMALL = replace(
    ROTATION_STANDARD, folds=3, seeds=(0, 1, 2), random_inits=2, steps=8, checks=2, hidden=8, batch=64, units=12, prompts=30,
)  # fmt: skip


def test_a_rerun_measures_one_seed_as_the_run_did(tiny_folder, tmp_path, monkeypatch) -> None:
    from benchmark.runner.measurements.represents import RepresentsMeasurement
    from benchmark.runner.plan import Job

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    spec = ModelSpec.parse(f"path:{tiny_folder}")
    collector = RepresentsMeasurement(SMALL).open(Job(SUITE, open_checkpoint(spec), "float32", "cpu", 2))
    stored = collector.collect("model", lambda name: {}, 1.0)
    copy = collector.collect("random-1", lambda name: {}, 1.0)
    request = RerunRequest(
        "m", str(tiny_folder), "", SUITE, "float32", "cpu", DEFAULT_LOAD_OPTIONS, DEFAULT_GENERATION, SMALL
    )
    measured = measure_seed(SeedRequest(request, SMALL, 1))
    assert set(measured) == set(STORED_SOURCES)
    for source in ("model", *RECORDS):
        assert (measured[source] == stored[f"{source}.rotation_by_seed"][1]).all(), source
    assert (measured[RANDOM_INIT] == copy[f"{RANDOM_INIT}.rotation_by_seed"][0]).all()


def test_a_rerun_reads_the_states_of_the_weights_and_of_an_untrained_copy(tiny_folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    other = tmp_path / "other"
    shutil.copytree(tiny_folder, other)
    weights = load((other / "model.safetensors").read_bytes())
    changed = {name: array[..., ::-1].copy() for name, array in weights.items()}
    (other / "model.safetensors").write_bytes(save(changed, metadata={"format": "pt"}))
    measured = [
        measure_seed(
            SeedRequest(
                RerunRequest("m", str(folder), "", SUITE, "float32", "cpu", DEFAULT_LOAD_OPTIONS, DEFAULT_GENERATION, SMALL),
                SMALL, 1,
            )
        )
        for folder in (tiny_folder, other)
    ]  # fmt: skip
    assert any((measured[0][source] != measured[1][source]).any() for source in ("model", *RECORDS))
    assert (measured[0][RANDOM_INIT] == measured[1][RANDOM_INIT]).all()


def test_verification_with_a_rerun_fits_a_probe_seed_again(tmp_path, monkeypatch) -> None:
    called = []
    for name in ("repeat_represents", "repeat_uses_detail"):
        monkeypatch.setattr(repeat, name, lambda folder, report, limits, name=name: called.append(name))
    report = VerificationReport(SimpleNamespace(name="row"), SimpleNamespace(suite=suite_entry(), frame=None), [])
    submit_command.rerun_measurements(tmp_path, report)
    assert called == ["repeat_represents", "repeat_uses_detail"]


@pytest.mark.parametrize("factor", [1.0, 1.1])
def test_a_rerun_compares_skills(tmp_path, content, judged, monkeypatch, factor) -> None:
    folder = written(tmp_path, content)
    evidence = checked_evidence(load(content[ROTATION_EVIDENCE]), judged.judged_rows)
    requests = []

    def run(function, request, **limits):
        requests.append(request)
        assert function is measure_seed
        q = request.seed
        return {source: evidence[source].rotation_by_seed[q] * factor for source in STORED_SOURCES}

    monkeypatch.setattr(repeat_represents, "run_bounded", run)
    monkeypatch.setattr(repeat_represents, "make_rerun_request", lambda *_: None)
    record = SimpleNamespace(suite=suite_entry(), frame=None)
    report = VerificationReport(SimpleNamespace(name="row"), record, [])
    repeat_represents.repeat_represents(folder, report)
    assert requests[0].seed in ROTATION_STANDARD.seeds
    assert bool(report.mismatches) == (factor > 1)
    assert any("probe seed" in line for line in report.checks)


def test_a_difference_may_be_negative_where_a_share_may_not(content) -> None:
    record = RepresentsRecord.model_validate_json(content["represents.json"])
    negative = Estimate(-0.02, -0.03, -0.01, 350)
    check_figures(
        record.model_copy(update={"rotation": replace(record.rotation, arithmetic=negative)}), "represents.json"
    )
    with pytest.raises(SubmissionError, match=r"content.arithmetic.linear: .* expected a share from 0 to 1"):
        check_figures(SemanticContent({"linear": negative}, {}, 1, 1), "content")
