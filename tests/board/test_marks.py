"""Marks of pictures: a shape for each of any number of families, the same in every picture; areas in proportion."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shipped_rows import SUBMISSIONS

from benchmark.board.drawing.marks import MAX_RADIUS, MIN_RADIUS, mark_path, mark_style, shape_outline, share_radius
from benchmark.board.ranking import RankedRow, RankingGroup, read_leaderboard_rows
from benchmark.board.site.documents import Links, render_group
from benchmark.board.site.group_table import build_tables, number_families, pictured_table, represents_uses_chart


def area(corners: list[tuple[float, float]]) -> float:
    pairs = zip(corners, [*corners[1:], corners[0]], strict=True)
    return abs(sum(x * v - u * y for (x, y), (u, v) in pairs)) / 2


@settings(max_examples=25)
@given(st.lists(st.text("ab-é", min_size=1, max_size=4), min_size=1, max_size=40, unique=True))
def test_any_number_of_families_have_marks_of_their_own(names):
    rows = tuple(SimpleNamespace(row=SimpleNamespace(family=name)) for name in names)
    kinds = number_families([SimpleNamespace(rows=rows[:3]), SimpleNamespace(rows=rows)])
    styles = {name: mark_style(kinds[name]) for name in names}
    assert len({(style.shape, style.colour) for style in styles.values()}) == len(names)
    paths = {mark_path(style.shape, 10, 10, 5) for style in styles.values()}
    assert len(paths) == len(names), "without its colour too"
    assert all(re.fullmatch(r"M[-\d. aLz]+", path) for path in paths)


@pytest.mark.parametrize("shape", range(14))
def test_marks_of_one_radius_have_one_area(shape):
    if shape != 10:  # the lobes of the hourglass have areas of opposite sign
        assert area(shape_outline(shape)) == pytest.approx(math.pi, rel=0.01)
    assert max(math.hypot(x, y) for x, y in shape_outline(shape)) < 2.2


def test_the_area_is_the_share():
    assert share_radius(1.0) == MAX_RADIUS
    assert share_radius(0.25) == MAX_RADIUS / 2
    assert share_radius(0.0) == MIN_RADIUS


@pytest.fixture(scope="module")
def tables():
    """The shipped rows of two suites, trained track; without their samples, which only ranks need."""
    rows = [row for row in read_leaderboard_rows(SUBMISSIONS, with_samples=False) if row.track == "trained"]
    suites = {
        suite: [RankedRow(row, 1) for row in rows if row.record.suite.name == suite] for suite in ("laptop", "icml24")
    }
    groups = [RankingGroup(suite, 1, 3, "trained", 1000, tuple(members)) for suite, members in suites.items()]
    return build_tables(groups, None, ())


def test_no_two_families_of_the_board_share_a_mark(tables):
    """Also where there are more of them than colours."""
    by_family: dict[str, set[tuple[int, int]]] = {}
    for table in tables:
        for chart in filter(None, (table.plot, table.probing_plot)):
            for series in chart.series:
                by_family.setdefault(series.name, set()).add((series.style.shape, series.style.colour))
    assert len(by_family) >= 7
    assert all(len(styles) == 1 for styles in by_family.values()), "one family looks alike in every picture"
    assert len(set.union(*by_family.values())) == len(by_family)


def test_the_picture_shows_accuracy_by_area_and_ends_where_the_models_do(tables):
    table = pictured_table(tables)
    held_out = {row.slug: row.ranked_row.row.record.accuracy.held_out.value for row in table.rows}
    chart = table.plot
    marks = [mark for series in chart.series for mark in series.marks]
    assert {mark.point.radius for mark in marks} == {share_radius(held_out[mark.point.link]) for mark in marks}
    assert [text for _, text in chart.sizes] == ["25%", "50%", "100%"]
    assert "held-out" in chart.size_label
    for ends, low, high in (
        ([end for mark in marks for end in mark.x_bar], chart.left, chart.right),
        ([end for mark in marks for end in mark.y_bar], chart.top, chart.bottom),
    ):
        assert low <= min(ends) < low + 0.08 * (high - low)
        assert high - 0.08 * (high - low) < max(ends) <= high
    assert len(chart.x_ticks) >= 3
    assert len(chart.y_ticks) >= 3


def test_many_rows_of_one_family_are_drawn(tables):
    """A family of more than a dozen rows has all of its marks."""
    table = pictured_table(tables)
    row = next(row for row in table.rows if row.figures["represents"].order is not None and row.figures["uses"].order)
    many = [replace(row, slug=f"row-{number}") for number in range(20)]
    chart = represents_uses_chart(many, {row.ranked_row.row.family: 0})
    text = render_group(replace(table, plot=chart, probing=[]), Links("#", lambda slug: f"{slug}.html"))
    assert text.partition("</svg>")[0].count('class="mark"') == 20
