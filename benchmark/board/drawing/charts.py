"""Chart layout: geometry that a template draws as SVG, in pixels of the chart's own box; the page scales the box.

Colour is never the only cue: series also differ in marker and line style, and every point has a text description.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from benchmark.board.drawing.label_placement import Box, place_labels
from benchmark.statistics import Estimate

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 46
LANE_HEIGHT = 34
"""Height in pixels of the lane below the plot for points without a y value."""


@dataclass(frozen=True)
class ChartPoint:
    """One point, in data units.

    Attributes:
        x, y: coordinates; y None puts the point into the lane below the plot.
        description: text for the tooltip and for screen readers.
        label: text drawn next to the point; empty for none.
        y_interval, x_interval: error bars.
        link: page fragment that the point links to.
    """

    x: float
    y: float | None
    description: str
    label: str = ""
    y_interval: Estimate | None = None
    x_interval: Estimate | None = None
    link: str = ""


@dataclass(frozen=True)
class ChartSeries:
    """A named series of points; `line` joins them. `kind` (0 to 5) selects marker and colour."""

    name: str
    kind: int
    points: Sequence[ChartPoint]
    line: bool = False


@dataclass(frozen=True)
class Mark:
    """A point in pixels: position, ends of its error bars, and label position (right-aligned there if `is_left`)."""

    x: float
    y: float
    point: ChartPoint
    y_bar: tuple[float, float] | None
    x_bar: tuple[float, float] | None
    is_left: bool = False
    label_position: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class DrawnSeries:
    """A series in pixels; `path` is the SVG path of its line, empty without one."""

    name: str
    kind: int
    marks: list[Mark]
    path: str


@dataclass(frozen=True)
class Chart:
    """A chart in pixels.

    Attributes:
        title, x_label, y_label: texts.
        width, height: size of the chart.
        left, right, top, bottom: edges of the plot area.
        x_ticks, y_ticks: position and label of each tick.
        series: the series in pixels.
        levels: y position and label of each reference line.
        lane: y position of the lane for points without a y value; None without a lane.
    """

    title: str
    x_label: str
    y_label: str
    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    series: list[DrawnSeries]
    levels: list[tuple[float, str]] = field(default_factory=list)
    lane: float | None = None


def ticks(low: float, high: float, target_count: int = 5) -> list[float]:
    """About `target_count` round numbers from at most `low` to at least `high`."""
    span = high - low or abs(high) or 1.0
    step = 10.0 ** math.floor(math.log10(span / target_count))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= target_count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def _label_marks(marks: Sequence[Mark], area: Box) -> list[Mark]:
    """The marks with positions of their labels."""
    bars = [Box(min(mark.x_bar), mark.y - 1, max(mark.x_bar), mark.y + 1) for mark in marks if mark.x_bar]
    bars += [Box(mark.x - 1, min(mark.y_bar), mark.x + 1, max(mark.y_bar)) for mark in marks if mark.y_bar]
    labels = place_labels([(mark.x, mark.y) for mark in marks], [mark.point.label for mark in marks], bars, area)
    return [
        mark if label is None else replace(mark, is_left=label.is_left, label_position=(label.x, label.y))
        for mark, label in zip(marks, labels, strict=True)
    ]


def lay_out_chart(
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[ChartSeries],
    *,
    logarithmic: bool = False,
    x_range: tuple[float, float] | None = None,
    x_names: Mapping[float, str] | None = None,
    levels: Sequence[tuple[float, str]] = (),
) -> Chart:
    """Lay out a chart whose axes contain every point and interval.

    Args:
        title, x_label, y_label: texts.
        series: series with at least one point in total.
        logarithmic: use a logarithmic x axis with ticks at the points.
        x_range: limits of the x axis; by default the range of the points.
        x_names: text of each tick of the x axis, by its position; by default numbers.
        levels: horizontal reference lines as (y, label).
    """
    points = [point for chart_series in series for point in chart_series.points]
    y_values = [
        v
        for p in points
        if p.y is not None
        for v in (p.y, *((p.y_interval.low, p.y_interval.high) if p.y_interval else ()))
    ]
    x_values = [v for p in points for v in (p.x, *((p.x_interval.low, p.x_interval.high) if p.x_interval else ()))]
    y_ticks = ticks(min([*y_values, 0.0]), max([*y_values, *(y for y, _ in levels), 0.01]))
    has_lane = any(point.y is None for point in points)
    bottom = HEIGHT - BOTTOM - (LANE_HEIGHT if has_lane else 0)
    right = WIDTH - RIGHT
    if x_names:
        x_ticks = sorted(x_names)
        low, high = x_ticks[0] - 0.5, x_ticks[-1] + 0.5
    elif logarithmic:
        x_ticks = sorted({point.x for point in points})
        low, high = x_ticks[0] / 1.3, x_ticks[-1] * 1.3
    else:
        x_ticks = ticks(*(x_range or (min(x_values), max(x_values))))
        low, high = x_ticks[0], x_ticks[-1]

    def x_of(x: float) -> float:
        fraction = math.log(x / low) / math.log(high / low) if logarithmic else (x - low) / ((high - low) or 1)
        return round(LEFT + fraction * (right - LEFT), 1)

    def y_of(y: float) -> float:
        return round(bottom - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (bottom - TOP), 1)

    lane_y = bottom + LANE_HEIGHT / 2 if has_lane else None

    def mark(point: ChartPoint) -> Mark:
        y = y_of(point.y) if point.y is not None else float(lane_y or 0)
        y_bar = (y_of(point.y_interval.low), y_of(point.y_interval.high)) if point.y_interval else None
        x_bar = (x_of(point.x_interval.low), x_of(point.x_interval.high)) if point.x_interval else None
        return Mark(x_of(point.x), y, point, y_bar, x_bar)

    drawn_series = []
    remaining_marks = iter(_label_marks([mark(point) for point in points], Box(LEFT, TOP, right, bottom)))
    for chart_series in series:
        marks = [next(remaining_marks) for _ in chart_series.points]
        path = "M" + " L".join(f"{m.x} {m.y}" for m in marks) if chart_series.line and len(marks) > 1 else ""
        drawn_series.append(DrawnSeries(chart_series.name, chart_series.kind, marks, path))
    return Chart(
        title, x_label, y_label, WIDTH, HEIGHT, LEFT, right, TOP, bottom,
        [(x_of(x), x_names[x] if x_names else format_tick(x)) for x in x_ticks], [(y_of(y), format_tick(y)) for y in y_ticks], drawn_series,
        [(y_of(y), label) for y, label in levels], lane_y,
    )  # fmt: skip


def format_tick(number: float) -> str:
    """Format a tick value without trailing digits: 2,500 or 0.05."""
    return f"{number:,.0f}" if abs(number) >= 100 or number == int(number) else f"{number:.4g}"


def interval_strip(estimate: Estimate, low: float, high: float, width: int = 64) -> dict[str, float]:
    """Pixel positions of an interval and its value on a horizontal strip from `low` to `high`."""

    def x_of(value: float) -> float:
        return round((min(max(value, low), high) - low) / (high - low) * width, 1)

    start, end = x_of(estimate.low), x_of(estimate.high)
    return {"start": start, "length": max(1.5, round(end - start, 1)), "at": x_of(estimate.value), "width": width,
            "zero": x_of(0.0)}  # fmt: skip
