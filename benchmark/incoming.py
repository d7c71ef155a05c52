"""Check a proposed change to `submissions/`: `python -m benchmark.incoming --change CHECKOUT --report FILE`.

CHECKOUT is a merge commit with its first parent, whose files are data: this code, from the branch that is merged into,
reads them. The report is plain text in printable ASCII. Exit codes are those of `benchmark.submit`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from tabulate import tabulate

from benchmark.command import run_command
from benchmark.errors import BenchmarkError, SubmissionError, UsageError
from benchmark.intake import shown
from benchmark.leaderboard import row
from benchmark.standings import read_entries
from benchmark.submit import SUBMISSIONS
from benchmark.verification import verify
from benchmark.verified import Verified
from karel_env.command import CommandParser

FOLDERS = 5
"""Of submissions in one change, at most; each takes seconds to minutes."""
LISTED = 20
COMPARED = ("model", "parameters", "shown %", "held-out %", "exact %", "delta", "verdict")


def changed_folders(checkout: Path) -> list[str]:
    """Names of the submissions that a merge commit changes against its first parent.

    Raises:
        UsageError: no such checkout.
        SubmissionError: it changes other files too, or too many submissions at once.
    """
    words = ["git", "-C", str(checkout), "diff", "--name-only", "--no-renames", "-z", "HEAD^1", "HEAD"]
    try:
        done = subprocess.run(words, capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as problem:
        raise UsageError(f"--change {checkout}: not a checkout with its parent commit") from problem
    names = set()
    for path in done.stdout.decode(errors="replace").split("\0")[:-1]:
        parts = PurePosixPath(path).parts
        if len(parts) < 3 or parts[0] != "submissions":
            raise SubmissionError(f"{shown(path)}: outside of submissions/NAME/; propose it in a change of its own")
        names.add(parts[1])
    if not names:
        raise SubmissionError("nothing in submissions/ is changed")
    if len(names) > FOLDERS:
        raise SubmissionError(f"{len(names)} submissions in one change; at most {FOLDERS} are checked")
    return sorted(names)


def report(checkout: Path) -> tuple[str, int]:
    """What is found of a change, and the gravest exit code."""
    parts, worst = [], 0
    try:
        for name in changed_folders(checkout):
            text, code = _on(checkout / "submissions" / name)
            parts.append(f"{shown(name)[1:-1]}: {text}")
            worst = max(worst, code)
    except BenchmarkError as problem:
        parts, worst = [f"refused: {problem}"], problem.exit_code
    return "\n\n".join(parts).encode("ascii", "replace").decode() + "\n", worst


def _on(folder: Path) -> tuple[str, int]:
    if not folder.exists():
        return "removed; a maintainer decides", 0
    try:
        found = verify(folder, incoming=True)
    except BenchmarkError as problem:
        return f"refused: {problem}", problem.exit_code
    if found.differences:
        rows = [[one.entry, shown(one.said), shown(one.found)] for one in found.differences[:LISTED]]
        table = tabulate(rows, headers=["entry", "submission", "found"], tablefmt="simple", disable_numparse=True)
        return f"{len(found.differences)} entries differ\n\n{table}", 4
    checks = "\n".join(f"- {line}" for line in found.checked)
    return f"verified\n\n{checks}\n\n{_beside(folder.name, found)}", 0


def _beside(name: str, found: Verified) -> str:
    """The row of a submission among those of its suite, best first."""
    mine = found.record
    rows_there = [entry for entry in read_entries(SUBMISSIONS) if entry.folder != name]
    others = [entry.record for entry in rows_there if entry.record.suite.name == mine.suite.name]
    ranked = sorted([mine, *others], key=lambda one: -one.accuracy.held_out.value)
    rows = []
    for one in ranked:
        cells = row(one)
        rows.append(["->" if one is mine else "", *(shown(cells[column])[1:-1] for column in COMPARED)])
    return tabulate(rows, headers=["", *COMPARED], tablefmt="simple", disable_numparse=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = CommandParser(prog="python -m benchmark.incoming", description="Check a proposed change.")
    parser.add_argument("--change", type=Path, required=True, metavar="CHECKOUT", help="merge commit, with its parent")
    parser.add_argument("--report", type=Path, required=True, metavar="FILE", help="file to write")
    return run_command(lambda: run(parser.parse_args(arguments)))


def run(options: argparse.Namespace) -> int:
    """Check, and write the report; returns the exit code."""
    text, code = report(options.change)
    options.report.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return code


if __name__ == "__main__":
    sys.exit(main())
