"""Figures of further decodings of the test tasks, where a run has computed them: pass@k of samples, constrained answers."""

from __future__ import annotations

from benchmark.runner.record import Record
from benchmark.statistics import Estimate, in_percent

PASS_AT_K, CONSTRAINED = "pass_at_k", "constrained"
DECODING_COLUMNS = {PASS_AT_K: "pass@k held-out %", CONSTRAINED: "constrained held-out %"}
"""Columns of tables, by key; a table has one where a row of its group has the figure."""


def decoding_estimates(record: Record) -> dict[str, Estimate | None]:
    """Each figure by the name it has in JSON and CSV; pass@k is of the largest k, see `largest_k`."""
    sampled = record.sampled
    constrained = record.constrained.accuracy if record.constrained else None
    return {
        "pass_at_k_shown": sampled.shown[sampled.samples] if sampled else None,
        "pass_at_k_held_out": sampled.held_out[sampled.samples] if sampled else None,
        "constrained_shown": constrained.shown if constrained else None,
        "constrained_held_out": constrained.held_out if constrained else None,
    }


def largest_k(record: Record) -> int | None:
    """Samples per task; None without samples."""
    return record.sampled.samples if record.sampled else None


def decoding_figure(record: Record, key: str) -> Estimate | None:
    """The figure of a column of `DECODING_COLUMNS`."""
    return decoding_estimates(record)[f"{key}_held_out"]


def decoding_note(record: Record, key: str) -> str:
    """What stands behind the figure of a column: `k = 8` for pass@k."""
    return f"k = {largest_k(record)}" if key == PASS_AT_K else ""


def decoding_cells(record: Record) -> dict[str, str]:
    """Text of each column of `DECODING_COLUMNS` that the record has a figure for, by the column's name."""
    cells = {}
    for key, name in DECODING_COLUMNS.items():
        figure = decoding_figure(record, key)
        if figure is not None:
            cells[name] = ", ".join(filter(None, (in_percent(figure), decoding_note(record, key))))
    return cells


def decoding_rows(record: Record) -> list[tuple[str, Estimate]]:
    """Every figure of the further decodings with its name: pass@k for each k, then constrained answers."""
    rows = []
    if record.sampled:
        for kind, by_k in (("shown", record.sampled.shown), ("held-out", record.sampled.held_out)):
            rows += [(f"pass@{k} {kind} %, temperature {record.sampled.temperature:g}", by_k[k]) for k in sorted(by_k)]
    if record.constrained:
        accuracy = record.constrained.accuracy
        rows += [
            ("constrained, shown %", accuracy.shown),
            ("constrained, held-out %", accuracy.held_out),
            ("constrained, exact %", accuracy.exact),
            ("constrained, valid %", accuracy.valid),
        ]
    return rows
