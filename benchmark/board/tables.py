"""Leaderboard tables: `python -m benchmark.leaderboard` writes `leaderboard.md` from the records of `submissions/`.

The same rows are written as JSON and CSV. Only official records are included; rows are never edited by hand. Each
suite, suite version, protocol version and track has its own tables, sorted by rank. `--check` also recomputes each
verdict and its figures from the arrays that the submission stores.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tabulate import tabulate

from benchmark.board.cached.rows import check_stored_verdicts
from benchmark.board.known_answers import KnownAnswers, read_known_answers
from benchmark.board.markup import escape_formula, escape_markdown
from benchmark.board.measurements import UNDEFINED, format_skill, measured_columns, measurement_cells
from benchmark.board.ranking import (
    TRAINED,
    Calibration,
    LeaderboardRow,
    RankedRow,
    RankingGroup,
    rank_groups,
    read_board,
    read_calibration,
)
from benchmark.board.sections.budget_note import FEWSHOT_LINES
from benchmark.board.sections.decoding import (
    DECODING_COLUMNS,
    decoding_cells,
    decoding_estimates,
    decoding_rows,
    largest_k,
)
from benchmark.board.sections.reach_table import reach_lines
from benchmark.board.sections.seed_spread import NO_RECIPES, read_recipes, spread_lines
from benchmark.cli.declare import option, parse_options
from benchmark.cli.fields import calibration_option, output_file_option, submissions_option
from benchmark.command import run_command
from benchmark.errors import VerificationError
from benchmark.installation.paths import CALIBRATION_FILE, shipped_path, work_folder
from benchmark.probing.semantic_content import CONTENT_DEPTHS
from benchmark.runner.record import Record
from benchmark.statistics import Estimate, in_percent
from benchmark.submit.schema import LOCAL_WEIGHTS, REPRODUCED
from karel_env.features import PRIMARY

CALIBRATION = shipped_path(CALIBRATION_FILE)
COLUMNS = (
    "model", "parameters", "shown %", "held-out %", "exact %", "valid %",
    "sc linear", "sc mlp1", "sc mlp2", "skill", "gap", "delta", "verdict",
)  # fmt: skip
SHARE_COLUMNS = COLUMNS[2:6]
PROBING_COLUMNS = COLUMNS[6:]
PROBING_NOTE = (
    "It measures whether the heading at the start of example 0 is still in the state, which a model that tracks rotation need "
    "not keep; it no longer gives the verdict of a row, see [docs/protocol4.md](docs/protocol4.md)."
)


def format_percent(estimate: Estimate | None) -> str:
    """Format a share with its 95% interval in percent; `-` if undefined."""
    if estimate is None:
        return UNDEFINED
    return in_percent(estimate)


def format_p(p: float) -> str:
    """Format a p value; below 0.001 as a bound, since no test gives 0."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def row_cells(record: Record) -> dict[str, str]:
    """Formatted cells of one record, by column name."""
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
    """Format one record as a vertical table for a terminal, with the evidence for the verdict."""
    cells = {
        name: value
        for name, value in row_cells(record).items()
        if value != UNDEFINED or name not in PROBING_COLUMNS or record.meaning is not None
    }
    lines = [
        ["suite", f"{record.suite.name} v{record.suite.version}, {record.suite.tasks} tasks, protocol v{record.protocol.version}"],
        *_prompt_rows(record),
        *([name, value] for name, value in cells.items()),
        *([name, in_percent(estimate)] for name, estimate in decoding_rows(record)),
        *_evidence_rows(record),
        ["leaderboard-eligible", record.eligibility],
    ]  # fmt: skip
    return tabulate(lines, tablefmt="simple_outline", disable_numparse=True)


def _prompt_rows(record: Record) -> list[list[str]]:
    """Row that describes few-shot prompts; empty in the trained track."""
    frame = record.frame
    if frame is None:
        return []
    template = "with" if frame.chat_template else "without"
    return [["prompts", f"{record.track}, {frame.shots} solved examples, {template} a chat template, programs in {frame.dialect}"]]  # fmt: skip


def _evidence_rows(record: Record) -> list[list[str]]:
    """Rows that describe the evidence for the verdict; empty without a verdict."""
    if record.meaning is None:
        return []
    primary = record.meaning.features[PRIMARY]
    gaps = ", ".join(f"{name} {gap.value:+.3f}" for name, gap in primary.control_gaps.items())
    return [
        ["control gaps", gaps],
        ["evidence", f"{record.meaning.test_programs} test programs, {len(record.protocol.seeds)} probe seeds, "
                     f"{len(primary.alternatives)} alternatives"],
    ]  # fmt: skip


