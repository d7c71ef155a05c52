"""Leaderboard ranking: official rows in groups of one suite, protocol and track, with tied ranks.

Rank of a row: 1 + the number of rows of its group that are significantly better on held-out examples (exact McNemar
test on the same tasks at 5%, Holm-adjusted over all pairs of the group). Rows that do not differ share their rank.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.board.cached.rows import prepare_held_out, read_held_out, read_submission, verification_status
from benchmark.board.measurements import NO_MEASUREMENTS, Measurements, read_measurements
from benchmark.board.paired import holm_rejects, mcnemar_all_pairs
from benchmark.errors import BenchmarkError, UsageError
from benchmark.runner.record import Record, read_record
from benchmark.statistics import Estimate, wilson
from benchmark.submit.check_record import drop_unverified
from benchmark.submit.schema import FLAGGED, WITHDRAWN, Submission
from benchmark.tasks.suite import load_suite
from karel_env.syntax.dialects import KAREL

TRAINED = "trained"
RECORD_PATTERN = "*/record.json"
UNRANKED_STATUSES = (FLAGGED, WITHDRAWN)
"""Statuses of rows that are shown without a rank and do not count in the rank of any other row."""
DIGITS = 6
"""Decimal digits of the figures in the calibration record, and of means over them."""


@dataclass(frozen=True)
class LeaderboardRow:
    """One submission before it is ranked.

    Attributes:
        folder: name of the submission folder.
        record: the run record, restricted to what can be recomputed (`check_record.drop_unverified`).
        held_out: bool [N], test tasks solved on the held-out examples.
        declared: the parsed `submission.yaml`.
        status: last verification status.
        measurements: what is measured besides accuracy under later protocols.
    """

    folder: str
    record: Record
    held_out: np.ndarray
    declared: Submission
    status: str
    measurements: Measurements = NO_MEASUREMENTS

    @property
    def name(self) -> str:
        """The declared name of the row."""
        return self.declared.name

    @property
    def family(self) -> str:
        """The declared model family."""
        return self.declared.family

    @property
    def track(self) -> str:
        """The track, see `describe_prompts`; a record without a track is `trained`."""
        return describe_prompts(self.record) if getattr(self.record, "track", None) else TRAINED


def describe_prompts(record: Record) -> str:
    """The track of a run, with what differs from the suite's own few-shot prompts: rows with other prompts are not compared."""
    frame = record.frame
    if frame is None:
        return record.track
    notes = (
        []
        if frame.shots == load_suite(record.suite.name).shots
        else [f"{frame.shots} example{'' if frame.shots == 1 else 's'}"]
    )
    notes += [] if frame.dialect == KAREL else [frame.dialect]
    return f"{record.track} ({', '.join(notes)})" if notes else record.track


@dataclass(frozen=True)
class RankedRow:
    """A row with its rank in its group; the rank is None for a status in `UNRANKED_STATUSES`."""

    row: LeaderboardRow
    rank: int | None


@dataclass(frozen=True)
class RankingGroup:
    """Comparable rows, best first.

    Attributes:
        suite, suite_version, protocol, track: the values that all rows of the group share.
        tasks: number of test tasks, N.
        rows: the ranked rows.
    """

    suite: str
    suite_version: int
    protocol: int
    track: str
    tasks: int
    rows: tuple[RankedRow, ...]


@dataclass(frozen=True)
class CalibrationRow:
    """Calibration result of one pseudo-model with a known verdict, over draws.

    Attributes:
        name: name of the pseudo-model.
        expected: expected outcome.
        found: number of draws per outcome.
        right: share of draws with the expected outcome, with its interval.
        skill: mean skill over draws.
        delta: means over draws of delta and of both ends of its interval; None for a pseudo-model that tests the
            location of a peak only.
    """

    name: str
    expected: str
    found: dict[str, int]
    right: Estimate
    skill: float | None
    delta: Estimate | None


@dataclass(frozen=True)
class Calibration:
    """Calibration rows of a suite and the number of alternative semantics used."""

    suite: str
    alternatives: int
    rows: tuple[CalibrationRow, ...]


def read_leaderboard_rows(folder: Path, with_samples: bool = True) -> list[LeaderboardRow]:
    """Read the row of every submission in a folder.

    Args:
        folder: folder of all submissions.
        with_samples: whether the samples are read too; without them `held_out` is empty, and rows cannot be ranked.

    Raises:
        BenchmarkError: A run is not official, its samples do not match its record, or a description or status is invalid.
    """
    records = [(path.parent, _read_official(path)) for path in sorted(folder.glob(RECORD_PATTERN))]
    if with_samples:
        prepare_held_out(records)
    return [read_leaderboard_row(path, record, with_samples) for path, record in records]


