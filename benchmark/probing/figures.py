"""The figures of a record: skill and delta by feature, delta by layer and offset, skill by label budget.

Each figure is written as PNG and as SVG, with the same bytes for the same input. The title explains the figure, so that
it can be printed alone; no information is in colour only. The quantities are defined in docs/probing.md.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from benchmark.probing.figure_data import FIGURE_DEPTH, LAYER_MAPS, format_range, select_budget_curve, select_layer_map
from benchmark.probing.grid import Grid, Slice
from benchmark.probing.protocol import STANDARD
from benchmark.probing.verdict import ProbeResult
from benchmark.statistics import Estimate
from karel_env.features import PRIMARY

FOLDER = "figures"
DPI, SCREEN_DPI, WIDTH = 200, 110, 7.0
"""Pixels per inch of a PNG file and of one in a notebook, and the width of every figure in inches."""
BLUE, ORANGE, BAND, GREY = "#0072b2", "#d55e00", "#dddddd", "#595959"
"""Blue and orange are from the colour-blind safe palette of Okabe & Ito (2008)."""
_STYLE = {
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "figure.titlesize": 8.5,
    "legend.frameon": False,
    "legend.handlelength": 4,
    "legend.columnspacing": 1.2,
    "axes.unicode_minus": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "karel-semantics-benchmark",
    "text.parse_math": False,
}


def write_figures(folder: Path, name: str, result: ProbeResult, grid: Grid | None) -> list[str]:
    """Write each figure as PNG and SVG to `folder / "figures"`; return sorted posix paths relative to `folder`.

    Args:
        folder: folder of the record.
        name: name of the model, for the titles.
        result: data of the figure `features`.
        grid: data of the figures `layers-SET-POSITION` (`LAYER_MAPS`) and `budgets`; a figure without slices is not
            written. None after a run of the standard grid.
    """
    plots: dict[str, Callable[[], Figure]] = {"features": partial(plot_features, name, result)}
    if grid is not None:
        for probe_set, position in LAYER_MAPS:
            if cells := select_layer_map(grid.slices, probe_set, position):
                best = grid.best_layer if (probe_set, position) == LAYER_MAPS[0] else ""
                where = f"{probe_set} probe set at {position}"
                plots[f"layers-{probe_set}-{position}"] = partial(_plot_layer_map, name, where, cells, best)
        if points := select_budget_curve(grid.slices):
            plots["budgets"] = partial(_plot_budget_curve, name, points)
    return [path.relative_to(folder).as_posix() for path in save_figures(plots, folder / FOLDER)]


def save_figures(plots: Mapping[str, Callable[[], Figure]], folder: Path) -> list[Path]:
    """Draw each figure in the common style, write it to `folder` as STEM.png and STEM.svg, and return the sorted paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with style.context(["default", _STYLE]):
        for stem, draw in plots.items():
            figure = draw()
            for kind in ("png", "svg"):
                path = folder / f"{stem}.{kind}"
                figure.savefig(path, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
                figure.set_layout_engine("none")  # the layout of the first file holds for both
                paths.append(path)
    return sorted(paths)


def draw_png(draw: Callable[[], Figure]) -> bytes:
    """Draw a figure in the common style; returns the bytes of a PNG file."""
    buffer = BytesIO()
    with style.context(["default", _STYLE]):
        draw().savefig(buffer, format="png", dpi=SCREEN_DPI)
    return buffer.getvalue()


def plot_estimates(title: str, estimates: Mapping[str, Estimate], label: str, limits: tuple[float, float]) -> Figure:
    """One row per estimate: its value and its interval."""
    figure = titled_figure(0.9 + 0.3 * len(estimates), title)
    axes = figure.subplots()
    for row, estimate in enumerate(estimates.values()):
        _plot_interval(axes, row, estimate, "o")
    axes.set_yticks(range(len(estimates)), list(estimates))
    axes.set_ylim(len(estimates) - 0.5, -0.5)
    axes.set_xlim(*limits)
    axes.set_xlabel(label)
    return figure


def titled_figure(height: float, *title: str) -> Figure:
    """An empty figure of `height` inches; each text of `title` is a paragraph of the title."""
    lines = [line for text in title for line in textwrap.wrap(text, 98)]
    figure = Figure((WIDTH, height + 0.16 * len(lines)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("\n".join(lines), x=0.01, ha="left")
    return figure


def plot_features(name: str, probe_result: ProbeResult) -> Figure:
    """Skill (left) and delta (right), one row per feature."""
    features = probe_result.features
    num_alternatives = format_range(len(result.alternatives) for result in features.values())
    figure = titled_figure(
        1.1 + 0.3 * len(features),
        f"{name}: probing hidden states for the robot's state (verdict {probe_result.verdict}, on {PRIMARY})",
        f"Blind probe set at read, offset 0; n = {probe_result.test_programs:,} programs, {probe_result.test_states:,} states. "
        f"Skill: 0 is the label prior, 1 is perfect. Delta: gap of the model (skill under the original minus "
        f"mean skill under {num_alternatives} alternatives) minus the larger gap of random-init and token history.",
    )
    left, right = figure.subplots(1, 2, sharey=True)
    bar_style: dict[str, Any] = {"color": BLUE}
    degenerate_style: dict[str, Any] = {"facecolor": "white", "edgecolor": GREY, "hatch": "//////"}
    alternatives_style: dict[str, Any] = {"marker": "D", "ms": 4.5, "mfc": "white", "mec": ORANGE, "mew": 1.4, "ls": ""}
    for row, result in enumerate(features.values()):
        left.barh(row - 0.14, result.skill.value, 0.42, **(degenerate_style if result.degenerate else bar_style))
        _plot_interval(left, row - 0.14, result.skill, "none")
        left.plot(result.skill_alternatives, row + 0.26, **alternatives_style)
        _plot_interval(right, row, result.delta, "o", "white" if result.degenerate else BLUE)
    right.axvspan(-STANDARD.margin, STANDARD.margin, color=BAND, lw=0, zorder=0)
    right.set_xlabel(f"delta, skill (band: ±{STANDARD.margin:g})")
    left.set_xlabel("skill (0: label prior, 1: perfect)")
    names = [f"{feature} (degenerate)" if result.degenerate else feature for feature, result in features.items()]
    left.set_yticks(range(len(features)), names)
    left.set_ylim(len(features) - 0.5, -0.5)
    twin = right.twinx()
    twin.set_ylim(left.get_ylim())
    deltas = [result.delta for result in features.values()]
    twin.set_yticks(
        range(len(features)),
        [f"{delta.value:+.3f} [{delta.low:+.3f}, {delta.high:+.3f}]" for delta in deltas],
    )
    for axes in (left, right):
        axes.axvline(0, color="black", lw=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    for axes in (left, right, twin):
        axes.tick_params(axis="y", length=0)
    legend: dict[str, Artist] = {
        "original": Rectangle((0, 0), 1, 1, **bar_style),
        "alternatives, mean": Line2D([], [], **alternatives_style),
        "95% interval": Line2D([], [], color="black", lw=1.2),
    }
    if any(result.degenerate for result in features.values()):
        legend["original, degenerate feature"] = Rectangle((0, 0), 1, 1, **degenerate_style)
    figure.legend(list(legend.values()), list(legend), loc="outside lower left", ncols=len(legend))
    return figure


def _plot_interval(axes: Axes, row: float, estimate: Estimate, marker: str, face: str = BLUE) -> None:
    """A horizontal interval, with a marker at its value."""
    ends = [[estimate.value - estimate.low], [estimate.high - estimate.value]]
    axes.errorbar(
        estimate.value, row, xerr=ends, fmt=marker, ms=5, mfc=face, mec=BLUE, ecolor="black", capsize=2.5, lw=1.2
    )


def _plot_layer_map(name: str, location: str, cells: dict[tuple[str, int], Slice], best: str) -> Figure:
    """Delta of the primary feature, one row per layer with `mean` last, one column per offset."""
    views = sorted({view for view, _ in cells}, key=lambda view: (view == "mean", len(view), view))
    offsets = sorted({offset for _, offset in cells})
    deltas = {key: cell.features[PRIMARY].delta for key, cell in cells.items()}
    significant = {key: delta.value for key, delta in deltas.items() if not delta.low <= 0 <= delta.high}
    figure = titled_figure(
        1.0 + 0.19 * len(views),
        f"{name}: delta of {PRIMARY} by layer and offset, {location}, {FIGURE_DEPTH} probes",
        f"Skill, ± half of the 95% interval; n = {format_range(cell.programs for cell in cells.values())} programs, "
        f"{format_range(cell.states for cell in cells.values())} states; "
        f"{format_range(cell.alternatives for cell in cells.values())} alternatives. Grey italics: the interval contains 0. "
        + ("Blank: not measured. " if len(cells) < len(views) * len(offsets) else "")
        + ("*: largest gap at offset 0 on validation." if best in views else ""),
    )
    axes = figure.subplots()
    limit = max(STANDARD.margin, *map(abs, significant.values()), 0)
    colours = ScalarMappable(Normalize(-limit, limit), "RdBu")
    for (view, offset), delta in deltas.items():
        value = significant.get((view, offset))
        x, y = offsets.index(offset), views.index(view)
        face = "#f2f2f2" if value is None else colours.cmap((value / limit + 1) / 2)
        text_colour = GREY if value is None else "white" if abs(value) > 0.68 * limit else "black"
        axes.add_patch(Rectangle((x, y), 1, 1, fc=face, ec="white", lw=0.8))
        label = f"{delta.value:+.3f} ±{(delta.high - delta.low) / 2:.3f}"
        slant = "italic" if value is None else "normal"
        axes.text(x + 0.5, y + 0.48, label, color=text_colour, style=slant, ha="center", va="center_baseline")
    if "mean" in views and len(views) > 1:
        axes.axhline(len(views) - 1, color="black", lw=1)
    axes.set(xlim=(0, len(offsets)), ylim=(len(views), 0), xlabel="offset in program states (0: after the token)")
    axes.set_xticks([i + 0.5 for i in range(len(offsets))], [f"{offset:+d}" if offset else "0" for offset in offsets])
    axes.set_yticks([i + 0.5 for i in range(len(views))], [f"{view} *" if view == best else view for view in views])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(colours, ax=axes, pad=0.02, aspect=max(8, len(views)), fraction=0.05, label="delta, skill")
    return figure


def _plot_budget_curve(name: str, points: list[Slice]) -> Figure:
    """Skill of the model and the token-history baseline (top) and delta (bottom) by label budget."""
    figure = titled_figure(
        4.4,
        f"{name}: skill and delta of {PRIMARY} by label budget",
        f"Read, mean or last layer, offset 0, {FIGURE_DEPTH} probes; average of "
        f"{format_range(point.alternatives for point in points)} alternatives. n: test programs.",
    )
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    budgets = [point.budget for point in points]
    results = [point.features[PRIMARY] for point in points]
    missing = (float("nan"), float("nan"))
    token_history = [result.controls.get("recorder", missing) for result in results]
    curves = (
        ("model, original", BLUE, "o-", BLUE, [result.skill for result in results]),
        ("model, alternatives", ORANGE, "D--", ORANGE, [result.alternatives for result in results]),
        ("token history, original", BLUE, "s-.", "white", [original for original, _ in token_history]),
        ("token history, alternatives", ORANGE, "^:", "white", [alternatives for _, alternatives in token_history]),
    )
    for label, colour, line, face, values in curves:
        upper.plot(budgets, values, line, color=colour, mfc=face, ms=5, lw=1.4, label=label)
    deltas = [result.delta for result in results]
    ends = [[delta.value - delta.low for delta in deltas], [delta.high - delta.value for delta in deltas]]
    lower.errorbar(budgets, [delta.value for delta in deltas], yerr=ends, fmt="o-", color=BLUE, ms=5, capsize=3, lw=1.4)
    lower.axhspan(-STANDARD.margin, STANDARD.margin, color=BAND, lw=0, zorder=0)
    lower.axhline(0, color="black", lw=0.8)
    ticks = {budget: f"{budget:,}" for budget in budgets}
    for point in points:
        ticks[point.budget] += f"\n{point.probe_set}, n = {point.programs:,}"
    lower.set_xscale("log")
    lower.set_xticks(list(ticks), list(ticks.values()))
    lower.set_xticks([], minor=True)
    lower.set_xlim(min(budgets) / 1.5, max(budgets) * 1.5)
    lower.set_xlabel("label budget: training programs per probe (log scale)")
    lower.set_ylabel(f"delta, skill\n(95% interval; band: ±{STANDARD.margin:g})")
    upper.set_ylabel("skill (0: label prior, 1: perfect)")
    figure.legend(*upper.get_legend_handles_labels(), loc="outside lower left", ncols=4)
    return figure
