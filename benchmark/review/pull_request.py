"""Check a pull request that changes `submissions/`: `python -m benchmark.incoming --change CHECKOUT --report FILE`.

CHECKOUT is the work tree of a merge commit with its first parent. Its files are read as data; the code is that of the base
branch. A pull request adds rows. It is refused if it edits or removes a row or a status, unless `--maintainer` is given. The
report is printable ASCII and is always written; the summary holds numbers only. The exit code is the largest of all rows,
with the meaning documented in `benchmark.submit.command`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from tabulate import tabulate

from benchmark.artifacts import DESCRIPTION, MAX_BYTES, RECORD, STATUS
from benchmark.board.ranking import read_leaderboard_rows
from benchmark.board.tables import row_cells
from benchmark.cli.declare import group, option, parse_options
from benchmark.command import run_command
from benchmark.errors import BenchmarkError, UsageError, VerificationError
from benchmark.files import read_text, sanitize
from benchmark.installation.paths import submissions_folder
from benchmark.review.change import Change, ChangedFile, read_change
from benchmark.review.change_report import CHANGED, MAX_LISTED, NEW, REFUSED, REMOVED, RENAMED, ChangeReport, RowReport
from benchmark.review.duplicates import DATE_LENGTH, SubmissionRow, find_colliding_folder, find_overlap, read_row
from benchmark.runner.redaction import has_paths
from benchmark.submit.artifacts.commands import SourceOptions
from benchmark.submit.artifacts.listing import listed_artifacts
from benchmark.submit.artifacts.sources import NO_SOURCES, Sources, obtain
from benchmark.submit.report import Mismatch, VerificationReport, find_mismatches
from benchmark.submit.verify import verify

MAX_FOLDERS = 5
"""Maximal number of submissions in one pull request; each takes seconds to minutes."""
COMPARED_COLUMNS = ("model", "parameters", "shown %", "held-out %", "exact %", "delta", "verdict")
UNFINISHED = "the check did not finish; a maintainer will read the log of the run\n"
MISMATCH = VerificationError.exit_code


def check_pull_request(checkout: Path, is_maintainer: bool = False) -> ChangeReport:
    """Check a pull request.

    Args:
        checkout: work tree of the merge commit.
        is_maintainer: whether the author is a maintainer, who may edit and remove rows and statuses.

    Returns:
        Report; errors of any kind are refusals in it.
    """
    report = ChangeReport()
    try:
        change = read_change(checkout)
        _check_files(change, report)
        folders = change.folders()
        if not folders and not report.refusals:
            report.refusals.append("nothing in submissions/ is changed")
        if len(folders) > MAX_FOLDERS:
            report.refusals.append(f"{len(folders)} submissions in one change; at most {MAX_FOLDERS} are checked")
        if report.refusals:
            report.code = REFUSED
        with tempfile.TemporaryDirectory() as scratch:
            _check_rows(change, folders[:MAX_FOLDERS], Path(scratch), is_maintainer, report)
    except BenchmarkError as error:
        report.refusals.append(str(error))
        report.code = max(report.code, error.exit_code)
    except Exception as error:
        # An unexpected error of a reader must give a report with a refusal.
        report.refusals.append(f"the check failed with {_describe_exception(error)}; a maintainer will investigate")
        report.code = max(report.code, REFUSED)
    return report


def obtain_proposed(checkout: Path, sources: Sources) -> None:
    """Bring the artifacts of the changed rows into the cache; the check names those that could not be had."""
    if sources == NO_SOURCES:
        return
    with suppress(BenchmarkError):  # the check gives the reason
        change = read_change(checkout)
        unsafe_folders = {file.folder for file in change.files if file.rejection_reason() is not None}
        for folder in change.folders()[:MAX_FOLDERS]:
            path = checkout / "submissions" / folder
            if folder not in unsafe_folders and path.is_dir():
                with suppress(BenchmarkError):
                    obtain(path, listed_artifacts(path), sources)


def report_pull_request(checkout: Path, is_maintainer: bool = False) -> tuple[str, int]:
    """Check a pull request; returns the text of the report and the exit code."""
    report = check_pull_request(checkout, is_maintainer)
    return report.text(), report.exit_code


def _check_files(change: Change, report: ChangeReport) -> None:
    report.refusals += [reason for file in change.files if (reason := file.rejection_reason()) is not None]


def _check_rows(
    change: Change, folders: Sequence[str], scratch: Path, is_maintainer: bool, report: ChangeReport
) -> None:
    """Verify each row, and compare it with its base version and with all other rows."""
    unsafe_folders = {file.folder for file in change.files if file.rejection_reason() is not None}
    kinds = {folder: _row_kind(change, folder) for folder in folders}
    base_rows = {folder: _base_row(change, folder, scratch) for folder in folders if kinds[folder] != NEW}
    proposed_rows: dict[str, SubmissionRow] = {}
    for folder in folders:
        row_report = RowReport(folder, kinds[folder])
        report.rows.append(row_report)
        _check_status(change.files_of(folder), is_maintainer, row_report)
        _check_name(change, folder, row_report)
        path = change.checkout / "submissions" / folder
        if folder in unsafe_folders:
            row_report.refuse("contains files that are not regular, so it is not read")
        elif row_report.kind != REMOVED:
            _verify(path, change.files_of(folder), is_maintainer, row_report)
            if (proposed_row := _readable_row(path)) is not None:
                proposed_rows[folder] = proposed_row
    unchanged_rows = _unchanged_rows(change, folders, report)
    for row_report in report.rows:
        _compare_with_base(row_report, change, base_rows, is_maintainer)
        if row_report.folder in proposed_rows:
            _compare_with_others(row_report, proposed_rows, base_rows, unchanged_rows, report, is_maintainer)


def _unchanged_rows(change: Change, folders: Sequence[str], report: ChangeReport) -> list[SubmissionRow]:
    """Read the rows that the pull request does not change."""
    rows = {
        name: _readable_row(change.checkout / "submissions" / name)
        for name in sorted(change.folders_after - set(folders))
    }
    unreadable = [
        name for name, row in rows.items() if row is None and (change.checkout / "submissions" / name).is_dir()
    ]
    if unreadable:
        report.notes.append(
            f"not compared with {len(unreadable)} rows of the base that cannot be read, first {sanitize(unreadable[0])}"
        )
    return [row for row in rows.values() if row is not None]


def _row_kind(change: Change, folder: str) -> str:
    if folder not in change.folders_before:
        return NEW
    return CHANGED if folder in change.folders_after else REMOVED


def _base_row(change: Change, folder: str, scratch: Path) -> SubmissionRow | None:
    return _readable_row(change.extract_base(folder, scratch / "base"))


def _readable_row(folder: Path) -> SubmissionRow | None:
    """Read a row; None if it is invalid (for a proposed row `_verify` reports the reason)."""
    try:
        return read_row(folder)
    except Exception:
        return None


def _check_status(files: Sequence[ChangedFile], is_maintainer: bool, row_report: RowReport) -> None:
    """Refuse changes of `status.json`: only the verification writes it."""
    for file in files:
        if file.name.casefold() != STATUS or (row_report.kind == REMOVED and is_maintainer):
            continue
        if is_maintainer:
            row_report.notes.append(f"{file.name} {file.action} by a maintainer")
        elif row_report.kind != REMOVED:
            row_report.refuse(
                f"{sanitize(file.name)[1:-1]} {file.action}: only the verification writes it; leave it as it is in the base"
            )


def _check_name(change: Change, folder: str, row_report: RowReport) -> None:
    """Check the date of a new folder, and that its name does not read like another folder."""
    if row_report.kind != NEW:
        return
    folders = change.folders_before | change.folders_after
    if (colliding := find_colliding_folder(folder, folders)) is not None:
        row_report.refuse(
            f"its name differs from {sanitize(colliding)} by case, width or look-alike letters only; choose another"
        )
    day = folder[: DATE_LENGTH - 1]
    try:
        folder_date = (
            date.fromisoformat(day) if len(day) == 10 and folder[DATE_LENGTH - 1 : DATE_LENGTH] == "_" else None
        )
    except ValueError:
        folder_date = None
    # A slow clock must not refuse a date that precedes the base commit.
    today = max(datetime.now(UTC), datetime.fromtimestamp(change.base_time, UTC)).date()
    if folder_date is None:
        row_report.refuse("its name has no date; expected YYYY-MM-DD_NAME, the day on which the run finished")
    elif folder_date > today:
        row_report.refuse(
            f"it is dated {folder_date}, which is after today ({today}); expected the day on which the run finished"
        )


def _verify(path: Path, files: Sequence[ChangedFile], is_maintainer: bool, row_report: RowReport) -> None:
    """Verify a row and add its checks or mismatches to the report."""
    try:
        verified = verify(path, is_proposed=row_report.kind == NEW and not is_maintainer)
    except BenchmarkError as error:
        row_report.refuse(str(error), error.exit_code)
        return
    except Exception as error:
        row_report.refuse(f"cannot be read: {_describe_exception(error)}")
        return
    mismatches = verified.mismatches
    if not any(file.name == STATUS for file in files):
        # The status in the base is that of the earlier files, not a claim of this pull request.
        mismatches = [mismatch for mismatch in mismatches if not mismatch.entry.startswith("status.")]
    if len(mismatches) < len(verified.mismatches):
        row_report.notes.append("its status applies to the previous files, so the row becomes self_reported")
    if mismatches:
        row_report.code = max(row_report.code, MISMATCH)
        row_report.details = (
            f"{len(mismatches)} entries differ\n\n{_format_mismatches(mismatches, 'submission', 'found')}"
        )
        return
    if verified.missing:
        row_report.refuse(f"verified in part only: {verified.describe_missing()}")
    finished = verified.record.provenance.finished[:10]
    if row_report.kind == NEW and row_report.folder[: DATE_LENGTH - 1] != finished:
        row_report.notes.append(
            f"dated {sanitize(row_report.folder[: DATE_LENGTH - 1])}, while its run finished on {sanitize(finished)}"
        )
    if any(has_paths(read_text(path / name, MAX_BYTES[name])) for name in (DESCRIPTION, RECORD)):
        row_report.notes.append(
            "contains paths of the machine that it ran on; published files show only their last part"
        )
    checks = "\n".join(f"- {line}" for line in verified.checks)
    row_report.details = f"{checks}\n\n{_board_excerpt(path.name, verified)}"


def _compare_with_base(
    row_report: RowReport, change: Change, base_rows: dict[str, SubmissionRow | None], is_maintainer: bool
) -> None:
    """Report the changes of an existing row."""
    if row_report.kind == NEW:
        return
    files = change.files_of(row_report.folder)
    listed = ", ".join(f"{sanitize(file.name)[1:-1]} {file.action}" for file in files[:MAX_LISTED])
    omitted = f" and {len(files) - MAX_LISTED} more" if len(files) > MAX_LISTED else ""
    action = "removes" if row_report.kind == REMOVED else "changes"
    line = f"{action} a row of the base ({listed}{omitted})"
    if is_maintainer:
        row_report.notes.append(f"{line}; a maintainer's change")
    else:
        row_report.refuse(f"{line}; ask a maintainer, or propose a new row")
    old = base_rows.get(row_report.folder)
    if row_report.kind != CHANGED or old is None:
        return
    new = _readable_row(change.checkout / "submissions" / row_report.folder)
    if new is not None:
        mismatches = _find_row_mismatches(old, new)
        table = (
            _format_mismatches(mismatches, "base", "change")
            if mismatches
            else "no leaderboard cell and no entry of submission.yaml"
        )
        row_report.details = f"differences from the base:\n\n{table}\n\n{row_report.details}"


def _find_row_mismatches(old: SubmissionRow, new: SubmissionRow) -> list[Mismatch]:
    """Find the leaderboard cells and `submission.yaml` entries that differ between two versions of a row."""
    mismatches = list(find_mismatches("board", row_cells(old.record), row_cells(new.record)))
    return mismatches + list(find_mismatches("description", old.declared.model_dump(), new.declared.model_dump()))


def _compare_with_others(
    row_report: RowReport,
    proposed_rows: dict[str, SubmissionRow],
    base_rows: dict[str, SubmissionRow | None],
    unchanged_rows: Sequence[SubmissionRow],
    report: ChangeReport,
    is_maintainer: bool,
) -> None:
    """Refuse a row that duplicates another one; a removed row with the same content counts as renamed."""
    proposed_row = proposed_rows[row_report.folder]
    removed_reports = {
        removed_report.folder: removed_report
        for removed_report in report.rows
        if removed_report.kind in (REMOVED, RENAMED)
    }
    removed_rows = [old for folder, old in base_rows.items() if folder in removed_reports and old is not None]
    # Include the base version of changed rows: a pull request could empty the row that it copies.
    changed_rows = [
        old
        for folder, old in base_rows.items()
        if folder not in removed_reports and folder != row_report.folder and old is not None
    ]
    other_proposed_rows = [other_row for folder, other_row in proposed_rows.items() if folder != row_report.folder]
    overlap = find_overlap(proposed_row, [*unchanged_rows, *changed_rows, *other_proposed_rows])
    for reason in dict.fromkeys(overlap.refusals):
        if is_maintainer:
            row_report.notes.append(reason)
        else:
            row_report.refuse(reason)
    row_report.notes += dict.fromkeys(overlap.notes)
    for old in removed_rows:
        renaming = find_overlap(proposed_row, [old])
        if renaming.refusals or renaming.notes:
            removed_reports[old.folder].kind = RENAMED
            removed_reports[old.folder].notes.append(f"now {sanitize(row_report.folder)}")
            reason = f"renamed from {sanitize(old.folder)}: {'; '.join([*renaming.refusals, *renaming.notes])}"
            if is_maintainer:
                row_report.notes.append(reason)
            else:
                row_report.refuse(reason)


def _format_mismatches(mismatches: Sequence[Mismatch], before: str, after: str) -> str:
    rows = [
        [sanitize(mismatch.entry)[1:-1], sanitize(mismatch.claimed), sanitize(mismatch.recomputed)]
        for mismatch in mismatches[:MAX_LISTED]
    ]
    table = tabulate(rows, headers=["entry", before, after], tablefmt="simple", disable_numparse=True)
    num_hidden = len(mismatches) - MAX_LISTED
    return f"{table}\n({num_hidden} more)" if num_hidden > 0 else table


def _board_excerpt(name: str, report: VerificationReport) -> str:
    """Render the row of a submission among the rows of its suite, sorted by pass@1 on held-out examples."""
    record = report.record
    try:
        other_entries = [entry for entry in read_leaderboard_rows(submissions_folder()) if entry.folder != name]
    except Exception as error:
        return f"the board of the base cannot be read: {_describe_exception(error)}"
    other_records = [entry.record for entry in other_entries if entry.record.suite.name == record.suite.name]
    ranked = sorted([record, *other_records], key=lambda ranked_record: -ranked_record.accuracy.held_out.value)
    rows = []
    for ranked_record in ranked:
        cells = row_cells(ranked_record)
        rows.append(
            ["->" if ranked_record is record else "", *(sanitize(cells[column])[1:-1] for column in COMPARED_COLUMNS)]
        )
    return tabulate(rows, headers=["", *COMPARED_COLUMNS], tablefmt="simple", disable_numparse=True)


def _describe_exception(error: Exception) -> str:
    return f"{type(error).__name__}: {sanitize(str(error))}"


@dataclass(frozen=True, kw_only=True)
class IncomingOptions:
    """Check a pull request that changes submissions."""

    change: Path = option(..., "read this checkout of the merge commit, with its first parent", metavar="CHECKOUT")
    report: Path = option(..., "write the report into this file", metavar="FILE")
    summary: Path | None = option(None, "write the row counts into this file, as one line of JSON", metavar="FILE")
    maintainer: bool = option(False, "trust the author as a maintainer, who may edit rows and statuses")
    source: SourceOptions = group(SourceOptions)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(lambda: run(parse_options(IncomingOptions, arguments, "incoming")))


def run(options: IncomingOptions) -> int:
    """Check a pull request and write report and summary; returns the exit code."""
    try:
        # The content of the report if the process is killed.
        options.report.write_text(UNFINISHED, encoding="utf-8")
        if options.summary is not None:
            options.summary.unlink(missing_ok=True)
        obtain_proposed(options.change, options.source.sources())
        report = check_pull_request(options.change, options.maintainer)
        options.report.write_text(report.text(), encoding="utf-8")
        if options.summary is not None:
            options.summary.write_text(report.summary(), encoding="utf-8")
    except OSError as error:
        path = error.filename or options.report
        raise UsageError(f"{path}: cannot be written ({error.strerror}); give a file in an existing folder") from error
    sys.stdout.write(report.text())
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
