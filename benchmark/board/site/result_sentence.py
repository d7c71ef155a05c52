"""The result of a board in one sentence: how many networks represent the robot's state, and how many use it."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.board.site.group_table import GroupTable
from benchmark.causal.verdict import USES
from benchmark.probing.control_gap import REPRESENTS


def result_sentence(tables: Sequence[GroupTable]) -> str:
    """The sentence; empty if no row was measured.

    Args:
        tables: tables of the groups.
    """
    measured = [
        verdicts
        for table in tables
        for row in table.rows
        if (verdicts := row.ranked_row.row.measurements.verdicts).get("represents") or verdicts.get("uses")
    ]
    networks = [verdicts for verdicts in measured if verdicts.get("represents")]
    if not networks:
        return ""
    represents = [verdicts["represents"] == REPRESENTS for verdicts in networks]
    uses = [verdicts.get("uses") == USES for verdicts in networks]
    both = sum(a and b for a, b in zip(represents, uses, strict=True))
    return (
        f"Of {_count(len(networks), 'network')} that write programs, {sum(represents)} "
        f"{'is' if sum(represents) == 1 else 'are'} shown to hold the robot's rotation in {'its' if sum(represents) == 1 else 'their'} "
        f"states, beyond a record of the words; {sum(uses)} to use it when {'it writes' if sum(uses) == 1 else 'they write'} the next "
        f"word; and {both} both."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
