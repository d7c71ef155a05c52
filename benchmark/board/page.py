"""`karel-bench page --output-dir site/`: the leaderboard as one static page without network requests.

Style, script and data are inlined; the content security policy allows only this style and this script, by SHA-256, and
all text of submitters is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from benchmark.board.charts import Chart, ChartPoint, ChartSeries, interval_strip, lay_out_chart
from benchmark.board.known_answers import KnownAnswers, read_known_answers
from benchmark.board.markup import spell_hidden
from benchmark.board.measurements import MEASUREMENT_COLUMNS, UNDEFINED, Measurements, format_figure, shorten_reason
from benchmark.board.ranking import (
    TRAINED,
    Calibration,
    RankedRow,
    RankingGroup,
    rank_groups,
    read_board,
    read_calibration,
)
from benchmark.board.row_page import RowPage, build_row_page, describe_row_semantics
from benchmark.board.tables import (
    CALIBRATION,
    format_skill,
    print_ignored,
    probing_rows,
    probing_title,
    row_estimates,
    unverified_claims,
)
from benchmark.cli.declare import parse_options
from benchmark.cli.fields import calibration_option, output_dir_option, submissions_option
from benchmark.command import check_folder, make_folder, run_command
from benchmark.probing.protocol import STANDARD
from benchmark.runner.store import write_atomic
from benchmark.statistics import Estimate
from karel_env.world import HEADINGS

PAGE_FILE = "index.html"
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
STEERING_MARK = "/* steering.js */"
"""Line of board.js that is replaced by steering.js."""
STRIP_RANGES = {"held_out": (0.0, 1.0), "represents": (-0.1, 1.0), "uses": (-0.1, 1.0), "merges": (0.0, 1.0)}
"""Columns whose intervals are also drawn as strips, with the limits of the strip."""
NUM_MARKERS = 6


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
    """One table row: page fragment, cells, row page, and names of unverified fields."""

    slug: str
    ranked_row: RankedRow
    figures: dict[str, TableCell]
    page: RowPage
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
    folder: Path,
    group: RankingGroup,
    calibration: Calibration | None,
    known_answers: Sequence[KnownAnswers],
    used_slugs: set[str],
) -> GroupTable:
    """Build the table of a group with the pages of its rows.

    Args:
        folder: folder of all submissions.
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
                build_row_page(folder / name, ranked_row),
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
    for table_row in table_rows:
        entry = table_row.ranked_row.row
        delta, use = (entry.measurements.figure(column) for column in ("represents", "uses"))
        if delta is None or use is None:
            continue
        verdicts = entry.measurements.verdicts
        description = f"{entry.name}: {verdicts['represents']}, delta {format_skill(delta)}; {verdicts['uses']}, use {format_skill(use)}"
        by_family.setdefault(entry.family, []).append(
            ChartPoint(delta.value, use.value, description, entry.name, use, delta, table_row.slug)
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
            label = entry.name if delta else ""
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


def render_page(
    folder: Path,
    groups: Sequence[RankingGroup],
    calibration: Calibration | None,
    known_answers: Sequence[KnownAnswers] = (),
) -> str:
    """Render the page as HTML.

    Args:
        folder: folder of all submissions.
        groups: ranking groups of the submissions.
        calibration: calibration record, shown below the table of its suite.
        known_answers: tables of pseudo-models of the measurements besides accuracy.
    """
    used_slugs: set[str] = {"board", "main", "data"}
    tables = [build_group_table(folder, group, calibration, known_answers, used_slugs) for group in groups]
    environment = Environment(
        loader=PackageLoader("benchmark.board", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_escape_value,
    )  # fmt: skip
    style, script, steering = (_read_template(environment, name) for name in ("board.css", "board.js", "steering.js"))
    if STEERING_MARK not in script:
        raise ValueError(f"board.js: no {STEERING_MARK}, where steering.js is inserted")
    script = script.replace(STEERING_MARK, steering)
    table_rows = [table_row for table in tables for table_row in table.rows]
    semantics_descriptions: dict[str, str] = {}
    for table_row in table_rows:
        semantics_descriptions |= describe_row_semantics(table_row.page.player_data)
    data = {
        "rows": {table_row.slug: table_row.page.player_data for table_row in table_rows},
        "meanings": semantics_descriptions,
        "headings": HEADINGS,
    }
    return environment.get_template("board.html").render(
        tables=tables, shares=SHARE_COLUMNS, measured=MEASUREMENT_COLUMNS, definitions=DEFINITIONS, style=Markup(style), script=Markup(script),
        policy=content_security_policy(style, script), data=json_block(data),
        families=sorted({table_row.ranked_row.row.family for table_row in table_rows}),
        statuses=sorted({table_row.ranked_row.row.status for table_row in table_rows}),
    )  # fmt: skip


def _escape_value(value: Any) -> Any:
    """Spell out direction overrides and invisible characters in a template value; other values are unchanged."""
    return spell_hidden(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _read_template(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    text = environment.loader.get_source(environment, name)[0]
    if "</" in text:
        raise ValueError(f"{name}: contains '</', which would close its HTML element")
    return text


def content_security_policy(style: str, script: str) -> str:
    """Content security policy that allows this style and this script, by SHA-256, and nothing else."""
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def json_block(data: dict[str, Any]) -> Markup:
    """Serialize to JSON that is safe inside an HTML script element, like jinja's `tojson` but compact."""
    text = json.dumps(_escape_nested(data), separators=(",", ":"))
    for sign in "<>&'":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _escape_nested(value: Any) -> Any:
    if isinstance(value, dict):
        return {spell_hidden(str(key)): _escape_nested(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_escape_nested(inner) for inner in value]
    return spell_hidden(value) if isinstance(value, str) else value


@dataclass(frozen=True, kw_only=True)
class PageOptions:
    """Write the leaderboard as one static page."""

    output_dir: Path = output_dir_option(Path("site"), f"write {PAGE_FILE} into this folder")
    submissions: Path = submissions_option()
    calibration: Path = calibration_option(CALIBRATION)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command-line entry point; returns the exit code."""
    return run_command(lambda: run(parse_options(PageOptions, arguments, "page")))


def run(options: PageOptions) -> int:
    """Write the page; returns the exit code."""
    check_folder(options.output_dir, "--output-dir")
    rows = read_board(options.submissions)
    print_ignored(rows)
    calibration, known_answers = read_calibration(options.calibration), read_known_answers(options.calibration)
    text = render_page(options.submissions, rank_groups(rows), calibration, known_answers)
    make_folder(options.output_dir, "--output-dir")
    write_atomic(options.output_dir / PAGE_FILE, text.encode())
    print(f"wrote {options.output_dir / PAGE_FILE} ({len(text.encode()) / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
