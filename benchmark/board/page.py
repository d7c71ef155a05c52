"""`karel-bench page --output-dir site/`: the leaderboard as a static site without network requests.

A document holds its style and its script inline; the content security policy allows only these two, by SHA-256, and all
text of submitters is escaped. By default each row has a document of its own (`site.folder`); with `--single-file` all are
one document.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.board.cached.store import prune
from benchmark.board.known_answers import KnownAnswers, read_known_answers
from benchmark.board.ranking import Calibration, RankingGroup, rank_groups, read_board, read_calibration
from benchmark.board.sections.seed_spread import read_recipes
from benchmark.board.site.documents import NO_ADDRESSES, json_block, render_single
from benchmark.board.site.folder import PAGE_FILE, ROWS_FOLDER, write_site
from benchmark.board.site.group_table import build_tables, format_cell, make_slug, represents_uses_chart
from benchmark.board.site.project_links import PREVIEW_FILE, ProjectAddresses, read_addresses, web_address
from benchmark.board.site.row_body import read_row_bodies
from benchmark.board.tables import CALIBRATION, print_ignored
from benchmark.cli.declare import option, parse_options
from benchmark.cli.fields import calibration_option, output_dir_option, submissions_option
from benchmark.command import check_folder, make_folder, run_command
from benchmark.errors import UsageError
from benchmark.runner.store import write_atomic

__all__ = [
    "PAGE_FILE", "PageOptions", "format_cell", "json_block", "main", "make_slug", "render_page", "represents_uses_chart",
    "run",
]  # fmt: skip


def render_page(
    folder: Path,
    groups: Sequence[RankingGroup],
    calibration: Calibration | None,
    known_answers: Sequence[KnownAnswers] = (),
    addresses: ProjectAddresses = NO_ADDRESSES,
) -> str:
    """Render the whole page as one HTML document.

    Args:
        folder: folder of all submissions.
        groups: ranking groups of the submissions.
        calibration: calibration record, shown below the table of its suite.
        known_answers: tables of pseudo-models of the measurements besides accuracy.
        addresses: addresses of the web.
    """
    recipes = read_recipes(folder, [ranked_row.row for group in groups for ranked_row in group.rows])
    tables = build_tables(groups, calibration, known_answers, recipes)
    rows = [row for table in tables for row in table.rows]
    bodies = read_row_bodies(folder, (row.ranked_row for row in rows))
    bodies_by_slug = {row.slug: body for row, body in zip(rows, bodies, strict=True)}
    return render_single(tables, bodies_by_slug, addresses)


@dataclass(frozen=True, kw_only=True)
class PageOptions:
    """Write the leaderboard as a static site."""

    output_dir: Path = output_dir_option(Path("site"), f"write {PAGE_FILE} and a page per row into this folder")
    submissions: Path = submissions_option()
    calibration: Path = calibration_option(CALIBRATION)
    single_file: bool = option(False, f"write {PAGE_FILE} only, with all rows in it")
    repository: str | None = option(
        None, "link to this repository and its documentation", read_with=web_address, metavar="URL",
        default_text="the address in pyproject.toml",
    )  # fmt: skip
    site_url: str | None = option(
        None, f"write {PREVIEW_FILE} for previews of links, and this address of the published site into the documents",
        read_with=web_address, metavar="URL", default_text="no preview",
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Command-line entry point; returns the exit code."""
    return run_command(lambda: run(parse_options(PageOptions, arguments, "page")))


def run(options: PageOptions) -> int:
    """Write the page; returns the exit code."""
    if options.single_file and options.site_url is not None:
        raise UsageError(
            f"--site-url: the preview is a file beside {PAGE_FILE}; expected a site of several files, leave --single-file out"
        )
    check_folder(options.output_dir, "--output-dir")
    rows = read_board(options.submissions)
    print_ignored(rows)
    calibration, known_answers = read_calibration(options.calibration), read_known_answers(options.calibration)
    groups = rank_groups(rows)
    path = options.output_dir / PAGE_FILE
    addresses = read_addresses(options.repository, None if options.single_file else options.site_url)
    if options.single_file:
        content = render_page(options.submissions, groups, calibration, known_answers, addresses).encode()
        make_folder(options.output_dir, "--output-dir")
        write_atomic(path, content)
        print(f"wrote {path} ({len(content) / 1e6:.1f} MB)")
    else:
        size = write_site(options.submissions, options.output_dir, groups, calibration, known_answers, addresses)
        print(
            f"wrote {path} ({size.index_bytes / 1e6:.2f} MB) and the pages of {size.rows:,} rows in "
            f"{options.output_dir / ROWS_FOLDER} ({size.row_bytes / 1e6:.1f} MB)"
        )
    if not addresses.repository:
        print(
            "note: the page does not link to a repository, its documentation and how to submit, since pyproject.toml has a "
            "placeholder for its address; give it with --repository URL",
            file=sys.stderr,
        )
    prune()
    return 0


if __name__ == "__main__":
    sys.exit(main())
