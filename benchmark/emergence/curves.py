"""The points of series as a CSV table and as one figure.

Source: Jin & Rinard 2024, the figures of section 4. Letters: `K` checkpoints of a series.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.emergence.axis import Axis
from benchmark.emergence.order import BOUNDS, Order
from benchmark.emergence.point import DELTA, USE, CurvePoint
from benchmark.emergence.report import SeriesReport
from benchmark.probing.figures import BLUE, GREY, ORANGE, save_figures, titled_figure
from benchmark.probing.full_grid import FUTURE
from benchmark.probing.semantic_content import CONTENT_DEPTHS
from benchmark.statistics import Estimate

GREEN = "#009e73"
PHASE_NAMES = ("babbling", "syntax", "semantics")
FIGURE_STEM = "emergence"
PANEL_HEIGHT, NUM_TICKS = 2.1, 5
MIN_PHASE_WIDTH = 0.15
"""Smallest share of a panel's width at which a phase is named in it."""
Curve = Callable[[CurvePoint], float | Estimate | None]


@dataclass(frozen=True)
class Panel:
    """One panel of the figure.

    Attributes:
        title: written above it.
        curves: what is drawn, by label; at most three.
        has_zero: whether 0 is drawn as a line, which the axis contains.
        bound: bound of a first crossing, drawn likewise; None for no line.
        is_log: whether the vertical axis is logarithmic.
    """

    title: str
    curves: Mapping[str, Curve]
    has_zero: bool = False
    bound: float | None = None
    is_log: bool = False

    def has_value(self, points: Sequence[CurvePoint]) -> bool:
        """Whether a curve is defined at one of the points."""
        return any(curve(point) is not None for curve in self.curves.values() for point in points)


def point_columns(point: CurvePoint) -> dict[str, float | str | None]:
    """Columns of one point: each estimate with the ends of its 95% interval; None if undefined."""
    accuracy, rotation, use, merges = point.accuracy, point.rotation, point.use, point.merges
    columns: dict[str, float | str | None] = {"step": point.step, "tasks": point.tasks, "tokens": point.tokens}
    content, floors = point.content or {}, point.floors or {}
    estimates = {
        "shown": accuracy.shown, "held_out": accuracy.held_out, "valid": accuracy.valid,
        "rotation_skill": rotation and rotation.skill, "rotation_delta": rotation and rotation.delta,
        "pose_delta": rotation and rotation.pose_delta, "arithmetic": rotation and rotation.arithmetic,
        "use": use and use.use, "steered": use and use.steered, "margin": use and use.margin,
        "merges": merges and merges.merges, "merges_floor": merges and merges.floor,
        **{f"sc_{depth}": content.get(depth) for depth in CONTENT_DEPTHS},
        **{f"sc_floor_{depth}": floors.get(depth) for depth in CONTENT_DEPTHS},
        "skill": point.skill, "gap": point.gap, "delta": point.delta, "mdl_delta": point.mdl_delta,
        **{f"delta_ahead_{offset}": point.future.get(offset) for offset in FUTURE},
    }  # fmt: skip
    for name, estimate in estimates.items():
        columns[name] = estimate.value if estimate else None
        columns[f"{name}_low"] = estimate.low if estimate else None
        columns[f"{name}_high"] = estimate.high if estimate else None
    return columns | {
        "distinct": point.distinct, "distinct_programs": point.num_distinct, "mean_words": accuracy.mean_words,
        "represents": rotation.verdict if rotation else None, "probe_seeds": rotation.seeds if rotation else None,
        "uses": use.verdict if use else None, "solved_from_prefix": use.solved if use else None,
        "agreement": merges.agreement if merges else None, "reach": point.reach,
        "perplexity": point.perplexity, "reference_words": point.reference_words, "verdict": point.verdict,
    }  # fmt: skip


def write_table(path: Path, series: Mapping[str, Sequence[CurvePoint]]) -> None:
    """Write the points of all series as CSV, one line per checkpoint; columns that are empty everywhere are left out."""
    lines: list[dict[str, float | str | None]] = [
        {"run": name, **point_columns(point)} for name, points in series.items() for point in points
    ]
    columns = [name for name in lines[0] if any(line[name] is not None for line in lines)]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in line.items()}
            for line in lines
        )


