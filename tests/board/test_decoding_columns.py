"""pass@k and constrained answers stand on the card, the board, the page and in CSV and JSON, where a run has computed them."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
from shipped_rows import SUBMISSIONS

from benchmark.board.command import format_group
from benchmark.board.ranking import RankedRow, RankingGroup, read_leaderboard_rows
from benchmark.board.row_page import _figure_rows
from benchmark.board.site.documents import Links, render_index
from benchmark.board.site.group_table import build_tables
from benchmark.board.tables import format_card, render_markdown, to_csv, to_json
from benchmark.statistics import Estimate
from benchmark.tasks.pass_at_k import ConstrainedSummary, SampledSummary

SHOWN = {1: Estimate(0.111, 0.1, 0.12, 50), 8: Estimate(0.222, 0.2, 0.24, 50)}
HELD_OUT = {1: Estimate(0.333, 0.3, 0.34, 50), 8: Estimate(0.444, 0.4, 0.45, 50)}
CONSTRAINED = Estimate(0.777, 0.7, 0.8, 50)


@pytest.fixture(scope="module")
def plain():
    return next(row for row in read_leaderboard_rows(SUBMISSIONS, with_samples=False) if row.name == "random")


@pytest.fixture(scope="module")
def decoded(plain):
    accuracy = plain.record.accuracy
    constrained = ConstrainedSummary(replace(accuracy, held_out=CONSTRAINED), accuracy.valid, accuracy.valid)
    sampled = SampledSummary(8, 0.7, SHOWN, HELD_OUT)
    return replace(plain, record=plain.record.model_copy(update={"constrained": constrained, "sampled": sampled}))


def group_of(*rows):
    return RankingGroup("laptop", 1, 3, "trained", 1000, tuple(RankedRow(row, 1) for row in rows))


def test_the_card_has_every_figure(plain, decoded):
    card = format_card(decoded.record)
    for name, value in (("pass@1 shown %", "11.1 ["), ("pass@8 held-out %", "44.4 [40.0, 45.0]"), ("constrained, held-out %", "77.7 [70.0, 80.0]")):  # fmt: skip
        assert any(name in line and value in line for line in card.splitlines()), card
    assert "temperature 0.7" in card
    assert "pass@" not in format_card(plain.record)
    assert "constrained" not in format_card(plain.record)


def test_the_board_has_a_column_where_a_row_has_the_figure(plain, decoded):
    for text in (format_group(group_of(plain, decoded)), render_markdown([group_of(plain, decoded)])):
        assert "pass@k held-out %" in text
        assert "44.4 [40.0, 45.0], k = 8" in text
        assert "constrained held-out %" in text
        assert "77.7 [70.0, 80.0]" in text
    for text in (format_group(group_of(plain)), render_markdown([group_of(plain)])):
        assert "pass@k" not in text
        assert "constrained" not in text


def test_csv_and_json_have_each_figure_with_its_n(plain, decoded):
    other, row = csv.DictReader(io.StringIO(to_csv([group_of(plain, decoded)])))
    assert (row["k"], row["pass_at_k_held_out"], row["pass_at_k_held_out_low"], row["pass_at_k_held_out_n"]) == ("8", "0.444", "0.4", "50")  # fmt: skip
    assert (row["pass_at_k_shown"], row["constrained_held_out"]) == ("0.222", "0.777")
    assert (other["k"], other["pass_at_k_held_out"], other["constrained_held_out_n"]) == ("", "", "")
    stored = json.loads(to_json([group_of(plain, decoded)]))["groups"][0]["rows"][1]
    assert stored["constrained_held_out"] == {"value": 0.777, "low": 0.7, "high": 0.8, "n": 50}


def test_the_page_has_a_column_and_the_page_of_the_row_every_figure(plain, decoded):
    (table,) = build_tables([group_of(plain, decoded)], None, ())
    text = render_index([table], Links("#board", str), True)
    assert "44.4 [40.0, 45.0], k = 8" in text
    assert "77.7 [70.0, 80.0]" in text
    assert 'data-key="pass_at_k" data-extra' in text
    assert 'data-key="pass_at_k"' not in render_index(
        build_tables([group_of(plain)], None, ()), Links("#board", str), True
    )
    figures = {name: value for name, value, _ in _figure_rows(decoded.record)}
    assert figures["pass@8 held-out %, temperature 0.7"] == "44.4 [40.0, 45.0]"
    assert figures["constrained, held-out %"] == "77.7 [70.0, 80.0]"
