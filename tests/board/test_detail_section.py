"""Tables of full detail on a row's page hold the figures of the record, and are left out where it is of another model."""

from __future__ import annotations

import json
import shutil

import pytest
from measured_rows import write_uses
from toy_steerable import ToySteerable

from benchmark.artifacts import USES_DETAIL_RECORD, USES_RECORD
from benchmark.board.measured_sections import build_measured_sections
from benchmark.board.measurements import read_measurements
from benchmark.board.sections.detail_section import build_detail_tables, detail_tables
from benchmark.causal.detail.detail_verdict import detail_not_applicable
from benchmark.causal.detail.measure_detail import measure_detail
from benchmark.causal.pairs import PairSettings
from benchmark.installation.paths import SOURCE_ROOT
from benchmark.runner.measurement_record import UsesDetailRecord, UsesRecord, read_measurement
from benchmark.runner.record import read_record
from benchmark.tasks.suite import load_suite

LAPTOP = load_suite("laptop")
FEW = PairSettings(tasks=60)


@pytest.fixture(scope="module")
def result():
    return measure_detail(ToySteerable(LAPTOP, FEW), LAPTOP, FEW)


@pytest.fixture
def folder(tmp_path, result):
    shutil.copy(SOURCE_ROOT / "submissions" / "2026-11-25_gpt-laptop" / "record.json", tmp_path)
    write_uses(tmp_path)
    uses = read_measurement(UsesRecord, tmp_path)
    record = UsesDetailRecord(
        version=1, official=True, unofficial=[], model=uses.model, suite=uses.suite, evidence_sha256="0" * 64,
        provenance=uses.provenance, sites=list(result.sites), detail=result.result,
    )  # fmt: skip
    (tmp_path / USES_DETAIL_RECORD).write_text(record.to_json())
    return tmp_path


def uses_tables(folder):
    measurements = read_measurements(folder, read_record(folder / "record.json"))
    (section,) = (part for part in build_measured_sections(folder, measurements) if part.name == "Uses")
    return dict(section.tables)


def test_the_section_of_uses_has_every_edit_by_place(folder, result):
    tables = uses_tables(folder)
    (caption,) = (name for name in tables if name.startswith("Full detail: right words by edit"))
    assert f"{result.result.pairs:,} strict pairs" in caption
    rows = {row["edit"]: row for row in tables[caption]}
    for edit in result.result.edits:
        share = edit.by_site["steered"][1]
        assert rows[edit.name]["block 1"].startswith(f"{share.value:.3f} [")
        assert f"{edit.name}, control: false semantics" in rows
    figures = {row["figure"]: row["value [95% interval]"] for row in tables["Full detail: other figures"]}
    assert any(name.endswith("dose 0.5") for name in figures)
    every = result.result.programs["edit at every word"]
    assert figures["programs right for the turned robot, edit at every word"].startswith(f"{every.value:.3f}")
    trained = tables["Full detail: trained subspaces, right words on training and other tasks"]
    assert len(trained) == len(result.result.subspaces) == 8


def test_a_row_without_detail_has_no_such_table(folder):
    (folder / USES_DETAIL_RECORD).unlink()
    assert not any(name.startswith("Full detail") for name in uses_tables(folder))
    assert (folder / USES_RECORD).is_file()


def test_detail_of_another_model_or_without_figures_is_left_out(folder):
    uses = read_measurement(UsesRecord, folder)
    assert detail_tables(folder, uses)
    path, content = folder / USES_DETAIL_RECORD, json.loads((folder / USES_DETAIL_RECORD).read_text())
    for change in ({"official": False}, {"model": content["model"] | {"digest": "0" * 64}}):
        path.write_text(json.dumps(content | change))
        assert detail_tables(folder, uses) == []
    bare = UsesDetailRecord.model_validate(content | {"detail": detail_not_applicable("no states"), "sites": []})
    path.write_text(bare.to_json())
    assert detail_tables(folder, uses) == []


def test_what_was_not_made_is_a_dash(result):
    edits = dict(build_detail_tables(result.result, result.sites))
    assert all(value for rows in edits.values() for row in rows for value in list(row.values())[:2])
