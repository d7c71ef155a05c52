"""The leaderboard: `python -m benchmark.leaderboard` writes `leaderboard.md` from the records of `submissions/`.

Only official records enter; a row is never edited by hand. Rows of other protocol or suite versions stand apart.
`--check` also computes each verdict and its figures again from the arrays that the submission stores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from benchmark.errors import BenchmarkError
from benchmark.record import Record, read_record
from benchmark.statistics import Estimate
from benchmark.verification import check_stored
from karel_env.features import PRIMARY

ROOT = Path(__file__).parent.parent
COLUMNS = (
    "model", "parameters", "shown %", "held-out %", "exact %", "valid %",
    "sc linear", "sc mlp1", "sc mlp2", "skill", "gap", "delta", "verdict",
)  # fmt: skip


UNDEFINED = "-"


def percent(estimate: Estimate | None) -> str:
    """A share with its 95% interval, in percent; a dash where it is not defined."""
    if estimate is None:
        return UNDEFINED
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def points(estimate: Estimate | None) -> str:
    """A skill or a difference of skills with its 95% interval; a dash where it is not defined."""
    if estimate is None:
        return UNDEFINED
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def row(record: Record) -> dict[str, str]:
    """The cells of one record."""
    accuracy, meaning = record.accuracy, record.meaning
    facing = meaning.features[PRIMARY] if meaning else None
    content = record.content.arithmetic if record.content else {}
    cells = [
        record.model.name,
        f"{record.model.parameters:,}" if record.model.parameters else UNDEFINED,
        percent(accuracy.shown),
        percent(accuracy.held_out),
        percent(accuracy.exact),
        percent(accuracy.valid),
        *(percent(content.get(depth)) for depth in ("linear", "mlp1", "mlp2")),
        *(points(part) for part in ((facing.skill, facing.gap, facing.delta) if facing else (None,) * 3)),
        meaning.verdict if meaning else UNDEFINED,
    ]
    return dict(zip(COLUMNS, cells, strict=True))


def card(record: Record) -> str:
    """One row, printed upright for a terminal, with what it rests on."""
    lines = [
        ["suite", f"{record.suite.name} v{record.suite.version}, {record.suite.tasks} tasks, protocol v{record.protocol.version}"],
        *([name, value] for name, value in row(record).items()),
        *_grounds(record),
        ["official", "yes" if record.official else "no: " + "; ".join(record.unofficial)],
    ]  # fmt: skip
    return tabulate(lines, tablefmt="simple_outline", disable_numparse=True)


def _grounds(record: Record) -> list[list[str]]:
    """What the verdict rests on; nothing where there is none."""
    if record.meaning is None:
        return []
    facing = record.meaning.features[PRIMARY]
    gaps = ", ".join(f"{name} {gap.value:+.3f}" for name, gap in facing.control_gaps.items())
    return [
        ["controls' gaps", gaps],
        ["rests on", f"{record.meaning.test_programs} test programs, {len(record.protocol.seeds)} probe seeds, "
                     f"{len(facing.alternatives)} alternatives"],
    ]  # fmt: skip


def board(records: Sequence[tuple[str, Record]]) -> str:
    """The page: a table for each (suite, version, protocol), best accuracy on held-out examples first."""
    parts = [
        "# Leaderboard",
        "",
        "Written by `python -m benchmark.leaderboard` from the records in `submissions/`; do not edit. Brackets hold 95%",
        "intervals. What the columns mean: [README](README.md#what-the-numbers-mean).",
    ]
    groups: dict[tuple[str, int, int], list[tuple[str, Record]]] = {}
    for folder, record in records:
        key = (record.suite.name, record.suite.version, record.protocol.version)
        groups.setdefault(key, []).append((folder, record))
    for (suite, suite_version, protocol), members in sorted(groups.items()):
        members.sort(key=lambda item: (-item[1].accuracy.held_out.value, item[0]))
        n = members[0][1].accuracy.shown.n
        parts += ["", f"## {suite} (suite v{suite_version}, protocol v{protocol}, n = {n} tasks)", ""]
        rows = [row(record) | {"submission": f"[{folder}](submissions/{folder})"} for folder, record in members]
        parts.append(tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True))
    return "\n".join(parts) + "\n"


def official_records(folder: Path) -> list[tuple[str, Record]]:
    """(submission, record) of every record that may enter; raises `BenchmarkError` on one that may not."""
    found = []
    for path in sorted(folder.glob("*/record.json")):
        record = read_record(path)
        if not record.official:
            raise BenchmarkError(
                f"{path}: not an official run ({'; '.join(record.unofficial)}); remove it, or run the suite whole"
            )
        found.append((path.parent.name, record))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.leaderboard", description="Write leaderboard.md.")
    parser.add_argument("--submissions", type=Path, default=ROOT / "submissions", help="folder of submissions")
    parser.add_argument("--out", type=Path, default=ROOT / "leaderboard.md", help="file to write")
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit 4 if the file is not up to date, or if stored arrays do not give a record's figures",
    )
    options = parser.parse_args(arguments)
    try:
        records = official_records(options.submissions)
        text = board(records)
        if options.check:
            for name, record in records:
                check_stored(options.submissions / name, record)
    except BenchmarkError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return problem.exit_code
    if options.check:
        if not options.out.is_file() or options.out.read_text() != text:
            print(
                f"error: {options.out} is not what the records give; run python -m benchmark.leaderboard",
                file=sys.stderr,
            )
            return 4
        return 0
    options.out.write_text(text)
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
