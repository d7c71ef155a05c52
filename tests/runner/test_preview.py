"""A preview is the full measurement on fewer seeds: equal evidence per seed, for any number of processes, never official."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from quick_protocol import QUICK, SMALL_SUITE
from safetensors.numpy import load_file
from silent_progress import Silent

import benchmark.run
from benchmark.board.terminal.summary import format_summary
from benchmark.cluster.local_executor import LocalExecutor
from benchmark.cluster.pool import Pool
from benchmark.cluster.process_executor import ProcessExecutor
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.probing.version4 import sequential_verdict, suite_controls
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.probing.version4.sequential_verdict import Look
from benchmark.runner.folder import RunFolder
from benchmark.runner.measurement_record import PreviewRecord, RepresentsRecord, read_measurement
from benchmark.runner.measurements import preview, registry
from benchmark.runner.measurements.preview import PreviewMeasurement
from benchmark.runner.measurements.represents import RepresentsMeasurement
from benchmark.runner.measurements.stage import MeasurementStages, read_measured
from benchmark.runner.plan import GenerationOptions
from benchmark.runner.record import read_record
from benchmark.runner.run import Run, RunConfig
from benchmark.runner.stages import Backend
from benchmark.tasks.prompt_template import FEWSHOT

SMALL = replace(
    ROTATION_STANDARD, folds=3, seeds=(0, 1, 2), random_inits=2, steps=4, checks=1, hidden=4, batch=64, units=12,
    resamples=50, prompts=30,
)  # fmt: skip
ALL_MEASUREMENTS = Run.measurements


@pytest.fixture(autouse=True)
def small(quick, monkeypatch, tmp_path) -> None:
    """Settings that take a moment, a look after two of three seeds, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(suite_controls, "SCREEN_SAMPLE", 1000)
    monkeypatch.setattr(sequential_verdict, "LOOKS", (Look(2, 1.5),))
    monkeypatch.setitem(registry.MEASUREMENTS, "preview", PreviewMeasurement(SMALL))
    monkeypatch.setattr(Run, "measurements", ALL_MEASUREMENTS)


def decide_at(monkeypatch, seeds: int) -> None:
    """The rule decides after this many seeds."""
    monkeypatch.setattr(preview, "is_decided", lambda *_: seeds == 2)


def prepare(tiny_folder: Path, out: Path, **options) -> Run:
    config = RunConfig(
        SMALL_SUITE, out=out, protocol=QUICK, measurements=("represents",), **{"preview": True, **options}
    )
    return Run(config, open_checkpoint(ModelSpec.parse(f"path:{tiny_folder}")))


def backend() -> Backend:
    return Backend(Pool(LocalExecutor(), 1), 0, 1, set())


def execute(run: Run, at: Backend | None = None) -> tuple[PreviewRecord, list[str]]:
    progress = Silent()
    run.execute(at or backend(), progress)
    record = read_measurement(PreviewRecord, run.root())
    assert record is not None
    return record, progress.lines


@pytest.mark.parametrize("seeds", [2, 3])
def test_a_preview_stops_at_the_look_that_decides(tiny_folder, tmp_path, monkeypatch, seeds):
    decide_at(monkeypatch, seeds)
    run = prepare(tiny_folder, tmp_path)
    record, lines = execute(run)
    assert (record.seeds, record.planned_seeds) == (seeds, 3)
    events = [json.loads(line) for line in (run.root() / "events.jsonl").read_text().splitlines()]
    stored = {event["piece"] for event in events if event["event"] == "committed"}
    assert {"preview-probe-0", "preview-probe-1", "preview-record-1"} <= stored
    assert ("preview-probe-2" in stored) == (seeds == 3)
    assert "preview-random-0" in stored
    assert next(line for line in lines if line.startswith("accuracy: ")).startswith("accuracy: 0.0% [")
    assert any(line.startswith("Represents (preview): verdict ") for line in lines)
    card = registry.MEASUREMENTS["preview"].format_card(record)
    assert f"seeds      {seeds} of 3; --all-seeds takes all" in card
    finished = run.finished_record()
    assert finished is not None
    solves, represents, uses, merges = format_summary(finished, {"preview": record}).splitlines()
    assert solves.startswith("solves      0.0% [0.0%, ")
    assert represents.startswith(f"represents  {record.rotation.verdict}")
    assert f"; {seeds} of 3 probe seeds)" in represents
    assert (uses, merges) == ("uses        not measured", "merges      not measured")


def test_a_preview_is_never_official_and_its_record_has_no_probes_of_its_own(tiny_folder, tmp_path, monkeypatch):
    decide_at(monkeypatch, 2)
    run = prepare(tiny_folder, tmp_path)
    record, _ = execute(run)
    reason = "a preview; run it with --all-seeds"
    assert reason in record.unofficial
    finished = run.finished_record()
    assert finished is not None
    assert reason in finished.unofficial
    assert (finished.official, finished.meaning, finished.content) == (False, None, None)
    assert not (run.root() / "probes.data").exists()
    assert list(read_measured(run)) == ["preview"]


