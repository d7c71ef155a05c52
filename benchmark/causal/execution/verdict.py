"""Score and verdict on the execution task, by the rule of the main measurement. NumPy only.

Letters: `N` tasks, `S` semantics (0 is the original), `U` report tasks, `V` random draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmark.causal.evidence import NOT_RUN
from benchmark.causal.execution.heading_tasks import HeadingTasks
from benchmark.causal.pairs import most_frequent
from benchmark.causal.rotation import alternative_semantics
from benchmark.causal.targets import END, TURNS
from benchmark.causal.verdict import (
    LOOK_UP,
    NOT_APPLICABLE,
    Rates,
    UseScore,
    decide_use,
    score_rates,
)
from benchmark.statistics import Estimate, wilson

if TYPE_CHECKING:
    from benchmark.causal.execution.measurement import ExecutionEvidence

OTHER_VALUE = "other value"


@dataclass(frozen=True)
class ExecutionResult:
    """The result of a measurement.

    Attributes:
        verdict: USES, NOT SHOWN or N/A, as in `benchmark.causal.verdict`.
        reason: why it is not USES; empty for USES.
        natural: share of unedited headings that are right, over all tasks, 95% interval.
        score: scores on the report tasks whose unedited heading is right; None if not applicable.
        clamped: share of the effect that remains in the natural range; None if not applicable.
        site: index of the site of the edit; None if not applicable.
    """

    verdict: str
    reason: str
    natural: Estimate | None
    score: UseScore | None = None
    clamped: float | None = None
    site: int | None = None

    @classmethod
    def inapplicable(cls, reason: str, tasks: HeadingTasks, unedited: np.ndarray) -> ExecutionResult:
        """The result of a model that cannot be measured; `unedited` int8 [N]."""
        return cls(NOT_APPLICABLE, reason, _natural(tasks, unedited))


def _natural(tasks: HeadingTasks, unedited: np.ndarray) -> Estimate | None:
    is_run = unedited != NOT_RUN
    return wilson(int((unedited == tasks.heading)[is_run].sum()), int(is_run.sum()))


def look_up_headings(tasks: HeadingTasks) -> np.ndarray:
    """int64 [3, N], the most frequent target of choose tasks by turn, rotation and last action; -1 if there is none.

    It knows the edit and the program, and not the world. With the unedited heading as well it would always be right, since
    that heading plus the turn is the definition of the target.
    """
    rows, targets = ~tasks.is_report, tasks.targets()
    turn = np.arange(TURNS - 1)[:, None]
    keys = (turn * TURNS + tasks.rotation) * END + tasks.programs[:, -1]
    table = most_frequent(keys[:, rows].ravel(), targets[:, rows].ravel(), (TURNS - 1) * TURNS * END)
    return np.asarray(table[keys])


def judge_execution(
    evidence: ExecutionEvidence, tasks: HeadingTasks, site: int, counts: list[np.ndarray]
) -> ExecutionResult:
    """The result of a measurement, from the headings that were named.

    Args:
        evidence: the headings.
        tasks: the tasks.
        site: index of the site of the edit.
        counts: bool [N] per semantics, tasks on which it counts.
    """
    rows = tasks.is_report & (evidence.unedited == tasks.heading)
    natural = _natural(tasks, evidence.unedited)
    if not rows.any():
        return ExecutionResult(NOT_APPLICABLE, "no report task has the right heading; use more tasks", natural)
    targets = tasks.targets()
    names = [f"alternative {semantics.name}" for semantics in alternative_semantics()]
    words = {
        "steered": evidence.steered[0],
        "no edit": np.repeat(evidence.unedited[None], TURNS - 1, 0),
        "random vector": evidence.random,
        **{
            name: np.where(counts[s], evidence.steered[s], NOT_RUN) for s, name in enumerate(names, start=1)
        },
        # The heading after an edit by the next turn, which is right for another value.
        OTHER_VALUE: np.roll(evidence.steered[0], -1, 0),
        "wrong position": evidence.wrong_position,
        "untrained": evidence.untrained,
        LOOK_UP: np.where(look_up_headings(tasks) < 0, TURNS, look_up_headings(tasks)),
    }  # fmt: skip
    sums = {name: _sum_by_task(part, targets, rows, tasks) for name, part in words.items()}
    sums = {name: pair for name, pair in sums.items() if pair[1].sum() > 0}
    rates = Rates(tuple(sums), *(np.stack([pair[i] for pair in sums.values()]) for i in range(2)))
    report = tasks.is_report
    is_right = (evidence.unedited == tasks.heading)[report].astype(np.float64)
    base = Rates(("natural",), is_right[None], np.ones((1, int(report.sum()))))
    score = score_rates(rates, base, int(rows.sum()) * (TURNS - 1))
    clamped = _remaining_effect(evidence, targets, rows)
    verdict, reason = decide_use(score, clamped)
    return ExecutionResult(verdict, reason, natural, score, clamped, site)


def _sum_by_task(
    words: np.ndarray, targets: np.ndarray, rows: np.ndarray, tasks: HeadingTasks
) -> tuple[np.ndarray, np.ndarray]:
    """float64 [U] each: targets named and pairs attempted per report task, averaged over draws, summed over turns."""
    words = words.reshape(-1, *targets.shape)
    is_run = (words != NOT_RUN) & rows
    hits = (words == targets) & is_run
    hits_per_task, runs_per_task = (part.mean(0).sum(0)[tasks.is_report] for part in (hits, is_run))
    return hits_per_task, runs_per_task


def _remaining_effect(evidence: ExecutionEvidence, targets: np.ndarray, rows: np.ndarray) -> float:
    """Share of the effect of the edit that remains with later activations in their natural range; 0 without an effect."""
    steered, clamped = (float((w == targets)[:, rows].mean()) for w in (evidence.steered[0], evidence.clamped))
    return clamped / steered if steered > 0 else 0.0
