"""`reach` is added to a run on request, its figures follow from its evidence, and altered evidence is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from quick_protocol import make_runs_quick
from safetensors.numpy import load_file

from benchmark.artifacts import REACH_EVIDENCE, REACH_RECORD, RECORD
from benchmark.board.sections.reach_section import reach_section, reach_sections
from benchmark.errors import SubmissionError
from benchmark.installation.paths import SOURCE_ROOT
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.probing.protocol import FULL_GRID, STANDARD
from benchmark.runner.measurement_record import ReachRecord, read_measurement
from benchmark.runner.measurements import reach, registry
from benchmark.runner.measurements.reach import ReachMeasurement, pack_texts, parse_written, unpack_texts
from benchmark.runner.plan import Job
from benchmark.runner.probe_answers import answer_probe_tasks
from benchmark.runner.record import read_record
from benchmark.runner.run import Run
from benchmark.submit.measurements.check import read_evidence
from benchmark.submit.measurements.check_reach import ReachCheck, check_sums
from benchmark.submit.measurements.command import main
from benchmark.submit.report import Sample, VerificationReport
from benchmark.tasks.suite import load_suite, probe_tasks
from karel_env.language import HEADER_TEXT

SMALL = replace(
    STANDARD, steps=10, checks=1, folds=3, seeds=(0, 1, 2), hidden=8, deep_hidden=(8, 8), resamples=50, min_programs=5
)
ALL_MEASUREMENTS = Run.measurements


def reference_texts(job_suite):
    tasks = probe_tasks(replace(job_suite, batch=1, tasks=1, sha256=""))
    return [text.removeprefix(HEADER_TEXT).lstrip() for text in tasks.programs.texts()]


def answers(job):
    """Reference programs as answers, with random states."""
    texts = reference_texts(job.suite)
    written = parse_written(texts, job.suite)
    words = sum(text.count("();") for text in texts)
    assert written is not None
    return texts, np.random.default_rng(0).normal(size=(words, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def with_reach(smoke_run, tiny_folder, tmp_path_factory):
    """A run folder to which `reach` was added, of a model that writes the reference programs; read only."""
    base = tmp_path_factory.mktemp("reach")
    folder = base / "run"
    shutil.copytree(smoke_run, folder)
    with pytest.MonkeyPatch.context() as patch:
        make_runs_quick(patch.setattr)
        patch.setitem(registry.MEASUREMENTS, "reach", ReachMeasurement(SMALL))
        patch.setattr(Run, "measurements", ALL_MEASUREMENTS)
        patch.setattr(reach, "answer_probe_tasks", answers)
        command = [str(folder), "--only", "reach", "--model", f"path:{tiny_folder}", "--output-dir", str(base / "out")]
        assert main(command) == 0
    return folder


@pytest.fixture
def added(with_reach, tmp_path):
    """A copy of it."""
    shutil.copytree(with_reach, tmp_path / "run")
    return tmp_path / "run"


def shifted(estimate):
    """A figure whose value and bounds are larger by .001, which no rounding explains."""
    bounds = {name: getattr(estimate, name) + 1e-3 for name in ("value", "low", "high")} if estimate else {}
    return replace(estimate, **bounds) if estimate else None


def report_of(folder, texts):
    samples = [
        Sample(stage="generated", task=i, prompt="0" * 64, text=text, tokens=1, finished=True)
        for i, text in enumerate(texts)
    ]
    return VerificationReport(None, read_record(folder / RECORD), samples)


def test_figures_are_computed_again_from_the_evidence(added, capsys) -> None:
    record = read_measurement(ReachRecord, added)
    assert record is not None
    assert record.written.reason == ""
    assert record.written.reach == 0
    assert [part.offset for part in record.written.ahead] == [1, 2]
    assert (added / REACH_EVIDENCE).stat().st_size < 300_000
    suite, check = load_suite(record.suite.name), ReachCheck(SMALL)
    evidence = read_evidence(check, record, suite, added)
    report = report_of(added, reference_texts(suite))
    check.check(report, record, suite, evidence)
    assert report.mismatches == []
    assert "labelled again" in report.checks[0]

    altered = record.model_copy(update={"written": replace(record.written, reach=1)})
    check.check(report, altered, suite, evidence)
    assert [(mismatch.entry, mismatch.claimed) for mismatch in report.mismatches] == [("reach.reach", 1)]
    report.mismatches.clear()
    moved = replace(
        record.written,
        ahead=[replace(part, history=part.history + 1e-3, delta=shifted(part.delta)) for part in record.written.ahead],
        content=[replace(part, content=shifted(part.content)) for part in record.written.content],
    )
    check.check(report, record.model_copy(update={"written": moved}), suite, evidence)
    names = {f"{part.offset} {part.source} {part.depth} {part.frame}" for part in moved.content if part.content}
    bounds = ("value", "low", "high")
    assert {mismatch.entry for mismatch in report.mismatches} == {
        *(
            f"reach.ahead.{offset}.{figure}"
            for offset in (1, 2)
            for figure in ("history", *(f"delta.{b}" for b in bounds))
        ),
        *(f"reach.content.{name}.content.{bound}" for name in names for bound in bounds),
    }
    with pytest.raises(SubmissionError, match="the samples have"):
        check.check(report_of(added, reference_texts(suite)[:50]), record, suite, evidence)
    with pytest.raises(SubmissionError, match="measure again"):
        check.check(report, record, suite, {})
    with pytest.raises(SubmissionError, match=r"has no programs for the probe tasks.*--without protocol-3"):
        check.check(report_of(added, []), record, suite, evidence)


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("content-0.by_unit", (0, 0, 0), 10**6, "more correct rows"),
        ("content-1.by_seed", (0, 0, 0), 0, "other totals"),
        ("ahead.by_unit", (0, 0, 0), -1.0, "no cross-entropy"),
        ("ahead.by_seed", (1, 2, 0), np.nan, "no cross-entropy"),
        ("ahead.by_seed", (0, 2, 0), 0.0, "other totals"),
    ],
)
def test_impossible_evidence_is_refused(added, name, index, value, message) -> None:
    evidence = load_file(added / REACH_EVIDENCE)
    written = parse_written(reference_texts(load_suite("smoke")), load_suite("smoke"))
    check_sums(evidence, written, SMALL)
    evidence[name][index] = value
    with pytest.raises(SubmissionError, match=message):
        check_sums(evidence, written, SMALL)


def test_the_page_shows_the_figures_of_an_official_record_only(added) -> None:
    record = read_measurement(ReachRecord, added)
    assert record is not None
    assert not record.official
    assert reach_sections(added) == []
    official = record.model_copy(update={"official": True, "unofficial": []})
    (added / REACH_RECORD).write_text(official.to_json())
    (section,) = reach_sections(added)
    assert section.verdict == "reach 0"
    captions = [caption for caption, _ in section.tables]
    assert captions[0] == "Rotation ahead: reach 0"
    assert len(captions) == 4
    assert {row["source"] for row in section.tables[1][1]} >= {"the model", "token history", "majority"}
    (added / REACH_EVIDENCE).write_bytes(b"")
    assert reach_sections(added) == []


def test_a_model_without_programs_has_no_reach(quick, monkeypatch, smoke_run, tiny_folder, tmp_path) -> None:
    monkeypatch.setitem(registry.MEASUREMENTS, "reach", ReachMeasurement(SMALL))
    monkeypatch.setattr(Run, "measurements", ALL_MEASUREMENTS)
    monkeypatch.setattr(
        reach, "answer_probe_tasks", lambda job: (["no program"] * job.suite.probe_programs, np.zeros(0, np.float32))
    )
    folder = tmp_path / "run"
    shutil.copytree(smoke_run, folder)
    command = [str(folder), "--only", "reach", "--model", f"path:{tiny_folder}", "--output-dir", str(tmp_path / "out")]
    assert main(command) == 0
    record = read_measurement(ReachRecord, folder)
    assert record is not None
    assert (record.written.reach, record.evidence_sha256) == (None, None)
    assert record.written.reason.startswith("0 distinct programs; expected at least 5")
    report = report_of(folder, ["no program"] * load_suite("smoke").probe_programs)
    ReachCheck(SMALL).check(report, record, load_suite("smoke"), {})
    assert report.mismatches == []
    assert reach_section(record.written).reason == record.written.reason


def test_any_run_answers_all_probe_tasks() -> None:
    suite = replace(load_suite("smoke"), probe_programs=12, sha256="")
    model = open_checkpoint(ModelSpec.parse(f"path:{SOURCE_ROOT / 'submissions' / '2026-11-25_gpt-laptop'}"))
    job = Job(suite, model, "float32", "cpu", 0)
    texts, states = answer_probe_tasks(job)
    assert len(texts) == 12
    assert len(states) == sum(text.count("();") for text in texts)
    for other in (replace(job, probes=False), replace(job, grid=FULL_GRID)):
        other_texts, other_states = answer_probe_tasks(other)
        assert other_texts == texts
        np.testing.assert_array_equal(other_states, states)


def test_texts_are_packed_without_loss() -> None:
    texts = ["def run() { move(); }", "", "ä"]
    assert unpack_texts(pack_texts(texts)) == texts


def test_a_run_does_not_measure_reach_unless_told() -> None:
    assert "reach" in registry.MEASUREMENTS
    assert "reach" not in registry.STANDARD_MEASUREMENTS
