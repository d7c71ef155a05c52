"""Print the progress of a run, read from its files: `karel-bench status [RUN]`.

Takes no lock, so a run is never disturbed. RUN is a run folder, or a folder of run folders.
"""

from __future__ import annotations

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
from benchmark.cli.declare import argument, option, parse_options
from benchmark.command import run_command
from benchmark.errors import UsageError, group_by_reason
from benchmark.runner.folder import RETRIED, RunFolder, lock_holder
from benchmark.runner.measurements.item_words import describe_stage
from benchmark.runner.record import read_record

FINISHED, RUNNING, STOPPED = "done", "running", "stopped"
PROBE_FITS = "probe fits"
RUNS = Path("runs")
"""Where `run` makes its folders by default."""


@dataclass(frozen=True, kw_only=True)
class StatusOptions:
    """Print the progress of a run."""

    run: Path = argument("run folder, or a folder of run folders", RUNS)
    json: bool = option(False, "print JSON, one object per run")


@dataclass(frozen=True)
class RunStatus:
    """The progress of one run.

    Attributes:
        folder: the run folder.
        state: `FINISHED`, `RUNNING` or `STOPPED`.
        process: process id of the driver while it runs.
        sessions: number of times that a driver started.
        last: time (UTC) of the last event.
        committed, total: items per stage; `total` lacks stages whose total is not known.
        retries: number of items computed again, by cause.
        failed: reason per item that was given up and not committed since.
        row: the leaderboard row, if finished.
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
    """Read the status of a run folder.

    Raises:
        UsageError: the folder is no run folder.
    """
    events = RunFolder.events_of(root)
    if not events:
        raise UsageError(f"{root}: no run folder (no events.jsonl); expected one that karel-bench run made")
    record, process = root / "record.json", lock_holder(root)
    starts = [entry for entry in events if entry["event"] == "started"]
    committed: dict[str, set[str]] = defaultdict(set)
    failed: dict[str, str] = {}
    for entry in events:
        piece = str(entry.get("piece", ""))
        if entry["event"] == "committed":
            committed[parse_stage(piece)].add(piece)
            failed.pop(piece, None)
        elif entry["event"] == "failed":
            failed[piece] = str(entry.get("why", ""))
        elif entry["event"] == "started":
            failed.clear()
    # A killed driver may have committed results that it did not log.
    for path in (root / "shards").glob("*.json"):
        committed[parse_stage(path.stem)].add(path.stem)
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


def parse_stage(piece: str) -> str:
    """The stage of an item, given its name."""
    if piece.startswith("fit-"):
        return PROBE_FITS
    return "tasks" if piece.startswith("tasks-") else re.sub(r"-\d+$", "", piece)


def describe(status: RunStatus) -> str:
    """Format the status as text."""
    driver = f" (process {status.process})" if status.process else ""
    sessions = f"{status.sessions} session{'' if status.sessions == 1 else 's'}"
    lines = [
        f"run        {status.folder}",
        f"state      {status.state}{driver}; {sessions}, last event {status.last}",
    ]
    if status.retries:
        lines.append("retries    " + ", ".join(f"{cause}: {count}" for cause, count in sorted(status.retries.items())))
    stages = [*status.total, *(stage for stage in status.committed if stage not in status.total)]
    rows = [
        [stage, status.committed.get(stage, 0), status.total.get(stage, ""), describe_stage(stage)] for stage in stages
    ]
    lines += ["", tabulate(rows, headers=["stage", "committed", "of", "what"])]
    lines += [f"failed     {line}" for line in group_by_reason(status.failed)]
    if status.row:
        lines += ["", *(f"{name:15}{value}" for name, value in status.row.items())]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 all runs are done, 1 some are not, 2 no run folder."""
    return run_command(lambda: print_status(parse_options(StatusOptions, arguments, "status")))


def print_status(options: StatusOptions) -> int:
    """Print the status of each run; returns the exit code."""
    folders = sorted(path.parent for path in options.run.glob("*/events.jsonl"))
    statuses = [read_status(root) for root in folders or [options.run]]
    print("\n\n".join(json.dumps(asdict(status)) if options.json else describe(status) for status in statuses))
    return 0 if all(status.state == FINISHED for status in statuses) else 1


if __name__ == "__main__":
    sys.exit(main())
