"""Submissions: `karel-bench submit new|validate|pack|verify|fetch|publish|audit|withdraw`.

`new` creates a folder from a finished run, `validate` checks its format, `pack` archives it, `verify` recomputes its figures,
`publish` splits it into a light folder and artifacts, `fetch` gets artifacts, `audit` evaluates its model on unseen tasks,
`withdraw` marks it as withdrawn. Exit codes: 0 done, 1 artifacts are missing, 2 usage error, 3 invalid submission, 4
verification mismatch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from tabulate import tabulate

from benchmark.artifacts import STATUS
from benchmark.cli.declare import argument, group, option, parse_options, subcommand
from benchmark.cli.fields import submissions_option
from benchmark.command import run_command
from benchmark.environment import source_digest
from benchmark.errors import UsageError, VerificationError
from benchmark.files import sanitize
from benchmark.runner.plain_progress import PlainProgress
from benchmark.runner.store import write_atomic
from benchmark.submit import audit
from benchmark.submit.artifacts.commands import (
    FetchOptions,
    PublishOptions,
    SourceOptions,
    describe_fetched,
    run_publish,
)
from benchmark.submit.artifacts.sources import Sources, complete_folder
from benchmark.submit.check_folders import check_by_suite, check_folder, check_in_order, usable_cores
from benchmark.submit.draft.command import NewOptions, run_new
from benchmark.submit.draft.questions import check_answered
from benchmark.submit.draft.scaffold import pack
from benchmark.submit.folder import MEASUREMENT_FILES, NAME_PATTERN, files_digest
from benchmark.submit.measurements.repeat import rerun_measurements
from benchmark.submit.report import VerificationReport, raise_on_missing
from benchmark.submit.rerun import ProcessLimits, rerun
from benchmark.submit.schema import (
    FLAGGED,
    REPRODUCED,
    SELF_REPORTED,
    VALIDATED,
    WITHDRAWN,
    Audit,
    Rerun,
    Status,
    read_status,
    validate_schema,
)
from benchmark.submit.verify import validate, verify
from benchmark.tasks.stage import TEST
from karel_env.command import integer, nearest, number

TABLE_ROWS = 20
MAX_WORKERS = 512
MAX_REASON = 300
EXIT_CODES = (
    "Exit codes: 0 done, 1 artifacts are missing, 2 usage error, 3 invalid submission, 4 verification mismatch."
)


@dataclass(frozen=True, kw_only=True)
class FolderOptions:
    """Options of the commands that check one or all submissions."""

    name: str | None = argument("name or path of a submission", None)
    all: bool = option(False, "check all submissions")
    incoming: bool = option(False, "check as a proposed submission, which must not contain status.json")


@dataclass(frozen=True, kw_only=True)
class ValidateOptions(FolderOptions):
    """Check the format of a submission without recomputing figures."""


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """Write a submission as an archive."""

    name: str = argument("name or path of the submission")
    to: Path | None = option(None, "write this file", metavar="FILE", default_text="NAME.tar.gz")


@dataclass(frozen=True, kw_only=True)
class ProcessOptions:
    """The process that runs the model."""

    deadline: float | None = option(
        None, "limit its time", read_with=float, metavar="SECONDS", default_text="depends on the number of shards"
    )
    memory: float | None = option(
        None, "limit its memory", read_with=float, metavar="GB", default_text="0.8 of the available memory"
    )

    def limits(self) -> ProcessLimits:
        """The limits as a rerun takes them."""
        return ProcessLimits(self.deadline, None if self.memory is None else int(self.memory * 1e9))


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(FolderOptions):
    """Recompute every figure that needs no model, and compare."""

    rerun: float | None = option(
        None,
        "also regenerate this fraction of the shards with the weights",
        read_with=number(0, 1, above=True),
        metavar="P",
    )
    workers: int | None = option(
        None, "check with --all in so many processes; one with --rerun", read_with=integer(1, MAX_WORKERS), metavar="N",
        default_text="one per processor",
    )  # fmt: skip
    write_status: bool = option(False, "write the result into status.json")
    allow_missing: bool = option(False, "exit with 0 although artifacts are missing, if all else verifies")
    source: SourceOptions = group(SourceOptions)
    process: ProcessOptions = group(ProcessOptions)


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """Evaluate the model on tasks with a seed derived from its weights; flag it on a lower accuracy."""

    name: str = argument("name or path of the submission")
    write_status: bool = option(False, "write the result into status.json")
    source: SourceOptions = group(SourceOptions)
    process: ProcessOptions = group(ProcessOptions)


@dataclass(frozen=True, kw_only=True)
class WithdrawOptions:
    """Mark a submission as withdrawn (maintainers only)."""

    name: str = argument("name or path of the submission")
    reason: str = option(..., "state the reason")


@dataclass(frozen=True, kw_only=True)
class SubmitOptions:
    """Create, validate and verify submissions; see docs/submitting.md."""

    submissions: Path = submissions_option()
    command: (
        NewOptions | ValidateOptions | PackOptions | VerifyOptions | FetchOptions | PublishOptions | AuditOptions
        | WithdrawOptions
    ) = subcommand({
        "new": NewOptions, "validate": ValidateOptions, "pack": PackOptions, "verify": VerifyOptions, "fetch": FetchOptions,
        "publish": PublishOptions, "audit": AuditOptions, "withdraw": WithdrawOptions,
    })  # fmt: skip


def find_folder(submissions: Path, name: str) -> Path:
    """Find the folder of a submission by name, with or without date, or by path; raises `UsageError` if there is none."""
    candidate = submissions / name
    dated_folders = sorted(submissions.glob(f"????-??-??_{name}")) if NAME_PATTERN.fullmatch(name) else []
    if not candidate.is_dir() and len(dated_folders) == 1:
        candidate = dated_folders[0]
    folder = candidate if "/" not in name and candidate.is_dir() else Path(name)
    if not folder.is_dir():
        hint = nearest(name, (path.name for path in submissions.glob("*/")))
        raise UsageError(f"{sanitize(name)}: no such submission; give a folder of {submissions}, or a path{hint}")
    return folder


def _folders(submissions: Path, options: FolderOptions | FetchOptions) -> list[Path]:
    if options.all == (options.name is not None):
        raise UsageError("expected the name of a submission, or --all")
    if options.name is not None:
        return [find_folder(submissions, options.name)]
    is_present = submissions.is_dir()
    folders = sorted(path for path in submissions.iterdir() if path.is_dir()) if is_present else []
    if not folders:
        message = "has no submission" if is_present else "no such folder"
        raise UsageError(f"--submissions {submissions}: {message}; give the folder that holds the submissions")
    return folders


def _validate(submissions: Path, options: ValidateOptions) -> int:
    return check_in_order(_folders(submissions, options), lambda folder: _describe(folder, options.incoming))


def _describe(folder: Path, is_proposed: bool) -> str:
    check_answered(folder)
    report = validate(folder, is_proposed, Sources.of_machine())
    missing = f"; not at hand: {', '.join(report.missing)}" if report.missing else ""
    return f"valid; {len(report.samples):,} samples{missing}"


def _verify(submissions: Path, options: VerifyOptions) -> int:
    folders = _folders(submissions, options)
    if options.rerun is not None or not options.all:
        # A rerun has the machine to itself, and shows how far it is.
        return check_in_order(folders, lambda folder: _describe_verified(folder, options))
    return check_by_suite(
        folders, lambda folder: _describe_verified(folder, options), options.workers or usable_cores()
    )


def _describe_verified(folder: Path, options: VerifyOptions) -> str:
    check_answered(folder)
    report = verify(folder, options.incoming, options.source.sources())
    rerun_result = None
    if options.rerun is not None:
        raise_on_missing(report)
        with (
            complete_folder(folder, report.submission.artifacts) as complete,
            _showing(f"{folder.name}: running the model again"),
        ):
            rerun_result = rerun(complete, report, options.rerun, options.process.limits())
            rerun_measurements(complete, report, options.process.limits())
    previous = read_status(folder)
    if options.write_status:
        report.mismatches = [mismatch for mismatch in report.mismatches if not mismatch.entry.startswith("status.")]
        write_status(folder, report, rerun_result=rerun_result)
    elif previous is not None and previous.status in (FLAGGED, WITHDRAWN) and previous.reason:
        # The leaderboard lists such a submission without rank, so mismatches are reported but are no error.
        return f"{previous.status}: {previous.reason}; {len(report.mismatches)} differences"
    raise_on_mismatch(report)
    if report.missing and options.allow_missing:
        return f"verified in part, {len(report.checks)} kinds of entry: {report.describe_missing()}"
    raise_on_missing(report)
    return (
        f"verified, {len(report.checks)} kinds of entry" if options.all else "\n  ".join(["verified", *report.checks])
    )


@contextmanager
def _showing(description: str) -> Iterator[None]:
    """Print what takes long, and every 30 s that it goes on."""
    from rich.console import Console

    progress = PlainProgress(Console(stderr=True, highlight=False))
    progress.start(description)
    with progress.displayed():
        yield


def raise_on_mismatch(report: VerificationReport) -> None:
    """Print a table of the mismatches and raise `VerificationError`, if there are any."""
    if not report.mismatches:
        return
    rows = [
        [mismatch.entry, sanitize(mismatch.claimed), sanitize(mismatch.recomputed)]
        for mismatch in report.mismatches[:TABLE_ROWS]
    ]
    print(tabulate(rows, headers=["entry", "the submission says", "found"], tablefmt="github", disable_numparse=True))
    num_hidden = len(report.mismatches) - TABLE_ROWS
    raise VerificationError(
        f"{len(report.mismatches)} entries differ, first {report.mismatches[0].entry}"
        + (f" ({num_hidden} more than the table shows)" if num_hidden > 0 else "")
        + "; run the model again with python -m benchmark.run and submit that run as it is"
    )


def write_status(
    folder: Path, report: VerificationReport, rerun_result: Rerun | None = None, audit_result: Audit | None = None
) -> Status:
    """Write `status.json`; results of an earlier rerun or audit of the same files are kept unless new ones are given.

    An audit is kept too if only measurements were added since, which it does not concern; a rerun is not, so such a
    submission is reproduced only by a rerun that includes them.

    Args:
        folder: folder of the submission.
        report: report of its verification.
        rerun_result, audit_result: results of a rerun and of an audit.
    """
    previous = read_status(folder)
    is_unchanged = previous is not None and previous.files == files_digest(folder)
    if previous is not None and is_unchanged:
        rerun_result, audit_result = rerun_result or previous.rerun, audit_result or previous.audit
    elif previous is not None and previous.files == files_digest(folder, MEASUREMENT_FILES):
        audit_result = audit_result or previous.audit
    status, reason = (REPRODUCED if rerun_result else VALIDATED), None
    if report.mismatches:
        status, reason = FLAGGED, f"{len(report.mismatches)} entries differ, first {report.mismatches[0].entry}"
    elif audit_result is not None and audit.is_alarming(audit_result):
        status = FLAGGED
        reason = f"{100 * audit_result.difference:.1f} points better on the public tasks than on {audit_result.tasks} fresh ones"
    elif previous is not None and previous.status == WITHDRAWN:
        status, reason = WITHDRAWN, previous.reason
    elif report.missing:
        status, reason = (
            SELF_REPORTED,
            f"artifacts could not be had, so not verified: {'; '.join(report.unverified)}"[:MAX_REASON],
        )
        rerun_result = None
    return _write_status_file(folder, status, reason, report.checks, rerun_result, audit_result)


def _write_status_file(
    folder: Path,
    status: str,
    reason: str | None,
    checks: list[str],
    rerun_result: Rerun | None,
    audit_result: Audit | None,
) -> Status:
    entries = {
        "status": status, "reason": reason, "checked": checks, "rerun": rerun_result, "audit": audit_result,
        "files": files_digest(folder), "source": source_digest(), "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    status_model = validate_schema(Status, entries, STATUS)
    write_atomic(folder / STATUS, (status_model.model_dump_json(indent=1) + "\n").encode())
    return status_model


def _audit(submissions: Path, options: AuditOptions) -> int:
    folder = find_folder(submissions, options.name)
    report = verify(folder, sources=options.source.sources())
    raise_on_mismatch(report)
    raise_on_missing(report)
    record = report.record
    suite = audit.load_audit_suite(record.model.digest, record.suite.name)
    public_solved = np.array([sample.shown for sample in report.samples if sample.stage == TEST])
    with (
        complete_folder(folder, report.submission.artifacts) as complete,
        _showing(f"{folder.name}: running the model on {suite.tasks:,} fresh tasks"),
    ):
        texts = audit.generate_audit_texts(complete, report, suite, options.process.limits())
    raise_on_mismatch(report)
    result = audit.compare_accuracy(suite, public_solved, texts)
    if options.write_status:
        write_status(folder, report, audit_result=result)
    print(
        f"{folder.name}: public {100 * result.public:.1f}%, audit {100 * result.audit:.1f}% of {result.tasks} tasks each; "
        f"difference {100 * result.difference:+.1f} [{100 * result.low:+.1f}, {100 * result.high:+.1f}] points"
    )
    if audit.is_alarming(result):
        raise VerificationError(f"{folder.name}: better on the public tasks than on fresh ones; the row is flagged")
    return 0


def _fetch(folder: Path, options: FetchOptions) -> str:
    with _showing(f"{folder.name}: fetching its artifacts"):
        return describe_fetched(folder, options)


def _pack(submissions: Path, options: PackOptions) -> int:
    folder = find_folder(submissions, options.name)
    validate(folder)
    print(f"wrote {pack(folder, options.to or Path(f'{folder.name}.tar.gz'))}")
    return 0


def _withdraw(submissions: Path, options: WithdrawOptions) -> int:
    folder = find_folder(submissions, options.name)
    previous = read_status(folder)
    previous_results = (previous.checked, previous.rerun, previous.audit) if previous is not None else ([], None, None)
    _write_status_file(folder, WITHDRAWN, options.reason, *previous_results)
    print(f"{folder.name}: withdrawn; run python -m benchmark.leaderboard")
    return 0


def execute(options: SubmitOptions) -> int:
    """Execute a subcommand; returns the exit code."""
    submissions, command = options.submissions, options.command
    match command:
        case NewOptions():
            return run_new(
                submissions,
                command,
                lambda folder: check_folder(folder, lambda path: _describe_verified(path, VerifyOptions())),
            )
        case ValidateOptions():
            return _validate(submissions, command)
        case PackOptions():
            return _pack(submissions, command)
        case VerifyOptions():
            return _verify(submissions, command)
        case FetchOptions():
            return check_in_order(_folders(submissions, command), lambda folder: _fetch(folder, command))
        case PublishOptions():
            return run_publish(lambda name: find_folder(submissions, name), command)
        case AuditOptions():
            return _audit(submissions, command)
    return _withdraw(submissions, command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(lambda: execute(parse_options(SubmitOptions, arguments, "submit", EXIT_CODES)))


if __name__ == "__main__":
    sys.exit(main())
