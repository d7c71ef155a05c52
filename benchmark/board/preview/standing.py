"""Where the row of a run would stand among the rows of its suite, before it is submitted.

Rows are compared on the tasks that the run has: one with `--limit` has the first tasks of its suite, and `smoke` is the first
tasks of `laptop`. With few tasks hardly any row differs, so besides the rank it is told from how many rows the run differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tabulate import tabulate

from benchmark.artifacts import DESCRIPTION
from benchmark.board.comparison import find_run, read_solved_tasks
from benchmark.board.markup import spell_hidden
from benchmark.board.measurements import read_measurements_of_run
from benchmark.board.paired import holm_rejects, mcnemar, mcnemar_all_pairs
from benchmark.board.ranking import (
    RECORD_PATTERN,
    UNRANKED_STATUSES,
    LeaderboardRow,
    RankedRow,
    RankingGroup,
    describe_prompts,
    rank_rows,
    read_leaderboard_row,
)
from benchmark.errors import BenchmarkError
from benchmark.runner.record import Record, SuiteEntry, read_record
from benchmark.submit.schema import Submission
from benchmark.tasks.suite import hash_tasks, load_suite, test_tasks

THIS_RUN, PREVIEW = "this run", "preview"
NUM_NEIGHBOURS = 3
"""Rows that are printed above and below that of the run."""


@dataclass(frozen=True)
class Standing:
    """The place of a run among the rows of its suite.

    Attributes:
        group: the rows of the suite with that of the run, ranked on the tasks of the run.
        ranked_row: the row of the run.
        num_better, num_worse: rows that are significantly better than the run, and worse.
        board_tasks: number of tasks of the other rows; the run has their first.
    """

    group: RankingGroup
    ranked_row: RankedRow
    num_better: int
    num_worse: int
    board_tasks: int

    @property
    def num_rows(self) -> int:
        """Number of ranked rows besides that of the run."""
        return sum(row.rank is not None for row in self.group.rows) - 1


def read_standing(name_or_folder: str | Path, submissions: Path) -> Standing:
    """Rank a run among the submissions of its suite.

    Args:
        name_or_folder: run folder, or name of a submission, official or not.
        submissions: folder of all submissions; rows that cannot be read are left out.

    Raises:
        UsageError: the folder has no record.
        VerificationError: the samples do not match the record.
    """
    folder, record = find_run(str(name_or_folder))
    solved = read_solved_tasks(folder, record)["held_out"]
    own = LeaderboardRow(
        folder.resolve().name,
        record,
        solved,
        describe_run(folder, record),
        PREVIEW,
        read_measurements_of_run(folder, record),
    )
    board_suite, others = record.suite, list(_read_rows(submissions, folder, record, record.suite))
    if not others and (cut_from := find_longer_suite(record.suite, submissions)) is not None:
        board_suite, others = cut_from, list(_read_rows(submissions, folder, record, cut_from))
    entries = [own, *(replace(row, held_out=row.held_out[: len(solved)]) for row in others)]
    ranked_rows = sorted(rank_rows(entries), key=lambda row: (row.rank or 0, -row.row.held_out.mean(), row.row.folder))
    num_better, num_worse = _count_different(entries)
    group = RankingGroup(
        board_suite.name, board_suite.version, record.protocol.version, own.track, len(solved), tuple(ranked_rows)
    )
    own_ranked = next(row for row in ranked_rows if row.row is own)
    board_tasks = others[0].record.suite.tasks if others else len(solved)
    return Standing(group, own_ranked, num_better, num_worse, board_tasks)


def describe_run(folder: Path, record: Record) -> Submission:
    """What a run declares: its name only, since its authors have written nothing yet."""
    return Submission.model_construct(
        name=record.model.name or folder.name, family="not submitted", model=record.model.spec
    )


def _read_rows(submissions: Path, folder: Path, record: Record, suite: SuiteEntry) -> Iterator[LeaderboardRow]:
    """The rows with which a run can be compared; invalid submissions are left out, and the folder itself."""
    for path in sorted(submissions.glob(RECORD_PATTERN)):
        if path.parent.resolve() == folder.resolve() or not (path.parent / DESCRIPTION).is_file():
            continue
        try:
            other = read_record(path)
            keys = [
                (entry.suite.name, entry.suite.version, entry.protocol.version, describe_prompts(entry))
                for entry in (other, record.model_copy(update={"suite": suite}))
            ]
            if keys[0] == keys[1] and other.official and other.suite.tasks >= record.suite.tasks:
                row = read_leaderboard_row(path.parent, other)
                if row.status not in UNRANKED_STATUSES:
                    yield row
        except BenchmarkError:
            continue


def find_longer_suite(suite: SuiteEntry, submissions: Path) -> SuiteEntry | None:
    """The suite of a submission whose first tasks are those of another suite; None if there is none."""
    try:
        num_tasks = load_suite(suite.name, suite.seed).tasks
    except BenchmarkError:
        return None
    for path in sorted(submissions.glob(RECORD_PATTERN)):
        try:
            longer = read_record(path).suite
        except BenchmarkError:
            continue
        if longer.seed == suite.seed and longer.name != suite.name and longer.tasks >= num_tasks:
            first_tasks = test_tasks(load_suite(longer.name, longer.seed)).take(np.arange(num_tasks))
            if hash_tasks(first_tasks) == suite.sha256:
                return longer
    return None


def _count_different(entries: list[LeaderboardRow]) -> tuple[int, int]:
    """Numbers of rows that are significantly better and worse than the first, tested as `rank_rows` does."""
    if len(entries) == 1:
        return 0, 0
    tests = mcnemar_all_pairs(np.stack([entry.held_out for entry in entries]))
    is_different = holm_rejects(tests.p) & (tests.first == 0)
    return int((is_different & (tests.wins < tests.losses)).sum()), int(
        (is_different & (tests.wins > tests.losses)).sum()
    )


def format_standing(standing: Standing) -> str:
    """The row among its neighbours as a table, and from how many rows it differs, for a terminal."""
    group, rows = standing.group, standing.group.rows
    of_tasks = f"the first {group.tasks:,} of {standing.board_tasks:,} tasks"
    tasks = f"{group.tasks:,} tasks" if group.tasks == standing.board_tasks else of_tasks
    title = f"where it would stand: {group.suite} v{group.suite_version}, protocol v{group.protocol}, {group.track}, {tasks}"
    if standing.num_rows == 0:
        return f"{title}\n  no other row is there to compare with"
    index = rows.index(standing.ranked_row)
    shown = rows[max(0, index - NUM_NEIGHBOURS) : index + NUM_NEIGHBOURS + 1]
    table = tabulate([_cells(row, standing) for row in shown], headers="keys", tablefmt="plain", disable_numparse=True)
    lines = [f"  {line}".rstrip() for line in spell_hidden(table).splitlines()]
    return "\n".join([title, *lines, describe_difference(standing)])


def describe_difference(standing: Standing) -> str:
    """From how many rows the run differs, in a sentence."""
    num_rows, num_alike = standing.num_rows, standing.num_rows - standing.num_better - standing.num_worse
    return (
        f"rank {standing.ranked_row.rank}; of {num_rows} other rows, significantly better: {standing.num_better}, worse: "
        f"{standing.num_worse}, not told apart: {num_alike} (exact McNemar test at 5%, Holm-adjusted, held-out examples of the "
        "same tasks)"
    )


def _cells(ranked_row: RankedRow, standing: Standing) -> dict[str, str]:
    row, own = ranked_row.row, standing.ranked_row.row
    is_own = row is own
    test = mcnemar(own.held_out, row.held_out)
    return {
        " ": ">" if is_own else "",
        "#": str(ranked_row.rank),
        "model": f"{row.name} ({THIS_RUN})" if is_own else row.name,
        "held-out %": f"{100 * row.held_out.mean():.1f}",
        "solved by it only": "" if is_own else str(test.second),
        "by this run only": "" if is_own else str(test.first),
    }
