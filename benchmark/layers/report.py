"""The profile of a model's layers as a table, CSV, JSON and a figure."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from tabulate import tabulate

from benchmark.layers.layer_profile import COMPARED_PAIRS, LayerResult
from benchmark.statistics import Estimate

MODEL, UNTRAINED = "model", "randomly initialised"
LAYERS, PROFILES = "layers", "profiles"
Profiles = Mapping[str, Sequence[LayerResult]]
"""Results per layer of the model and of its randomly initialised copy, by source."""
_LAYER = TypeAdapter(LayerResult)


def format_result(source: str, result: LayerResult) -> str:
    """One line on one layer of a source."""
    return f"{source}, layer {result.layer}: skill {_interval(result.skill)}, gap {_interval(result.gaps['gap'])}"


def format_profile(profiles: Profiles) -> str:
    """One row per layer: skill and gaps of the model, and skill and gap of the copy."""
    copies = {result.layer: result for result in profiles.get(UNTRAINED, ())}
    rows = []
    for result in profiles[MODEL]:
        row = {"layer": str(result.layer), "skill": _interval(result.skill)}
        row |= {name: _interval(result.gaps[name]) for name in COMPARED_PAIRS}
        if result.layer in copies:
            copy = copies[result.layer]
            row |= {"skill, untrained": f"{copy.skill.value:.3f}", "gap, untrained": f"{copy.gaps['gap'].value:+.3f}"}
        rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def to_csv(profiles: Profiles) -> str:
    """One line per source and layer: every figure with the ends of its 95% interval."""
    text = io.StringIO()
    names = ("skill", *COMPARED_PAIRS)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["source", "layer", "rows", *(f"{name}{end}" for name in names for end in ("", " low", " high"))])
    for source, results in profiles.items():
        for result in results:
            estimates = [result.skill, *(result.gaps[name] for name in COMPARED_PAIRS)]
            bounds = [f"{part:.6f}" for e in estimates for part in (e.value, e.low, e.high)]
            writer.writerow([source, result.layer, result.num_rows, *bounds])
    return text.getvalue()


def to_json(
    model: str, layers: Sequence[int], earlier: Mapping[str, Any], source: str, results: Sequence[LayerResult]
) -> dict[str, Any]:
    """The content of a result file: what an earlier one has of the other source, and the results of this one.

    Args:
        model: spec of the model.
        layers: indices of all layers that are probed.
        earlier: content of the earlier file; empty if there is none.
        source: `MODEL` or `UNTRAINED`.
        results: the results that there are of the source.
    """
    profiles = earlier.get(PROFILES, {}) | {source: [asdict(result) for result in results]}
    return {"model": model, LAYERS: list(layers), PROFILES: profiles}


def from_json(content: Mapping[str, Any], source: str) -> dict[int, LayerResult]:
    """The results of a source in a file of `to_json`, by layer."""
    entries = content.get(PROFILES, {}).get(source, [])
    return {result.layer: result for result in map(_LAYER.validate_python, entries)}


def draw_profile(profiles: Profiles, title: str, path: Path) -> None:
    """Draw skill and gap by layer, the model with 95% intervals; writes a PNG or SVG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    for source, results in profiles.items():
        layers = [result.layer for result in results]
        style = (
            {"marker": "o", "ms": 3, "lw": 1.2} if source == MODEL else {"marker": "s", "ms": 3, "lw": 1, "ls": "--"}
        )
        for axis, estimates in (
            (left, [result.skill for result in results]),
            (right, [result.gaps["gap"] for result in results]),
        ):
            (line,) = axis.plot(layers, [e.value for e in estimates], label=source, **style)
            low, high = [e.low for e in estimates], [e.high for e in estimates]
            axis.fill_between(layers, low, high, color=line.get_color(), alpha=0.15, lw=0)
    left.set(title="skill of rotation", xlabel="layer (0: embeddings)", ylabel="1 - CE / CE of the label prior")
    right.set(title="gap to the marker alternatives", xlabel="layer (0: embeddings)")
    right.axhline(0, color="grey", lw=0.8)
    left.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=150)


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"
