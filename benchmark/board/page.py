"""`python -m benchmark.page --out site/`: the board as one static page that needs no server and fetches nothing.

Style, script and data are in the file; its content security policy allows these two texts by their digests and nothing
else, and everything that a submitter wrote is escaped.
"""

from __future__ import annotations

import argparse
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
from benchmark.board.markup import spell_hidden
from benchmark.board.ranking import TRAINED, Calibration, RankingGroup, RankedRow, read_calibration, read_leaderboard_rows, rank_groups
from benchmark.board.row_page import RowPage, describe_row_semantics, build_row_page
from benchmark.board.tables import CALIBRATION, UNDEFINED, unverified_claims, row_estimates, format_skill
from benchmark.command import make_folder, run_command
from benchmark.environment import SOURCE_ROOT
from benchmark.probing.protocol import STANDARD
from benchmark.runner.store import write_atomic
from benchmark.statistics import Estimate
from karel_env.command import CommandParser
from karel_env.world import HEADINGS

PAGE_FILE = "index.html"
SHARE_COLUMNS = {"shown": "shown %", "held_out": "held-out %", "exact": "exact %", "valid": "valid %"}
SKILL_COLUMNS = {"skill": "skill", "gap": "gap", "delta": "delta"}
STRIP_RANGES = {"held_out": (0.0, 1.0), "delta": (-0.1, 1.0)}
"""Columns whose intervals are drawn beside their figures, and the ends of the strip."""
NUM_MARKERS = 6


@dataclass(frozen=True)
class TableCell:
    """One cell: words of the value and of its interval, what is sorted by, and its strip."""

    value: str
    interval: str
    order: float | None
    n: int | None
    strip: dict[str, float] | None


@dataclass(frozen=True)
class TableRow:
    """One row of a table: its fragment, its cells, its page, and what of it is claimed only."""

    slug: str
    ranked: RankedRow
    figures: dict[str, TableCell]
    page: RowPage
    claims: list[str]


@dataclass(frozen=True)
class GroupTable:
    """One group as the page shows it."""

    slug: str
    group: RankingGroup
    lines: list[TableRow]
    plot: Chart | None
    calibration: Calibration | None


def format_cell(name: str, estimate: Estimate | None) -> TableCell:
    """A cell of the table."""
    if estimate is None:
        return TableCell(UNDEFINED, "", None, None, None)
    scale, sign = (100, ".1f") if name in SHARE_COLUMNS else (1, "+.3f")
    value, low, high = (f"{scale * v:{sign}}" for v in (estimate.value, estimate.low, estimate.high))
    strip = interval_strip(estimate, *STRIP_RANGES[name]) if name in STRIP_RANGES else None
    return TableCell(value, f"[{low}, {high}]", estimate.value, estimate.n, strip)


