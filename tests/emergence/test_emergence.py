"""Training checkpoints to points, table and figure; what is there is not computed again, and controls are shared."""

from __future__ import annotations

import csv
import io
import json
import shutil
from contextlib import redirect_stdout
from math import exp

import numpy as np
import pytest
import torch
from quick_protocol import QUICK, SMALL_SUITE

import baselines.train
import benchmark.emergence.command
import benchmark.emergence.evaluation
import benchmark.emergence.trajectory
from benchmark.emergence.evaluation import list_checkpoints
from benchmark.emergence.trajectory import POINT_FILE, read_point, read_points
from benchmark.errors import UsageError
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.huggingface import HuggingFaceModel
from benchmark.models.interface import ModelSpec
from benchmark.tasks.prompt_template import render_prompts
from benchmark.tasks.suite import load_suite
from benchmark.tasks.suite import test_tasks as tasks_of

RECIPE = """
suite: smoke
architecture:
  class: GPT2LMHeadModel
  config: {n_embd: 16, n_layer: 1, n_head: 2, n_positions: 128, resid_pdrop: 0.0, embd_pdrop: 0.0, attn_pdrop: 0.0}
optimizer:
  {batch: 16, tasks: 640, muon_lr: 0.02, adam_lr: 0.01, weight_decay: 0.01, warmup: 0.1, decay: 0.5, clip: 1.0}
checkpoints: 3
spacing: 1.5
seed: 3
"""


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    (folder / "recipe.yaml").write_text(RECIPE)
    words = [str(folder / "recipe.yaml"), "--out", str(folder / "one"), "--threads", "1"]
    assert baselines.train.main(words) == 0
    return folder / "one"


@pytest.fixture
def reduced(monkeypatch):
    monkeypatch.setattr("benchmark.probing.figures.DPI", 30)


def emergence(*words):
    return benchmark.emergence.command.main([str(word) for word in words], QUICK)


@pytest.fixture(scope="module")
def measured(training, tmp_path_factory):
    """What the command writes of the training and a copy of it."""
    folder = tmp_path_factory.mktemp("emergence")
    again = folder / "two"
    shutil.copytree(training, again)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmark.probing.figures.DPI", 30)
        out = io.StringIO()
        with redirect_stdout(out):
            assert emergence(training, again, "--suite", SMALL_SUITE, "--out", folder / "out") == 0
    return folder / "out", out.getvalue()


def test_checkpoints_are_kept_where_the_recipe_says(training):
    moments = list_checkpoints(training)
    assert [m.step for m in moments] == [0, 8, 22, 40]
    assert [m.tasks for m in moments] == [0, 128, 352, 640]
    assert moments[0].tokens == 0
    assert moments[-1].tokens > 640 * 30
    last = open_checkpoint(ModelSpec("path", str(training)))
    assert moments[-1].checkpoint.digest == last.digest
    assert len({m.checkpoint.digest for m in moments}) == 4


def test_the_table_and_the_figure_hold_every_checkpoint(measured):
    out, said = measured
    assert "the paper" in said
    with (out / "points.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["run"] for line in lines] == ["one"] * 4 + ["two"] * 4
    assert lines[0]["step"] == "0"
    assert float(lines[3]["perplexity"]) < float(lines[0]["perplexity"])
    assert float(lines[3]["delta_low"]) <= float(lines[3]["delta"]) <= float(lines[3]["delta_high"])
    assert (out / "emergence.svg").read_text().count("accuracy on test tasks") == 1
    summary = json.loads((out / "summary.json").read_text())
    assert sum(summary["phases"]["one"]["shares"]) == pytest.approx(1)
    # The two runs hold the same weights, so their points are one and the same, and so are their controls.
    folders = [path.name for path in (out / "points").iterdir()]
    assert len([name for name in folders if name.startswith("step-")]) == 4
    assert len([name for name in folders if name.startswith("controls-")]) == 1


def test_points_that_are_there_are_not_computed_again(training, measured, reduced, tmp_path, monkeypatch):
    shutil.copytree(measured[0] / "points", tmp_path / "points")
    stored = {path: path.stat().st_mtime_ns for path in tmp_path.glob(f"points/step-*/{POINT_FILE}")}
    words = [training, "--suite", SMALL_SUITE, "--out", tmp_path]
    with monkeypatch.context() as patch:
        # Drawn below, from the same points.
        patch.setattr(benchmark.emergence.evaluation, "write_figure", lambda *_: [])
        assert emergence(*words) == 0
    assert stored == {path: path.stat().st_mtime_ns for path in stored}
    points = {path: path.stat().st_mtime_ns for path in tmp_path.glob(f"points/step-*/{POINT_FILE}")}
    assert len(points) == 4
    first = min(points)
    shutil.rmtree(first.parent)
    before = (tmp_path / "points.csv").read_bytes()
    assert emergence(*words) == 0
    assert (tmp_path / "points.csv").read_bytes() == before
    assert all(path.stat().st_mtime_ns == time for path, time in points.items() if path != first)
    # The written points stand for the run, whose checkpoints may be gone.
    assert emergence(tmp_path / "one.json", "--suite", SMALL_SUITE, "--out", tmp_path / "redrawn") == 0
    for name in ("points.csv", "summary.json", "emergence.svg"):
        assert (tmp_path / "redrawn" / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_a_point_says_what_the_model_does(training, measured):
    """Perplexity against the loss that transformers computes on the same texts."""
    points = [read_point(path) for path in measured[0].glob(f"points/step-*/{POINT_FILE}")]
    (point,) = (one for one in points if one.step == max(other.step for other in points))
    suite = load_suite(SMALL_SUITE)
    tasks = tasks_of(suite)
    model = HuggingFaceModel(open_checkpoint(ModelSpec("path", str(training))))
    nats, tokens = 0.0, 0
    for prompt, text in zip(render_prompts(suite, tasks), tasks.programs.texts(), strict=True):
        ids = model.tokenizer(f"{prompt}{text.removeprefix('def run() {')}", return_tensors="pt")["input_ids"]
        labels = ids.clone()
        labels[:, : len(model.tokenizer(prompt)["input_ids"])] = -100
        with torch.inference_mode():
            loss = model.model(ids, labels=labels).loss
        count = int((labels != -100).sum())
        nats, tokens = nats + float(loss) * count, tokens + count
    assert point.perplexity == pytest.approx(exp(nats / tokens), rel=1e-4)
    assert point.reference_words == pytest.approx(np.mean([len(t.split()) - 3 for t in tasks.programs.texts()]))
    assert 0 <= point.distinct <= point.accuracy.valid.value


def test_a_folder_without_checkpoints_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no checkpoints/step-N"):
        list_checkpoints(tmp_path)
    (tmp_path / "checkpoints" / "step-0000001").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"training\.json.*expected step"):
        list_checkpoints(tmp_path)


def test_a_file_that_holds_no_points_is_refused(tmp_path):
    (tmp_path / "points.json").write_text("[1]")
    with pytest.raises(UsageError, match="expected a file of points"):
        read_points(tmp_path / "points.json")
