"""Submissions: `python -m benchmark.submit new|validate|pack|verify|audit|withdraw`.

`new` creates a folder from a finished run, `validate` checks its format, `pack` archives it, `verify` recomputes its figures,
`audit` evaluates its model on unseen tasks, `withdraw` marks it as withdrawn. Exit codes: 0 done, 2 usage error, 3 invalid
submission, 4 verification mismatch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.console import Console
from tabulate import tabulate

from benchmark.artifacts import STATUS
from benchmark.command import run_command
from benchmark.environment import source_digest
from benchmark.errors import BenchmarkError, SubmissionError, UsageError, VerificationError
from benchmark.files import sanitize
from benchmark.installation.paths import submissions_folder
from benchmark.runner.plain_progress import PlainProgress
from benchmark.runner.store import write_atomic
from benchmark.submit import audit
from benchmark.submit.folder import NAME_PATTERN, files_digest
from benchmark.submit.report import VerificationReport
from benchmark.submit.rerun import ProcessLimits, rerun
from benchmark.submit.scaffold import pack, scaffold
from benchmark.submit.schema import (
    FLAGGED,
    REPRODUCED,
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
from karel_env.command import CommandParser, integer, number

TABLE_ROWS = 20


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options of the command line."""
    parser = CommandParser(
        prog="python -m benchmark.submit",
        description="Create, validate and verify submissions; see docs/submitting.md.",
        epilog="Exit codes: 0 done, 2 usage error, 3 invalid submission, 4 verification mismatch.",
    )
    parser.add_argument("--submissions", type=Path, default=submissions_folder(), help="folder of submissions")
    commands = parser.add_subparsers(dest="command", required=True)
    new_parser = commands.add_parser("new", help="create a submission from a finished run")
    new_parser.add_argument("name", help="name of the submission, such as my-llama")
    new_parser.add_argument(
        "--run", type=Path, required=True, metavar="FOLDER", help="run folder, as printed by benchmark.run"
    )
    new_parser.add_argument("--family", help="family of the model, such as llama")
    new_parser.add_argument(
        "--author", action="append", dest="authors", metavar="NAME", help="name of an author; repeat for each author"
    )
    new_parser.add_argument("--licence", metavar="SPDX", help="licence of the weights, such as Apache-2.0")
    new_parser.add_argument(
        "--attempts",
        type=integer(1, 1_000_000),
        help="number of models evaluated on this test set before choosing this one, including it",
    )
    new_parser.add_argument("--withheld", action="store_true", help="do not publish the weights")
    _add_folders(commands.add_parser("validate", help="check the format of a submission without recomputing figures"))
    pack_parser = commands.add_parser("pack", help="write a submission as an archive")
    pack_parser.add_argument("name")
    pack_parser.add_argument("--to", type=Path, metavar="FILE", help="default: NAME.tar.gz")
    verify_parser = commands.add_parser("verify", help="recompute every figure that needs no model, and compare")
    _add_folders(verify_parser)
    verify_parser.add_argument(
        "--rerun",
        type=number(0, 1, above=True),
        metavar="P",
        help="also regenerate this fraction of the shards with the weights",
    )
    verify_parser.add_argument("--write-status", action="store_true", help="write the result into status.json")
    audit_parser = commands.add_parser(
        "audit", help="evaluate the model on tasks with a seed derived from its weights; flag it on a lower accuracy"
    )
    audit_parser.add_argument("name")
    audit_parser.add_argument("--write-status", action="store_true", help="write the result into status.json")
    for command_parser in (verify_parser, audit_parser):
        command_parser.add_argument(
            "--deadline",
            type=float,
            metavar="SECONDS",
            help="time limit of the subprocess that runs the model (default: depends on the number of shards)",
        )
        command_parser.add_argument(
            "--memory",
            type=float,
            metavar="GB",
            help="memory limit of that subprocess (default: 0.8 of the available memory)",
        )
    withdraw_parser = commands.add_parser("withdraw", help="mark a submission as withdrawn (maintainers only)")
    withdraw_parser.add_argument("name")
    withdraw_parser.add_argument("--reason", required=True)
    return parser.parse_args(arguments)


def _add_folders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="name or path of a submission")
    parser.add_argument("--all", action="store_true", help="check all submissions")
    parser.add_argument(
        "--incoming", action="store_true", help="check as a proposed submission, which must not contain status.json"
    )


def find_folder(options: argparse.Namespace) -> Path:
    """Find the folder of a submission by name, with or without date, or by path; raises `UsageError` if there is none."""
    candidate = options.submissions / options.name
    dated_folders = (
        sorted(options.submissions.glob(f"????-??-??_{options.name}")) if NAME_PATTERN.fullmatch(options.name) else []
    )
    if not candidate.is_dir() and len(dated_folders) == 1:
        candidate = dated_folders[0]
    folder = candidate if "/" not in options.name and candidate.is_dir() else Path(options.name)
    if not folder.is_dir():
        raise UsageError(
            f"{sanitize(options.name)}: no such submission; give a folder of {options.submissions}, or a path"
        )
    return folder


def _folders(options: argparse.Namespace) -> list[Path]:
    if options.all == (options.name is not None):
        raise UsageError("expected the name of a submission, or --all")
    if not options.all:
        return [find_folder(options)]
    is_present = options.submissions.is_dir()
    folders = sorted(path for path in options.submissions.iterdir() if path.is_dir()) if is_present else []
    if not folders:
        problem = "has no submission" if is_present else "no such folder"
        raise UsageError(f"--submissions {options.submissions}: {problem}; give the folder that holds the submissions")
    return folders


