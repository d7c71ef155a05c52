"""The result of a board in one sentence: how many networks represent the robot's state, and how many use it."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.board.ranking import TRAINED
from benchmark.board.site.group_table import GroupTable
from benchmark.causal.verdict import USES
from benchmark.probing.control_gap import REPRESENTS


def result_sentence(tables: Sequence[GroupTable]) -> str:
    """The sentence on the networks that were trained on a suite; empty if none was measured.

    Rows that are read from few programs are not counted: their verdict is decided at another label budget.

    Args:
        tables: tables of the groups.
    """
    rows = (row.ranked_row.row for table in tables if table.group.track == TRAINED for row in table.rows)
    networks = [measurements.verdicts for row in rows if (measurements := row.measurements.comparable).represents]
    if not networks:
        return ""
    represents = [verdicts["represents"] == REPRESENTS for verdicts in networks]
    uses = [verdicts.get("uses") == USES for verdicts in networks]
    num_represents, num_uses = sum(represents), sum(uses)
    are, their = ("is", "its") if num_represents == 1 else ("are", "their")
    they_write = "it writes" if num_uses == 1 else "they write"
    both = sum(a and b for a, b in zip(represents, uses, strict=True))
    return (
        f"Of {len(networks)} network{'' if len(networks) == 1 else 's'} trained to write programs, {num_represents} {are} shown to hold "
        f"the robot's rotation in {their} states, beyond a record of the words; {num_uses} to use it when {they_write} the next "
        f"word; and {both} both."
    )
