"""Draw the result of all rows of a suite in one figure: `python -m benchmark.board.overview`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.cli.declare import option, parse_options
from benchmark.cli.fields import output_dir_option, submissions_option, suite_option
from benchmark.command import check_folder, run_command
from benchmark.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class OverviewOptions:
    """Draw what the rows of a suite represent and use in one figure."""

    suite: str = suite_option()
    submissions: Path = submissions_option()
    name: str = option("overview", "set the name of the files, without .png and .svg")
    output_dir: Path = output_dir_option(Path("figures"), "write the figure into this folder, as PNG and SVG")


def run(options: OverviewOptions) -> int:
    """Write the figure; returns the exit code."""
    check_folder(options.output_dir, "--output-dir")
    # What draws is imported here, after the options are known to be right.
    from benchmark.board.overview_figure import plot_overview, read_overview
    from benchmark.board.ranking import check_has_rows, read_leaderboard_rows
    from benchmark.probing.figures import save_figures

    check_has_rows(options.submissions)
    rows = read_leaderboard_rows(options.submissions, with_samples=False)
    overview = read_overview(rows, options.submissions, options.suite)
    if not overview:
        raise UsageError(
            f"{options.submissions}: no row of suite {options.suite} has represents.json or uses.json; add them with "
            "karel-bench measurements FOLDER"
        )
    for path in save_figures({options.name: lambda: plot_overview(overview, options.suite)}, options.output_dir):
        print(f"wrote {path}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Command-line entry point; returns the exit code."""
    return run_command(
        lambda: run(parse_options(OverviewOptions, arguments, "overview", module="benchmark.board.overview"))
    )


if __name__ == "__main__":
    sys.exit(main())
