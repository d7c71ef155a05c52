"""Complete runs of all grids agree where they measure the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from quick_protocol import QUICK, SMALL_SUITE, fsync
from whole_runs import call, only, same

from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.probing.protocol import POOLS
from benchmark.probing.verdict import blind_probe_set, measure
from benchmark.runner.folder import RunFolder
from benchmark.runner.plan import plan
from benchmark.runner.record import read_record
from benchmark.runner.run import Run, RunConfig
from benchmark.tasks.stage import BLIND, Stage
from benchmark.tasks.suite import blind_tasks

OFFSETS = (0, -2, 1)


def run_of(grid, tiny_folder, out):
    """The folder of a whole run of a grid, in few shards: a grid has ten times the stages of another run."""
    suite = out / "few_shards.yaml"
    suite.write_text(Path(SMALL_SUITE).read_text().replace("shard: 7\n", "shard: 42\n"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", fsync)
        patch.setattr("benchmark.runner.preflight.matmul_flops", lambda dtype: 5e10)
        patch.setattr("benchmark.runner.run.Run.measurements", lambda run: [])
        # Fewer alternatives and offsets than of a grid that is reported; what is compared has them in both runs.
        patch.setattr("benchmark.probing.full_grid.OFFSETS", OFFSETS)
        patch.setattr("benchmark.probing.full_grid.FUTURE", OFFSETS[2:])
        patch.setattr("benchmark.probing.full_grid.NUM_ALL_ALTERNATIVES", 5)
        patch.setattr("benchmark.probing.full_grid.NUM_GRID_ALTERNATIVES", 2)
        # What is asked of the figures is which there are.
        patch.setattr("benchmark.probing.figures.DPI", 30)
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


def test_layer_grid_equals_that_part_of_the_full_grid(undisturbed, layers, full):
    standard, layers_record, full_record = (
        read_record(folder / "record.json") for folder in (undisturbed, layers, full)
    )
    assert (layers_record.meaning, layers_record.accuracy, layers_record.content) == (
        standard.meaning,
        standard.accuracy,
        standard.content,
    )
    assert (undisturbed / "probes.data").read_bytes() == (layers / "probes.data").read_bytes()
    shared = [
        s
        for s in full_record.grid.slices
        if s.view != "pools" and (s.probe_set, s.position, s.offset) == ("blind", "read", 0)
    ]
    assert layers_record.grid.slices == shared
    assert [s.view for s in shared] == ["layer 0", "layer 1", "layer 2", "mean"]
    assert layers_record.grid.best_layer == full_record.grid.best_layer
    assert (layers_record.grid.is_full, full_record.grid.is_full) == (False, True)
    assert (layers_record.grid.codelength, layers_record.grid.reach, layers_record.grid.conditional) == ({}, None, {})
    assert {path.name for path in (layers / "figures").glob("*.png")} == {"features.png", "layers-blind-read.png"}


def test_standard_and_full_grid_agree(undisturbed, full):
    standard_record, full_record = (read_record(folder / "record.json") for folder in (undisturbed, full))
    assert standard_record.meaning == full_record.meaning
    assert standard_record.accuracy == full_record.accuracy
    assert standard_record.content == full_record.content
    assert standard_record.grid is None
    assert (undisturbed / "probes.data").read_bytes() == (full / "probes.data").read_bytes()


def test_the_full_grid_has_every_slice(full):
    grid = read_record(full / "record.json").grid
    sites = {(s.probe_set, s.position, s.view) for s in grid.slices}
    assert {("blind", "read", f"layer {i}") for i in range(3)} <= sites
    assert ("wide", "read", "pools") in sites
    assert {s.offset for s in grid.slices} == set(OFFSETS)
    assert {s.depth for s in grid.slices} == {"linear", "mlp1", "mlp2"}
    assert sorted(path.name for path in (full / "figures").glob("*.png")) == sorted(
        {"budgets.png", "features.png", "layers-blind-read.png"}
        | {path.name for path in (full / "figures").glob("layers-generated-*.png")}
    )


def test_the_pools_of_the_standard_grid_are_the_mean_and_the_last_layer(quick, words, undisturbed, tmp_path):
    """Measures again from stored states, by name of the view."""
    assert call(*words, "--keep-states", "--out", tmp_path) == 0
    root = only(tmp_path)
    same(undisturbed, root)
    run = Run(RunConfig(SMALL_SUITE, protocol=QUICK), open_checkpoint(ModelSpec.parse(words[1])))
    folder, shards = RunFolder(root), plan(run.job)

    def pools(stage):
        return [folder.states(shards, stage, f"read.{view}") for view in POOLS]

    mean, last = pools(Stage(BLIND))
    assert not np.allclose(mean[:], last[:])
    copies = [pools(Stage(BLIND, random_init=i)) for i in range(QUICK.random_inits)]
    tasks = blind_tasks(run.suite)
    result, *_ = measure(tasks, blind_probe_set(run.suite, QUICK, tasks), QUICK, pools(Stage(BLIND)), copies)
    assert result == read_record(root / "record.json").meaning
