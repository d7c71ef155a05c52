"""Columns of measurements: what the records give, only of records that fit their row, and without heavy libraries."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from typing import get_args

import pytest
from measured_rows import DELTA, NO_STATES, write_not_applicable, write_represents, write_uses

from benchmark.artifacts import CAUSAL_EVIDENCE, REACH_EVIDENCE, REACH_RECORD, ROTATION_EVIDENCE
from benchmark.board import command, tables
from benchmark.board.measurements import (
    SCHEMA_VERSION,
    Measurements,
    RotationSummary,
    UseSummary,
    format_figure,
    measured_columns,
    measurement_cells,
    read_measurements,
    shorten_reason,
)
from benchmark.board.ranking import rank_groups, read_leaderboard_rows
from benchmark.board.sections.reach_table import reach_rows
from benchmark.board.site.group_table import format_measurement
from benchmark.board.tables import render_markdown, to_csv, to_json
from benchmark.causal.verdict import NOT_APPLICABLE, NOT_SHOWN, USES
from benchmark.installation.paths import SOURCE_ROOT
from benchmark.probing.version4.rotation_verdict import VERDICTS
from benchmark.runner.measurement_record import (
    MEASUREMENT_SCHEMA_VERSION,
    RepresentsRecord,
    UsesRecord,
    read_measurement,
)
from benchmark.runner.record import read_record
from benchmark.statistics import Estimate

MEASURED, BARE, AHEAD = "2026-11-25_gpt-laptop", "2026-11-25_search", "2026-11-26_icml24-large"


@pytest.fixture
def folder(tmp_path):
    """A row with both measurements and a row without any."""
    submissions = tmp_path / "submissions"
    for name in (MEASURED, BARE):
        (submissions / name).mkdir(parents=True)
        for file in ("record.json", "samples.jsonl.gz", "submission.yaml"):
            shutil.copy(SOURCE_ROOT / "submissions" / name / file, submissions / name)
    write_represents(submissions / MEASURED)
    write_uses(submissions / MEASURED)
    return submissions


def measurements_of(folder, name=MEASURED) -> Measurements:
    return read_measurements(folder / name, read_record(folder / name / "record.json"))


def test_the_summary_is_that_of_the_complete_record(folder):
    shown = measurements_of(folder)
    rotation = read_measurement(RepresentsRecord, folder / MEASURED).rotation
    uses = read_measurement(UsesRecord, folder / MEASURED)
    assert shown.ignored == ()
    assert shown.estimates == {
        "represents_delta": rotation.delta, "use": uses.use.use, "use_margin": uses.use.strict.margin,
        "merges": uses.merges.merges, "merges_floor": uses.merges.floor, "reach_delta": None,
    }  # fmt: skip
    assert (shown.verdicts["represents"], shown.verdicts["uses"]) == (rotation.verdict, uses.use.verdict)
    assert measurements_of(folder, BARE) == Measurements()


def test_schema_and_verdicts_are_those_that_are_written():
    assert SCHEMA_VERSION == MEASUREMENT_SCHEMA_VERSION
    assert set(get_args(RotationSummary.model_fields["verdict"].annotation)) == set(VERDICTS)
    assert set(get_args(UseSummary.model_fields["verdict"].annotation)) == {USES, NOT_SHOWN, NOT_APPLICABLE}


def test_tables_have_verdict_and_figure_and_a_dash_where_nothing_was_measured(folder):
    groups = rank_groups(read_leaderboard_rows(folder))
    text = render_markdown(groups)
    header, _, bare, measured = [line for line in text.splitlines() if line.startswith("|")][:4]
    names, cells = ([cell.strip() for cell in line.split("|")] for line in (header, measured))
    row = dict(zip(names, cells, strict=True))
    use = measurements_of(folder).figure("uses")
    assert row["represents"] == "REPRESENTS .324 [.307, .340]"
    assert row["uses"] == f"USES {format_figure(use)}"
    assert row["merges"].startswith("1.000 [") or row["merges"].startswith(".")
    blank = dict(zip(names, [cell.strip() for cell in bare.split("|")], strict=True))
    assert [blank[name] for name in ("represents", "uses", "merges")] == ["-"] * 3
    assert "### Protocol 3: heading in example 0" in text
    assert "docs/protocol4.md" in text
    shutil.rmtree(folder / MEASURED)
    assert "represents" not in render_markdown(rank_groups(read_leaderboard_rows(folder)))


def test_json_and_csv_have_every_figure(folder):
    groups = rank_groups(read_leaderboard_rows(folder))
    by_name = {row["submission"]: row for row in json.loads(to_json(groups))["groups"][0]["rows"]}
    lines = {line["submission"]: line for line in csv.DictReader(to_csv(groups).splitlines())}
    assert by_name[MEASURED]["represents_delta"] == {"value": 0.324, "low": 0.307, "high": 0.34, "n": 2500}
    assert float(lines[MEASURED]["represents_delta_low"]) == DELTA.low
    for name, estimate in measurements_of(folder).estimates.items():
        if estimate is None:
            continue
        assert float(lines[MEASURED][name]) == by_name[MEASURED][name]["value"] == estimate.value
        assert (lines[BARE][name], by_name[BARE][name]) == ("", None)
    assert (by_name[MEASURED]["uses"], lines[MEASURED]["represents"]) == ("USES", "REPRESENTS")
    assert by_name[BARE]["uses"] is None


def test_reach_has_a_table_and_columns_and_needs_its_evidence(tmp_path):
    source = SOURCE_ROOT / "submissions" / AHEAD
    (tmp_path / AHEAD).mkdir()
    for file in ("record.json", "samples.jsonl.gz", "submission.yaml", REACH_RECORD, REACH_EVIDENCE):
        shutil.copy(source / file, tmp_path / AHEAD)
    groups = rank_groups(read_leaderboard_rows(tmp_path))
    written = json.loads((source / REACH_RECORD).read_text())["written"]
    delta = written["ahead"][0]["delta"]
    (row,) = reach_rows(groups[0])
    assert row["reach"] == str(written["reach"]) == "1"
    assert row["delta +1"] == f"{delta['value']:+.3f} [{delta['low']:+.3f}, {delta['high']:+.3f}]"
    assert row["token history +2"] == f"{written['ahead'][1]['history']:+.3f}"
    assert f"| {row['delta +1']} |" in render_markdown(groups)
    (line,) = csv.DictReader(to_csv(groups).splitlines())
    assert (line["reach"], float(line["reach_delta"])) == ("1", delta["value"])
    (tmp_path / AHEAD / REACH_EVIDENCE).write_bytes(b"other")
    (entry,) = read_leaderboard_rows(tmp_path)
    assert entry.measurements.reach is None
    assert entry.measurements.ignored == (
        f"{AHEAD}/reach.json is not shown: reach.data has another SHA-256 than it says",
    )
    assert "Reach" not in render_markdown(rank_groups([entry]))


def replace_entry(folder, file, *path, value):
    """Change one entry of a stored record."""
    stored = json.loads((folder / MEASURED / file).read_text())
    entry = stored
    for key in path[:-1]:
        entry = entry[key]
    entry[path[-1]] = value
    (folder / MEASURED / file).write_text(json.dumps(stored))


@pytest.mark.parametrize("file", ["represents.json", "uses.json"])
@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("official",), False, "not official"),
        (("model", "digest"), "0" * 64, "it is of model '000000000000'"),
        (("suite", "name"), "icml24", "it is of suite 'icml24'"),
        (("suite", "sha256"), "0" * 64, "record.json of another"),
        (("suite", "seed"), 99, "record.json of another"),
        (("track",), "fewshot", "it is of track 'fewshot'"),
        (("evidence_sha256",), "0" * 64, "has another SHA-256 than it says"),
        (("evidence_sha256",), None, "has another SHA-256 than it says"),
    ],
)
def test_a_record_that_does_not_fit_its_row_is_not_shown(folder, capsys, file, path, value, says):
    replace_entry(folder, file, *path, value=value)
    shown = measurements_of(folder)
    column = file.removesuffix(".json")
    assert measurement_cells(shown)[column] == "-"
    assert shown.verdicts[column] is None
    assert command.main(["--submissions", str(folder)]) == 0
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith(f"{MEASURED}/{file} is not shown: ")
    assert says in line
    other = "NOT SHOWN" if column == "represents" else "REPRESENTS"
    assert other in captured.out or "USES" in captured.out


def test_a_record_without_its_evidence_is_not_shown(folder):
    for name in (CAUSAL_EVIDENCE, ROTATION_EVIDENCE):
        (folder / MEASURED / name).unlink()
    shown = measurements_of(folder)
    assert set(measurement_cells(shown).values()) == {"-"}
    assert [line.rpartition(": ")[2] for line in shown.ignored] == [
        "its evidence rotation.data is missing", "its evidence causal.data is missing",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("rotation", "verdict"), "CERTAIN", "rotation.verdict"),
        (("rotation", "delta", "low"), "x", "rotation.delta.low"),
        (("schema_version",), 2, "schema_version"),
    ],
)
def test_a_record_of_no_schema_is_refused_in_one_line(folder, capsys, path, value, says):
    replace_entry(folder, "represents.json", *path, value=value)
    assert command.main(["--submissions", str(folder)]) != 0
    message = capsys.readouterr().err
    assert says in message
    assert message.count("\n") == 1


def test_a_row_read_from_few_programs_says_so_in_every_table(folder):
    replace_entry(folder, "represents.json", "few_programs", value=True)
    shown = measurements_of(folder)
    assert measurement_cells(shown)["represents"] == "REPRESENTS .324 [.307, .340], few programs"
    assert "few programs" not in measurement_cells(shown)["uses"]
    assert format_measurement("represents", shown).interval == "[.307, .340], few programs"
    groups = rank_groups(read_leaderboard_rows(folder))
    rows = {row["submission"]: row for row in json.loads(to_json(groups))["groups"][0]["rows"]}
    assert (rows[MEASURED]["few_programs"], rows[BARE]["few_programs"]) == (True, None)


def test_not_applicable_has_its_reason_and_no_figure(folder):
    write_not_applicable(folder / MEASURED)
    shown = measurements_of(folder)
    assert shown.ignored == ()
    cells = measurement_cells(shown)
    assert (cells["uses"], cells["merges"]) == ("N/A (has no states that can be replaced)", "-")
    assert measurement_cells(shown, reason_width=18)["uses"] == "N/A (has no states ...)"
    assert shown.verdicts["uses_reason"] == NO_STATES
    assert measured_columns([shown]) == ["represents", "uses"]


def test_a_reason_is_text_in_every_table(folder):
    reason = "|x| <b>[a](http://b) `c`"
    write_not_applicable(folder / MEASURED)
    replace_entry(folder, "uses.json", "use", "reason", value=reason)
    replace_entry(folder, "uses.json", "use", "dropped", value={})
    groups = rank_groups(read_leaderboard_rows(folder))
    assert r"N/A (\|x\| \<b\>\[a\](http:&#8203;//b) \`c\`)" in render_markdown(groups)
    assert "<b>" not in to_json(groups)


@pytest.mark.parametrize(
    ("estimate", "digits", "text"),
    [
        (Estimate(0.9134, 0.8788, 1.0, 9), 3, ".913 [.879, 1.000]"),
        (Estimate(-0.0312, -0.057, -0.0171, 9), 2, "-.03 [-.06, -.02]"),
        (Estimate(0.2404, 0.2, 10.25, 9), 3, ".240 [.200, 10.250]"),
        (Estimate(-0.0001, -0.01, 0.01, 9), 3, ".000 [-.010, .010]"),
        (None, 3, ""),
    ],
)
def test_figures_are_short(estimate, digits, text):
    assert format_figure(estimate, digits) == text


def test_reasons_are_cut_at_a_word():
    assert shorten_reason("the model solves 4% of the tasks; expected more", 40) == "solves 4% of the tasks"
    assert len(shorten_reason("x" * 500 + " y", 40)) <= 40


def test_the_terminal_table_fits_160_columns(folder, capsys):
    """With the widest verdict of each column and a name as long as the longest that is shipped."""
    replace_entry(folder, "represents.json", "rotation", "verdict", value="INCONCLUSIVE")
    replace_entry(folder, "uses.json", "use", "verdict", value="NOT SHOWN")
    negative = {"value": -0.195, "low": -0.371, "high": -0.053, "n": 9}
    replace_entry(folder, "uses.json", "use", "strict", "use", value=negative)
    replace_entry(folder, "uses.json", "merges", "merges", value={"value": 0.833, "low": 0.809, "high": 0.856, "n": 9})
    path = folder / BARE / "submission.yaml"
    path.write_text(path.read_text().replace("name: search", "name: nearest-neighbour-icml24"))
    assert command.main(["--submissions", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "nearest-neighbour-icml24" in out
    assert "NOT SHOWN -.20 [-.37, -.05]" in out
    assert "INCONCLUSIVE .32 [.31, .34]" in out
    assert "Protocol 3: heading in example 0" in out
    assert max(map(len, out.splitlines())) <= 160


def test_ranks_of_the_file_are_taken_with_measurements(folder, monkeypatch):
    computed = rank_groups(read_leaderboard_rows(folder))
    (folder.parent / command.LEADERBOARD_FILE).write_text(to_json(computed))
    monkeypatch.setattr(command, "rank_groups", lambda entries: pytest.fail("ranks are computed again"))
    assert to_json(command.read_groups(folder)) == to_json(computed)
    monkeypatch.undo()
    replace_entry(folder, "represents.json", "official", value=False)
    monkeypatch.setattr(command, "rank_groups", lambda entries: ["again"])
    assert command.read_groups(folder) == ["again"]


def test_reading_measurements_loads_nothing_heavy(folder):
    (folder.parent / command.LEADERBOARD_FILE).write_text(to_json(rank_groups(read_leaderboard_rows(folder))))
    code = (
        "import sys; from benchmark.board.command import main; assert main(sys.argv[1:]) == 0; "
        "print(sorted({'torch', 'transformers', 'numba', 'scipy', 'ray', 'matplotlib', 'pandas'} & set(sys.modules)))"
    )
    argv = [sys.executable, "-c", code, "--submissions", str(folder)]
    process = subprocess.run(argv, cwd=SOURCE_ROOT, capture_output=True, text=True, check=True)
    assert "REPRESENTS .32 [.31, .34]" in process.stdout
    assert process.stdout.splitlines()[-1] == "[]"


def test_the_leaderboard_command_names_what_it_ignores(folder, tmp_path, capsys):
    replace_entry(folder, "uses.json", "official", value=False)
    out = tmp_path / "board.md"
    assert tables.main(["--submissions", str(folder), "--output-file", str(out)]) == 0
    assert "uses.json is not shown: not official" in capsys.readouterr().err
    assert "| uses" not in out.read_text().partition("### ")[0]