def test_all_seeds_are_another_run(tiny_folder, tmp_path):
    preview_run, full = prepare(tiny_folder, tmp_path), prepare(tiny_folder, tmp_path, preview=False)
    assert preview_run.root() != full.root()
    assert [measurement.name for measurement in full.measurements()] == ["represents"]
    assert full.job.has_probes
    assert not preview_run.job.has_probes


def test_a_row_without_protocol_3_has_all_probe_seeds_and_is_another_run(tiny_folder, tmp_path):
    runs = [
        prepare(tiny_folder, tmp_path, preview=preview, probes=probes)
        for preview, probes in ((True, True), (False, True), (False, False))
    ]
    assert len({run.root() for run in runs}) == 3
    assert runs[0].root() == prepare(tiny_folder, tmp_path, probes=False).root()
    without = runs[2]
    assert not without.job.has_probes
    assert [measurement.name for measurement in without.measurements()] == ["represents"]
    assert without.ineligibility_reasons(False) == runs[1].ineligibility_reasons(False)


def test_the_option_that_leaves_out_protocol_3(tiny_folder, tmp_path, capsys):
    words = ["--model", f"path:{tiny_folder}", "--suite", "smoke", "--out", str(tmp_path), "--without", "protocol-3"]
    assert benchmark.run.main([*words, "--all-seeds", "--without", "represents", "--without", "uses"]) == 0
    (folder,) = tmp_path.glob("*-smoke-*")
    record = read_record(folder / "record.json")
    assert record.meaning is None
    assert not any("preview" in reason for reason in record.unofficial)
    assert benchmark.run.main([*words, "--detail", "layers"]) == 2
    assert "the detail is that of protocol 3; leave one of them out" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [{"grid": "layers"}, {"generation": GenerationOptions(states=False)}, {"generation": GenerationOptions(FEWSHOT)}],
)
def test_what_a_preview_would_not_shorten_is_none(tiny_folder, tmp_path, options):
    run = prepare(tiny_folder, tmp_path, **options)
    assert not run.is_preview
    assert "a preview; run it with --all-seeds" not in run.ineligibility_reasons(False)
    assert run.root() == prepare(tiny_folder, tmp_path, preview=False, **options).root()


def test_each_seed_has_the_evidence_of_the_full_measurement(tiny_folder, tmp_path, monkeypatch):
    decide_at(monkeypatch, 3)
    run = prepare(tiny_folder, tmp_path)
    record, _ = execute(run)
    full = Run(replace(run.config, preview=False), run.checkpoint)
    monkeypatch.setitem(registry.MEASUREMENTS, "represents", RepresentsMeasurement(SMALL))
    folder = tmp_path / "full"
    folder.mkdir()
    MeasurementStages(full, RunFolder(folder), backend(), Silent()).measure(registry.MEASUREMENTS["represents"])
    expected, found = load_file(folder / "rotation.data"), load_file(run.root() / "preview.data")
    assert expected.keys() == found.keys()
    for name in expected:
        # Fits of one seed and of three differ in the last bits of their matrix products.
        assert np.allclose(found[name], expected[name], rtol=2e-3, atol=1e-3), name
    whole = read_measurement(RepresentsRecord, folder)
    assert whole is not None
    assert record.rotation.verdict == whole.rotation.verdict
    assert record.rotation.delta.value == pytest.approx(whole.rotation.delta.value, abs=2e-3)


def test_forked_processes_give_the_same_bytes(tiny_folder, tmp_path, monkeypatch):
    decide_at(monkeypatch, 2)
    run = prepare(tiny_folder, tmp_path / "alone")
    record, _ = execute(run)
    forked = ProcessExecutor(2)
    forked.fork_workers()
    pool = Pool(forked, 2)
    try:
        other = prepare(tiny_folder, tmp_path / "forked")
        same, _ = execute(other, Backend(pool, 0, 1, set()))
    finally:
        pool.close()
        forked.shutdown()
    for name in ("preview.data", "samples.jsonl.gz"):
        assert (run.root() / name).read_bytes() == (other.root() / name).read_bytes()
    assert record.model_copy(update={"provenance": same.provenance}) == same


def test_too_few_rows_end_a_preview_at_its_first_look(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(registry.MEASUREMENTS, "preview", PreviewMeasurement(replace(SMALL, read_skill=0.0)))
    record, _ = execute(prepare(tiny_folder, tmp_path))
    assert record.seeds == 2
    assert "rows with unseen prefixes" in record.rotation.reason
