"""The tables of the page as plain values: cells with their intervals, strips and sort keys, and the picture of a group."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchmark.board.drawing.charts import (
    NARROW_WIDTH,
    WIDTH,
    Chart,
    ChartPoint,
    ChartSeries,
    interval_strip,
    lay_out_chart,
)
from benchmark.board.drawing.marks import share_radius
from benchmark.board.known_answers import KnownAnswers
from benchmark.board.measurements import (
    MEASUREMENT_COLUMNS,
    UNDEFINED,
    Measurements,
    format_figure,
    format_skill,
    shorten_reason,
)
from benchmark.board.ranking import TRAINED, Calibration, LeaderboardRow, RankedRow, RankingGroup
from benchmark.board.sections.decoding import (
    CONSTRAINED,
    DECODING_COLUMNS,
    PASS_AT_K,
    decoding_figure,
    decoding_note,
)
from benchmark.board.sections.seed_spread import (
    NO_RECIPES,
    SeedSpread,
    Table,
    comparison_rows,
    recipe_tables,
    row_beside_spread,
    rows_by_recipe,
    spreads_of_recipe,
)
from benchmark.board.tables import probing_rows, probing_title, row_estimates, unverified_claims
from benchmark.probing.protocol import STANDARD
from benchmark.runner.record import Record
from benchmark.statistics import Estimate

SHARE_COLUMNS = {"shown": "shown %", "held_out": "held-out %", "exact": "exact %", "valid": "valid %"}
SORTED_COLUMNS = SHARE_COLUMNS | DECODING_COLUMNS | {name: name for name in MEASUREMENT_COLUMNS}
"""Columns with figures, by key: their names."""
COLUMN_NAMES = {"rank": "rank", "model": "model", "parameters": "parameters"} | SORTED_COLUMNS | {"status": "status"}
EXTRA_COLUMNS = ("parameters", "shown", "exact", "valid", PASS_AT_K, CONSTRAINED)
"""Columns that are shown on request."""
DEFINITIONS = {
    "rank": "1 plus the number of rows that are significantly better on the same held-out tasks (exact McNemar test, Holm-adjusted over all pairs of the table); rows that do not differ share a rank",
    "model": "Name of the row, and its family as its authors claim it",
    "parameters": "Number of weights; * if only its authors vouch for it",
    "shown": "Share of tasks whose program is right on every example that the model sees",
    "held_out": "Share of tasks whose program is right on every example that the model does not see",
    "exact": "Share of programs that are the reference program",
    "valid": "Share of answers that are a program",
    PASS_AT_K: "Probability that at least one of k sampled programs is right on every held-out example",
    CONSTRAINED: "Held-out % where a grammar leaves only words that continue a program",
    "represents": "Do the states hold the robot's rotation beyond a record of the words? Delta of protocol 4 on unseen prefixes",
    "uses": "Does an edit of the state change the next word to the right one? Use on strict pairs",
    "merges": "Are prefixes that lead to the same state continued alike? 1: as if they were one; 0: like other states",
    "status": "validated: figures were computed again from the row's evidence; reproduced: part of them also from its weights",
}
"""What a column shows, by key."""
REASON_WIDTH = 40
"""Characters of the reason for N/A in a cell."""
STRIP_RANGES = {"held_out": (0.0, 1.0), "represents": (-0.1, 1.0), "uses": (-0.1, 1.0), "merges": (0.0, 1.0)}
"""Columns whose intervals are also drawn as strips, with the limits of the strip."""
SIZES = [(share_radius(share), f"{100 * share:.0f}%") for share in (0.25, 0.5, 1.0)]
"""Entries of the legend of sizes."""
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
class OtherSeeds:
    """The rows that share the recipe of a row but its seed.

    Attributes:
        rows: fragment and name of each other row.
        figures: figures of the row beside the spread of the recipe.
    """

    rows: list[tuple[str, str]]
    figures: Table


@dataclass(frozen=True)
class TableRow:
    """One table row: page fragment, cells, names of unverified fields, and other seeds of its recipe if there are."""

    slug: str
    ranked_row: RankedRow
    figures: dict[str, TableCell]
    claims: list[str]
    other_seeds: OtherSeeds | None = None


@dataclass(frozen=True)
class GroupTable:
    """One ranking group with its rows.

    Attributes:
        slug: page fragment.
        group: the group.
        rows: its rows.
        plot: use against delta of protocol 4; None if no row has both.
        narrow_plot: the same for narrow screens.
        probing_title, probing: heading and rows of the probes of the records' own protocol.
        probing_plot: delta of that protocol against accuracy; None if no row has a delta.
        calibration: calibration of that protocol; None if the group has none.
        known_answers: calibration tables of the measurements besides accuracy.
        spreads: name and spread between seeds of each recipe of several rows; empty if there is none.
        recipe_differences: differences between such recipes.
    """

    slug: str
    group: RankingGroup
    rows: list[TableRow]
    plot: Chart | None
    narrow_plot: Chart | None
    probing_title: str
    probing: list[dict[str, str]]
    probing_plot: Chart | None
    calibration: Calibration | None
    known_answers: list[KnownAnswers]
    spreads: list[tuple[str, Table]]
    recipe_differences: Table

    @property
    def columns(self) -> list[str]:
        """Keys of the columns, in order; further decodings have one where a row has the figure."""
        empty = {key for key in DECODING_COLUMNS if all(row.figures[key].order is None for row in self.rows)}
        return [key for key in COLUMN_NAMES if key not in empty]


def format_cell(name: str, estimate: Estimate | None) -> TableCell:
    """Format one estimate as a table cell."""
    if estimate is None:
        return TableCell(UNDEFINED, "", None, None, None)
    is_share = name in SHARE_COLUMNS or name in DECODING_COLUMNS
    scale, sign = (100, ".1f") if is_share else (1, "+.3f")
    value, low, high = (f"{scale * v:{sign}}" for v in (estimate.value, estimate.low, estimate.high))
    strip = interval_strip(estimate, *STRIP_RANGES[name]) if name in STRIP_RANGES else None
    return TableCell(value, f"[{low}, {high}]", estimate.value, estimate.n, strip)


def format_decoding(key: str, record: Record) -> TableCell:
    """Format the figure of a column of `DECODING_COLUMNS` as a table cell."""
    cell, note = format_cell(key, decoding_figure(record, key)), decoding_note(record, key)
    return replace(cell, interval=f"{cell.interval}, {note}") if note and cell.order is not None else cell


def format_measurement(column: str, measurements: Measurements) -> TableCell:
    """Format verdict and figure of a column of `MEASUREMENT_COLUMNS` as a table cell."""
    estimate = measurements.figure(column)
    verdict = measurements.verdicts.get(column) or ""
    reason = measurements.verdicts.get(f"{column}_reason") or ""
    if estimate is None:
        return TableCell("", shorten_reason(reason, REASON_WIDTH), None, None, None, verdict, reason)
    value, _, interval = format_figure(estimate).partition(" ")
    interval = ", ".join(filter(None, (interval, measurements.note(column))))
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
    kinds: Mapping[str, int],
    recipes: Mapping[str, str],
) -> GroupTable:
    """Build the table of a group.

    Args:
        group: ranking group.
        calibration: calibration record; shown if it is of the group's suite.
        known_answers: tables of pseudo-models; those of the group's suite are shown.
        used_slugs: page fragments in use; extended in place.
        kinds: number of each family of the board, see `number_families`.
        recipes: the recipe of each row by folder, see `read_recipes`.
    """
    table_rows = []
    for ranked_row in group.rows:
        figures = row_estimates(ranked_row.row.record)
        cells = {name: format_cell(name, figures[name]) for name in SHARE_COLUMNS}
        cells |= {key: format_decoding(key, ranked_row.row.record) for key in DECODING_COLUMNS}
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
    spreads_by_recipe = [(rows, spreads_of_recipe(name, rows)) for name, rows in rows_by_recipe(group, recipes).items()]
    spreads = [spread for _, of_recipe in spreads_by_recipe for spread in of_recipe]
    table_rows = _with_other_seeds(table_rows, spreads_by_recipe)
    is_calibrated = group.track == TRAINED and calibration is not None and calibration.suite == group.suite
    return GroupTable(
        slug,
        group,
        table_rows,
        represents_uses_chart(table_rows, kinds),
        represents_uses_chart(table_rows, kinds, NARROW_WIDTH),
        probing_title(group),
        probing_rows(group),
        accuracy_delta_chart(table_rows, kinds),
        calibration if is_calibrated else None,
        [answers for answers in known_answers if group.track == TRAINED and answers.suite == group.suite],
        recipe_tables(spreads),
        comparison_rows(spreads),
    )


def _with_other_seeds(
    table_rows: list[TableRow], spreads_by_recipe: Sequence[tuple[Sequence[LeaderboardRow], Sequence[SeedSpread]]]
) -> list[TableRow]:
    """The rows of a table, each with the other rows of its recipe; given are the rows and the spreads of each recipe."""
    slugs = {row.ranked_row.row.folder: row.slug for row in table_rows}
    by_folder = {}
    for rows, spreads in spreads_by_recipe:
        for row in rows:
            others = [(slugs[other.folder], other.name) for other in rows if other is not row]
            by_folder[row.folder] = OtherSeeds(others, row_beside_spread(row, spreads))
    return [replace(row, other_seeds=by_folder.get(row.ranked_row.row.folder)) for row in table_rows]


def number_families(groups: Sequence[RankingGroup]) -> dict[str, int]:
    """A number per family of the board, so that it has the same mark in every picture: by group, and by name in a group.

    The families of the first and largest group have colours of their own.
    """
    families = [family for group in groups for family in sorted({ranked_row.row.family for ranked_row in group.rows})]
    return {family: number for number, family in enumerate(dict.fromkeys(families))}


def _to_series(points: Sequence[tuple[str, ChartPoint]], kinds: Mapping[str, int]) -> list[ChartSeries]:
    """A series per family of some points, which are given with their families."""
    by_family: dict[str, list[ChartPoint]] = {}
    for family, point in points:
        by_family.setdefault(family, []).append(point)
    return [ChartSeries(family, kinds[family], by_family[family]) for family in sorted(by_family)]


def represents_uses_chart(table_rows: Sequence[TableRow], kinds: Mapping[str, int], width: int = WIDTH) -> Chart | None:
    """Chart of use against delta of protocol 4; None if fewer than two rows have both.

    Args:
        table_rows: rows of a group.
        kinds: number of each family, which selects its mark.
        width: width in pixels.
    """
    points = []
    has_labels = len(table_rows) <= MAX_LABELS
    for table_row in table_rows:
        entry = table_row.ranked_row.row
        delta, use = (entry.measurements.comparable.figure(column) for column in ("represents", "uses"))
        if delta is None or use is None:
            continue
        verdicts, held_out = entry.measurements.verdicts, entry.record.accuracy.held_out
        description = (
            f"{entry.name}: {verdicts['represents']}, delta {format_skill(delta)}; {verdicts['uses']}, use {format_skill(use)}; "
            f"held-out {100 * held_out.value:.1f}%"
        )
        label = entry.name if has_labels else ""
        radius = share_radius(held_out.value)
        point = ChartPoint(delta.value, use.value, description, label, use, delta, table_row.slug, radius)
        points.append((entry.family, point))
    if len(points) < 2:
        return None
    return lay_out_chart(
        "Represents against uses", "represents: delta on unseen prefixes", "uses: use on strict pairs",
        _to_series(points, kinds), is_zoomed=True, sizes=SIZES, size_label="Area of a mark: held-out tasks solved",
        width=width,
    )  # fmt: skip


def accuracy_delta_chart(table_rows: Sequence[TableRow], kinds: Mapping[str, int]) -> Chart | None:
    """Chart of delta against held-out accuracy; None if no row has a delta. Arguments as of `represents_uses_chart`."""
    points = []
    for table_row in table_rows:
        entry = table_row.ranked_row.row
        held_out, delta = entry.record.accuracy.held_out, row_estimates(entry.record)["delta"]
        description = f"{entry.name}: held-out {100 * held_out.value:.1f}%, delta {format_skill(delta)}"
        x_interval = Estimate(100 * held_out.value, 100 * held_out.low, 100 * held_out.high, held_out.n)
        label = entry.name if delta and len(table_rows) <= MAX_LABELS else ""
        y = delta.value if delta else None
        point = ChartPoint(100 * held_out.value, y, description, label, delta, x_interval, table_row.slug)
        points.append((entry.family, point))
    if all(point.y is None for _, point in points):
        return None
    return lay_out_chart(
        "Accuracy against delta", "held-out examples solved, %", "delta (skill)", _to_series(points, kinds), is_zoomed=True,
        levels=[(STANDARD.margin, f"REPRESENTS: lower end above {STANDARD.margin:g}")],
    )  # fmt: skip


def build_tables(
    groups: Sequence[RankingGroup],
    calibration: Calibration | None,
    known_answers: Sequence[KnownAnswers],
    recipes: Mapping[str, str] = NO_RECIPES,
) -> list[GroupTable]:
    """Build the tables of all groups; arguments as of `build_group_table`."""
    used_slugs: set[str] = {"board", "main", "data"}
    kinds = number_families(groups)
    return [build_group_table(group, calibration, known_answers, used_slugs, kinds, recipes) for group in groups]


def pictured_table(tables: Sequence[GroupTable]) -> GroupTable | None:
    """The group whose picture stands above the tables: the one with the most marks."""
    num_marks = {table.slug: sum(len(series.marks) for series in table.plot.series) for table in tables if table.plot}
    return max((table for table in tables if table.plot), key=lambda table: num_marks[table.slug], default=None)
