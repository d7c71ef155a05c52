"""The tables of the page as plain values: cells with their intervals, strips and sort keys, and the picture of a group."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.board.drawing.charts import Chart, ChartPoint, ChartSeries, interval_strip, lay_out_chart
from benchmark.board.known_answers import KnownAnswers
from benchmark.board.measurements import MEASUREMENT_COLUMNS, UNDEFINED, Measurements, format_figure, shorten_reason
from benchmark.board.ranking import TRAINED, Calibration, RankedRow, RankingGroup
from benchmark.board.tables import format_skill, probing_rows, probing_title, row_estimates, unverified_claims
from benchmark.probing.protocol import STANDARD
from benchmark.statistics import Estimate

SHARE_COLUMNS = {"shown": "shown %", "held_out": "held-out %", "exact": "exact %", "valid": "valid %"}
DEFINITIONS = {
    "rank": "1 plus the number of rows that are significantly better on the same held-out tasks",
    "shown": "Share of tasks whose program is right on every shown example",
    "held_out": "Share of tasks whose program is right on every held-out example",
    "exact": "Share of programs that are the reference program",
    "valid": "Share of answers that are a program",
    "represents": "Do the states hold the robot's rotation beyond a record of the words? Delta of protocol 4 on unseen prefixes",
    "uses": "Does an edit of the state change the next word to the right one? Use on strict pairs",
    "merges": "Are prefixes that lead to the same state continued alike? 1: as if they were one; 0: like other states",
}
"""What a column shows, for its tooltip."""
REASON_WIDTH = 40
"""Characters of the reason for N/A in a cell."""
STRIP_RANGES = {"held_out": (0.0, 1.0), "represents": (-0.1, 1.0), "uses": (-0.1, 1.0), "merges": (0.0, 1.0)}
"""Columns whose intervals are also drawn as strips, with the limits of the strip."""
NUM_MARKERS = 6
MAX_LABELS = 60
"""Rows of a group up to which the marks of its pictures have names; each mark has a tooltip in any case."""


@dataclass(frozen=True)
class TableCell:
    """One table cell: formatted value and interval, sort key, n, interval strip, verdict and its reason."""

    value: str
    interval: str
    order: float | None
    n: int | None
    strip: dict[str, float] | None
    verdict: str = ""
    reason: str = ""


@dataclass(frozen=True)
class TableRow:
    """One table row: page fragment, cells, and names of unverified fields."""

    slug: str
    ranked_row: RankedRow
    figures: dict[str, TableCell]
    claims: list[str]


@dataclass(frozen=True)
class GroupTable:
    """One ranking group with its rows.

    Attributes:
        slug: page fragment.
        group: the group.
        rows: its rows.
        plot: use against delta of protocol 4; None if no row has both.
        probing_title, probing: heading and rows of the probes of the records' own protocol.
        probing_plot: delta of that protocol against accuracy; None if no row has a delta.
        calibration: calibration of that protocol; None if the group has none.
        known_answers: calibration tables of the measurements besides accuracy.
    """

    slug: str
    group: RankingGroup
    rows: list[TableRow]
    plot: Chart | None
    probing_title: str
    probing: list[dict[str, str]]
    probing_plot: Chart | None
    calibration: Calibration | None
    known_answers: list[KnownAnswers]


def format_cell(name: str, estimate: Estimate | None) -> TableCell:
    """Format one estimate as a table cell."""
    if estimate is None:
        return TableCell(UNDEFINED, "", None, None, None)
    scale, sign = (100, ".1f") if name in SHARE_COLUMNS else (1, "+.3f")
    value, low, high = (f"{scale * v:{sign}}" for v in (estimate.value, estimate.low, estimate.high))
    strip = interval_strip(estimate, *STRIP_RANGES[name]) if name in STRIP_RANGES else None
    return TableCell(value, f"[{low}, {high}]", estimate.value, estimate.n, strip)


def format_measurement(column: str, measurements: Measurements) -> TableCell:
    """Format verdict and figure of a column of `MEASUREMENT_COLUMNS` as a table cell."""
    estimate = measurements.figure(column)
    verdict = measurements.verdicts.get(column) or ""
    reason = measurements.verdicts.get(f"{column}_reason") or ""
    if estimate is None:
        return TableCell("", shorten_reason(reason, REASON_WIDTH), None, None, None, verdict, reason)
    value, _, interval = format_figure(estimate).partition(" ")
    strip = interval_strip(estimate, *STRIP_RANGES[column])
    return TableCell(value, interval, estimate.value, estimate.n, strip, verdict, reason)


def make_slug(text: str, used_slugs: set[str]) -> str:
    """Make a unique page fragment of letters, digits and hyphens; adds it to `used_slugs`."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:80] or "row"
    slug, number = stem, 1
    while slug in used_slugs:
        number += 1
        slug = f"{stem}-{number}"
    used_slugs.add(slug)
    return slug


