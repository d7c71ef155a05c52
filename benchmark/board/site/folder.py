"""The site as a folder: a first page with the tables, a document per row, and one per group for boards of many rows.

    index.html              tables; pictures too, for boards of at most `MAX_DETAILED_ROWS` rows
    rows/SLUG.html          the page of a row with its players
    leaderboard.csv, .json  all figures
    preview.png             picture for previews of links, for sites whose address is known
    groups/SLUG.html        pictures and probes of protocol 3 of a group, for boards of more rows

Rows are read, written and forgotten one after the other, so that neither this process nor a browser holds more than one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.board.known_answers import KnownAnswers
from benchmark.board.ranking import Calibration, RankingGroup
from benchmark.board.sections.seed_spread import read_recipes
from benchmark.board.site.documents import (
    GENERATOR,
    NO_ADDRESSES,
    Links,
    render_group,
    render_index,
    render_row,
)
from benchmark.board.site.group_table import build_tables
from benchmark.board.site.project_links import DATA_FILES, PREVIEW_FILE, ProjectAddresses
from benchmark.board.site.row_body import read_row_bodies
from benchmark.board.tables import to_csv, to_json
from benchmark.command import make_folder
from benchmark.runner.store import write_atomic

PAGE_FILE, ROWS_FOLDER, GROUPS_FOLDER = "index.html", "rows", "groups"
MAX_DETAILED_ROWS = 100
"""Rows of a board up to which its first page holds strips, tooltips and pictures."""
INDEX_LINKS = Links("#board", lambda slug: f"{ROWS_FOLDER}/{slug}.html", "")
ROW_LINKS = Links(f"../{PAGE_FILE}", lambda slug: f"{slug}.html", "../")
GROUP_LINKS = Links(f"../{PAGE_FILE}", lambda slug: f"../{ROWS_FOLDER}/{slug}.html", "../")
MARK = f'content="{GENERATOR}"'.encode()
MARK_BYTES = 2_000
"""The mark of a generated file is within so many first bytes."""


@dataclass(frozen=True)
class SiteSize:
    """What was written: bytes of the first page, number of pages of rows, and their bytes."""

    index_bytes: int
    rows: int
    row_bytes: int


def write_site(
    submissions: Path,
    output_dir: Path,
    groups: Sequence[RankingGroup],
    calibration: Calibration | None,
    known_answers: Sequence[KnownAnswers],
    addresses: ProjectAddresses = NO_ADDRESSES,
) -> SiteSize:
    """Write the site; files that are as they should be are left alone, pages of rows that are no more are deleted.

    The first page is written last, so that it never links to what is not there.

    Args:
        submissions: folder of all submissions.
        output_dir: folder of the site; made if it does not exist.
        groups: ranking groups of the submissions.
        calibration: calibration record, shown below the table of its suite.
        known_answers: tables of pseudo-models of the measurements besides accuracy.
        addresses: addresses of the web; with that of the site, a picture for previews of links to it is written.

    Raises:
        SubmissionError, VerificationError: a file of a submission cannot be read or is altered.
        StorageError: a file cannot be written.
    """
    recipes = read_recipes(submissions, [ranked_row.row for group in groups for ranked_row in group.rows])
    tables = build_tables(groups, calibration, known_answers, recipes)
    rows = [(table, row) for table in tables for row in table.rows]
    is_detailed = len(rows) <= MAX_DETAILED_ROWS
    row_bytes = 0
    bodies = read_row_bodies(submissions, (row.ranked_row for _, row in rows))
    for (table, row), body in zip(rows, bodies, strict=True):
        make_folder(output_dir / ROWS_FOLDER, "--output-dir")
        row_bytes += _write(
            output_dir / ROWS_FOLDER / f"{row.slug}.html", render_row(table, row, body, ROW_LINKS, addresses)
        )
    pictured = [] if is_detailed else [table for table in tables if table.plot or table.probing or table.spreads]
    for table in pictured:
        make_folder(output_dir / GROUPS_FOLDER, "--output-dir")
        _write(output_dir / GROUPS_FOLDER / f"{table.slug}.html", render_group(table, GROUP_LINKS, addresses))
    for name, text in zip(DATA_FILES, (to_csv(groups), to_json(groups, calibration, known_answers)), strict=True):
        _write(output_dir / name, text)
    if addresses.site:
        from benchmark.board.site.preview_image import write_preview

        write_preview(output_dir / PREVIEW_FILE, tables)
    index_bytes = _write(output_dir / PAGE_FILE, render_index(tables, INDEX_LINKS, is_detailed, addresses))
    _delete_stale(output_dir / ROWS_FOLDER, {row.slug for _, row in rows})
    _delete_stale(output_dir / GROUPS_FOLDER, {table.slug for table in pictured})
    return SiteSize(index_bytes, len(rows), row_bytes)


def _write(path: Path, text: str) -> int:
    """Write a file unless it holds the text already; returns its number of bytes."""
    content = text.encode()
    if not (path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content):
        write_atomic(path, content)
    return len(content)


def _delete_stale(folder: Path, slugs: set[str]) -> None:
    """Delete generated pages that the board no longer has; files of others in the folder are left alone."""
    for path in folder.glob("*.html"):
        if path.stem not in slugs and path.is_file():
            with path.open("rb") as file:
                is_generated = MARK in file.read(MARK_BYTES)
            if is_generated:
                path.unlink()
