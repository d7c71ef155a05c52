"""Tables of pseudo-models with known answers for *Represents* and *Uses*, from the records of `benchmark.calibrate`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.board.measurements import UNDEFINED
from benchmark.errors import UsageError
from benchmark.files import MAX_JSON_BYTES, read_bytes
from benchmark.statistics import format_outcomes

ROTATION_CALIBRATION, CAUSAL_CALIBRATION = "calibration_protocol4.json", "calibration_causal.json"
"""Files beside the calibration of protocol 3. Each is a copy of what its command writes."""
KINDS = {"N": "not REPRESENTS", "R": "REPRESENTS", "M": "not RECORD-ONLY"}
"""Expected verdicts by kind of pseudo-model: no state, the state, a part of it."""
Cell = dict[str, Any]


@dataclass(frozen=True)
class KnownAnswers:
    """A calibration table.

    Attributes:
        column: column of the leaderboard whose verdict is calibrated.
        suite: suite that gave worlds and programs.
        title: heading.
        note: how it was measured, one sentence per entry.
        rows: text by column name, one per pseudo-model.
    """

    column: str
    suite: str
    title: str
    note: tuple[str, ...]
    rows: tuple[dict[str, str], ...]


def read_known_answers(calibration: Path) -> list[KnownAnswers]:
    """Read the records beside the calibration file of protocol 3; one that is missing has no table.

    Raises:
        UsageError: a file is no such record.
    """
    tables = []
    readers: tuple[tuple[str, Callable[[Cell], KnownAnswers], str], ...] = (
        (ROTATION_CALIBRATION, _rotation_table, "python -m benchmark.calibrate --protocol 4"),
        (CAUSAL_CALIBRATION, _causal_table, "python -m benchmark.calibrate.causal"),
    )
    for name, read_table, command in readers:
        path = calibration.with_name(name)
        if not path.is_file():
            continue
        try:
            tables.append(read_table(json.loads(read_bytes(path, MAX_JSON_BYTES))))
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            message = " ".join(f"{type(error).__name__} {error}".split())[:200]
            raise UsageError(f"{path}: {message}; expected the file that {command} writes") from error
    return tables


def _rotation_table(stored: Cell) -> KnownAnswers:
    rows = []
    for name, cells in _group_by(stored["cells"], "pseudo-model"):
        rows.append(
            {
                "pseudo-model": name,
                "expected": KINDS[cells[0]["kind"]],
                "measured": format_outcomes([cell["found"] for cell in cells]),
                "as expected": _share(cell["right"] for cell in cells),
                "skill": f"{_mean([cell['skill'] for cell in cells]):.3f}",
                **{
                    column: _mean_interval([cell[key] for cell in cells])
                    for column, key in (
                        ("delta", "delta"), ("pose delta", "pose_delta"), ("arithmetic", "arithmetic"),
                        ("turn count", "turn_count"),
                    )
                },
            }
        )  # fmt: skip
    note = [
        f"Pseudo-models that hold a record of the words, the state of the robot, or a part of it; "
        f"{_draws(stored['cells'], 'pseudo-model')}, {stored['prompts']:,} prompts, {stored['probe_seeds']} probe seeds.",
        "Figures, and the ends of their 95% intervals, are means over draws.",
    ]
    pooled = (stored.get("coverage") or {}).get("pooled") or {}
    shares = [
        f"{column} {100 * float(pooled[key]['share']):.1f}% of {int(pooled[key]['intervals'])}"
        for column, key in (("delta", "delta"), ("pose delta", "pose_delta"), ("arithmetic", "arithmetic"))
        if key in pooled
    ]
    if shares:
        note.append(f"95% intervals that hold the mean over draws (92 to 98% are asked for): {', '.join(shares)}.")
    return KnownAnswers("represents", stored["suite"], "Known answers of Represents", tuple(note), tuple(rows))


def _causal_table(stored: Cell) -> KnownAnswers:
    rows = []
    for name, cells in _group_by(stored["cells"], "planner"):
        measured = [cell for cell in cells if cell["use"] is not None]
        rows.append(
            {
                "planner": name,
                "expected": cells[0]["expected"],
                "measured": format_outcomes([f"{cell['verdict']} {cell['site']}".strip() for cell in cells]),
                "as expected": _share(cell["is_right"] for cell in cells),
                "use": _mean_interval([cell["use"] for cell in measured]),
                "steered, strict": _optional_mean([cell["strict"] for cell in measured]),
                "steered, all": _optional_mean([cell["every"] for cell in measured]),
            }
        )
    num_false = sum(bool(cell["is_false_use"]) for cell in stored["cells"])
    note = [
        f"Planners that write the right word and differ in what reads the rotation that they store; "
        f"{_draws(stored['cells'], 'planner')}; false USES: {num_false}.",
        "Use, and the ends of its 95% interval, are means over draws.",
    ]
    coverage = stored.get("coverage") or {}
    if coverage:
        shares = ", ".join(f"{name} {100 * float(share):.1f}%" for name, share in coverage.items())
        note.append(f"Coverage of 95% intervals in simulated draws: {shares}.")
    return KnownAnswers("uses", stored["suite"], "Known answers of Uses", tuple(note), tuple(rows))


def _group_by(cells: Sequence[Cell], key: str) -> list[tuple[str, list[Cell]]]:
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(str(cell[key]), []).append(cell)
    return list(groups.items())


def _draws(cells: Sequence[Cell], key: str) -> str:
    """Number of draws of each group of cells, as text; the fewest and the most if they differ."""
    counts = [len({cell["seed"] for cell in group}) for _, group in _group_by(cells, key)]
    fewest, most = min(counts), max(counts)
    number = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    return f"{number} {'draw' if most == 1 else 'draws'} each"


def _share(flags: Any) -> str:
    flags = list(flags)
    return f"{sum(map(bool, flags))} of {len(flags)}"


def _mean(values: Sequence[float]) -> float:
    return sum(map(float, values)) / len(values)


def _optional_mean(values: Sequence[float]) -> str:
    return f"{_mean(values):.3f}" if values else UNDEFINED


def _mean_interval(intervals: Sequence[Sequence[float]]) -> str:
    if not intervals:
        return UNDEFINED
    value, low, high = (round(_mean([interval[i] for interval in intervals]), 3) + 0.0 for i in range(3))
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"
