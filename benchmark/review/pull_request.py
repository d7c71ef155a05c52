"""Check a proposed change to `submissions/`: `python -m benchmark.incoming --change CHECKOUT --report FILE`.

CHECKOUT is a merge commit with its first parent, whose files are data: this code, from the branch that is merged into,
reads them. A change adds rows; one that edits or removes a row, or touches a status, is refused unless a maintainer's call
says `--maintainer`. The report is plain text in printable ASCII and is written whatever happens; the summary holds numbers
only. Exit codes are those of `benchmark.submit.command`, the gravest of all rows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

from tabulate import tabulate

from benchmark.artifacts import DESCRIPTION, MAX_BYTES, RECORD, STATUS
from benchmark.board.ranking import read_leaderboard_rows
from benchmark.board.tables import row_cells
from benchmark.command import run_command
from benchmark.environment import SUBMISSIONS
from benchmark.errors import BenchmarkError, UsageError, VerificationError
from benchmark.files import read_text, sanitize
from benchmark.review.change import Change, ChangedFile, read_change
from benchmark.review.change_report import CHANGED, MAX_LISTED, NEW, REFUSED, REMOVED, RENAMED, ChangeReport, RowReport
from benchmark.review.duplicates import DATE_LENGTH, SubmissionRow, colliding_folder, find_overlap, read_row
from benchmark.runner.redaction import has_paths
from benchmark.submit.report import Mismatch, VerificationReport, find_mismatches
from benchmark.submit.verify import verify
from karel_env.command import CommandParser

MAX_FOLDERS = 5
"""Of submissions in one change, at most; each takes seconds to minutes."""
COMPARED_COLUMNS = ("model", "parameters", "shown %", "held-out %", "exact %", "delta", "verdict")
UNFINISHED = "the check did not finish; a maintainer looks into the log of the run\n"
MISMATCH = VerificationError.exit_code


def check_pull_request(checkout: Path, maintainer: bool = False) -> ChangeReport:
    """Check a change.

    Args:
        checkout: work tree of the merge commit.
        maintainer: it is a maintainer's own, who may edit and remove rows and statuses.
    """
    found = ChangeReport()
    try:
        change = read_change(checkout)
        _check_files(change, found)
        folders = change.folders()
        if not folders and not found.refusals:
            found.refusals.append("nothing in submissions/ is changed")
        if len(folders) > MAX_FOLDERS:
            found.refusals.append(f"{len(folders)} submissions in one change; at most {MAX_FOLDERS} are checked")
        if found.refusals:
            found.code = REFUSED
        with tempfile.TemporaryDirectory() as scratch:
            _check_rows(change, folders[:MAX_FOLDERS], Path(scratch), maintainer, found)
    except BenchmarkError as problem:
        found.refusals.append(str(problem))
        found.code = max(found.code, problem.exit_code)
    except Exception as problem:
        # Whatever a folder does to the readers, there is a report, and it refuses.
        found.refusals.append(f"the check failed with {_describe_exception(problem)}; a maintainer looks into it")
        found.code = max(found.code, REFUSED)
    return found


def report_pull_request(checkout: Path, maintainer: bool = False) -> tuple[str, int]:
    """What is found of a change, and the gravest exit code."""
    found = check_pull_request(checkout, maintainer)
    return found.text(), found.exit_code


def _check_files(change: Change, found: ChangeReport) -> None:
    found.refusals += [why for file in change.files if (why := file.rejection_reason()) is not None]


def _check_rows(change: Change, folders: Sequence[str], scratch: Path, maintainer: bool, found: ChangeReport) -> None:
    """Compare each row with the base, then with all others, then verify it."""
    unsafe = {file.folder for file in change.files if file.rejection_reason() is not None}
    kinds = {folder: _row_kind(change, folder) for folder in folders}
    before = {folder: _base_row(change, folder, scratch) for folder in folders if kinds[folder] != NEW}
    after: dict[str, SubmissionRow] = {}
    for folder in folders:
        one = RowReport(folder, kinds[folder])
        found.rows.append(one)
        _check_status(change.files_of(folder), maintainer, one)
        _check_name(change, folder, one)
        place = change.checkout / "submissions" / folder
        if folder in unsafe:
            one.refuse("holds what is no plain file, so it is not read")
        elif one.kind != REMOVED:
            _verify(place, change.files_of(folder), maintainer, one)
            if (row_after := _readable_row(place)) is not None:
                after[folder] = row_after
    standing = _unchanged_rows(change, folders, found)
    for one in found.rows:
        _compare_with_base(one, change, before, maintainer)
        if one.folder in after:
            _compare_with_others(one, after, before, standing, found, maintainer)


def _unchanged_rows(change: Change, folders: Sequence[str], found: ChangeReport) -> list[SubmissionRow]:
    """The rows that a change leaves as they are."""
    rows = {
        name: _readable_row(change.checkout / "submissions" / name)
        for name in sorted(change.folders_after - set(folders))
    }
    unread = [name for name, row in rows.items() if row is None and (change.checkout / "submissions" / name).is_dir()]
    if unread:
        found.notes.append(
            f"not compared with {len(unread)} rows of the base that cannot be read, first {sanitize(unread[0])}"
        )
    return [row for row in rows.values() if row is not None]


def _row_kind(change: Change, folder: str) -> str:
    if folder not in change.folders_before:
        return NEW
    return CHANGED if folder in change.folders_after else REMOVED


def _base_row(change: Change, folder: str, scratch: Path) -> SubmissionRow | None:
    return _readable_row(change.extract_base(folder, scratch / "base"))


def _readable_row(folder: Path) -> SubmissionRow | None:
    """A row, or None where what is there is none; `_verify` says why of a proposed one."""
    try:
        return read_row(folder)
    except Exception:
        return None


def _check_status(files: Sequence[ChangedFile], maintainer: bool, one: RowReport) -> None:
    """A status is written by the verification alone, so no change brings, edits or removes one."""
    for file in files:
        if file.name.casefold() != STATUS or (one.kind == REMOVED and maintainer):
            continue
        if maintainer:
            one.notes.append(f"{file.name} {file.action} by a maintainer")
        elif one.kind != REMOVED:
            one.refuse(
                f"{sanitize(file.name)[1:-1]} {file.action}: only the verification writes it; leave it as it is in the base"
            )


def _check_name(change: Change, folder: str, one: RowReport) -> None:
    """The date in front of a new folder's name, and names that are taken for it."""
    if one.kind != NEW:
        return
    others = change.folders_before | change.folders_after
    if (other := colliding_folder(folder, others)) is not None:
        one.refuse(f"its name differs from {sanitize(other)} by case, width or look-alike letters only; choose another")
    day = folder[: DATE_LENGTH - 1]
    try:
        dated = date.fromisoformat(day) if len(day) == 10 and folder[DATE_LENGTH - 1 : DATE_LENGTH] == "_" else None
    except ValueError:
        dated = None
    # A clock that is behind must not refuse what the base already is older than.
    today = max(datetime.now(UTC), datetime.fromtimestamp(change.base_time, UTC)).date()
    if dated is None:
        one.refuse("its name has no date; expected YYYY-MM-DD_NAME, the day on which the run finished")
    elif dated > today:
        one.refuse(f"it is dated {dated}, which is after today ({today}); expected the day on which the run finished")


