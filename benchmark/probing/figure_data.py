"""What the figures of a record show, as slices of its grid. Draws nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmark.probing.grid import Slice
from karel_env.features import PRIMARY

LAYER_MAPS = (("blind", "read"), ("generated", "emit"))
"""Probe set and position of each layer map."""


BUDGET_SETS = ("blind", "wide")


def format_range(counts: Iterable[int]) -> str:
    """`5` or `3 to 5`, of any numbers; `0` of none."""
    low, *_, high = sorted([*counts] * 2) or [0, 0]
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def select_layer_map(slices: Sequence[Slice], probe_set: str, position: str) -> dict[tuple[str, int], Slice]:
    """The slices of a layer map by view and offset."""
    found = [one for one in slices if (one.probe_set, one.position, one.depth) == (probe_set, position, DEPTH)]
    found = [one for one in found if one.view == "mean" or one.view.startswith("layer ")]
    return {(one.view, one.offset): one for one in found if PRIMARY in one.features}


def select_budget_curve(slices: Sequence[Slice]) -> list[Slice]:
    """The slices of the budget curve, by budget; of two at one place, that with the fewest alternatives, as the others."""
    place = ("read", "pools", 0, DEPTH)
    found = [one for one in slices if (one.position, one.view, one.offset, one.depth) == place]
    found = [one for one in found if one.probe_set in BUDGET_SETS and one.budget > 0 and PRIMARY in one.features]
    found.sort(key=lambda one: (one.budget, one.probe_set, one.alternatives))
    return list({(one.budget, one.probe_set): one for one in reversed(found)}.values())[::-1]


DEPTH = "mlp1"