def write_figure(
    folder: Path, name: str, series: Mapping[str, Sequence[CurvePoint]], report: SeriesReport
) -> list[Path]:
    """Draw `emergence.png` and `.svg`: thin lines are series, thick lines their mean; dotted lines separate the phases."""
    return save_figures({FIGURE_STEM: partial(_draw_figure, name, series, report)}, folder)


def list_panels() -> list[Panel]:
    """Every panel; those without a value are not drawn."""
    content: dict[str, Curve] = {depth: partial(_content, depth) for depth in CONTENT_DEPTHS}
    ahead: dict[str, Curve] = {f"+{k}": partial(_ahead, k) for k in FUTURE}
    return [
        Panel(
            "accuracy on test tasks", {"shown": lambda p: p.accuracy.shown, "held-out": lambda p: p.accuracy.held_out}
        ),
        Panel(
            "valid and distinct programs / test tasks",
            {"valid": lambda p: p.accuracy.valid, "distinct": lambda p: p.distinct},
        ),
        Panel(
            "delta of rotation, pose delta (protocol 4)",
            {
                "delta": lambda p: p.rotation.delta if p.rotation else None,
                "pose delta": lambda p: p.rotation.pose_delta if p.rotation else None,
            },
            has_zero=True,
            bound=BOUNDS[DELTA],
        ),
        Panel(
            "use of the rotation",
            {
                "use": lambda p: p.use.use if p.use else None,
                "steered - largest control": lambda p: p.use.margin if p.use else None,
            },
            has_zero=True,
            bound=BOUNDS[USE],
        ),
        Panel(
            "merges, and agreement with the exact posterior",
            {
                "merges": lambda p: p.merges.merges if p.merges else None,
                "its floor": lambda p: p.merges.floor if p.merges else None,
                "agreement": lambda p: p.merges.agreement if p.merges else None,
            },
            has_zero=True,
        ),
        Panel("semantic content (paper)", content),
        Panel(
            "delta of facing (protocol 3)",
            {"delta": lambda p: p.delta, "mdl_delta (bits per label)": lambda p: p.mdl_delta},
            has_zero=True,
        ),
        Panel(
            "perplexity per token; mean program length",
            {
                "perplexity": lambda p: p.perplexity,
                "generated": lambda p: p.accuracy.mean_words if p.perplexity else None,
                "reference": lambda p: p.reference_words,
            },
            is_log=True,
        ),
        Panel("delta of future states (protocol 3)", ahead, has_zero=True),
    ]


def _draw_figure(name: str, series: Mapping[str, Sequence[CurvePoint]], report: SeriesReport) -> Figure:
    points, axis, phases = [point for part in series.values() for point in part], report.axis, report.phases.values()
    panels = [panel for panel in list_panels() if panel.has_value(points)]
    order = report.order if report.order is not None and any(report.order.half.values()) else None
    count = len(panels) + (order is not None)
    num_rows = -(-count // 2)
    lengths = [str(length) for length in sorted({len(part) for part in series.values()})]
    bounds = (
        "; dashed horizontal lines are the bounds of first crossings"
        if any(panel.bound is not None for panel in panels)
        else ""
    )
    dotted = "; dotted lines separate babbling, syntax and semantics acquisition (mean over series)" if phases else ""
    figure = titled_figure(
        PANEL_HEIGHT * num_rows + 0.9,
        f"{name}: training dynamics, {len(series)} series of {' or '.join(lengths)} checkpoints",
        f"Thin lines are series, thick lines their mean{bounds}{dotted}.",
    )
    grid = figure.subplots(num_rows, 2, sharex=True, squeeze=False)
    edges = [float(np.mean([getattr(of_run, edge) for of_run in phases])) for edge in ("babbling", "syntax") if phases]
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, panel, series, axis)
        for edge in edges:
            axes.axvline(edge, color=GREY, ls=":", lw=0.9)
    if edges:
        _label_phases(grid[0, 0], [0.0, *edges, max(axis.values(part)[-1] for part in series.values())])
    if order is not None:
        _draw_half_points(grid.flat[len(panels)], order)
    for axes in grid.flat[count:]:
        axes.set_axis_off()
    for axes in grid.flat[max(0, count - 2) : count]:
        axes.set_xlabel(axis.label)
        axes.tick_params(labelbottom=True)
    return figure