def render_markdown(
    groups: Sequence[RankingGroup],
    calibration: Calibration | None = None,
    known_answers: Sequence[KnownAnswers] = (),
    recipes: Mapping[str, str] = NO_RECIPES,
) -> str:
    """Render the leaderboard as Markdown.

    Each group has a table of what a model solves, represents, uses and merges, the spread between seeds of one recipe, how
    far ahead states hold the rotation, then the probes of its record's protocol, then the pseudo-models with known answers
    of its suite.
    """
    parts = [
        "# Leaderboard",
        "",
        "Generated by `python -m benchmark.leaderboard` from the records in `submissions/`; do not edit. Brackets hold 95%",
        "intervals. Rank: 1 + the number of rows that are significantly better on the same held-out tasks. Columns, ranks,",
        "statuses and how to read a verdict: [docs/board.md](docs/board.md). Families, and parameter counts marked `*`, are",
        "claimed by the authors and not verified.",
    ]
    for group in groups:
        title = escape_markdown(f"{group.suite}, {group.track}" if group.track != TRAINED else group.suite)
        version = f"suite v{group.suite_version}, protocol v{group.protocol}, n = {group.tasks} tasks"
        columns = measured_columns([ranked_row.row.measurements for ranked_row in group.rows])
        parts += [
            "",
            f"## {title} ({version})",
            "",
            _github_table([_markdown_row(ranked_row, columns, decoding_columns(group)) for ranked_row in group.rows]),
            *spread_lines(group, recipes, _github_table),
            *reach_lines(group, _github_table),
            *_probing_lines(group),
        ]
        if group.track != TRAINED:
            parts += ["", *FEWSHOT_LINES]
            continue
        if calibration and calibration.suite == group.suite:
            parts += ["", *_calibration_lines(calibration)]
        for answers in known_answers:
            if answers.suite == group.suite:
                parts += ["", f"### {answers.title}", "", *answers.note, "", _github_table(answers.rows)]
    return "\n".join(parts) + "\n"


def _github_table(rows: Sequence[Mapping[str, str]]) -> str:
    return tabulate([dict(row) for row in rows], headers="keys", tablefmt="github", disable_numparse=True)


def decoding_columns(group: RankingGroup) -> list[str]:
    """Names of the columns of `DECODING_COLUMNS` that a row of the group has a figure for."""
    names = {name for ranked_row in group.rows for name in decoding_cells(ranked_row.row.record)}
    return [name for name in DECODING_COLUMNS.values() if name in names]


def _markdown_row(ranked_row: RankedRow, columns: Sequence[str], decodings: Sequence[str]) -> dict[str, str]:
    """The row of the first table, with the columns of `MEASUREMENT_COLUMNS` and `DECODING_COLUMNS` that the group shows."""
    entry = ranked_row.row
    cells, measured = row_cells(entry.record), measurement_cells(entry.measurements, escape=escape_markdown)
    return {
        "rank": UNDEFINED if ranked_row.rank is None else str(ranked_row.rank),
        "model": f"[{escape_markdown(entry.name)}](submissions/{quote(entry.folder, safe='')})",
        "family": escape_markdown(entry.family),
        "parameters": format_parameters(entry),
        **{column: cells[column] for column in SHARE_COLUMNS},
        **{name: decoding_cells(entry.record).get(name, UNDEFINED) for name in decodings},
        **{column: measured[column] for column in columns},
        "status": escape_markdown(entry.status),
    }


def probing_rows(group: RankingGroup) -> list[dict[str, str]]:
    """Cells of the probes of the records' own protocol, of rows that have any; undefined columns are left out."""
    rows = [
        {"model": ranked_row.row.name, **{column: cells[column] for column in PROBING_COLUMNS}}
        for ranked_row in group.rows
        for cells in [row_cells(ranked_row.row.record)]
        if any(cells[column] != UNDEFINED for column in PROBING_COLUMNS)
    ]
    empty = {column for column in PROBING_COLUMNS if all(row[column] == UNDEFINED for row in rows)}
    return [{name: cell for name, cell in row.items() if name not in empty} for row in rows]


def probing_title(group: RankingGroup) -> str:
    """Heading of the table of `probing_rows`."""
    return f"Protocol {group.protocol}: heading in example 0"


def _probing_lines(group: RankingGroup) -> list[str]:
    rows = [
        {name: escape_markdown(cell) if name in ("model", "verdict") else cell for name, cell in row.items()}
        for row in probing_rows(group)
    ]
    return ["", f"### {probing_title(group)}", "", PROBING_NOTE, "", _github_table(rows)] if rows else []


def unverified_claims(entry: LeaderboardRow) -> list[str]:
    """Fields that only the authors vouch for: the family, and the parameter count if the weights are not available."""
    declared = entry.declared.model
    counted = declared == LOCAL_WEIGHTS or declared.startswith("baseline:") or entry.status == REPRODUCED
    return ["family"] if counted or not entry.record.model.parameters else ["family", "parameters"]


def format_parameters(entry: LeaderboardRow) -> str:
    """Format the parameter count of a row; an unverified count is marked with an asterisk."""
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
        f"Known answers of protocol 3: pseudo-models, measured as models are ({calibration.alternatives} alternatives;",
        "skill and delta are means over draws, and so are the ends of its interval). See [docs/probing.md](docs/probing.md).",
        "",
        _github_table(rows),
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