def _verify(place: Path, files: Sequence[ChangedFile], maintainer: bool, one: RowReport) -> None:
    """Compute the row again and note what differs."""
    try:
        verified = verify(place, incoming=one.kind == NEW and not maintainer)
    except BenchmarkError as problem:
        one.refuse(str(problem), problem.exit_code)
        return
    except Exception as problem:
        one.refuse(f"cannot be read: {_describe_exception(problem)}")
        return
    differences = verified.mismatches
    if not any(file.name == STATUS for file in files):
        # The status that lies in the base is of the files before, and nobody's claim.
        differences = [difference for difference in differences if not difference.entry.startswith("status.")]
    if len(differences) < len(verified.mismatches):
        one.notes.append("its status is of the files before, so the row falls back to self_reported")
    if differences:
        one.code = max(one.code, MISMATCH)
        one.details = f"{len(differences)} entries differ\n\n{_format_mismatches(differences, 'submission', 'found')}"
        return
    finished = verified.record.provenance.finished[:10]
    if one.kind == NEW and one.folder[: DATE_LENGTH - 1] != finished:
        one.notes.append(
            f"dated {sanitize(one.folder[: DATE_LENGTH - 1])}, while its run finished on {sanitize(finished)}"
        )
    if any(has_paths(read_text(place / name, MAX_BYTES[name])) for name in (DESCRIPTION, RECORD)):
        one.notes.append("names folders of the machine that it ran on; what is published shows their last part only")
    checks = "\n".join(f"- {line}" for line in verified.checked)
    one.details = f"{checks}\n\n{_board_excerpt(place.name, verified)}"


def _compare_with_base(
    one: RowReport, change: Change, before: dict[str, SubmissionRow | None], maintainer: bool
) -> None:
    """Name what a change does to a row that is there."""
    if one.kind == NEW:
        return
    files = change.files_of(one.folder)
    listed = ", ".join(f"{sanitize(file.name)[1:-1]} {file.action}" for file in files[:MAX_LISTED])
    more = f" and {len(files) - MAX_LISTED} more" if len(files) > MAX_LISTED else ""
    what = "removes" if one.kind == REMOVED else "changes"
    line = f"{what} a row of the base ({listed}{more})"
    if maintainer:
        one.notes.append(f"{line}; a maintainer's change")
    else:
        one.refuse(f"{line}; ask a maintainer, or propose a row of its own")
    old = before.get(one.folder)
    if one.kind != CHANGED or old is None:
        return
    new = _readable_row(change.checkout / "submissions" / one.folder)
    if new is not None:
        differences = _row_differences(old, new)
        table = (
            _format_mismatches(differences, "base", "change")
            if differences
            else "none of what the board shows or the description says"
        )
        one.details = f"what differs from the base:\n\n{table}\n\n{one.details}"