def build_group_table(
    group: RankingGroup,
    calibration: Calibration | None,
    known_answers: Sequence[KnownAnswers],
    used_slugs: set[str],
) -> GroupTable:
    """Build the table of a group.

    Args:
        group: ranking group.
        calibration: calibration record; shown if it is of the group's suite.
        known_answers: tables of pseudo-models; those of the group's suite are shown.
        used_slugs: page fragments in use; extended in place.
    """
    table_rows = []
    for ranked_row in group.rows:
        figures = row_estimates(ranked_row.row.record)
        cells = {name: format_cell(name, figures[name]) for name in SHARE_COLUMNS}
        cells |= {column: format_measurement(column, ranked_row.row.measurements) for column in MEASUREMENT_COLUMNS}
        name = ranked_row.row.folder
        table_rows.append(
            TableRow(
                make_slug(name, used_slugs),
                ranked_row,
                cells,
                unverified_claims(ranked_row.row),
            )
        )
    slug = make_slug(f"{group.suite}-v{group.suite_version}-p{group.protocol}-{group.track}", used_slugs)
    is_calibrated = group.track == TRAINED and calibration is not None and calibration.suite == group.suite
    return GroupTable(
        slug,
        group,
        table_rows,
        represents_uses_chart(table_rows),
        probing_title(group),
        probing_rows(group),
        accuracy_delta_chart(table_rows),
        calibration if is_calibrated else None,
        [answers for answers in known_answers if group.track == TRAINED and answers.suite == group.suite],
    )


def represents_uses_chart(table_rows: Sequence[TableRow]) -> Chart | None:
    """Chart of use against delta of protocol 4, a series per family; None if fewer than two rows have both."""
    by_family: dict[str, list[ChartPoint]] = {}
    has_labels = len(table_rows) <= MAX_LABELS
    for table_row in table_rows:
        entry = table_row.ranked_row.row
        delta, use = (entry.measurements.figure(column) for column in ("represents", "uses"))
        if delta is None or use is None:
            continue
        verdicts = entry.measurements.verdicts
        description = f"{entry.name}: {verdicts['represents']}, delta {format_skill(delta)}; {verdicts['uses']}, use {format_skill(use)}"
        by_family.setdefault(entry.family, []).append(
            ChartPoint(
                delta.value, use.value, description, entry.name if has_labels else "", use, delta, table_row.slug
            )
        )
    series = [
        ChartSeries(family, kind % NUM_MARKERS, points) for kind, (family, points) in enumerate(by_family.items())
    ]
    if sum(len(points) for points in by_family.values()) < 2:
        return None
    return lay_out_chart(
        "Represents against uses", "represents: delta on unseen prefixes", "uses: use on strict pairs", series
    )


def accuracy_delta_chart(table_rows: Sequence[TableRow]) -> Chart | None:
    """Chart of delta against held-out accuracy; None if no row has a delta."""
    with_delta = [row for row in table_rows if row_estimates(row.ranked_row.row.record)["delta"]]
    # Families with a delta first, so that they have markers of their own.
    families = list(dict.fromkeys(table_row.ranked_row.row.family for table_row in (*with_delta, *table_rows)))
    series = []
    for kind, family in enumerate(families):
        chart_points = []
        for table_row in table_rows:
            entry = table_row.ranked_row.row
            if entry.family != family:
                continue
            held_out, delta = entry.record.accuracy.held_out, row_estimates(entry.record)["delta"]
            description = f"{entry.name}: held-out {100 * held_out.value:.1f}%, delta {format_skill(delta)}"
            x_interval = Estimate(100 * held_out.value, 100 * held_out.low, 100 * held_out.high, held_out.n)
            label = entry.name if delta and len(table_rows) <= MAX_LABELS else ""
            chart_points.append(
                ChartPoint(
                    100 * held_out.value,
                    delta.value if delta else None,
                    description,
                    label,
                    delta,
                    x_interval,
                    table_row.slug,
                )
            )
        series.append(ChartSeries(family, kind % NUM_MARKERS, chart_points))
    if all(point.y is None for family_series in series for point in family_series.points):
        return None
    return lay_out_chart(
        "Accuracy against delta", "held-out examples solved, %", "delta (skill)", series, x_range=(0.0, 100.0),
        levels=[(STANDARD.margin, f"REPRESENTS: lower end above {STANDARD.margin:g}")],
    )  # fmt: skip


def build_tables(
    groups: Sequence[RankingGroup], calibration: Calibration | None, known_answers: Sequence[KnownAnswers]
) -> list[GroupTable]:
    """Build the tables of all groups; arguments as of `build_group_table`."""
    used_slugs: set[str] = {"board", "main", "data"}
    return [build_group_table(group, calibration, known_answers, used_slugs) for group in groups]