def leaderboard_estimates(entry: LeaderboardRow) -> dict[str, Estimate | None]:
    """`row_estimates`, the figures of the measurements besides accuracy, and those of further decodings."""
    return row_estimates(entry.record) | entry.measurements.estimates | decoding_estimates(entry.record)


def to_json(
    groups: Sequence[RankingGroup],
    calibration: Calibration | None = None,
    known_answers: Sequence[KnownAnswers] = (),
) -> str:
    """Leaderboard as JSON: the figures of `leaderboard.md` with their n."""
    groups_json = [
        {
            **{name: getattr(group, name) for name in ("suite", "suite_version", "protocol", "track", "tasks")},
            "rows": [
                {
                    **_row_metadata(ranked_row),
                    **{name: asdict(e) if e else None for name, e in leaderboard_estimates(ranked_row.row).items()},
                }
                for ranked_row in group.rows
            ],
        }
        for group in groups
    ]
    content = {
        "groups": groups_json,
        "calibration": asdict(calibration) if calibration else None,
        "known_answers": [asdict(answers) for answers in known_answers],
    }
    text = json.dumps(content, indent=1)
    # Escape angle brackets so that the JSON can be embedded in an HTML element.
    return text.replace("<", "\\u003c").replace(">", "\\u003e") + "\n"


def to_csv(groups: Sequence[RankingGroup]) -> str:
    """Leaderboard as CSV, one line per row: each figure with its 95% interval and n; empty if undefined."""
    lines = []
    for group in groups:
        shared = {name: getattr(group, name) for name in ("suite", "suite_version", "protocol", "track", "tasks")}
        for ranked_row in group.rows:
            names = _row_metadata(ranked_row)
            cells: dict[str, Any] = shared | names | {"claimed": " ".join(names["claimed"])}
            for name, estimate in leaderboard_estimates(ranked_row.row).items():
                bounds = (estimate.value, estimate.low, estimate.high, estimate.n) if estimate else ("",) * 4
                cells |= dict(zip((name, f"{name}_low", f"{name}_high", f"{name}_n"), bounds, strict=True))
            lines.append({name: escape_formula(cell) for name, cell in cells.items()})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _row_metadata(ranked_row: RankedRow) -> dict[str, Any]:
    entry, model = ranked_row.row, ranked_row.row.record.model
    return {
        "submission": entry.folder, "family": entry.family, "rank": ranked_row.rank, "status": entry.status, "model": entry.name,
        "parameters": model.parameters or None, "claimed": unverified_claims(entry),
        "verdict": entry.record.meaning.verdict if entry.record.meaning else None, **entry.measurements.verdicts,
        "few_programs": entry.measurements.has_few_programs if entry.measurements.represents else None,
        "reach": entry.measurements.reach.reach if entry.measurements.reach else None, "k": largest_k(entry.record),
    }  # fmt: skip


def leaderboard_files(
    entries: Sequence[LeaderboardRow],
    calibration: Calibration | None,
    known_answers: Sequence[KnownAnswers] = (),
    recipes: Mapping[str, str] = NO_RECIPES,
) -> dict[str, str]:
    """Text of each leaderboard file, by suffix."""
    groups = rank_groups(entries)
    return {
        ".md": render_markdown(groups, calibration, known_answers, recipes),
        ".json": to_json(groups, calibration, known_answers),
        ".csv": to_csv(groups),
    }


def print_ignored(rows: Iterable[LeaderboardRow]) -> None:
    """Print a line on standard error for each file of a measurement that is not shown."""
    for row in rows:
        for line in row.measurements.ignored:
            print(line, file=sys.stderr)


@dataclass(frozen=True, kw_only=True)
class LeaderboardOptions:
    """Write leaderboard.md, leaderboard.json and leaderboard.csv."""

    submissions: Path = submissions_option()
    calibration: Path = calibration_option(CALIBRATION)
    output_file: Path = output_file_option(
        lambda: work_folder() / "leaderboard.md",
        "write this Markdown file, and JSON and CSV next to it",
        "leaderboard.md",
    )
    check: bool = option(
        False, "write nothing; exit with code 4 if a file is stale or stored arrays do not reproduce a record's figures"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command-line entry point; returns the exit code."""
    return run_command(lambda: run(parse_options(LeaderboardOptions, arguments, "leaderboard")))


def run(options: LeaderboardOptions) -> int:
    """Write or check the files; returns the exit code."""
    entries = read_board(options.submissions)
    print_ignored(entries)
    files = leaderboard_files(
        entries, read_calibration(options.calibration), read_known_answers(options.calibration),
        read_recipes(options.submissions, entries),
    )  # fmt: skip
    texts = {options.output_file.with_suffix(suffix): text for suffix, text in files.items()}
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
            raise VerificationError(f"{path} does not match the records; run python -m benchmark.leaderboard")
    check_stored_verdicts([(submissions / entry.folder, entry.record) for entry in entries])


if __name__ == "__main__":
    sys.exit(main())