def _read_official(path: Path) -> Record:
    record = read_record(path)
    if not record.official:
        raise BenchmarkError(
            f"{path}: not an official run ({'; '.join(record.unofficial)}); remove it, or run the complete suite"
        )
    return record


def read_leaderboard_row(folder: Path, record: Record, with_samples: bool = True) -> LeaderboardRow:
    """Read the row of a submission; `with_samples` and errors as of `read_leaderboard_rows`.

    Args:
        folder: folder of the submission.
        record: its record.
        with_samples: whether the samples are read too.
    """
    held_out = np.zeros(0, bool)
    if with_samples:
        held_out = read_held_out(folder, record)
    return LeaderboardRow(
        folder.name,
        drop_unverified(folder, record),
        held_out,
        read_submission(folder),
        verification_status(folder),
        read_measurements(folder, record),
    )


def read_board(folder: Path) -> list[LeaderboardRow]:
    """Read the row of every submission in a folder that has at least one.

    Raises:
        UsageError: The folder is missing, or has no submission.
        BenchmarkError: See `read_leaderboard_rows`.
    """
    check_has_rows(folder)
    return read_leaderboard_rows(folder)


def check_has_rows(folder: Path) -> None:
    """Check that a folder of submissions has at least one.

    Raises:
        UsageError: The folder is missing, or has no submission.
    """
    if next(folder.glob(RECORD_PATTERN), None) is None:
        problem = "has no submission" if folder.is_dir() else "no such folder"
        raise UsageError(
            f"--submissions {folder}: {problem}; expected folders with a record.json, as karel-bench submit new makes them "
            "from a run"
        )


def rank_groups(entries: Sequence[LeaderboardRow]) -> list[RankingGroup]:
    """Group rows by suite, suite version, protocol and track, and rank each group.

    The suite with the most rows stands first; of a suite, its newest version and protocol, and its trained track.
    """
    groups: dict[tuple[str, int, int, str], list[LeaderboardRow]] = {}
    for entry in entries:
        suite, protocol = entry.record.suite, entry.record.protocol
        groups.setdefault((suite.name, suite.version, protocol.version, entry.track), []).append(entry)
    num_rows = Counter(entry.record.suite.name for entry in entries)

    def position(key: tuple[str, int, int, str]) -> tuple[Any, ...]:
        suite_name, version, protocol_version, track = key
        return -num_rows[suite_name], suite_name, -version, -protocol_version, track != TRAINED, track

    return [
        RankingGroup(*key, groups[key][0].record.suite.tasks, tuple(rank_rows(groups[key])))
        for key in sorted(groups, key=position)
    ]


def rank_rows(entries: Sequence[LeaderboardRow]) -> list[RankedRow]:
    """Rank the rows of one group; sorted by rank, then held-out share, then folder name, unranked rows last."""
    better = np.zeros(len(entries), np.int64)
    ranked = np.array([i for i, entry in enumerate(entries) if entry.status not in UNRANKED_STATUSES], np.int64)
    if len(ranked) > 1:
        tests = mcnemar_all_pairs(np.stack([entries[i].held_out for i in ranked]))
        worse = np.where(tests.wins > tests.losses, tests.second, tests.first)
        better[ranked] = np.bincount(worse[holm_rejects(tests.p)], minlength=len(ranked))
    rows = [
        RankedRow(entry, None if entry.status in UNRANKED_STATUSES else 1 + int(better[i])) for i, entry in enumerate(entries)
    ]  # fmt: skip
    return sorted(
        rows, key=lambda row: (row.rank or len(rows) + 1, -row.row.record.accuracy.held_out.value, row.row.folder)
    )


def read_calibration(path: Path) -> Calibration | None:
    """Read the calibration file of `python -m benchmark.calibrate`; None if the file does not exist.

    Raises:
        UsageError: The file is not a calibration record.
    """
    if not path.is_file():
        return None
    by_name: dict[str, list[dict[str, Any]]] = {}
    try:
        stored = json.loads(path.read_bytes())
        for cell in stored["cells"]:
            by_name.setdefault(cell["pseudo-model"], []).append(cell)
        rows = tuple(_calibration_row(name, cells) for name, cells in by_name.items())
        return Calibration(stored["suite"], stored["alternatives"], rows)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        message = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise UsageError(f"{path}: {message}; expected the file that python -m benchmark.calibrate writes") from error


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
