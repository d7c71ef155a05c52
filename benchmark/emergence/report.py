"""What some series show together: phases, relation to accuracy, order of the figures; as JSON and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmark.causal.report import format_p
from benchmark.emergence.axis import Axis, choose_axis
from benchmark.emergence.order import AT_MOST, LEVEL, Order, find_order
from benchmark.emergence.phases import (
    NUM_FINAL_CHECKPOINTS,
    PAPER_R2,
    PAPER_SHARES,
    BetweenRuns,
    Phases,
    Relation,
    find_phases,
    relate,
    relate_runs,
)
from benchmark.emergence.point import ORDERED, CurvePoint
from benchmark.probing.full_grid import FUTURE
from benchmark.probing.semantic_content import CONTENT_DEPTHS
from benchmark.statistics import Estimate

Series = Mapping[str, Sequence[CurvePoint]]


@dataclass(frozen=True)
class SeriesReport:
    """What series show together.

    Attributes:
        axis: what training is counted in.
        phases: by series; a series with too few checkpoints has none.
        relations: of curves to accuracy, by series and curve.
        between: the same between series at the same checkpoint.
        order: half points, their differences, and first crossings; None if training has no zero.
    """

    axis: Axis
    phases: dict[str, Phases]
    relations: dict[str, dict[str, Relation | None]]
    between: dict[str, BetweenRuns | None]
    order: Order | None

    def to_json(self, series: Series) -> dict[str, Any]:
        """The content of `summary.json`."""
        return {
            "axis": self.axis.label,
            "phases": {name: asdict(result) for name, result in self.phases.items()},
            "relations": {
                name: {curve: asdict(result) if result else None for curve, result in of_run.items()}
                for name, of_run in self.relations.items()
            },
            "between runs": {curve: asdict(result) if result else None for curve, result in self.between.items()},
            "order": asdict(self.order) if self.order else None,
            "last checkpoint, over runs": summarize_seeds(series),
            "paper": {"shares": PAPER_SHARES, "r2": PAPER_R2},
        }


def build_report(series: Series) -> SeriesReport:
    """Analyse some series, which are training seeds of one recipe."""
    axis = choose_axis(series.values())
    return SeriesReport(
        axis,
        {name: find_run_phases(points, axis) for name, points in series.items() if len(points) > NUM_FINAL_CHECKPOINTS},
        {name: relate_to_accuracy(points, axis) for name, points in series.items()},
        relate_between_runs(series),
        find_order(series, axis) if axis.has_zero_start else None,
    )


def find_run_phases(points: Sequence[CurvePoint], axis: Axis) -> Phases:
    """Find the phases of one series."""
    return find_phases(axis.values(points), np.array([p.distinct for p in points]), np.array(shown_accuracy(points)))


def semantics_curves(points: Sequence[CurvePoint]) -> dict[str, list[float | None]]:
    """Curves of a series that are related to accuracy."""
    curves: dict[str, list[float | None]] = {
        f"sc_{depth}": [p.content[depth].value if p.content and depth in p.content else None for p in points]
        for depth in CONTENT_DEPTHS
    }
    curves |= {name: [_value(p.figure(name)) for p in points] for name in ORDERED}
    curves["delta of facing"] = [_value(p.delta) for p in points]
    return {name: values for name, values in curves.items() if any(value is not None for value in values)}


def _value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value


def shown_accuracy(points: Sequence[CurvePoint]) -> list[float]:
    """Accuracy on shown examples per checkpoint."""
    return [p.accuracy.shown.value for p in points]


def relate_to_accuracy(points: Sequence[CurvePoint], axis: Axis) -> dict[str, Relation | None]:
    """Relation of each of the `semantics_curves` of a series to its accuracy."""
    training = axis.values(points).tolist()
    return {name: relate(training, curve, shown_accuracy(points)) for name, curve in semantics_curves(points).items()}


def relate_between_runs(series: Series) -> dict[str, BetweenRuns | None]:
    """Relation between series, at the steps that all of them have."""
    common = set.intersection(*({p.step for p in points} for points in series.values()))
    if len(series) < 2 or not common:
        return {}
    common_points = [[p for p in points if p.step in common] for points in series.values()]
    curves = [semantics_curves(points) for points in common_points]
    accuracy = [shown_accuracy(points) for points in common_points]
    names = [name for name in curves[0] if all(name in of_run for of_run in curves)]
    return {name: relate_runs([of_run[name] for of_run in curves], accuracy) for name in names}


def summarize_seeds(series: Series) -> dict[str, Any]:
    """Mean, minimum and maximum over series of the last checkpoint's figures."""
    last = [points[-1] for points in series.values()]
    figures: dict[str, list[float | None]] = {
        "shown": [p.accuracy.shown.value for p in last],
        "held_out": [p.accuracy.held_out.value for p in last],
        **{name: [_value(p.figure(name)) for p in last] for name in ORDERED},
        "agreement": [p.merges.agreement if p.merges else None for p in last],
        "delta of facing": [_value(p.delta) for p in last],
        "mdl_delta": [_value(p.mdl_delta) for p in last],
        **{f"delta ahead {k}": [_value(p.future.get(k)) for p in last] for k in FUTURE},
        **{f"sc_{d}": [_value(p.content.get(d)) if p.content else None for p in last] for d in CONTENT_DEPTHS},
    }
    present = {name: [value for value in values if value is not None] for name, values in figures.items()}
    return {
        name: {"mean": float(np.mean(values)), "low": min(values), "high": max(values), "runs": len(values)}
        for name, values in present.items()
        if values
    }