def _row_differences(old: SubmissionRow, new: SubmissionRow) -> list[Mismatch]:
    """Cells of the board and entries of the description that a change alters."""
    found = list(find_mismatches("board", row_cells(old.record), row_cells(new.record)))
    return found + list(find_mismatches("description", old.declared.model_dump(), new.declared.model_dump()))


def _compare_with_others(
    one: RowReport,
    after: dict[str, SubmissionRow],
    before: dict[str, SubmissionRow | None],
    standing: Sequence[SubmissionRow],
    found: ChangeReport,
    maintainer: bool,
) -> None:
    """Refuse a row that stands for another one; a removed row that it stands for was renamed."""
    mine = after[one.folder]
    removed = {report.folder: report for report in found.rows if report.kind in (REMOVED, RENAMED)}
    gone = [old for folder, old in before.items() if folder in removed and old is not None]
    # The base's version of another changed row counts too: a change could empty the row that it copies.
    changed = [
        old for folder, old in before.items() if folder not in removed and folder != one.folder and old is not None
    ]
    proposed = [other for folder, other in after.items() if folder != one.folder]
    overlap = find_overlap(mine, [*standing, *changed, *proposed])
    for why in dict.fromkeys(overlap.refusals):
        if maintainer:
            one.notes.append(why)
        else:
            one.refuse(why)
    one.notes += dict.fromkeys(overlap.notes)
    for old in gone:
        renaming = find_overlap(mine, [old])
        if renaming.refusals or renaming.notes:
            removed[old.folder].kind = RENAMED
            removed[old.folder].notes.append(f"now {sanitize(one.folder)}")
            why = f"renamed from {sanitize(old.folder)}: {'; '.join([*renaming.refusals, *renaming.notes])}"
            if maintainer:
                one.notes.append(why)
            else:
                one.refuse(why)


def _format_mismatches(differences: Sequence[Mismatch], before: str, after: str) -> str:
    rows = [[sanitize(one.entry)[1:-1], sanitize(one.said), sanitize(one.found)] for one in differences[:MAX_LISTED]]
    table = tabulate(rows, headers=["entry", before, after], tablefmt="simple", disable_numparse=True)
    more = len(differences) - MAX_LISTED
    return f"{table}\n({more} more)" if more > 0 else table


def _board_excerpt(name: str, found: VerificationReport) -> str:
    """The row of a submission among those of its suite, best first."""
    mine = found.record
    try:
        rows_there = [entry for entry in read_leaderboard_rows(SUBMISSIONS) if entry.folder != name]
    except Exception as problem:
        return f"the board of the base cannot be read: {_describe_exception(problem)}"
    others = [entry.record for entry in rows_there if entry.record.suite.name == mine.suite.name]
    ranked = sorted([mine, *others], key=lambda one: -one.accuracy.held_out.value)
    rows = []
    for one in ranked:
        cells = row_cells(one)
        rows.append(["->" if one is mine else "", *(sanitize(cells[column])[1:-1] for column in COMPARED_COLUMNS)])
    return tabulate(rows, headers=["", *COMPARED_COLUMNS], tablefmt="simple", disable_numparse=True)


def _describe_exception(problem: Exception) -> str:
    return f"{type(problem).__name__}: {sanitize(str(problem))}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = CommandParser(prog="python -m benchmark.incoming", description="Check a proposed change.")
    parser.add_argument("--change", type=Path, required=True, metavar="CHECKOUT", help="merge commit, with its parent")
    parser.add_argument("--report", type=Path, required=True, metavar="FILE", help="file to write")
    parser.add_argument(
        "--summary", type=Path, metavar="FILE", help="file for the numbers of rows, as JSON on one line"
    )
    parser.add_argument(
        "--maintainer", action="store_true", help="the change is a maintainer's own: it may edit rows and statuses"
    )
    return run_command(lambda: run(parser.parse_args(arguments)))


def run(options: argparse.Namespace) -> int:
    """Check, and write the report; returns the exit code."""
    try:
        # Should the process be killed, this is what is found.
        options.report.write_text(UNFINISHED, encoding="utf-8")
        if options.summary is not None:
            options.summary.unlink(missing_ok=True)
        found = check_pull_request(options.change, options.maintainer)
        options.report.write_text(found.text(), encoding="utf-8")
        if options.summary is not None:
            options.summary.write_text(found.summary(), encoding="utf-8")
    except OSError as problem:
        where = problem.filename or options.report
        error = UsageError(f"{where}: cannot be written ({problem.strerror}); give a file in a folder that is there")
        raise error from problem
    sys.stdout.write(found.text())
    return found.exit_code


if __name__ == "__main__":
    sys.exit(main())
