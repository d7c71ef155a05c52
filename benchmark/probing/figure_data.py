"""Select the slices of a record's grid that its figures plot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmark.probing.grid import Slice
from karel_env.features import PRIMARY

FIGURE_DEPTH = "mlp1"
"""Probe depth of all figures."""
LAYER_MAPS = (("blind", "read"), ("generated", "emit"))
"""Probe set and position of each layer map."""
BUDGET_SETS = ("blind", "wide")


def format_range(counts: Iterable[int]) -> str:
    """Format the range of numbers as `5` or `3 to 5`; `0` if there are none."""
    low, *_, high = sorted([*counts] * 2) or [0, 0]
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def select_layer_map(slices: Sequence[Slice], probe_set: str, position: str) -> dict[tuple[str, int], Slice]:
    """Select the slices of a layer map, by (view, offset)."""
    cells = [
        cell for cell in slices if (cell.probe_set, cell.position, cell.depth) == (probe_set, position, FIGURE_DEPTH)
    ]
    cells = [cell for cell in cells if cell.view == "mean" or cell.view.startswith("layer ")]
    return {(cell.view, cell.offset): cell for cell in cells if PRIMARY in cell.features}


def select_budget_curve(slices: Sequence[Slice]) -> list[Slice]:
    """Select the slices of the budget curve in order of budget; among duplicates, the one with the fewest alternatives."""
    coordinates = ("read", "pools", 0, FIGURE_DEPTH)
    points = [point for point in slices if (point.position, point.view, point.offset, point.depth) == coordinates]
    points = [
        point for point in points if point.probe_set in BUDGET_SETS and point.budget > 0 and PRIMARY in point.features
    ]
    points.sort(key=lambda point: (point.budget, point.probe_set, point.alternatives))
    return list({(point.budget, point.probe_set): point for point in reversed(points)}.values())[::-1]
