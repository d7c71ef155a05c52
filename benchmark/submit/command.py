"""Submissions: `python -m benchmark.submit new|validate|pack|verify|audit|withdraw`.

`new` drafts a folder from a finished run, `validate` reads it, `pack` archives it, `verify` computes it again. Exit
codes: 0 done, 2 usage, 3 a submission that is refused, 4 verification mismatch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from tabulate import tabulate

from benchmark.artifacts import STATUS
from benchmark.command import run_command
from benchmark.environment import SUBMISSIONS, source_digest
from benchmark.errors import BenchmarkError, SubmissionError, UsageError, VerificationError
from benchmark.files import sanitize
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
SEEN = {"yes": True, "no": False, "unknown": None}


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options."""
    parser = CommandParser(
        prog="python -m benchmark.submit",
        description="Make, check and verify submissions; see docs/submitting.md.",
        epilog="Exit codes: 0 done, 2 usage, 3 a submission that is refused, 4 verification mismatch.",
    )
    parser.add_argument("--submissions", type=Path, default=SUBMISSIONS, help="folder of submissions")
    commands = parser.add_subparsers(dest="command", required=True)
    new = commands.add_parser("new", help="draft a submission from a finished run")
    new.add_argument("name", help="of the submission, such as my-llama")
    new.add_argument("--run", type=Path, required=True, metavar="FOLDER", help="run folder that benchmark.run named")
    new.add_argument("--family", help="of the model, such as llama")
    new.add_argument("--author", action="append", dest="authors", metavar="NAME", help="once for each author")
    new.add_argument("--licence", metavar="SPDX", help="of the weights, such as Apache-2.0")
    new.add_argument(
        "--attempts",
        type=integer(1, 1_000_000),
        help="models evaluated on this test set before choosing, this one counted",
    )
    new.add_argument("--withheld", action="store_true", help="the weights are not published")
    _add_folders(commands.add_parser("validate", help="read a submission; nothing is computed"))
    archive = commands.add_parser("pack", help="write a submission as an archive")
    archive.add_argument("name")
    archive.add_argument("--to", type=Path, metavar="FILE", help="default: NAME.tar.gz")
    check = commands.add_parser("verify", help="compute everything again that can be")
    _add_folders(check)
    check.add_argument(
        "--rerun",
        type=number(0, 1, above=True),
        metavar="P",
        help="also run a share of the shards again with the weights",
    )
    check.add_argument("--write-status", action="store_true", help="write what is found into status.json")
    alarm = commands.add_parser("audit", help="run the model on tasks that its weights choose; flags a row that fails")
    alarm.add_argument("name")
    alarm.add_argument("--write-status", action="store_true", help="write what is found into status.json")
    for loads_model in (check, alarm):
        loads_model.add_argument(
            "--deadline",
            type=float,
            metavar="SECONDS",
            help="of the process that runs the model (default: by its shards)",
        )
        loads_model.add_argument(
            "--memory", type=float, metavar="GB", help="of that process (default: 0.8 of what is available)"
        )
    withdraw = commands.add_parser("withdraw", help="a maintainer's: mark a submission as withdrawn")
    withdraw.add_argument("name")
    withdraw.add_argument("--reason", required=True)
    return parser.parse_args(arguments)


def _add_folders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="a folder of submissions, or the path of one")
    parser.add_argument("--all", action="store_true", help="every folder of submissions")
    parser.add_argument("--incoming", action="store_true", help="it comes from outside: it may not bring a status")


def find_folder(options: argparse.Namespace) -> Path:
    """The folder of a name, with or without its date, or of a path."""
    inside = options.submissions / options.name
    dated = sorted(options.submissions.glob(f"????-??-??_{options.name}")) if NAME_PATTERN.fullmatch(options.name) else []
    if not inside.is_dir() and len(dated) == 1:
        inside = dated[0]
    folder = inside if "/" not in options.name and inside.is_dir() else Path(options.name)
    if not folder.is_dir():
        raise UsageError(
            f"{sanitize(options.name)}: no such submission; give a folder of {options.submissions}, or a path"
        )
    return folder


def _folders(options: argparse.Namespace) -> list[Path]:
    if options.all == (options.name is not None):
        raise UsageError("expected the name of a submission, or --all")
    return (
        sorted(path for path in options.submissions.iterdir() if path.is_dir())
        if options.all
        else [find_folder(options)]
    )


def _new(options: argparse.Namespace) -> int:
    known = ("family", "authors", "licence", "attempts")
    given = {name: value for name in known if (value := getattr(options, name)) is not None}
    folder = scaffold(options.run, options.submissions, options.name, given, options.withheld)
    print(f"wrote {folder}\nfill in what submission.yaml marks, then: python -m benchmark.submit verify {folder.name}")
    return 0


def _validate(options: argparse.Namespace) -> int:
    return _check_folders(_folders(options), lambda folder: _describe(folder, options.incoming))


def _describe(folder: Path, incoming: bool) -> str:
    found = validate(folder, incoming)
    return f"valid; {len(found.samples):,} samples"


def _verify(options: argparse.Namespace) -> int:
    return _check_folders(_folders(options), lambda folder: _describe_verified(folder, options))


