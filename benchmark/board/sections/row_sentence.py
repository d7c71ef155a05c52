"""What a row shows in one sentence, in words: what it solves, what its states hold, whether it uses that."""

from __future__ import annotations

from benchmark.board.measurements import NOT_APPLICABLE, REPRESENTS, USES
from benchmark.board.ranking import LeaderboardRow
from benchmark.causal.verdict import USES as IS_USED
from benchmark.probing.control_gap import INCONCLUSIVE, RECORD_ONLY
from benchmark.probing.control_gap import REPRESENTS as IS_REPRESENTED
from benchmark.probing.version4.rotation_verdict import NOTHING_READ

STATES_HOLD = {
    IS_REPRESENTED: "its states hold the robot's rotation",
    RECORD_ONLY: "of the robot's rotation its states hold what follows from a record of the words, and no more",
    NOTHING_READ: "probes read nothing of the robot's rotation from its states",
    INCONCLUSIVE: "whether its states hold the robot's rotation is not decided",
    None: "what its states hold was not measured",
}
"""Clause by the verdict of *Represents*; None without one."""


def row_sentence(entry: LeaderboardRow) -> str:
    """The sentence of a row, for every combination of verdicts, also of missing ones."""
    verdicts = entry.measurements.verdicts
    represents, uses = verdicts[REPRESENTS], verdicts[USES]
    clauses = [f"Writes a program that is right on the shown examples for {share_in_words(entry.record.accuracy.shown.value)} of the tasks"]  # fmt: skip
    if not entry.record.model.parameters:
        clauses.append("it is no neural network and has no hidden states")
    elif represents is None and uses is None:
        clauses.append("its states were not measured")
    else:
        clauses += [STATES_HOLD[represents], _use_clause(represents, uses)]
    return f"{'; '.join(clauses)}."


def _use_clause(represents: str | None, uses: str | None) -> str:
    """Whether it uses the rotation; `it` where the clause before says that its states hold it."""
    rotation = "it" if represents == IS_REPRESENTED else "the rotation"
    if uses == IS_USED:
        return f"it uses {rotation} when it writes the next word"
    if uses == NOT_APPLICABLE:
        return f"whether it uses {rotation} cannot be measured"
    return f"that it uses {rotation} is not shown" if uses else f"whether it uses {rotation} was not measured"


def share_in_words(share: float) -> str:
    """A share as a whole percentage; all and none only where they are exact."""
    if share in (0.0, 1.0):
        return "all" if share else "none"
    if share < 0.01 or share > 0.99:
        return "less than 1%" if share < 0.01 else "more than 99%"
    return f"{100 * share:.0f}%"