def format_report(report: SeriesReport) -> str:
    """The report as tables for a terminal."""
    tables = [
        _phase_table(report.phases),
        *(_order_tables(report.order, report.axis) if report.order else []),
        _relation_table(report.relations),
        _between_table(report.between),
    ]
    return "\n\n".join(table for table in tables if table)


def _phase_table(phases: Mapping[str, Phases]) -> str:
    if not phases:
        return ""
    rows: list[list[Any]] = [
        [
            name,
            *(f"{100 * share:.1f}" for share in phase_result.shares),
            *(f"{100 * a:.1f}" for a in phase_result.accuracy),
        ]
        for name, phase_result in phases.items()
    ]
    rows.append(["the paper", *(f"{100 * share:.0f}" for share in PAPER_SHARES), "", "", "92.4"])
    headers = ["run", "babbling %", "syntax %", "semantics %", "shown % after", "after", "at the end"]
    return tabulate(rows, headers, disable_numparse=True)


def _order_tables(order: Order, axis: Axis) -> list[str]:
    halves = [
        [
            name,
            f"{AT_MOST if order.num_latest[name] else ''}{2**value.value:,.0f}",
            f"{2**value.low:,.0f} to {2**value.high:,.0f}",
            value.n,
        ]
        for name, value in order.half.items()
        if value is not None
    ]
    differences = [
        [
            name,
            f"{order.side(name)}{value.value:+.2f} [{value.low:+.2f}, {value.high:+.2f}]",
            value.n,
            order.conclusions[name],
        ]
        for name, value in order.differences.items()
        if value is not None
    ]
    crossings = [
        [run, *("never" if x is None else f"{x:,.0f}" for x in of_run.values())]
        for run, of_run in order.crossings.items()
        if any(x is not None for x in of_run.values())
    ]
    tables = []
    if halves:
        tables.append(
            tabulate(
                halves,
                [f"half of the final value, {axis.label}", "mean", f"{LEVEL:.0%} interval", "series"],
                disable_numparse=True,
            )
        )
    if differences:
        headers = ["difference of half points, doublings", f"mean and {LEVEL:.0%} interval", "series", "the first is"]
        tables.append(tabulate(differences, headers, disable_numparse=True))
    if crossings:
        headers = [f"first above its bound, {axis.label}", *next(iter(order.crossings.values()))]
        tables.append(tabulate(crossings, headers, disable_numparse=True))
    return tables


def _relation_table(relations: Mapping[str, Mapping[str, Relation | None]]) -> str:
    rows: list[list[Any]] = []
    for name, of_run in relations.items():
        for curve, relation in of_run.items():
            if relation is None:
                continue
            second_half = "" if relation.r2_second_half is None else f"{relation.r2_second_half:.3f}"
            changes = [f"{value:+.2f} (p {format_p(p)})" for value, p in (relation.changes, relation.rank_changes)]
            rows.append([name, curve, relation.n, f"{relation.r2:.3f}", second_half, *changes])
    if not rows:
        return ""
    rows.append(["the paper", "semantic content", "", f"{PAPER_R2}", "", "", ""])
    headers = ["run", "with shown accuracy", "n", "R^2", "second half", "changes, r", "changes, rank"]
    return tabulate(rows, headers, disable_numparse=True)


def _between_table(between: Mapping[str, BetweenRuns | None]) -> str:
    rows = [
        [curve, result.n, f"{result.r:+.2f} (p {format_p(result.p)})"]
        for curve, result in between.items()
        if result is not None
    ]
    headers = ["between runs, at the same checkpoint", "n", "with shown accuracy, r"]
    return tabulate(rows, headers, disable_numparse=True) if rows else ""
