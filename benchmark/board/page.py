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

from benchmark.board.charts import Chart, Point, Series, bar, chart
from benchmark.board.markup import visible
from benchmark.board.ranking import TRAINED, Calibration, RankingGroup, RankedRow, read_calibration, read_leaderboard_rows, rank_groups
from benchmark.board.row_page import RowPage, meanings, row_page
from benchmark.board.tables import CALIBRATION, UNDEFINED, claims_of, figures_of, points
from benchmark.command import make_folder, run_command
from benchmark.environment import SOURCE_ROOT
from benchmark.probing.protocol import STANDARD
from benchmark.runner.store import write_durably
from benchmark.statistics import Estimate
from karel_env.command import CommandParser
from karel_env.world import HEADINGS

NAME = "index.html"
SHARES = {"shown": "shown %", "held_out": "held-out %", "exact": "exact %", "valid": "valid %"}
SKILLS = {"skill": "skill", "gap": "gap", "delta": "delta"}
STRIPS = {"held_out": (0.0, 1.0), "delta": (-0.1, 1.0)}
"""Columns whose intervals are drawn beside their figures, and the ends of the strip."""
MARKS = 6


@dataclass(frozen=True)
class Figure:
    """One cell: words of the value and of its interval, what is sorted by, and its strip."""

    value: str
    interval: str
    order: float | None
    n: int | None
    strip: dict[str, float] | None


@dataclass(frozen=True)
class Line:
    """One row of a table: its fragment, its cells, its page, and what of it is claimed only."""

    slug: str
    ranked: RankedRow
    figures: dict[str, Figure]
    page: RowPage
    claims: list[str]


@dataclass(frozen=True)
class Table:
    """One group as the page shows it."""

    slug: str
    group: RankingGroup
    lines: list[Line]
    plot: Chart | None
    calibration: Calibration | None


def figure_of(name: str, estimate: Estimate | None) -> Figure:
    """A cell of the table."""
    if estimate is None:
        return Figure(UNDEFINED, "", None, None, None)
    scale, sign = (100, ".1f") if name in SHARES else (1, "+.3f")
    value, low, high = (f"{scale * v:{sign}}" for v in (estimate.value, estimate.low, estimate.high))
    strip = bar(estimate, *STRIPS[name]) if name in STRIPS else None
    return Figure(value, f"[{low}, {high}]", estimate.value, estimate.n, strip)


def slug_of(text: str, taken: set[str]) -> str:
    """A fragment for a name: letters, digits and hyphens only, none twice."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:80] or "row"
    slug, number = stem, 1
    while slug in taken:
        number += 1
        slug = f"{stem}-{number}"
    taken.add(slug)
    return slug


def table_of(folder: Path, group: RankingGroup, calibration: Calibration | None, taken: set[str]) -> Table:
    """A group with the pages of its rows.

    Args:
        folder: of all submissions.
        group: of the standings.
        calibration: if it is this suite's.
        taken: fragments so far.
    """
    lines = []
    for ranked in group.rows:
        figures = figures_of(ranked.entry.record)
        cells = {name: figure_of(name, figures[name]) for name in (*SHARES, *SKILLS)}
        name = ranked.entry.folder
        lines.append(
            Line(slug_of(name, taken), ranked, cells, row_page(folder / name, ranked), claims_of(ranked.entry))
        )
    slug = slug_of(f"{group.suite}-v{group.suite_version}-p{group.protocol}-{group.track}", taken)
    return Table(slug, group, lines, plot_of(lines), calibration)


def plot_of(lines: Sequence[Line]) -> Chart | None:
    """Delta against accuracy on held-out examples; None where no row has a delta."""
    families = list(dict.fromkeys(line.ranked.entry.family for line in lines))
    series = []
    for kind, family in enumerate(families):
        spots = []
        for line in lines:
            entry = line.ranked.entry
            if entry.family != family:
                continue
            held, delta = entry.record.accuracy.held_out, figures_of(entry.record)["delta"]
            words = f"{entry.name}: held-out {100 * held.value:.1f}%, delta {points(delta)}"
            along = Estimate(100 * held.value, 100 * held.low, 100 * held.high, held.n)
            label = entry.name if delta else ""
            spots.append(Point(100 * held.value, delta.value if delta else None, words, label, delta, along, line.slug))
        series.append(Series(family, kind % MARKS, spots))
    if all(point.y is None for one in series for point in one.points):
        return None
    return chart(
        "Accuracy against delta", "held-out examples solved, %", "delta (skill)", series, x_range=(0.0, 100.0),
        levels=[(STANDARD.margin, f"REPRESENTS: lower end above {STANDARD.margin:g}")],
    )  # fmt: skip


def render(folder: Path, groups: Sequence[RankingGroup], calibration: Calibration | None) -> str:
    """The page.

    Args:
        folder: of all submissions.
        groups: of their standings.
        calibration: shown below the suite that it is of.
    """
    taken: set[str] = {"board", "main", "data"}
    tables = [
        table_of(
            folder,
            g,
            calibration if calibration and (calibration.suite, TRAINED) == (g.suite, g.track) else None,
            taken,
        )
        for g in groups
    ]
    environment = Environment(
        loader=PackageLoader("benchmark.board", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_seen,
    )  # fmt: skip
    style, script = (_source(environment, name) for name in ("board.css", "board.js"))
    lines = [line for table in tables for line in table.lines]
    said: dict[str, str] = {}
    for line in lines:
        said |= meanings(line.page.plays)
    data = {"rows": {line.slug: line.page.plays for line in lines}, "meanings": said, "headings": HEADINGS}
    return environment.get_template("board.html").render(
        tables=tables, shares=SHARES, skills=SKILLS, style=Markup(style), script=Markup(script),
        policy=policy(style, script), data=data_block(data),
        families=sorted({line.ranked.entry.family for line in lines}),
        statuses=sorted({line.ranked.entry.status for line in lines}),
    )  # fmt: skip


def _seen(value: Any) -> Any:
    """Text of a record or a submitter without characters that turn or hide what stands beside them."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    text = environment.loader.get_source(environment, name)[0]
    if "</" in text:
        raise ValueError(f"{name}: holds '</', which would end its element")
    return text


def policy(style: str, script: str) -> str:
    """The content security policy: these two texts, and nothing from anywhere."""
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def data_block(data: dict[str, Any]) -> Markup:
    """JSON that no text in it can end: as in jinja's `tojson`, without the spaces."""
    text = json.dumps(_all_seen(data), separators=(",", ":"))
    for sign in "<>&'":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _all_seen(value: Any) -> Any:
    if isinstance(value, dict):
        return {visible(str(key)): _all_seen(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_all_seen(inner) for inner in value]
    return visible(value) if isinstance(value, str) else value


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = CommandParser(prog="python -m benchmark.page", description="Write the board as one static page.")
    parser.add_argument("--out", type=Path, default=Path("site"), help=f"folder for {NAME} (default: site)")
    parser.add_argument("--submissions", type=Path, default=SOURCE_ROOT / "submissions", help="folder of submissions")
    parser.add_argument("--calibration", type=Path, default=CALIBRATION, help="record of the known answers")
    return run_command(lambda: run(parser.parse_args(arguments)))


def run(options: argparse.Namespace) -> int:
    """Write the page; returns the exit code."""
    groups = rank_groups(read_leaderboard_rows(options.submissions))
    text = render(options.submissions, groups, read_calibration(options.calibration))
    make_folder(options.out, "--out")
    write_durably(options.out / NAME, text.encode())
    print(f"wrote {options.out / NAME} ({len(text.encode()) / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
