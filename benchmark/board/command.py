"""Print the leaderboard on a terminal: `karel-bench board`; `karel-bench leaderboard` writes files.

`karel-bench board RUN` shows where the row of a run would stand, and writes its page, with the player, into the run folder.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmark.board.comparison import find_run
from benchmark.board.markup import spell_hidden
from benchmark.board.measurements import UNDEFINED, measured_columns, measurement_cells
from benchmark.board.ranking import (
    LeaderboardRow,
    RankedRow,
    RankingGroup,
    check_has_rows,
    rank_groups,
    read_leaderboard_rows,
)
from benchmark.board.sections.decoding import decoding_cells
from benchmark.board.tables import (
    decoding_columns,
    print_ignored,
    probing_rows,
    probing_title,
    row_cells,
    to_csv,
    to_json,
)
from benchmark.cli.declare import argument, option, parse_options
from benchmark.cli.fields import output_file_option, submissions_option
from benchmark.command import run_command
from benchmark.errors import UsageError
from karel_env.command import nearest

LEADERBOARD_FILE = "leaderboard.json"
FORMATS = ("table", "json", "csv")
SOLVED_COLUMNS, COLUMNS = ("shown %", "held-out %"), ("skill", "gap", "delta", "verdict")
"""Columns of `tables.COLUMNS` in the first and in the second table of a suite, which fit on a terminal."""
DIGITS, REASON_WIDTH = 2, 18
"""Decimal digits and length of the reasons of measurements; csv and json have all of them."""


@dataclass(frozen=True, kw_only=True)
class BoardOptions:
    """Print the leaderboard, or show one run as it would stand there."""

    run: str | None = argument("folder of a run, or name of a submission, to show alone", None, metavar="RUN")
    open: bool = option(False, "open the page of the run in a browser")
    output_file: Path | None = output_file_option(
        None, "write the page of the run to this file", "page.html in its folder"
    )
    suite: str | None = option(None, "print the rows of this suite only", default_text="all")
    submissions: Path = submissions_option()
    format: str = option("table", "select the format; json and csv have every figure", choices=FORMATS)


def read_groups(submissions: Path) -> list[RankingGroup]:
    """Read and rank the submissions of a folder.

    Ranking reads every sample, which takes seconds. So the ranks of the `leaderboard.json` next to the folder are taken
    if all else in that file is what the records, descriptions and statuses give.
    """
    file = submissions.absolute().parent / LEADERBOARD_FILE
    if file.is_file():
        ranked = rows_with_ranks(file.read_text(encoding="utf-8"))
        groups = groups_with_ranks(read_leaderboard_rows(submissions, with_samples=False), ranked)
        if groups is not None and rows_with_ranks(to_json(groups)) == ranked:
            return groups
    return rank_groups(read_leaderboard_rows(submissions))


def rows_with_ranks(text: str) -> Any:
    """The groups of a leaderboard in JSON; None if it is none."""
    try:
        return json.loads(text)["groups"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def groups_with_ranks(entries: Sequence[LeaderboardRow], ranked: Any) -> list[RankingGroup] | None:
    """Arrange rows as the groups of a leaderboard in JSON, with its ranks; None if these are of other rows."""
    by_folder = {entry.folder: entry for entry in entries}
    try:
        groups = [
            RankingGroup(
                group["suite"],
                group["suite_version"],
                group["protocol"],
                group["track"],
                group["tasks"],
                tuple(RankedRow(by_folder.pop(row["submission"]), row["rank"]) for row in group["rows"]),
            )
            for group in ranked
        ]
    except (KeyError, TypeError):
        return None
    return None if by_folder else groups


def format_group(group: RankingGroup) -> str:
    """Format one ranking group for a terminal: a table by rank, and a table of the probes of the records' protocol."""
    version = f"suite v{group.suite_version}, protocol v{group.protocol}, {group.track}, n = {group.tasks} tasks"
    columns = measured_columns([ranked_row.row.measurements for ranked_row in group.rows])
    parts = [
        f"{group.suite} ({version})",
        _table([_table_row(ranked_row, columns, decoding_columns(group)) for ranked_row in group.rows]),
    ]
    probing = [
        {name: row[name] for name in ("model", *COLUMNS) if name in row} for row in probing_rows(group)
    ]  # fmt: skip
    if probing:
        parts += [probing_title(group), _table(probing)]
    return spell_hidden("\n\n".join(parts))


def _table(rows: Sequence[dict[str, str]]) -> str:
    return tabulate(rows, headers="keys", tablefmt="simple", disable_numparse=True)


def _table_row(ranked_row: RankedRow, columns: Sequence[str], decodings: Sequence[str]) -> dict[str, str]:
    cells, measured = (
        row_cells(ranked_row.row.record),
        measurement_cells(ranked_row.row.measurements, DIGITS, REASON_WIDTH),
    )
    return {
        "#": UNDEFINED if ranked_row.rank is None else str(ranked_row.rank),
        "model": ranked_row.row.name,
        **{column: cells[column] for column in SOLVED_COLUMNS},
        **{name: decoding_cells(ranked_row.row.record).get(name, UNDEFINED) for name in decodings},
        **{column: measured[column] for column in columns},
        "status": ranked_row.row.status,
    }


def execute(options: BoardOptions) -> int:
    """Print the board, or the standing of a run; returns the exit code."""
    if options.run is not None:
        return _show_run(options.run, options)
    if options.open or options.output_file is not None:
        raise UsageError(
            "--open and --output-file: expected the folder of a run with them, as karel-bench run prints it"
        )
    check_has_rows(options.submissions)
    groups = read_groups(options.submissions)
    print_ignored(ranked_row.row for group in groups for ranked_row in group.rows)
    suites = sorted({group.suite for group in groups})
    if options.suite is not None:
        groups = [group for group in groups if group.suite == options.suite]
        if not groups:
            raise UsageError(
                f"--suite {options.suite}: no rows; expected one of {', '.join(suites)}{nearest(options.suite, suites)}"
            )
    if options.format == "table":
        print("\n\n".join(format_group(group) for group in groups))
    else:
        print(to_json(groups) if options.format == "json" else to_csv(groups), end="")
    return 0


def _show_run(run: str, options: BoardOptions) -> int:
    """Print where the row of a run would stand, and write its page."""
    from benchmark.board.preview.run_page import open_page, write_run_page
    from benchmark.board.preview.standing import format_standing, read_standing

    if options.suite is not None or options.format != "table":
        raise UsageError("--suite and --format: of the board only; a run has its own suite")
    standing = read_standing(run, options.submissions)
    print(format_standing(standing))
    path = write_run_page(find_run(run)[0], standing, options.output_file)
    print(f"page        {path}")
    if options.open and not open_page(path):
        raise UsageError(f"--open: no browser could be started; open {path} in one")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(lambda: execute(parse_options(BoardOptions, arguments, "board")))


if __name__ == "__main__":
    sys.exit(main())
