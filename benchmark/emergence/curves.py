"""The points of training runs as a CSV table and as one figure like the paper's.

Source: Jin & Rinard 2024, the figures of section 4. Letters: `K` checkpoints of a run.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.emergence.phases import Phases
from benchmark.emergence.trajectory import CurvePoint
from benchmark.probing.figures import BLUE, GREY, ORANGE, save_figures, titled_figure
from benchmark.probing.full_grid import FUTURE
from benchmark.probing.semantic_content import CONTENT_DEPTHS
from benchmark.statistics import Estimate

GREEN = "#009e73"
PHASE_NAMES = ("babbling", "syntax", "semantics")
FIGURE_STEM = "emergence"
PERPLEXITY = "perplexity per token; mean program length"
Curve = Callable[[CurvePoint], float | Estimate | None]


def point_columns(point: CurvePoint) -> dict[str, float | str | None]:
    """Columns of one point: each estimate with the ends of its 95% interval; None if undefined."""
    accuracy = point.accuracy
    columns: dict[str, float | str | None] = {"step": point.step, "tasks": point.tasks, "tokens": point.tokens}
    content = point.content or {}
    estimates = {
        "shown": accuracy.shown, "held_out": accuracy.held_out, "valid": accuracy.valid,
        **{f"sc_{depth}": content.get(depth) for depth in CONTENT_DEPTHS},
        "skill": point.skill, "gap": point.gap, "delta": point.delta, "mdl_delta": point.mdl_delta,
        **{f"delta_ahead_{offset}": point.future.get(offset) for offset in FUTURE},
    }  # fmt: skip
    for name, estimate in estimates.items():
        columns[name] = estimate.value if estimate else None
        columns[f"{name}_low"] = estimate.low if estimate else None
        columns[f"{name}_high"] = estimate.high if estimate else None
    return columns | {
        "distinct": point.distinct, "perplexity": point.perplexity, "mean_words": accuracy.mean_words,
        "reference_words": point.reference_words, "verdict": point.verdict,
    }  # fmt: skip


def write_table(path: Path, runs: Mapping[str, Sequence[CurvePoint]]) -> None:
    """Write the points of all runs as CSV, one line per checkpoint."""
    lines: list[dict[str, float | str | None]] = [
        {"run": name, **point_columns(point)} for name, points in runs.items() for point in points
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in line.items()}
            for line in lines
        )


def write_figure(
    folder: Path, name: str, runs: Mapping[str, Sequence[CurvePoint]], phases: Mapping[str, Phases]
) -> list[Path]:
    """Draw `emergence.png` and `.svg`: thin lines are runs, thick lines their mean; dotted lines separate the phases."""
    return save_figures({FIGURE_STEM: partial(_draw_figure, name, runs, phases)}, folder)


def _draw_figure(name: str, runs: Mapping[str, Sequence[CurvePoint]], phases: Mapping[str, Phases]) -> Figure:
    first = next(iter(runs.values()))
    figure = titled_figure(
        7.2,
        f"{name}: training dynamics, {len(runs)} training seeds, {len(first)} checkpoints each",
        "Thin lines are seeds, thick lines their mean; dotted lines separate babbling, syntax acquisition and semantics "
        "acquisition (mean over seeds). Delta: facing, blind set; future: facing one and two program states ahead, on "
        "the model's own programs.",
    )
    axes = figure.subplots(3, 2, sharex=True)
    edges = [
        float(np.mean([getattr(run_phases, edge) for run_phases in phases.values()])) for edge in ("babbling", "syntax")
    ]
    content: dict[str, Curve] = {depth: partial(_content, depth) for depth in CONTENT_DEPTHS}
    accuracy: dict[str, Curve] = {"shown": lambda p: p.accuracy.shown, "held-out": lambda p: p.accuracy.held_out}
    shares: dict[str, Curve] = {"valid": lambda p: p.accuracy.valid, "distinct": lambda p: p.distinct}
    lengths: dict[str, Curve] = {"generated": lambda p: p.accuracy.mean_words, "reference": lambda p: p.reference_words}
    ahead: dict[str, Curve] = {f"+{k}": partial(_ahead, k) for k in FUTURE}
    deltas: dict[str, Curve] = {
        "delta (skill)": lambda p: p.delta,
        "mdl_delta (bits per label)": lambda p: p.mdl_delta,
    }
    panels: list[tuple[str, dict[str, Curve]]] = [
        ("accuracy on test tasks", accuracy),
        ("semantic content (paper)", content),
        ("valid and distinct programs / test tasks", shares),
        ("delta: control-adjusted gap of facing", deltas),
        (PERPLEXITY, {"perplexity": lambda p: p.perplexity, **lengths}),
        ("delta of future states", ahead),
    ]
    for panel, (title, curves) in zip(axes.flat, panels, strict=True):
        _draw_panel(panel, title, curves, runs)
        for edge in edges:
            panel.axvline(edge / 1e6, color=GREY, ls=":", lw=0.9)
    _label_phases(axes[0, 0], [0.0, *edges, max(points[-1].tokens for points in runs.values())])
    for panel in axes[-1]:
        panel.set_xlabel("training tokens, millions")
    return figure


def _content(depth: str, point: CurvePoint) -> Estimate | None:
    return point.content[depth] if point.content else None


def _ahead(offset: int, point: CurvePoint) -> Estimate | None:
    return point.future.get(offset)


def _draw_panel(panel: Axes, title: str, curves: Mapping[str, Curve], runs: Mapping[str, Sequence[CurvePoint]]) -> None:
    styles = ("-", "--", "-.")
    for (label, curve), colour, line in zip(curves.items(), (BLUE, ORANGE, GREEN), styles, strict=False):
        values = []
        for points in runs.values():
            raw_values = [curve(point) for point in points]
            values.append([np.nan if v is None else v.value if isinstance(v, Estimate) else v for v in raw_values])
            tokens = [point.tokens / 1e6 for point in points]
            panel.plot(tokens, values[-1], color=colour, lw=0.5, alpha=0.6, ls=line)
        count = min(map(len, values))
        mean = np.mean([row[:count] for row in values], axis=0)
        panel.plot(tokens[:count], mean, color=colour, lw=1.6, ls=line, label=label)
    if title == PERPLEXITY:
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter("{x:g}")
    panel.set_title(title, loc="left", fontsize=8)
    panel.legend(fontsize=7, loc="best")
    panel.margins(x=0.01)


def _label_phases(panel: Axes, edges: Sequence[float]) -> None:
    """Write each phase's name between its edges (in training tokens) if the phase is wide enough."""
    for name, left, right in zip(PHASE_NAMES, edges[:-1], edges[1:], strict=True):
        if right - left > 0.08 * edges[-1]:
            panel.text((left + right) / 2e6, 0.02, name, ha="center", va="bottom", fontsize=7, color=GREY,
                       transform=panel.get_xaxis_transform())  # fmt: skip
