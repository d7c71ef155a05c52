"""Chart layout: geometry that a template draws as SVG, in pixels of the chart's own box; the page scales the box.

Colour is never the only cue: series also differ in marker and line style, and every point has a text description.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from benchmark.board.drawing.label_placement import Box, place_labels
from benchmark.board.drawing.marks import MarkStyle, mark_path, mark_style
from benchmark.statistics import Estimate

WIDTH, NARROW_WIDTH, HEIGHT = 460, 330, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 46
LANE_HEIGHT = 34
"""Height in pixels of the lane below the plot for points without a y value."""
RADIUS, PADDING, ZOOMED_TICKS = 5.0, 0.06, 8
"""Radius of a mark in pixels where sizes say nothing, space around the points of a zoomed axis as a share of
their range, and its largest number of ticks."""


@dataclass(frozen=True)
class ChartPoint:
    """One point, in data units.

    Attributes:
        x, y: coordinates; y None puts the point into the lane below the plot.
        description: text for the tooltip and for screen readers.
        label: text drawn next to the point; empty for none.
        y_interval, x_interval: error bars.
        link: page fragment that the point links to.
        radius: radius of its mark in pixels.
    """

    x: float
    y: float | None
    description: str
    label: str = ""
    y_interval: Estimate | None = None
    x_interval: Estimate | None = None
    link: str = ""
    radius: float = RADIUS


@dataclass(frozen=True)
class ChartSeries:
    """A named series of points; `line` joins them. `kind` selects shape and colour, see `marks.mark_style`."""

    name: str
    kind: int
    points: Sequence[ChartPoint]
    line: bool = False


@dataclass(frozen=True)
class Mark:
    """A point in pixels: position, ends of its error bars, label position (right-aligned there if `is_left`), and its SVG path."""

    x: float
    y: float
    point: ChartPoint
    y_bar: tuple[float, float] | None
    x_bar: tuple[float, float] | None
    is_left: bool = False
    label_position: tuple[float, float] = (0.0, 0.0)
    shape: str = ""


@dataclass(frozen=True)
class DrawnSeries:
    """A series in pixels; `path` is the SVG path of its line, empty without one; `legend_shape` is its mark in the legend."""

    name: str
    style: MarkStyle
    marks: list[Mark]
    path: str
    legend_shape: str


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
        sizes: SVG path and text of each entry of the legend of sizes; empty if sizes say nothing.
        size_label: what the size of a mark says.
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
    sizes: list[tuple[str, str]] = field(default_factory=list)
    size_label: str = ""


def ticks(low: float, high: float, target_count: int = 5) -> list[float]:
    """About `target_count` round numbers from at most `low` to at least `high`."""
    span = high - low or abs(high) or 1.0
    step = 10.0 ** math.floor(math.log10(span / target_count))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= target_count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


@dataclass(frozen=True)
class Axis:
    """One axis: its limits and ticks in data units, and the pixels of its limits."""

    low: float
    high: float
    ticks: Sequence[float]
    first_pixel: float
    last_pixel: float
    is_logarithmic: bool = False

    def pixel(self, value: float) -> float:
        """Position of a value."""
        if self.is_logarithmic:
            fraction = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            fraction = (value - self.low) / ((self.high - self.low) or 1)
        return round(self.first_pixel + fraction * (self.last_pixel - self.first_pixel), 1)

    def bar(self, interval: Estimate | None) -> tuple[float, float] | None:
        """Positions of the ends of an interval."""
        return (self.pixel(interval.low), self.pixel(interval.high)) if interval else None


def _round_axis(low: float, high: float) -> tuple[float, float, list[float]]:
    """Limits at round numbers around a range, and the round numbers from one to the other."""
    numbers = ticks(low, high)
    return numbers[0], numbers[-1], numbers


def zoomed_axis(low: float, high: float) -> tuple[float, float, list[float]]:
    """Limits just around a range, and the round numbers within them."""
    margin = PADDING * (high - low) or 0.5 * abs(high) or 0.5
    low, high = low - margin, high + margin
    return low, high, [tick for tick in ticks(low, high, ZOOMED_TICKS) if low <= tick <= high]


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
    is_zoomed: bool = False,
    sizes: Sequence[tuple[float, str]] = (),
    size_label: str = "",
    width: int = WIDTH,
) -> Chart:
    """Lay out a chart whose axes contain every point and interval.

    Args:
        title, x_label, y_label: texts.
        series: series with at least one point in total.
        logarithmic: use a logarithmic x axis with ticks at the points.
        x_range: limits of the x axis; by default the range of the points.
        x_names: text of each tick of the x axis, by its position; by default numbers.
        levels: horizontal reference lines as (y, label).
        is_zoomed: both axes end where the points do; otherwise they end at round numbers, and the y axis holds 0.
        sizes: radius and text of each entry of the legend of sizes.
        size_label: what the size of a mark says.
        width: width in pixels.
    """
    points = [point for chart_series in series for point in chart_series.points]
    x_values = [v for p in points for v in _ends(p.x, p.x_interval)]
    y_values = [v for p in points if p.y is not None for v in _ends(p.y, p.y_interval)]
    has_lane = any(point.y is None for point in points)
    bottom, right = HEIGHT - BOTTOM - (LANE_HEIGHT if has_lane else 0), width - RIGHT
    y_top = max([*y_values, *(y for y, _ in levels)])
    y_limits = zoomed_axis(min(y_values), y_top) if is_zoomed else _round_axis(min([*y_values, 0.0]), max(y_top, 0.01))
    y_axis = Axis(*y_limits, bottom, TOP)
    if x_names:
        x_limits = (min(x_names) - 0.5, max(x_names) + 0.5, sorted(x_names))
    elif logarithmic:
        x_limits = (min(x_values) / 1.3, max(x_values) * 1.3, sorted({point.x for point in points}))
    elif is_zoomed:
        x_limits = zoomed_axis(min(x_values), max(x_values))
    else:
        x_limits = _round_axis(*(x_range or (min(x_values), max(x_values))))
    x_axis = Axis(*x_limits, LEFT, right, logarithmic)
    lane_y = bottom + LANE_HEIGHT / 2 if has_lane else None

    def mark(point: ChartPoint) -> Mark:
        y = y_axis.pixel(point.y) if point.y is not None else float(lane_y or 0)
        return Mark(x_axis.pixel(point.x), y, point, y_axis.bar(point.y_interval), x_axis.bar(point.x_interval))

    drawn_series = []
    remaining_marks = iter(_label_marks([mark(point) for point in points], Box(LEFT, TOP, right, bottom)))
    for chart_series in series:
        marks = [next(remaining_marks) for _ in chart_series.points]
        path = "M" + " L".join(f"{m.x} {m.y}" for m in marks) if chart_series.line and len(marks) > 1 else ""
        drawn_series.append(_draw_series(chart_series, marks, path))
    return Chart(
        title, x_label, y_label, width, HEIGHT, LEFT, right, TOP, bottom,
        [(x_axis.pixel(x), x_names[x] if x_names else format_tick(x)) for x in x_axis.ticks],
        [(y_axis.pixel(y), format_tick(y)) for y in y_axis.ticks], drawn_series,
        [(y_axis.pixel(y), label) for y, label in levels], lane_y, [(mark_path(0, 10, 10, radius), text) for radius, text in sizes], size_label,
    )  # fmt: skip


def _ends(value: float, interval: Estimate | None) -> tuple[float, ...]:
    """A value, and the ends of its interval."""
    return (value, interval.low, interval.high) if interval else (value,)


def _draw_series(series: ChartSeries, marks: Sequence[Mark], path: str) -> DrawnSeries:
    """A series with the paths of its marks."""
    style = mark_style(series.kind)
    shaped = [replace(mark, shape=mark_path(style.shape, mark.x, mark.y, mark.point.radius)) for mark in marks]
    return DrawnSeries(series.name, style, shaped, path, mark_path(style.shape, 14, 7, RADIUS))


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
