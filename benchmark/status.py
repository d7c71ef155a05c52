"""What a run has done so far, from its files alone: `python -m benchmark.status RUN`.

Reads, and takes no lock, so that a run is never disturbed. RUN is a run folder, or a folder of run folders.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmark.board.tables import row_cells
from benchmark.command import run_command
from benchmark.errors import UsageError, group_by_reason
from benchmark.runner.folder import RETRIED, RunFolder, lock_holder
from benchmark.runner.record import read_record
from karel_env.command import CommandParser

FINISHED, RUNNING, STOPPED = "done", "running", "stopped"
PROBE_FITS = "probe fits"


@dataclass(frozen=True)
class RunStatus:
    """One run.

    Attributes:
        folder: of the run.
        state: `DONE`, `RUNNING` or `STOPPED`.
        process: of the driver, while it runs.
        sessions: how often a driver began.
        last: time (UTC) of the last event.
        committed, total: pieces of each stage; a stage whose total is not known has none in `total`.
        retries: by cause.
        failed: why each piece was given up that has not been committed since.
        row: of the leaderboard, when done.
    """

    folder: str
    state: str
    process: int | None
    sessions: int
    last: str
    committed: dict[str, int]
    total: dict[str, int]
    retries: dict[str, int]
    failed: dict[str, str]
    row: dict[str, Any] | None


def read_status(root: Path) -> RunStatus:
    """The status of a run folder.

    Raises:
        UsageError: it is none.
    """
    events = RunFolder.events_of(root)
    if not events:
        raise UsageError(f"{root}: no run folder (no events.jsonl); expected one that python -m benchmark.run made")
    record, process = root / "record.json", lock_holder(root)
    starts = [entry for entry in events if entry["event"] == "started"]
    committed: dict[str, set[str]] = defaultdict(set)
    failed: dict[str, str] = {}
    for entry in events:
        piece = str(entry.get("piece", ""))
        if entry["event"] == "committed":
            committed[stage_of(piece)].add(piece)
            failed.pop(piece, None)
        elif entry["event"] == "failed":
            failed[piece] = str(entry.get("why", ""))
        elif entry["event"] == "started":
            failed.clear()
    # A driver that was killed in between committed more than it logged.
    for path in (root / "shards").glob("*.json"):
        committed[stage_of(path.stem)].add(path.stem)
    return RunStatus(
        folder=str(root),
        state=FINISHED if record.is_file() else RUNNING if process is not None else STOPPED,
        process=process,
        sessions=len(starts),
        last=str(events[-1]["time"]),
        committed={stage: len(pieces) for stage, pieces in committed.items()},
        total=dict(starts[-1].get("total", {})) if starts else {},
        retries=dict(Counter(str(entry.get("cause")) for entry in events if entry["event"] == RETRIED)),
        failed=failed,
        row=row_cells(read_record(record)) if record.is_file() else None,
    )


def stage_of(piece: str) -> str:
    """The stage of a piece, by its name."""
    if piece.startswith("fit-"):
        return PROBE_FITS
    return "tasks" if piece.startswith("tasks-") else re.sub(r"-\d+$", "", piece)


def describe(status: RunStatus) -> str:
    """The status in words and a table."""
    by_whom = f" (process {status.process})" if status.process else ""
    sessions = f"{status.sessions} session{'' if status.sessions == 1 else 's'}"
    lines = [
        f"run        {status.folder}",
        f"state      {status.state}{by_whom}; {sessions}, last event {status.last}",
    ]
    if status.retries:
        lines.append("retries    " + ", ".join(f"{cause}: {count}" for cause, count in sorted(status.retries.items())))
    stages = [*status.total, *(stage for stage in status.committed if stage not in status.total)]
    rows = [[stage, status.committed.get(stage, 0), status.total.get(stage, "")] for stage in stages]
    lines += ["", tabulate(rows, headers=["stage", "committed", "of"])]
    lines += [f"failed     {line}" for line in group_by_reason(status.failed)]
    if status.row:
        lines += ["", *(f"{name:15}{value}" for name, value in status.row.items())]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0 all runs are done, 1 one is not, 2 no run there."""
    parser = CommandParser(prog="python -m benchmark.status", description="What a run has done so far.")
    parser.add_argument("run", type=Path, help="run folder, or a folder of run folders")
    parser.add_argument("--json", action="store_true", help="as JSON, one object a run")
    return run_command(lambda: print_status(parser.parse_args(arguments)))


def print_status(options: argparse.Namespace) -> int:
    """Print the status; returns the exit code."""
    inside = sorted(path.parent for path in options.run.glob("*/events.jsonl"))
    found = [read_status(root) for root in inside or [options.run]]
    print("\n\n".join(json.dumps(asdict(each)) if options.json else describe(each) for each in found))
    return 0 if all(each.state == FINISHED for each in found) else 1


if __name__ == "__main__":
    sys.exit(main())
