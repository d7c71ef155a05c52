"""Tables of the full detail of *Uses* on a row's page: every edit by place with its controls, doses, whole programs, displacement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmark.causal.detail.detail_evidence import FALSE, STEERED
from benchmark.causal.detail.detail_verdict import NOT_USED, PLANTED_DRAWS, DetailResult, MoveDetail
from benchmark.runner.measurement_record import UsesDetailRecord, UsesRecord, read_measurement
from benchmark.statistics import Estimate

Table = list[dict[str, str]]
UNDEFINED = "-"
REASON_CHARS = 300


def detail_tables(folder: Path, uses: UsesRecord) -> list[tuple[str, Table]]:
    """Captions and rows of the tables of a row; none without a detail record, or with one of another model or suite.

    Args:
        folder: folder of the submission.
        uses: its record of the standard measurement.

    Raises:
        BenchmarkError: the detail record does not fit its schema.
    """
    record = read_measurement(UsesDetailRecord, folder)
    if record is None or not record.official or record.detail.site is None:
        return []
    if (record.model.digest, record.suite, record.track) != (uses.model.digest, uses.suite, uses.track):
        return []
    return build_detail_tables(record.detail, record.sites)


def build_detail_tables(detail: DetailResult, sites: Sequence[str]) -> list[tuple[str, Table]]:
    """The tables of a result with figures."""
    assert detail.site is not None
    heading = f"Full detail: right words by edit and place, {detail.pairs:,} strict pairs, {detail.tasks:,} tasks"
    tables = [(heading, _edit_rows(detail, sites)), ("Full detail: other figures", _figure_rows(detail, sites))]
    if detail.subspaces:
        tables.append(("Full detail: trained subspaces, right words on training and other tasks", _subspace_rows(detail, sites)))  # fmt: skip
    if detail.moves is not None:
        caption = f"Full detail: the robot's cell is edited, {detail.moves.pairs:,} pairs, {detail.moves.tasks:,} tasks"
        tables.append((caption, _move_rows(detail.moves, sites)))
    return tables


def _edit_rows(detail: DetailResult, sites: Sequence[str]) -> Table:
    rows = []
    for edit in detail.edits:
        for condition, shares in edit.by_site.items():
            if all(share is None for share in shares):
                continue
            name = edit.name if condition == STEERED else f"{edit.name}, control: {condition}"
            clamped = _format(edit.clamped) if condition == STEERED else ""
            rows.append(
                {
                    "edit": name,
                    **{site: _format(share) for site, share in zip(sites, shares, strict=True)},
                    f"{sites[detail.site or 0]}, natural range": clamped,
                }
            )
    return rows


def _figure_rows(detail: DetailResult, sites: Sequence[str]) -> Table:
    assert detail.site is not None
    rows = [
        ("not used" if detail.verdict == NOT_USED else "why it is not NOT USED", detail.reason[:REASON_CHARS]),
        ("natural: accuracy of the unedited next word", _format(detail.natural)),
        ("right word without edit", _format(detail.no_edit)),
        ("planted users of this accuracy that would be found", f"{detail.power} of {PLANTED_DRAWS}"),
        *((f"mean shift at {sites[detail.site]}, dose {dose}", _format(share)) for dose, share in detail.doses.items()),
        *((f"programs right for the turned robot, {name}", _format(share)) for name, share in detail.programs.items()),
    ]
    return [{"figure": name, "value [95% interval]": value} for name, value in rows]


def _subspace_rows(detail: DetailResult, sites: Sequence[str]) -> Table:
    return [
        {
            "rank": str(part.rank),
            "place": sites[part.site],
            "labels": "true" if part.semantics == STEERED else FALSE,
            "training tasks": _format(part.train),
            "other tasks": _format(part.test),
        }
        for part in detail.subspaces
    ]


def _move_rows(moves: MoveDetail, sites: Sequence[str]) -> Table:
    rows = [
        *((f"steered at {site}", _format(share)) for site, share in zip(sites, moves.by_site, strict=True)),
        (f"steered at {sites[moves.site]}, natural range", _format(moves.clamped)),
        (f"steered at {sites[moves.site]}, where the most frequent word is not right", _format(moves.strict)),
        *((f"control: {name}", _format(share)) for name, share in moves.controls.items()),
    ]
    return [{"edit": name, "right word [95% interval]": value} for name, value in rows]


def _format(share: Estimate | None) -> str:
    if share is None:
        return UNDEFINED
    value, low, high = (round(part, 3) + 0.0 for part in (share.value, share.low, share.high))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
