"""The picture that a link to the site is shown with on other sites: the result in a sentence, and its chart."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline

from benchmark.board.drawing.charts import RADIUS, Chart
from benchmark.board.drawing.marks import NUM_COLOURS, shape_outline
from benchmark.board.site.group_table import GroupTable, pictured_table
from benchmark.board.site.result_sentence import result_sentence
from benchmark.runner.store import write_atomic

WIDTH, HEIGHT, DPI = 1200, 630, 100
"""Pixels of the picture, the size that sites ask for, and pixels per inch."""
COLOURS = ("#0a5d9c", "#b34400", "#00735a", "#8a3d78", "#6a5a00", "#444b52")
"""Colours of the style sheet on a light ground, `--k0` to `--k5`."""
BACKGROUND, TEXT, MUTED, LINE = "#ffffff", "#1b2024", "#545d66", "#d8dde2"
TITLE, LINE_CHARS = "Karel Semantics Benchmark", 32
QUESTIONS = "Language models of code: solves, represents, uses, merges"
POINTS_PER_PIXEL = 1.9
"""Points of a mark in this picture for a pixel of its radius in the page."""
assert len(COLOURS) == NUM_COLOURS


def write_preview(path: Path, tables: Sequence[GroupTable]) -> None:
    """Write the picture as PNG, with the same bytes for the same tables."""
    buffer = io.BytesIO()
    with rc_context({"font.sans-serif": ["DejaVu Sans"], "text.parse_math": False, "axes.unicode_minus": False}):
        draw_preview(tables).savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    write_atomic(path, buffer.getvalue())


def draw_preview(tables: Sequence[GroupTable]) -> Figure:
    """The picture: text on the left, the chart of the group with the most marks on the right."""
    figure = Figure((WIDTH / DPI, HEIGHT / DPI), facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    figure.text(0.04, 0.9, TITLE, size=21, weight="bold", color=TEXT, va="center")
    sentence = (
        result_sentence(tables) or "Language models that write Karel programs: what they solve, represent and use."
    )
    figure.text(0.04, 0.8, textwrap.fill(sentence, LINE_CHARS), size=18, color=TEXT, va="top", linespacing=1.45)
    figure.text(0.04, 0.04, QUESTIONS, size=11, color=MUTED)
    table = pictured_table(tables)
    if table is not None and table.plot is not None:
        _draw_chart(figure.add_axes((0.5, 0.2, 0.46, 0.66)), table.plot)
        figure.text(
            0.5, 0.04, f"Suite {table.group.suite}. Area of a mark: held-out tasks solved.", size=11, color=MUTED
        )
    return figure


def _draw_chart(axes: Axes, chart: Chart) -> None:
    for series in chart.series:
        corners = shape_outline(series.style.shape)
        # The points of an outline go up in matplotlib, and down in the page; a marker has its size at its largest extent.
        marker = Outline([(x, -y) for x, y in [*corners, corners[0]]])
        extent = POINTS_PER_PIXEL * max(abs(part) for corner in corners for part in corner)
        colour = COLOURS[series.style.colour]
        for mark in series.marks:
            x, y = mark.point.x, mark.point.y
            assert y is not None, "both figures are there"
            interval, x_interval = mark.point.y_interval, mark.point.x_interval
            if interval is not None:
                axes.plot([x, x], [interval.low, interval.high], color=colour, lw=1.6)
            if x_interval is not None:
                axes.plot([x_interval.low, x_interval.high], [y, y], color=colour, lw=1.6)
            axes.plot(x, y, ls="", marker=marker, ms=extent * mark.point.radius, mfc=colour, mec=BACKGROUND, mew=0.8)
        axes.plot([], [], ls="", marker=marker, ms=extent * RADIUS, mfc=colour, mec=BACKGROUND, label=series.name)
    axes.set_xlabel(chart.x_label, size=12, color=TEXT)
    axes.set_ylabel(chart.y_label, size=12, color=TEXT)
    axes.tick_params(labelsize=11, colors=MUTED)
    axes.grid(color=LINE, lw=0.8)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_color(LINE)
    columns = min(max(len(chart.series), 1), 6)
    axes.legend(loc="lower center", bbox_to_anchor=(0.45, 1.01), ncols=columns, frameon=False, fontsize=11, handletextpad=0.2, columnspacing=0.9)  # fmt: skip