def make_slug(text: str, used_slugs: set[str]) -> str:
    """A fragment for a name: letters, digits and hyphens only, none twice."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:80] or "row"
    slug, number = stem, 1
    while slug in used_slugs:
        number += 1
        slug = f"{stem}-{number}"
    used_slugs.add(slug)
    return slug


def build_group_table(folder: Path, group: RankingGroup, calibration: Calibration | None, used_slugs: set[str]) -> GroupTable:
    """A group with the pages of its rows.

    Args:
        folder: of all submissions.
        group: of the standings.
        calibration: if it is this suite's.
        taken: fragments so far.
    """
    table_rows = []
    for ranked_row in group.rows:
        figures = row_estimates(ranked_row.entry.record)
        cells = {name: format_cell(name, figures[name]) for name in (*SHARE_COLUMNS, *SKILL_COLUMNS)}
        name = ranked_row.entry.folder
        table_rows.append(
            TableRow(make_slug(name, used_slugs), ranked_row, cells, build_row_page(folder / name, ranked_row), unverified_claims(ranked_row.entry))
        )
    slug = make_slug(f"{group.suite}-v{group.suite_version}-p{group.protocol}-{group.track}", used_slugs)
    return GroupTable(slug, group, table_rows, accuracy_delta_chart(table_rows), calibration)


def accuracy_delta_chart(table_rows: Sequence[TableRow]) -> Chart | None:
    """Delta against accuracy on held-out examples; None where no row has a delta."""
    families = list(dict.fromkeys(table_row.ranked.entry.family for table_row in table_rows))
    series = []
    for kind, family in enumerate(families):
        chart_points = []
        for table_row in table_rows:
            entry = table_row.ranked.entry
            if entry.family != family:
                continue
            held_out, delta = entry.record.accuracy.held_out, row_estimates(entry.record)["delta"]
            description = f"{entry.name}: held-out {100 * held_out.value:.1f}%, delta {format_skill(delta)}"
            x_interval = Estimate(100 * held_out.value, 100 * held_out.low, 100 * held_out.high, held_out.n)
            label = entry.name if delta else ""
            chart_points.append(ChartPoint(100 * held_out.value, delta.value if delta else None, description, label, delta, x_interval, table_row.slug))
        series.append(ChartSeries(family, kind % NUM_MARKERS, chart_points))
    if all(point.y is None for family_series in series for point in family_series.points):
        return None
    return lay_out_chart(
        "Accuracy against delta", "held-out examples solved, %", "delta (skill)", series, x_range=(0.0, 100.0),
        levels=[(STANDARD.margin, f"REPRESENTS: lower end above {STANDARD.margin:g}")],
    )  # fmt: skip


def render_page(folder: Path, groups: Sequence[RankingGroup], calibration: Calibration | None) -> str:
    """The page.

    Args:
        folder: of all submissions.
        groups: of their standings.
        calibration: shown below the suite that it is of.
    """
    used_slugs: set[str] = {"board", "main", "data"}
    tables = [
        build_group_table(
            folder,
            group,
            calibration if calibration and (calibration.suite, TRAINED) == (group.suite, group.track) else None,
            used_slugs,
        )
        for group in groups
    ]
    environment = Environment(
        loader=PackageLoader("benchmark.board", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_escape_value,
    )  # fmt: skip
    style, script = (_read_template(environment, name) for name in ("board.css", "board.js"))
    table_rows = [table_row for table in tables for table_row in table.lines]
    semantics_descriptions: dict[str, str] = {}
    for table_row in table_rows:
        semantics_descriptions |= describe_row_semantics(table_row.page.plays)
    data = {"rows": {table_row.slug: table_row.page.plays for table_row in table_rows}, "meanings": semantics_descriptions, "headings": HEADINGS}
    return environment.get_template("board.html").render(
        tables=tables, shares=SHARE_COLUMNS, skills=SKILL_COLUMNS, style=Markup(style), script=Markup(script),
        policy=content_security_policy(style, script), data=json_block(data),
        families=sorted({table_row.ranked.entry.family for table_row in table_rows}),
        statuses=sorted({table_row.ranked.entry.status for table_row in table_rows}),
    )  # fmt: skip


def _escape_value(value: Any) -> Any:
    """Text of a record or a submitter without characters that turn or hide what stands beside them."""
    return spell_hidden(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _read_template(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    text = environment.loader.get_source(environment, name)[0]
    if "</" in text:
        raise ValueError(f"{name}: holds '</', which would end its element")
    return text


def content_security_policy(style: str, script: str) -> str:
    """The content security policy: these two texts, and nothing from anywhere."""
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def json_block(data: dict[str, Any]) -> Markup:
    """JSON that no text in it can end: as in jinja's `tojson`, without the spaces."""
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


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = CommandParser(prog="python -m benchmark.page", description="Write the board as one static page.")
    parser.add_argument("--out", type=Path, default=Path("site"), help=f"folder for {PAGE_FILE} (default: site)")
    parser.add_argument("--submissions", type=Path, default=SOURCE_ROOT / "submissions", help="folder of submissions")
    parser.add_argument("--calibration", type=Path, default=CALIBRATION, help="record of the known answers")
    return run_command(lambda: run(parser.parse_args(arguments)))


def run(options: argparse.Namespace) -> int:
    """Write the page; returns the exit code."""
    groups = rank_groups(read_leaderboard_rows(options.submissions))
    text = render_page(options.submissions, groups, read_calibration(options.calibration))
    make_folder(options.out, "--out")
    write_atomic(options.out / PAGE_FILE, text.encode())
    print(f"wrote {options.out / PAGE_FILE} ({len(text.encode()) / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
