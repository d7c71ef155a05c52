"""Whole runs of both grids: what they share is the same, and the full one writes all of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from quick_protocol import QUICK, SMALL_SUITE, fsync
from whole_runs import call, only, same

from benchmark.checkpoint import open_checkpoint
from benchmark.driver import Request, Run
from benchmark.evaluation import BLIND, RANDOM, plan
from benchmark.folder import RunFolder
from benchmark.measurement import measure_meaning
from benchmark.models import ModelSpec
from benchmark.protocol import POOLS
from benchmark.record import read_record


def run_of(grid, tiny_folder, out):
    """The folder of a whole run of a grid, in few shards: a grid has ten times the stages of another run."""
    suite = out / "few_shards.yaml"
    suite.write_text(Path(SMALL_SUITE).read_text().replace("shard: 4\n", "shard: 40\n"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmark.driver.STANDARD", QUICK)
        patch.setattr("os.fsync", fsync)
        patch.setattr("benchmark.preflight.product_speed", lambda dtype: 5e10)
        # What is asked of the figures is which there are.
        patch.setattr("benchmark.figures.DPI", 30)
        assert call("--model", f"path:{tiny_folder}", "--suite", suite, "--grid", grid, "--out", out / "runs") == 0
    return only(out / "runs")


@pytest.fixture(scope="module")
def full(tiny_folder, tmp_path_factory):
    """A run of the full grid."""
    return run_of("full", tiny_folder, tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def layers(tiny_folder, tmp_path_factory):
    """A run of the grid of layers."""
    return run_of("layers", tiny_folder, tmp_path_factory.mktemp("layers"))


def test_the_grid_of_layers_is_that_part_of_the_full_one(undisturbed, layers, full):
    standard, one, two = (read_record(folder / "record.json") for folder in (undisturbed, layers, full))
    assert (one.meaning, one.accuracy, one.content) == (standard.meaning, standard.accuracy, standard.content)
    assert (undisturbed / "probes.data").read_bytes() == (layers / "probes.data").read_bytes()
    shared = [
        s for s in two.grid.slices if s.view != "pools" and (s.probe_set, s.position, s.offset) == ("blind", "read", 0)
    ]
    assert one.grid.slices == shared
    assert [s.view for s in shared] == ["layer 0", "layer 1", "layer 2", "mean"]
    assert one.grid.best_layer == two.grid.best_layer
    assert (one.grid.whole, two.grid.whole) == (False, True)
    assert (one.grid.codelength, one.grid.reach, one.grid.conditional) == ({}, None, {})
    assert {path.name for path in (layers / "figures").glob("*.png")} == {"features.png", "layers-blind-read.png"}


def test_both_grids_find_the_same_verdict_and_figures(undisturbed, full):
    one, two = (read_record(folder / "record.json") for folder in (undisturbed, full))
    assert one.meaning == two.meaning
    assert one.accuracy == two.accuracy
    assert one.content == two.content
    assert one.grid is None
    assert (undisturbed / "probes.data").read_bytes() == (full / "probes.data").read_bytes()


def test_the_full_grid_holds_every_place(full):
    grid = read_record(full / "record.json").grid
    places = {(s.probe_set, s.position, s.view) for s in grid.slices}
    assert {("blind", "read", f"layer {i}") for i in range(3)} <= places
    assert ("wide", "read", "pools") in places
    assert {s.offset for s in grid.slices} == {-2, -1, 0, 1, 2}
    assert {s.depth for s in grid.slices} == {"linear", "mlp1", "mlp2"}
    assert sorted(path.name for path in (full / "figures").glob("*.png")) == sorted(
        {"budgets.png", "features.png", "layers-blind-read.png"}
        | {path.name for path in (full / "figures").glob("layers-generated-*.png")}
    )


def test_the_pools_of_the_standard_grid_are_the_mean_and_the_last_layer(quick, words, undisturbed, tmp_path):
    """Measured again from the kept states, by name."""
    assert call(*words, "--keep-states", "--out", tmp_path) == 0
    root = only(tmp_path)
    same(undisturbed, root)
    run = Run(Request(SMALL_SUITE), open_checkpoint(ModelSpec.parse(words[1])))
    folder, shards = RunFolder(root), plan(run.job)

    def pools(stage):
        return [folder.states(shards, stage, f"read.{view}") for view in POOLS]

    mean, last = pools(BLIND)
    assert not np.allclose(mean[:], last[:])
    copies = [pools(f"{RANDOM}-{i}-{BLIND}") for i in range(QUICK.random_inits)]
    found, *_ = measure_meaning(run.suite, QUICK, pools(BLIND), copies)
    assert found == read_record(root / "record.json").meaning
