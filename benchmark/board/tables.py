"""The leaderboard: `python -m benchmark.leaderboard` writes `leaderboard.md` from the records of `submissions/`.

Beside it go the same rows as JSON and CSV. Only official records enter; a row is never edited by hand. Suites, tracks
and other versions of suite or protocol stand apart, families together. `--check` also computes each verdict and its
figures again from the arrays that the submission stores.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tabulate import tabulate

from benchmark.board.markup import escape_markdown, escape_formula
from benchmark.board.ranking import (
    TRAINED,
    Calibration,
    LeaderboardRow,
    RankingGroup,
    RankedRow,
    read_calibration,
    read_leaderboard_rows,
    rank_groups,
)
from benchmark.command import run_command
from benchmark.environment import SOURCE_ROOT, SUBMISSIONS
from benchmark.errors import VerificationError
from benchmark.probing.semantic_content import CONTENT_DEPTHS
from benchmark.runner.record import Record
from benchmark.statistics import Estimate
from benchmark.submit.schema import LOCAL_WEIGHTS, REPRODUCED
from benchmark.submit.verify import check_stored_verdict
from karel_env.command import CommandParser
from karel_env.features import PRIMARY

CALIBRATION = SOURCE_ROOT / "docs" / "calibration.json"
COLUMNS = (
    "model", "parameters", "shown %", "held-out %", "exact %", "valid %",
    "sc linear", "sc mlp1", "sc mlp2", "skill", "gap", "delta", "verdict",
)  # fmt: skip


UNDEFINED, CONTENT_PREFIX = "-", "sc "


def format_percent(estimate: Estimate | None) -> str:
    """A share with its 95% interval, in percent; a dash where it is not defined."""
    if estimate is None:
        return UNDEFINED
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def format_skill(estimate: Estimate | None) -> str:
    """A skill or a difference of skills with its 95% interval; a dash where it is not defined."""
    if estimate is None:
        return UNDEFINED
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def row_cells(record: Record) -> dict[str, str]:
    """The cells of one record."""
    accuracy, meaning = record.accuracy, record.meaning
    primary = meaning.features[PRIMARY] if meaning else None
    content = record.content.arithmetic if record.content else {}
    cells = [
        record.model.name,
        f"{record.model.parameters:,}" if record.model.parameters else UNDEFINED,
        format_percent(accuracy.shown),
        format_percent(accuracy.held_out),
        format_percent(accuracy.exact),
        format_percent(accuracy.valid),
        *(format_percent(content.get(depth)) for depth in CONTENT_DEPTHS),
        *(format_skill(part) for part in ((primary.skill, primary.gap, primary.delta) if primary else (None,) * 3)),
        meaning.verdict if meaning else UNDEFINED,
    ]
    return dict(zip(COLUMNS, cells, strict=True))


def format_card(record: Record) -> str:
    """One row, printed upright for a terminal, with what it rests on."""
    lines = [
        ["suite", f"{record.suite.name} v{record.suite.version}, {record.suite.tasks} tasks, protocol v{record.protocol.version}"],
        *([name, value] for name, value in row_cells(record).items()),
        *_evidence_rows(record),
        ["official", "yes" if record.official else "no: " + "; ".join(record.unofficial)],
    ]  # fmt: skip
    return tabulate(lines, tablefmt="simple_outline", disable_numparse=True)


def _evidence_rows(record: Record) -> list[list[str]]:
    """What the verdict rests on; nothing where there is none."""
    if record.meaning is None:
        return []
    primary = record.meaning.features[PRIMARY]
    gaps = ", ".join(f"{name} {gap.value:+.3f}" for name, gap in primary.control_gaps.items())
    return [
        ["controls' gaps", gaps],
        ["rests on", f"{record.meaning.test_programs} test programs, {len(record.protocol.seeds)} probe seeds, "
                     f"{len(primary.alternatives)} alternatives"],
    ]  # fmt: skip


def render_markdown(groups: Sequence[RankingGroup], calibration: Calibration | None = None) -> str:
    """The page as Markdown: a table a group, families together; below a suite's tables its calibration rows."""
    parts = [
        "# Leaderboard",
        "",
        "Written by `python -m benchmark.leaderboard` from the records in `submissions/`; do not edit. Brackets hold 95%",
        "intervals. Rank: 1 + the rows that are better on the same held-out tasks beyond chance. What the columns mean:",
        "[README](README.md#what-the-numbers-mean); ranks and statuses: [docs/board.md](docs/board.md). Families are as claimed",
        "by the authors, and so are parameters marked `*`: nobody has counted the weights.",
    ]
    for group in groups:
        title = escape_markdown(f"{group.suite}, {group.track}" if group.track != TRAINED else group.suite)
        version = f"suite v{group.suite_version}, protocol v{group.protocol}, n = {group.tasks} tasks"
        rows = _drop_empty_content_columns([_markdown_row(ranked_row) for _, members in group.families() for ranked_row in members])
        parts += [
            "",
            f"## {title} ({version})",
            "",
            tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True),
        ]
        if calibration and calibration.suite == group.suite and group.track == TRAINED:
            parts += ["", *_calibration_lines(calibration)]
    return "\n".join(parts) + "\n"