def _draw_half_points(axes: Axes, order: Order) -> None:
    """Where each figure reaches half of its final value, with its interval; an arrow to the left where that is at most."""
    half = {name: estimate for name, estimate in order.half.items() if estimate is not None}
    for row, (name, estimate) in enumerate(half.items()):
        axes.plot([2**estimate.low, 2**estimate.high], [row, row], color=BLUE, lw=1.6)
        axes.plot([2**estimate.value], [row], "<" if order.num_latest[name] else "o", color=BLUE, ms=5)
    axes.set_yticks(range(len(half)), list(half), fontsize=7)
    axes.set_ylim(len(half) - 0.5, -0.5)
    bounds = ", <: at most" if any(order.num_latest[name] for name in half) else ""
    axes.set_title(f"half of the final value, 95% interval{bounds}", loc="left", fontsize=8)


def _content(depth: str, point: CurvePoint) -> Estimate | None:
    return point.content.get(depth) if point.content else None


def _ahead(offset: int, point: CurvePoint) -> Estimate | None:
    return point.future.get(offset)


def _draw_panel(axes: Axes, panel: Panel, series: Mapping[str, Sequence[CurvePoint]], axis: Axis) -> None:
    styles = ("-", "--", "-.")
    for (label, curve), colour, line in zip(panel.curves.items(), (BLUE, ORANGE, GREEN), styles, strict=False):
        by_training: dict[float, list[float]] = {}
        for points in series.values():
            raw_values = [curve(point) for point in points]
            values = [np.nan if v is None else v.value if isinstance(v, Estimate) else v for v in raw_values]
            training = axis.values(points)
            axes.plot(training, values, color=colour, lw=0.5, alpha=0.6, ls=line)
            for x, value in zip(training, values, strict=True):
                by_training.setdefault(float(x), []).append(value)
        # The mean is taken where every series has a checkpoint.
        common = sorted(x for x, values in by_training.items() if len(values) == len(series))
        axes.plot(common, [np.mean(by_training[x]) for x in common], color=colour, lw=1.6, ls=line, label=label)
    _scale_training(axes, series, axis)
    if panel.has_zero:
        axes.axhline(0, color=GREY, lw=0.6, zorder=0)
    if panel.bound is not None:
        axes.axhline(panel.bound, color=GREY, lw=0.6, ls="--", zorder=0)
    if panel.is_log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    axes.set_title(panel.title, loc="left", fontsize=8)
    axes.legend(fontsize=7, loc="best")
    axes.margins(x=0.01)


def _scale_training(axes: Axes, series: Mapping[str, Sequence[CurvePoint]], axis: Axis) -> None:
    """A logarithmic axis that begins with 0, if the axis is of training."""
    positive = [x for points in series.values() for x in axis.values(points) if x > 0]
    if not axis.has_zero_start or not positive:
        return
    axes.set_xscale("symlog", base=2, linthresh=min(positive), linscale=0.5)
    ticks = [0.0, *np.geomspace(min(positive), max(positive), NUM_TICKS)]
    axes.set_xticks(ticks, [_short_number(tick) for tick in ticks], fontsize=7)
    axes.minorticks_off()


def _short_number(value: float) -> str:
    """A number with two digits, such as `4k`, `66k` or `1.2M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{float(f'{value / size:.2g}'):g}{unit}"
    return f"{float(f'{value:.2g}'):g}"


def _label_phases(axes: Axes, edges: Sequence[float]) -> None:
    """Write each phase's name between its edges if the phase is wide enough on the axes."""
    position = axes.transScale.transform([(edge, 0.5) for edge in edges])[:, 0]
    for name, number in zip(PHASE_NAMES, range(len(PHASE_NAMES)), strict=True):
        left, right = position[number], position[number + 1]
        if right - left > MIN_PHASE_WIDTH * (position[-1] - position[0]):
            middle = axes.transScale.inverted().transform(((left + right) / 2, 0.5))[0]
            axes.text(middle, 0.02, name, ha="center", va="bottom", fontsize=7, color=GREY,
                      transform=axes.get_xaxis_transform())  # fmt: skip