def _new(options: argparse.Namespace) -> int:
    fields = ("family", "authors", "licence", "attempts")
    entries = {name: value for name in fields if (value := getattr(options, name)) is not None}
    folder = scaffold(options.run, options.submissions, options.name, entries, options.withheld)
    print(f"wrote {folder}\nfill in what submission.yaml marks, then: python -m benchmark.submit verify {folder.name}")
    return 0


def _validate(options: argparse.Namespace) -> int:
    return _check_folders(_folders(options), lambda folder: _describe(folder, options.incoming))


def _describe(folder: Path, is_proposed: bool) -> str:
    report = validate(folder, is_proposed)
    return f"valid; {len(report.samples):,} samples"


def _verify(options: argparse.Namespace) -> int:
    return _check_folders(_folders(options), lambda folder: _describe_verified(folder, options))


def _describe_verified(folder: Path, options: argparse.Namespace) -> str:
    report = verify(folder, options.incoming)
    rerun_result = None
    if options.rerun is not None:
        with _showing(f"{folder.name}: running the model again"):
            rerun_result = rerun(folder, report, options.rerun, _process_limits(options))
    previous = read_status(folder)
    if options.write_status:
        report.mismatches = [mismatch for mismatch in report.mismatches if not mismatch.entry.startswith("status.")]
        write_status(folder, report, rerun_result=rerun_result)
    elif previous is not None and previous.status in (FLAGGED, WITHDRAWN) and previous.reason:
        # The leaderboard lists such a submission without rank, so mismatches are reported but are no error.
        return f"{previous.status}: {previous.reason}; {len(report.mismatches)} differences"
    raise_on_mismatch(report)
    return (
        f"verified, {len(report.checks)} kinds of entry" if options.all else "\n  ".join(["verified", *report.checks])
    )


@contextmanager
def _showing(description: str) -> Iterator[None]:
    """Print what takes long, and every 30 s that it goes on."""
    progress = PlainProgress(Console(stderr=True, highlight=False))
    progress.start(description, None)
    with progress.displayed():
        yield


def _process_limits(options: argparse.Namespace) -> ProcessLimits:
    return ProcessLimits(options.deadline, None if options.memory is None else int(options.memory * 1e9))


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


def _check_folders(folders: Sequence[Path], check: Callable[[Path], str]) -> int:
    """Run a check on each folder and print its result in one line; returns the largest exit code."""
    exit_code = 0
    for folder in folders:
        try:
            print(f"{folder.name}: {check(folder)}", flush=True)
        except BenchmarkError as error:
            print(f"error: {sanitize(folder.name)[1:-1]}: {error}", file=sys.stderr, flush=True)
            exit_code = max(exit_code, error.exit_code)
        except Exception as error:  # an error in one folder must not stop the others
            message = f"{type(error).__name__}: {sanitize(str(error))}"
            print(f"error: {sanitize(folder.name)[1:-1]}: cannot be checked ({message})", file=sys.stderr, flush=True)
            exit_code = max(exit_code, SubmissionError.exit_code)
    return exit_code


def write_status(
    folder: Path, report: VerificationReport, rerun_result: Rerun | None = None, audit_result: Audit | None = None
) -> Status:
    """Write `status.json`; results of an earlier rerun or audit of the same files are kept unless new ones are given.

    Args:
        folder: folder of the submission.
        report: report of its verification.
        rerun_result, audit_result: results of a rerun and of an audit.
    """
    previous = read_status(folder)
    is_unchanged = previous is not None and previous.files == files_digest(folder)
    if previous is not None and is_unchanged:
        rerun_result, audit_result = rerun_result or previous.rerun, audit_result or previous.audit
    status, reason = (REPRODUCED if rerun_result else VALIDATED), None
    if report.mismatches:
        status, reason = FLAGGED, f"{len(report.mismatches)} entries differ, first {report.mismatches[0].entry}"
    elif audit_result is not None and audit.is_alarming(audit_result):
        status = FLAGGED
        reason = f"{100 * audit_result.difference:.1f} points better on the public tasks than on {audit_result.tasks} fresh ones"
    elif previous is not None and previous.status == WITHDRAWN:
        status, reason = WITHDRAWN, previous.reason
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


def _audit(options: argparse.Namespace) -> int:
    folder = find_folder(options)
    report = verify(folder)
    raise_on_mismatch(report)
    record = report.record
    suite = audit.load_audit_suite(record.model.digest, record.suite.name)
    public_solved = np.array([sample.shown for sample in report.samples if sample.stage == TEST])
    with _showing(f"{folder.name}: running the model on {suite.tasks:,} fresh tasks"):
        texts = audit.generate_audit_texts(folder, report, suite, _process_limits(options))
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


def _pack(options: argparse.Namespace) -> int:
    folder = find_folder(options)
    validate(folder)
    print(f"wrote {pack(folder, options.to or Path(f'{folder.name}.tar.gz'))}")
    return 0


def _withdraw(options: argparse.Namespace) -> int:
    folder = find_folder(options)
    previous = read_status(folder)
    previous_results = (previous.checked, previous.rerun, previous.audit) if previous is not None else ([], None, None)
    _write_status_file(folder, WITHDRAWN, options.reason, *previous_results)
    print(f"{folder.name}: withdrawn; run python -m benchmark.leaderboard")
    return 0


COMMANDS = {
    "new": _new, "validate": _validate, "pack": _pack, "verify": _verify, "audit": _audit, "withdraw": _withdraw,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""

    def command() -> int:
        options = parse_options(arguments)
        return COMMANDS[options.command](options)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