def _drop_empty_content_columns(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows without the columns of semantic content that none of them has: only what can be computed again is shown."""
    columns = [column for column in COLUMNS if column.startswith(CONTENT_PREFIX)]
    empty = {column for column in columns if all(row[column] == UNDEFINED for row in rows)}
    return [{name: cell for name, cell in row.items() if name not in empty} for row in rows]


def _markdown_row(ranked_row: RankedRow) -> dict[str, str]:
    entry = ranked_row.entry
    return {
        "family": escape_markdown(entry.family),
        "rank": UNDEFINED if ranked_row.rank is None else str(ranked_row.rank),
        **(cells := row_cells(entry.record)),
        "verdict": escape_markdown(cells["verdict"]),
        "model": escape_markdown(entry.name),
        "parameters": format_parameters(entry),
        "status": escape_markdown(entry.status),
        "submission": f"[{escape_markdown(entry.folder)}](submissions/{quote(entry.folder, safe='')})",
    }


def unverified_claims(entry: LeaderboardRow) -> list[str]:
    """What of a row nobody but its authors has checked: its family, and its size where the weights are not at hand."""
    declared = entry.declared.model
    counted = declared == LOCAL_WEIGHTS or declared.startswith("baseline:") or entry.status == REPRODUCED
    return ["family"] if counted or not entry.record.model.parameters else ["family", "parameters"]


def format_parameters(entry: LeaderboardRow) -> str:
    """Number of weights of a row, with a mark where it is claimed only."""
    parameters = entry.record.model.parameters
    mark = r"\*" if "parameters" in unverified_claims(entry) else ""
    return f"{parameters:,}{mark}" if parameters else UNDEFINED


def _calibration_lines(calibration: Calibration) -> list[str]:
    rows = [
        {
            "pseudo-model": calibration_row.name,
            "expected": calibration_row.expected,
            "found": ", ".join(f"{verdict} {count}" for verdict, count in calibration_row.found.items()),
            "as expected %": format_percent(calibration_row.right),
            "skill": UNDEFINED if calibration_row.skill is None else f"{calibration_row.skill:+.3f}",
            "delta": format_skill(calibration_row.delta),
            "draws": str(calibration_row.right.n),
        }
        for calibration_row in calibration.rows
    ]
    return [
        f"Calibration: pseudo-models whose answer is known, measured as models are ({calibration.alternatives} alternatives;",
        "skill and delta are means over draws, and so are the ends of its interval). See [docs/probing.md](docs/probing.md).",
        "",
        tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True),
    ]


def row_estimates(record: Record) -> dict[str, Estimate | None]:
    """Every figure of a row that has an interval, by the name it has in the JSON and CSV."""
    accuracy, meaning = record.accuracy, record.meaning
    primary = meaning.features[PRIMARY] if meaning else None
    content = record.content.arithmetic if record.content else {}
    return {
        **{name: getattr(accuracy, name) for name in ("shown", "held_out", "both", "exact", "valid")},
        **{f"sc_{depth}": content.get(depth) for depth in CONTENT_DEPTHS},
        **{name: getattr(primary, name) if primary else None for name in ("skill", "gap", "delta")},
    }


def to_json(groups: Sequence[RankingGroup], calibration: Calibration | None = None) -> str:
    """The board as data: what `leaderboard.md` shows, with every n."""
    groups_json = [
        {
            **{name: getattr(group, name) for name in ("suite", "suite_version", "protocol", "track", "tasks")},
            "rows": [
                {**_row_metadata(ranked_row), **{name: asdict(e) if e else None for name, e in row_estimates(ranked_row.entry.record).items()}}
                for ranked_row in group.rows
            ],
        }
        for group in groups
    ]
    text = json.dumps({"groups": groups_json, "calibration": asdict(calibration) if calibration else None}, indent=1)
    # The same JSON, which cannot end the element of a page that it is put into.
    return text.replace("<", "\\u003c").replace(">", "\\u003e") + "\n"


def to_csv(groups: Sequence[RankingGroup]) -> str:
    """A line a row: each figure with both ends of its 95% interval and its n; empty where it is not defined."""
    lines = []
    for group in groups:
        shared = {name: getattr(group, name) for name in ("suite", "suite_version", "protocol", "track", "tasks")}
        for ranked_row in group.rows:
            names = _row_metadata(ranked_row)
            cells: dict[str, Any] = shared | names | {"claimed": " ".join(names["claimed"])}
            for name, estimate in row_estimates(ranked_row.entry.record).items():
                bounds = (estimate.value, estimate.low, estimate.high, estimate.n) if estimate else ("",) * 4
                cells |= dict(zip((name, f"{name}_low", f"{name}_high", f"{name}_n"), bounds, strict=True))
            lines.append({name: escape_formula(cell) for name, cell in cells.items()})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _row_metadata(ranked_row: RankedRow) -> dict[str, Any]:
    entry, model = ranked_row.entry, ranked_row.entry.record.model
    return {
        "submission": entry.folder, "family": entry.family, "rank": ranked_row.rank, "status": entry.status, "model": entry.name,
        "parameters": model.parameters or None, "claimed": unverified_claims(entry),
        "verdict": entry.record.meaning.verdict if entry.record.meaning else None,
    }  # fmt: skip


def leaderboard_files(entries: Sequence[LeaderboardRow], calibration: Calibration | None) -> dict[str, str]:
    """What is written, by the ending of its name."""
    groups = rank_groups(entries)
    return {".md": render_markdown(groups, calibration), ".json": to_json(groups, calibration), ".csv": to_csv(groups)}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = CommandParser(
        prog="python -m benchmark.leaderboard",
        description="Write leaderboard.md, leaderboard.json and leaderboard.csv.",
    )
    parser.add_argument("--submissions", type=Path, default=SUBMISSIONS, help="folder of submissions")
    parser.add_argument("--calibration", type=Path, default=CALIBRATION, help="record of the known answers")
    parser.add_argument(
        "--out", type=Path, default=SOURCE_ROOT / "leaderboard.md", help="file to write; JSON and CSV go beside it"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit 4 if a file is not up to date, or if stored arrays do not give a record's figures",
    )
    return run_command(lambda: run(parser.parse_args(arguments)))


def run(options: argparse.Namespace) -> int:
    """Write the files, or check them; returns the exit code."""
    entries = read_leaderboard_rows(options.submissions)
    texts = {
        options.out.with_suffix(suffix): text
        for suffix, text in leaderboard_files(entries, read_calibration(options.calibration)).items()
    }
    if options.check:
        _check_files(options.submissions, entries, texts)
        return 0
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    print(f"wrote {', '.join(str(path) for path in texts)}")
    return 0


def _check_files(submissions: Path, entries: Sequence[LeaderboardRow], texts: Mapping[Path, str]) -> None:
    for path, text in texts.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            raise VerificationError(f"{path} is not what the records give; run python -m benchmark.leaderboard")
    for entry in entries:
        check_stored_verdict(submissions / entry.folder, entry.record)


if __name__ == "__main__":
    sys.exit(main())
