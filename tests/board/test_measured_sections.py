"""Sections of a row's page hold the figures of the complete records, and say what they mean."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from measured_rows import SITES, planned, rotation_result, write_represents, write_uses

from benchmark.board.measured_sections import (
    build_measured_sections,
    describe_measurements,
    name_sites,
    represents_section,
    uses_section,
)
from benchmark.board.measurements import Measurements, read_measurements
from benchmark.board.page import represents_uses_chart
from benchmark.board.sections.budget_note import FEWSHOT_BUDGET
from benchmark.board.tables import format_p
from benchmark.causal.verdict import judge, not_applicable
from benchmark.installation.paths import SOURCE_ROOT
from benchmark.probing.version4.rotation_verdict import VERDICTS
from benchmark.runner.record import read_record
from benchmark.statistics import Estimate


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("row")
    shutil.copy(SOURCE_ROOT / "submissions" / "2026-11-25_gpt-laptop" / "record.json", target)
    write_represents(target)
    write_uses(target)
    return target


@pytest.fixture(scope="module")
def measurements(folder) -> Measurements:
    return read_measurements(folder, read_record(folder / "record.json"))


def cells(section, caption):
    """The rows of a table by the text of their first cell."""
    table = next(rows for name, rows in section.tables if name == caption)
    return {next(iter(row.values())): list(row.values())[1:] for row in table}


def test_a_row_has_a_section_for_each_measurement_that_it_shows(folder, measurements):
    assert [part.name for part in build_measured_sections(folder, measurements)] == ["Represents", "Uses", "Merges"]
    only = Measurements(represents=measurements.represents)
    assert [part.name for part in build_measured_sections(folder, only)] == ["Represents"]
    assert build_measured_sections(folder, Measurements()) == []


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({}, "REPRESENTS needs all three conditions."),
        ({"few_programs": True}, "Read from 1,000 programs at most; other rows are read from 7,000."),
        ({"track": "fewshot"}, FEWSHOT_BUDGET),
    ],
)
def test_a_section_tells_from_how_many_programs_it_is_read(folder, tmp_path, measurements, entries, said):
    record = json.loads((folder / "represents.json").read_text())
    (tmp_path / "represents.json").write_text(json.dumps(record | entries))
    shown = Measurements(represents=measurements.represents)
    (section,) = build_measured_sections(tmp_path, shown)
    assert section.lead.endswith(said)


def test_conditions_say_which_are_met():
    weak = Estimate(0.02, 0.005, 0.035, 2500)
    section = represents_section(replace(rotation_result("INCONCLUSIVE", "because"), arithmetic=weak), 4)
    conditions = cells(section, "Conditions of REPRESENTS")
    assert [row[-1] for row in conditions.values()] == ["yes", "yes", "no"]
    assert conditions["delta: gap minus the largest control gap"][:2] == ["+0.324 [+0.307, +0.340]", "0.03"]
    gaps = cells(section, "Gap of the model and of each control")
    assert gaps["token history"] == ["-0.006"]
    assert gaps["executed record: number of either of two words"] == ["+0.009"]
    assert cells(section, "Other figures")["labels read as well as rotation, p"] == ["< 0.001"]
    (chart,) = section.charts
    assert [text for _, text in chart.x_ticks] == list("123456")
    assert [len(series.marks) for series in chart.series] == [6, 6]
    # The executed record falls faster than the model: it is drawn lower, at a larger y in pixels.
    assert chart.series[1].marks[-1].y > chart.series[0].marks[-1].y
    assert (section.verdict, section.reason) == ("INCONCLUSIVE", "because")


def test_scores_stand_beside_their_controls():
    pairs, evidence = planned()
    use = judge(evidence, pairs)
    section = uses_section(use, SITES)
    scores = cells(section, "Share of pairs in which the right word was written")
    for name, estimate in {"steered": use.strict.steered, **use.strict.controls}.items():
        shown = scores[name if name == "steered" else f"control: {name}"][0]
        assert shown == f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
    assert scores["control: random vector"][1] == "-"
    figures = cells(section, "Conditions of USES, and other figures")
    assert figures["place of the edit, selected on other tasks"][0] == SITES[use.site]
    assert cells(section, "Candidates that are not used")["more pairs per task than are used"]
    (chart,) = section.charts
    assert [text for _, text in chart.x_ticks] == ["0", "1"]
    assert chart.x_label == "block"
    assert chart.series[0].marks[1].y < chart.series[0].marks[0].y


def test_what_was_not_measured_has_its_reason_and_no_figures():
    section = uses_section(not_applicable("no states", {"reason": 1234}), [])
    assert (section.verdict, section.reason, section.charts) == ("N/A", "no states", [])
    assert cells(section, "Candidates that are not used") == {"reason": ["1,234"]}


def test_every_verdict_has_a_sentence(measurements):
    solves_or_not = describe_measurements(measurements)
    assert solves_or_not[0].startswith("Its states hold the robot's rotation")
    assert solves_or_not[1].startswith("It uses the state")
    assert "merges" in solves_or_not[2]
    for verdict in VERDICTS:
        rotation = measurements.represents.rotation.model_copy(update={"verdict": verdict})
        represents = measurements.represents.model_copy(update={"rotation": rotation})
        (sentence,) = describe_measurements(Measurements(represents=represents))
        assert "+0.324 [+0.307, +0.340]" in sentence
    assert describe_measurements(Measurements()) == []


def test_no_p_value_is_printed_as_0():
    assert [format_p(p) for p in (0.0, 0.0004, 0.001, 0.05)] == ["< 0.001", "< 0.001", "0.001", "0.050"]


def test_sites_have_short_names():
    assert name_sites(["block 0", "block 11"]) == (["0", "11"], "block")
    assert name_sites(["recurrent state 0", "all recurrent states"]) == (["0", "all"], "recurrent state")
    assert name_sites(["embedding", "block 1"]) == (["embedding", "block 1"], "place of the edit")


def test_the_picture_needs_rows_with_both_figures():
    assert represents_uses_chart([], {}) is None
