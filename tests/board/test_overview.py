"""The figure of all rows of a suite: which rows it has, in which order, and what is drawn of each."""

from __future__ import annotations

import shutil

import pytest
from measured_rows import planned, rotation_result, write_represents, write_uses

from benchmark.board.overview import main
from benchmark.board.overview_figure import CONTROL_STYLES, control_values, plot_overview, read_overview
from benchmark.board.ranking import read_leaderboard_rows
from benchmark.causal.verdict import judge
from benchmark.installation.paths import SOURCE_ROOT

MEASURED, ONLY_REPRESENTS, UNMEASURED = "2026-11-26_lstm-laptop", "2026-11-26_neox-laptop", "2026-11-25_search"


@pytest.fixture(scope="module")
def submissions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("submissions")
    for name in (MEASURED, ONLY_REPRESENTS, UNMEASURED):
        (folder / name).mkdir()
        for file in ("record.json", "submission.yaml", "status.json"):
            shutil.copy(SOURCE_ROOT / "submissions" / name / file, folder / name)
    write_represents(folder / MEASURED)
    write_uses(folder / MEASURED)
    write_represents(folder / ONLY_REPRESENTS)
    return folder


def test_measured_rows_of_the_suite_are_drawn_the_most_steered_first(submissions):
    rows = read_overview(read_leaderboard_rows(submissions, with_samples=False), submissions, "laptop")
    assert [row.name for row in rows] == ["lstm-laptop", "neox-laptop"]
    assert rows[1].score is None
    assert read_overview(read_leaderboard_rows(submissions, with_samples=False), submissions, "icml24") == []


def test_figures_and_controls_are_those_of_the_records(submissions):
    rows = read_overview(read_leaderboard_rows(submissions, with_samples=False), submissions, "laptop")
    left, right = plot_overview(rows, "laptop").axes
    points = {tuple(map(float, line.get_xydata()[0])) for line in right.lines if len(line.get_xydata()) == 1}
    pairs, evidence = planned()
    score = judge(evidence, pairs).strict
    assert (score.steered.value, 0.0) in points
    controls = control_values(score)
    assert set(controls) == set(CONTROL_STYLES)
    assert controls["largest false semantics"] == max(
        estimate.value for name, estimate in score.controls.items() if name.startswith("alternative ")
    )
    assert {(value, 0.0) for value in controls.values()} <= points
    drawn = {tuple(map(float, line.get_xydata()[0])) for line in left.lines if len(line.get_xydata()) == 1}
    arithmetic = rotation_result().arithmetic.value
    assert {(arithmetic, 0.0), (arithmetic, 1.0)} <= drawn


def test_the_command_writes_the_same_bytes_again(submissions, tmp_path, capsys):
    for name in ("first", "second"):
        assert main(["--submissions", str(submissions), "--output-dir", str(tmp_path / name)]) == 0
    assert capsys.readouterr().out.count("wrote ") == 4
    for kind in ("png", "svg"):
        first, second = (tmp_path / name / f"overview.{kind}" for name in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def test_a_suite_without_measured_rows_is_one_line(submissions, tmp_path, capsys):
    assert main(["--submissions", str(submissions), "--suite", "icml24", "--output-dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no row of suite icml24" in error
