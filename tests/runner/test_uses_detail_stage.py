"""The detail of uses as items of a run: the same bytes after a stop and for two workers, and N/A with the reason."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from quick_protocol import QUICK
from silent_progress import Silent
from whole_runs import HELPERS, at_commit

from benchmark.artifacts import MAX_BYTES
from benchmark.causal.detail import detail_pieces, detail_verdict
from benchmark.causal.detail.das import train_basis
from benchmark.cli.run_options import run_config
from benchmark.cluster.local_executor import LocalExecutor
from benchmark.cluster.pool import Pool
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.run import RunOptions
from benchmark.runner.folder import RunFolder
from benchmark.runner.measurement_record import UsesDetailRecord, read_measurement
from benchmark.runner.measurements import stage
from benchmark.runner.measurements.measurement import Measurement
from benchmark.runner.measurements.registry import DETAIL_MEASUREMENTS, MEASUREMENTS, STANDARD_MEASUREMENTS
from benchmark.runner.measurements.stage import measure_only
from benchmark.runner.run import Run, RunConfig
from benchmark.runner.stages import Backend
from benchmark.submit.folder import MEASUREMENT_FILES, TENSOR_FILES

PAIR_SUITE = str(HELPERS / "pair_suite.yaml")
DETAIL = MEASUREMENTS["uses-detail"]
ALL_MEASUREMENTS = Run.measurements


def only_detail(run: Run) -> list[Measurement]:
    """The measurement of this file, if it fits the run."""
    return [measurement for measurement in ALL_MEASUREMENTS(run) if measurement.name == "uses-detail"]


@pytest.fixture(autouse=True)
def measured(quick, monkeypatch):
    """Runs make their measurements, which quick runs leave out; an untrained model may be measured."""
    monkeypatch.setattr(Run, "measurements", only_detail)


@pytest.fixture
def any_model(monkeypatch):
    """A model that solves nothing is measured too, and subspaces are trained on what it does not solve."""
    allow_unsolved(monkeypatch)


def allow_unsolved(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(detail_pieces, "train_basis", partial(train_basis, steps=5))
    patch.setattr(detail_pieces, "MIN_SOLVED", -1)
    patch.setattr(detail_verdict, "MIN_SOLVED", -1)
    patch.setattr(detail_pieces, "MIN_TRAIN_PAIRS", 1)
    real = detail_pieces.DetailCollector._solves
    patch.setattr(
        detail_pieces.DetailCollector, "_solves", lambda *arguments: np.ones_like(real(*arguments), dtype=bool)
    )


def prepare(model: Path, out: Path) -> Run:
    config = RunConfig(PAIR_SUITE, out=out, protocol=QUICK, measurements=DETAIL_MEASUREMENTS)
    return Run(config, open_checkpoint(ModelSpec.parse(f"path:{model}")))


def backend() -> Backend:
    return Backend(Pool(LocalExecutor(), 1), 0, 1, set())


@pytest.fixture(scope="module")
def alone(tiny_folder, tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "measurements", only_detail)
        allow_unsolved(patch)
        run = prepare(tiny_folder, tmp_path_factory.mktemp("alone"))
        measure_only(run, backend(), Silent())
        return run.root()


def same_result(first: Path, second: Path) -> None:
    assert (first / "causal-detail.data").read_bytes() == (second / "causal-detail.data").read_bytes()
    records = [read_measurement(UsesDetailRecord, folder) for folder in (first, second)]
    assert records[0] is not None
    assert records[1] is not None
    assert records[0].model_copy(update={"provenance": records[1].provenance}) == records[1]


def test_it_is_no_standard_measurement():
    assert STANDARD_MEASUREMENTS == ("represents", "uses")
    assert DETAIL_MEASUREMENTS == ("reach", "uses-detail")
    assert RunConfig(PAIR_SUITE).measurements == STANDARD_MEASUREMENTS


def test_every_kind_of_item_is_computed(alone):
    record = read_measurement(UsesDetailRecord, alone)
    assert record is not None
    assert record.sites == ["block 0", "block 1"]
    detail = record.detail
    assert detail.no_subspaces == ""
    assert {(part.rank, part.site) for part in detail.subspaces} == {(4, 0), (4, 1), (16, 0), (16, 1)}
    assert all(len(edit.by_site["steered"]) == 2 for edit in detail.edits)
    assert detail.moves is None, "the suite is too small for pairs of displacement that report"
    assert set(detail.doses) == {"0", "0.5", "1", "2", "3"}


def test_a_stopped_measurement_goes_on_to_the_same_bytes(tiny_folder, tmp_path, alone, monkeypatch, any_model):
    count = 4
    run = prepare(tiny_folder, tmp_path)

    def stop() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        at_commit(patch, count, stop)
        with pytest.raises(KeyboardInterrupt):
            measure_only(run, backend(), Silent())
    assert len(list((run.root() / "shards").glob("uses-detail-*.json"))) == count
    measure_only(run, backend(), Silent())
    same_result(run.root(), alone)


def test_two_workers_that_share_the_items_give_the_same_bytes(tiny_folder, tmp_path, alone, any_model):
    run = prepare(tiny_folder, tmp_path)
    folder = RunFolder(run.root())
    work = stage.MeasurementWork(DETAIL, run.job, folder.store.root)
    workers = [work.prepare(), work.prepare()]
    for phase in DETAIL.phases(run.job):
        for number, item in enumerate(reversed(phase)):
            for staged in workers[number % 2](item, 1.0):
                folder.store.commit(staged)
    measure_only(run, backend(), Silent())
    same_result(run.root(), alone)


def test_a_model_that_solves_nothing_is_not_applicable(tiny_folder, tmp_path):
    run = prepare(tiny_folder, tmp_path)
    measure_only(run, backend(), Silent())
    record = read_measurement(UsesDetailRecord, run.root())
    assert record is not None
    assert record.detail.verdict == "N/A"
    assert "solves 0% of the tasks" in record.detail.reason
    assert "verdict    N/A: the model solves" in DETAIL.format_card(record)
    assert not (run.root() / "causal-detail.data").exists()


def test_full_detail_of_a_run_makes_it():
    measurements = {
        detail: run_config(RunOptions(detail=detail), PAIR_SUITE, "", QUICK).measurements
        for detail in ("standard", "layers", "full")
    }
    assert measurements["standard"] == measurements["layers"] == STANDARD_MEASUREMENTS
    assert measurements["full"] == (*STANDARD_MEASUREMENTS, "reach", "uses-detail")


def test_a_baseline_is_not_applicable(tmp_path):
    config = RunConfig(PAIR_SUITE, out=tmp_path, protocol=QUICK, measurements=DETAIL_MEASUREMENTS)
    run = Run(config, open_checkpoint(ModelSpec.parse("baseline:random")))
    measure_only(run, backend(), Silent())
    record = read_measurement(UsesDetailRecord, run.root())
    assert record is not None
    assert record.detail.verdict == "N/A"
    assert "no states" in record.detail.reason


@pytest.mark.parametrize("name", [name for name in MEASUREMENTS if name != "preview"])
def test_files_of_a_measurement_are_known_and_no_part_of_the_model(name, tiny_folder, tmp_path):
    kind = MEASUREMENTS[name].record_type
    assert {kind.FILE, kind.EVIDENCE} <= MEASUREMENT_FILES
    assert kind.EVIDENCE in TENSOR_FILES
    assert {kind.FILE, kind.EVIDENCE} <= set(MAX_BYTES)
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    digest = open_checkpoint(ModelSpec.parse(f"path:{folder}")).digest
    for file in (kind.FILE, kind.EVIDENCE):
        (folder / file).write_text("{}")
    assert open_checkpoint(ModelSpec.parse(f"path:{folder}")).digest == digest
