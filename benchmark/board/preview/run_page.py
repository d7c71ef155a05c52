"""The page of one run as a file, with its figures and players, before it is submitted: `karel-bench board RUN --open`."""

from __future__ import annotations

import webbrowser
from dataclasses import replace
from pathlib import Path

from benchmark.board.preview.standing import Standing, describe_difference
from benchmark.board.site.documents import Links, render_row
from benchmark.board.site.group_table import build_tables
from benchmark.board.site.project_links import read_addresses
from benchmark.board.site.row_body import build_row_body
from benchmark.board.terminal.summary import format_summary
from benchmark.command import make_folder
from benchmark.runner.measurement_record import MeasurementRecord, PreviewRecord, RepresentsRecord, read_measurement
from benchmark.runner.store import write_atomic

RUN_PAGE = "page.html"
BOARD_FILE = "leaderboard.md"


def write_run_page(folder: Path, standing: Standing, output_file: Path | None = None) -> Path:
    """Write the page of a run and return its path.

    Args:
        folder: the run folder.
        standing: where its row would stand.
        output_file: path of the page; None for `page.html` in the run folder.

    Raises:
        UsageError: the folder cannot be written to.
    """
    path = output_file or folder / RUN_PAGE
    make_folder(path.parent, "--output-file")
    write_atomic(path, render_run_page(folder, standing).encode())
    return path


def render_run_page(folder: Path, standing: Standing) -> str:
    """Render the page of a run as an HTML document."""
    (table,) = build_tables([standing.group], None, [])
    row = next(row for row in table.rows if row.ranked_row is standing.ranked_row)
    body = build_row_body(folder, standing.ranked_row)
    body = replace(
        body,
        summary=[
            *body.summary[:1],
            f"Not submitted: {_describe_standing(standing)}.",
            *body.summary[1:],
            *_preview_lines(folder, standing),
        ],
    )
    addresses = read_addresses()
    board = f"{addresses.repository}/blob/main/{BOARD_FILE}" if addresses.repository else f"#{row.slug}"
    return render_row(table, row, body, Links(board, lambda slug: f"#{slug}"), addresses)


def _describe_standing(standing: Standing) -> str:
    if standing.num_rows == 0:
        return f"the first row of suite {standing.group.suite}"
    tasks = f" on the first {standing.group.tasks:,} of {standing.board_tasks:,} tasks"
    return describe_difference(standing) + (tasks if standing.group.tasks < standing.board_tasks else "")


def _preview_lines(folder: Path, standing: Standing) -> list[str]:
    """The question *represents* in words where only a preview of it was measured."""
    preview = read_measurement(PreviewRecord, folder)
    if preview is None or read_measurement(RepresentsRecord, folder) is not None:
        return []
    measured: dict[str, MeasurementRecord] = {"preview": preview}
    lines = format_summary(standing.ranked_row.row.record, measured).splitlines()
    return [f"Preview: {' '.join(line.split())}." for line in lines if line.startswith("represents")]


def open_page(path: Path) -> bool:
    """Open a page in the browser of the user; whether one was started."""
    return webbrowser.open(path.resolve().as_uri())
