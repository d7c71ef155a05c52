"""The table of `leaderboard.md` that shows how far ahead the states of each row hold the rotation."""

from __future__ import annotations

from collections.abc import Callable

from benchmark.board.markup import escape_markdown
from benchmark.board.measurements import UNDEFINED, WrittenSummary, format_skill
from benchmark.board.ranking import RankingGroup

Table = list[dict[str, str]]
LEAD = (
    "Reach: the number of words beyond the next one up to which the states hold the rotation, on programs that the model wrote",
    "itself, more than a token history with the shown worlds does ([docs/reproduction.md](docs/reproduction.md)). Rows without a",
    "measurement are left out.",
)


def reach_rows(group: RankingGroup) -> Table:
    """One row per row of the group for which `reach` was measured, in the order of ranks."""
    return [
        {"model": escape_markdown(ranked_row.row.name)} | _cells(figures)
        for ranked_row in group.rows
        if (figures := ranked_row.row.measurements.reach) is not None
    ]


def reach_lines(group: RankingGroup, table: Callable[[Table], str]) -> list[str]:
    """The section of a group in Markdown; empty if no row has the measurement. `table` renders rows."""
    rows = reach_rows(group)
    return ["", "### Reach: rotation ahead", "", *LEAD, "", table(rows)] if rows else []


def _cells(figures: WrittenSummary) -> dict[str, str]:
    cells = {
        "programs": f"{figures.programs:,}",
        "distinct": f"{figures.distinct:,}",
        "reach": UNDEFINED if figures.reach is None else str(figures.reach),
    }
    for part in figures.ahead:
        cells |= {
            f"skill +{part.offset}": format_skill(part.skill),
            f"token history +{part.offset}": f"{part.history:+.3f}",
            f"delta +{part.offset}": format_skill(part.delta),
        }
    return cells