def _describe_verified(folder: Path, options: argparse.Namespace) -> str:
    found = verify(folder, options.incoming)
    again = rerun(folder, found, options.rerun, _process_limits(options)) if options.rerun is not None else None
    before = read_status(folder)
    if options.write_status:
        found.mismatches = [one for one in found.mismatches if not one.entry.startswith("status.")]
        write_status(folder, found, rerun=again)
    elif before is not None and before.status in (FLAGGED, WITHDRAWN) and before.reason:
        # Such a row stands apart on the board, so it may be in any state.
        return f"{before.status}: {before.reason}; {len(found.mismatches)} differences"
    raise_on_mismatch(found)
    return (
        f"verified, {len(found.checked)} kinds of entry" if options.all else "\n  ".join(["verified", *found.checked])
    )


def _process_limits(options: argparse.Namespace) -> ProcessLimits:
    return ProcessLimits(options.deadline, None if options.memory is None else int(options.memory * 1e9))


def raise_on_mismatch(found: VerificationReport) -> None:
    """Print the table of differences, if there are any, and raise `VerificationError`."""
    if not found.mismatches:
        return
    rows = [[one.entry, sanitize(one.said), sanitize(one.found)] for one in found.mismatches[:TABLE_ROWS]]
    print(tabulate(rows, headers=["entry", "the submission says", "found"], tablefmt="github", disable_numparse=True))
    more = len(found.mismatches) - TABLE_ROWS
    raise VerificationError(
        f"{len(found.mismatches)} entries differ, first {found.mismatches[0].entry}"
        + (f" ({more} more than the table shows)" if more > 0 else "")
        + "; run the model again with python -m benchmark.run and submit that run as it is"
    )


def _check_folders(folders: Sequence[Path], carry_out: Callable[[Path], str]) -> int:
    """Carry out a check on each folder, a line each; returns the gravest exit code."""
    worst = 0
    for folder in folders:
        try:
            print(f"{folder.name}: {carry_out(folder)}", flush=True)
        except BenchmarkError as problem:
            print(f"error: {sanitize(folder.name)[1:-1]}: {problem}", file=sys.stderr, flush=True)
            worst = max(worst, problem.exit_code)
        except Exception as problem:  # one folder never stops the rest
            what = f"{type(problem).__name__}: {sanitize(str(problem))}"
            print(f"error: {sanitize(folder.name)[1:-1]}: cannot be checked ({what})", file=sys.stderr, flush=True)
            worst = max(worst, SubmissionError.exit_code)
    return worst


def write_status(
    folder: Path, found: VerificationReport, rerun: Rerun | None = None, audited: Audit | None = None
) -> Status:
    """Write what was found; what an earlier check of the same files found, and this one did not repeat, is kept."""
    before = read_status(folder)
    same = before is not None and before.files == files_digest(folder)
    if before is not None and same:
        rerun, audited = rerun or before.rerun, audited or before.audit
    status, reason = (REPRODUCED if rerun else VALIDATED), None
    if found.mismatches:
        status, reason = FLAGGED, f"{len(found.mismatches)} entries differ, first {found.mismatches[0].entry}"
    elif audited is not None and audit.is_alarming(audited):
        status = FLAGGED
        reason = f"{100 * audited.difference:.1f} points better on the public tasks than on {audited.tasks} fresh ones"
    elif before is not None and before.status == WITHDRAWN:
        status, reason = WITHDRAWN, before.reason
    return _write_status_file(folder, status, reason, found.checked, rerun, audited)


def _write_status_file(
    folder: Path, status: str, reason: str | None, done: list[str], rerun: Rerun | None, audited: Audit | None
) -> Status:
    entries = {
        "status": status, "reason": reason, "checked": done, "rerun": rerun, "audit": audited,
        "files": files_digest(folder), "source": source_digest(), "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    written = validate_schema(Status, entries, STATUS)
    write_atomic(folder / STATUS, (written.model_dump_json(indent=1) + "\n").encode())
    return written


def _audit(options: argparse.Namespace) -> int:
    folder = find_folder(options)
    found = verify(folder)
    raise_on_mismatch(found)
    record = found.record
    suite = audit.load_audit_suite(record.model.digest, record.suite.name)
    public = np.array([sample.shown for sample in found.samples if sample.stage == TEST])
    texts = audit.generate_audit_texts(folder, found, suite, _process_limits(options))
    raise_on_mismatch(found)
    result = audit.compare_accuracy(suite, public, texts)
    if options.write_status:
        write_status(folder, found, audited=result)
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
    before = read_status(folder)
    kept = (before.checked, before.rerun, before.audit) if before is not None else ([], None, None)
    _write_status_file(folder, WITHDRAWN, options.reason, *kept)
    print(f"{folder.name}: withdrawn; run python -m benchmark.leaderboard")
    return 0


COMMANDS = {
    "new": _new, "validate": _validate, "pack": _pack, "verify": _verify, "audit": _audit, "withdraw": _withdraw,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""

    def carry_out() -> int:
        options = parse_options(arguments)
        return COMMANDS[options.command](options)

    return run_command(carry_out)


if __name__ == "__main__":
    sys.exit(main())
