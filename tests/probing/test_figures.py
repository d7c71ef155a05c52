"""The figures of a record: files, text, and determinism."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from benchmark.probing.control_gap import FeatureResult
from benchmark.probing.figures import write_figures
from benchmark.probing.grid import Grid, Slice, SliceResult
from benchmark.probing.verdict import ProbeResult
from benchmark.statistics import Estimate
from karel_env.features import FEATURES, PRIMARY

NAME = "a & <b>, $5 to $6"
FEATURES_ONLY = ["figures/features.png", "figures/features.svg"]
OFFSETS = (-2, -1, 0, 1, 2)


@pytest.fixture
def coarse(monkeypatch):
    """Few pixels, for what is read in the text of a figure."""
    monkeypatch.setattr("benchmark.probing.figures.DPI", 30)


def estimate(value: float, half: float = 0.012) -> Estimate:
    return Estimate(value, value - half, value + half, 1000)


def make_probe_result() -> ProbeResult:
    features = {}
    for i, name in enumerate(FEATURES):
        gap = 0.09 * 0.7**i - 0.01
        features[name] = FeatureResult(
            estimate(0.35 - 0.025 * i, 0.015), 0.35 - 0.025 * i - gap, estimate(gap), {}, estimate(gap - 0.005),
            estimate(gap - 0.005, 0.01), 0.05, 0.01, 0.02, tuple(map(str, range(18 + i))), name == "wall_east", "mean", {},
        )  # fmt: skip
    return ProbeResult("REPRESENTS", features, {}, ("original",), 5000, 12, 1000, 6000)


def make_slice(delta: float = 0.05, half: float = 0.012, **site: object) -> Slice:
    controls = {"random-init": (0.1, 0.11), "recorder": (0.2, 0.21)}
    reading = SliceResult(0.3 + delta, 0.3, controls, estimate(delta + 0.01, half), estimate(delta, half), 0.01)
    return replace(
        Slice("blind", "read", "pools", 0, "mlp1", 5000, 6, 1000, 6000, {PRIMARY: reading}),
        **site,  # type: ignore[arg-type]
    )


def make_grid(layers: int) -> Grid:
    slices = []
    for probe_set, position in (("blind", "read"), ("generated", "emit")):
        for i, offset in product(range(layers + 1), OFFSETS):
            view = f"layer {i}" if i < layers else "mean"
            depth = min(i, layers - 1) / max(1, layers - 1)
            delta = 0.14 * np.exp(-((depth - 0.7) ** 2) * 8) * 0.6 ** abs(offset) - 0.02 * (offset > 0)
            slices.append(
                make_slice(float(delta), 0.02, view=view, offset=offset, probe_set=probe_set, position=position)
            )
    slices += [make_slice(0.9, alternatives=29), make_slice(0.051), make_slice(0.031, budget=1000)]
    slices += [make_slice(0.072, probe_set="wide", budget=25000, programs=5000), make_slice(0.5, depth="linear")]
    slices += [make_slice(0.4, position="emit"), make_slice(0.6, probe_set="crossed x")]
    return Grid("REPRESENTS", slices, f"layer {layers // 2}", {}, 0, {}, {})


def svg(folder: Path, stem: str) -> str:
    return (folder / "figures" / f"{stem}.svg").read_text()


@pytest.mark.usefixtures("coarse")
def test_without_a_grid_only_features_are_plotted(tmp_path: Path) -> None:
    assert write_figures(tmp_path, NAME, make_probe_result(), None) == FEATURES_ONLY
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*")) == FEATURES_ONLY
    text = svg(tmp_path, "features")
    assert "under 18 to 29 alternatives" in " ".join(re.sub("<[^>]*>", " ", text).split())
    for name, result in make_probe_result().features.items():
        assert f">{name}" in text
        assert f">{result.delta.value:+.3f} [{result.delta.low:+.3f}, {result.delta.high:+.3f}]<" in text
    assert ">wall_east (degenerate)<" in text
    for part in ("a &amp; &lt;b&gt;, $5 to $6", "REPRESENTS", "n = 1,000 programs", "±0.03", "6,000 states"):
        assert part in text


def test_figures_are_deterministic_png_and_svg(tmp_path: Path) -> None:
    first, second = tmp_path / "one", tmp_path / "other"
    paths = write_figures(first, NAME, make_probe_result(), make_grid(2))
    stems = ["budgets", "features", "layers-blind-read", "layers-generated-emit"]
    assert paths == sorted(f"figures/{stem}.{kind}" for stem in stems for kind in ("png", "svg"))
    assert write_figures(second, NAME, make_probe_result(), make_grid(2)) == paths
    for path in paths:
        data = (first / path).read_bytes()
        assert data == (second / path).read_bytes()
        if path.endswith("png"):
            assert data.startswith(b"\x89PNG\r\n\x1a\n")
            width, height = struct.unpack(">II", data[16:24])
            assert width == 1400
            assert 200 < height < 2000
        else:
            assert b"<text" in data
            assert b"<dc:date>" not in data


@pytest.mark.usefixtures("coarse")
def test_layer_maps_show_each_cell_and_which_contain_0(tmp_path: Path) -> None:
    cells = [
        make_slice(0.123, view="layer 9"),
        make_slice(-0.045, view="layer 10", offset=-1),
        make_slice(0.004, view="mean", offset=1, programs=900),
        make_slice(0.777, view="layer 0", depth="linear"),
        make_slice(0.888, view="last"),
        make_slice(0.999, view="layer 2", features={}),
    ]
    grid = replace(make_grid(1), slices=cells, best_layer="layer 10")
    paths = write_figures(tmp_path, NAME, make_probe_result(), grid)
    assert paths == [*FEATURES_ONLY, "figures/layers-blind-read.png", "figures/layers-blind-read.svg"]
    text = svg(tmp_path, "layers-blind-read")
    lines = [line for line in text.splitlines() if "<text" in line]
    cell = {value: next(line for line in lines if value in line) for value in ("+0.123", "-0.045", "+0.004")}
    assert [value for value, line in cell.items() if "italic" in line] == ["+0.004"]
    assert ">+0.123 ±0.012<" in text
    assert len([line for line in lines if "±0.012<" in line]) == 3
    assert text.index(">layer 9<") < text.index(">layer 10 *<") < text.index(">mean<")
    assert "n = 900 to 1,000 programs" in text
    for absent in ("0.777", "0.888", "0.999", ">layer 2<"):
        assert absent not in text


@pytest.mark.usefixtures("coarse")
def test_budget_curve_has_one_point_per_budget(tmp_path: Path) -> None:
    write_figures(tmp_path, NAME, make_probe_result(), make_grid(1))
    text = svg(tmp_path, "budgets")
    for label in (
        ">1,000<",
        ">5,000<",
        ">25,000<",
        ">wide, n = 5,000<",
        ">token history, alternatives<",
        ">model, original<",
    ):
        assert label in text
    assert text.count("blind, n = 1,000") == 2
    assert "average of 6 alternatives" in text


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize("delta", [0.05, 0.0])
def test_single_cell_and_budget_without_controls(tmp_path: Path, delta: float) -> None:
    cell = make_slice()
    without_controls = replace(cell, features={PRIMARY: replace(cell.features[PRIMARY], controls={})})
    slices = [make_slice(delta, view="layer 0"), without_controls, make_slice(budget=0)]
    paths = write_figures(tmp_path, "x" * 300, make_probe_result(), replace(make_grid(1), slices=slices))
    assert {"figures/layers-blind-read.svg", "figures/budgets.png"} < set(paths)
    text = svg(tmp_path, "budgets")
    assert ">5,000<" in text
    assert "x" * 98 in text
    assert "x" * 99 not in text
