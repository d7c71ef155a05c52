"""The standings: official rows in groups of one suite, protocol and track, with ranks that ties are kept in.

Rank of a row: 1 + the number of rows of its group that are better on held-out examples, by exact McNemar on the same
tasks at 5% after Holm's adjustment over all pairs of the group. Rows that nothing tells apart share their rank.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.board.comparison import read_solved_tasks
from benchmark.board.paired import ALPHA, mcnemar
from benchmark.errors import BenchmarkError, UsageError
from benchmark.runner.record import Record, read_record
from benchmark.statistics import Estimate, holm, wilson
from benchmark.submit.check_record import drop_unverified
from benchmark.submit.schema import FLAGGED, SELF_REPORTED, WITHDRAWN, Submission, read_status, read_submission

TRAINED = "trained"
UNRANKED_STATUSES = (FLAGGED, WITHDRAWN)
"""Statuses of rows that are shown without a rank and enter no other row's."""
DIGITS = 6
"""Of what the calibration's record holds, and so of means over it."""


@dataclass(frozen=True)
class LeaderboardRow:
    """One row before it is ranked.

    Attributes:
        folder: name of the submission.
        record: of its run, without what cannot be computed again (`record_check.recomputable`).
        held_out: bool [N], test tasks solved on the held-out examples.
        declared: its `submission.yaml`.
        status: what verification last wrote.
    """

    folder: str
    record: Record
    held_out: np.ndarray
    declared: Submission
    status: str

    @property
    def name(self) -> str:
        """The declared name of the row."""
        return self.declared.name

    @property
    def family(self) -> str:
        """The declared family of models."""
        return self.declared.family

    @property
    def track(self) -> str:
        """`trained` or `fewshot`; records from before there were tracks are of the first."""
        return str(getattr(self.record, "track", None) or TRAINED)


@dataclass(frozen=True)
class RankedRow:
    """A row with its rank in its group; None for a status of `UNRANKED`."""

    entry: LeaderboardRow
    rank: int | None


@dataclass(frozen=True)
class RankingGroup:
    """Rows that may be compared, best first.

    Attributes:
        suite, suite_version, protocol, track: what they share.
        tasks: N.
        rows: with ranks.
    """

    suite: str
    suite_version: int
    protocol: int
    track: str
    tasks: int
    rows: tuple[RankedRow, ...]

    def families(self) -> list[tuple[str, list[RankedRow]]]:
        """The rows by family; the family with the best row first, its rows best first."""
        names = dict.fromkeys(row.entry.family for row in self.rows)
        return [(name, [row for row in self.rows if row.entry.family == name]) for name in names]


@dataclass(frozen=True)
class CalibrationRow:
    """A calibration row: pseudo-models whose verdict is known, over draws.

    Attributes:
        name: of the pseudo-model.
        expected: what must be found.
        found: how often each verdict was.
        right: share of draws in which it was found as it must be.
        skill: mean over draws.
        delta: means over draws of the value and of both ends of its interval; None where only a place is looked for.
    """

    name: str
    expected: str
    found: dict[str, int]
    right: Estimate
    skill: float | None
    delta: Estimate | None


@dataclass(frozen=True)
class Calibration:
    """The calibration rows of a suite, with the number of alternatives they were measured against."""

    suite: str
    alternatives: int
    rows: tuple[CalibrationRow, ...]


def read_leaderboard_rows(folder: Path) -> list[LeaderboardRow]:
    """Every submission's row.

    Raises:
        BenchmarkError: a record that may not enter, or is not of its samples; a description or status that does not fit.
    """
    rows = []
    for path in sorted(folder.glob("*/record.json")):
        record = read_record(path)
        if not record.official:
            raise BenchmarkError(
                f"{path}: not an official run ({'; '.join(record.unofficial)}); remove it, or run the suite whole"
            )
        submission_folder = path.parent
        held_out = read_solved_tasks(submission_folder, record)["held_out"]
        rows.append(LeaderboardRow(submission_folder.name, drop_unverified(submission_folder, record), held_out, read_submission(submission_folder), verification_status(submission_folder)))
    return rows


def verification_status(folder: Path) -> str:
    """What verification wrote of a submission; `self_reported` until it has, and where files were changed since."""
    status = read_status(folder)
    return status.status if status else SELF_REPORTED


def rank_groups(entries: Sequence[LeaderboardRow]) -> list[RankingGroup]:
    """The groups, ranked."""
    groups: dict[tuple[str, int, int, str], list[LeaderboardRow]] = {}
    for entry in entries:
        suite, protocol = entry.record.suite, entry.record.protocol
        groups.setdefault((suite.name, suite.version, protocol.version, entry.track), []).append(entry)
    return [
        RankingGroup(*key, members[0].record.suite.tasks, tuple(rank_rows(members))) for key, members in sorted(groups.items())
    ]


def rank_rows(entries: Sequence[LeaderboardRow]) -> list[RankedRow]:
    """The rows of one group, by rank, then by share of held-out examples, then by name; unranked ones last."""
    better = dict.fromkeys(range(len(entries)), 0)
    pairs = combinations([i for i, entry in enumerate(entries) if entry.status not in UNRANKED_STATUSES], 2)
    tests = {f"{i} {j}": mcnemar(entries[i].held_out, entries[j].held_out) for i, j in pairs}
    for name, p in holm({name: test.p for name, test in tests.items()}).items():
        if p <= ALPHA:
            i, j = map(int, name.split())
            better[j if tests[name].first > tests[name].second else i] += 1
    rows = [
        RankedRow(entry, None if entry.status in UNRANKED_STATUSES else 1 + better[i]) for i, entry in enumerate(entries)
    ]  # fmt: skip
    return sorted(
        rows, key=lambda row: (row.rank or len(rows) + 1, -row.entry.record.accuracy.held_out.value, row.entry.folder)
    )


def read_calibration(path: Path) -> Calibration | None:
    """The calibration rows of a file that `benchmark.calibrate.calibration` wrote; None without one."""
    if not path.is_file():
        return None
    by_name: dict[str, list[dict[str, Any]]] = {}
    try:
        stored = json.loads(path.read_bytes())
        for cell in stored["cells"]:
            by_name.setdefault(cell["pseudo-model"], []).append(cell)
        rows = tuple(_calibration_row(name, cells) for name, cells in by_name.items())
        return Calibration(stored["suite"], stored["alternatives"], rows)
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        message = " ".join(f"{type(problem).__name__} {problem}".split())[:200]
        raise UsageError(f"{path}: {message}; expected the file that python -m benchmark.calibrate writes") from problem


def _calibration_row(name: str, cells: Sequence[dict[str, Any]]) -> CalibrationRow:
    verdicts = [cell["found"] for cell in cells]
    right = wilson(sum(cell["right"] for cell in cells), len(cells))
    assert right is not None
    skill = delta = None
    if "delta" in cells[0]:
        value, low, high = np.mean([cell["delta"] for cell in cells], 0)
        skill = round(float(np.mean([cell["skill"] for cell in cells])), DIGITS)
        value, low, high = (round(float(bound), DIGITS) for bound in (value, low, high))
        delta = Estimate(value, low, high, len(cells))
    return CalibrationRow(
        name,
        cells[0]["expected"],
        {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))},
        right,
        skill,
        delta,
    )
