"""Checkpoints of a series to points, table and figure; what is there is not computed again, and any stop gives the same bytes."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from curve_points import summary
from quick_protocol import QUICK, make_runs_quick
from whole_runs import HELPERS

import baselines.train
import benchmark.emergence.command
import benchmark.emergence.evaluation
from benchmark.causal import pieces
from benchmark.causal.pairs import STANDARD_PAIRS, derive_pairs
from benchmark.emergence.checkpoint_run import CheckpointRun, add_spread
from benchmark.emergence.point import DELTA, MERGES, CurvePoint, dump_point, read_points
from benchmark.errors import UsageError
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.probing.version4 import suite_controls
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.runner.measurements import reach, registry
from benchmark.runner.measurements.preview import PreviewMeasurement
from benchmark.runner.measurements.reach import ReachMeasurement, pack_texts
from benchmark.runner.measurements.uses import UsesMeasurement
from benchmark.runner.run import Run, RunConfig
from benchmark.runner.stages import RunStages
from benchmark.statistics import Estimate
from benchmark.tasks.suite import load_suite

PAIR_SUITE = str(HELPERS / "pair_suite.yaml")
"""As the small suite, with programs long enough that there are strict pairs."""
ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "emergence" / "protocol3"
RECIPE = """
suite: smoke
architecture:
  class: GPT2LMHeadModel
  config: {n_embd: 16, n_layer: 1, n_head: 2, n_positions: 128, resid_pdrop: 0.0, embd_pdrop: 0.0, attn_pdrop: 0.0}
optimizer:
  {batch: 16, tasks: 128, muon_lr: 0.02, adam_lr: 0.01, weight_decay: 0.01, warmup: 0.1, decay: 0.5, clip: 1.0}
checkpoints: 1
seed: 3
"""
FEW_SEEDS = replace(
    ROTATION_STANDARD, folds=5, seeds=(0, 1, 2, 3, 4), random_inits=2, steps=4, checks=1, hidden=4, batch=64, units=12,
    resamples=50, prompts=30,
)  # fmt: skip
ALL_MEASUREMENTS = Run.measurements
RESULTS = ("points.csv", "summary.json", "one.json")


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """The checkpoints of step 0 and 8 of a training."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "recipe.yaml").write_text(RECIPE)
    words = [str(folder / "recipe.yaml"), "--out", str(folder / "one"), "--threads", "1"]
    assert baselines.train.main(words) == 0
    return folder / "one"


@pytest.fixture(scope="module")
def small_settings(tmp_path_factory):
    """Settings that take a moment, and a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        make_runs_quick(patch.setattr)
        patch.setattr(Run, "measurements", ALL_MEASUREMENTS)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(suite_controls, "SCREEN_SAMPLE", 1000)
        patch.setitem(registry.MEASUREMENTS, "preview", PreviewMeasurement(FEW_SEEDS))
        patch.setitem(registry.MEASUREMENTS, "reach", ReachMeasurement(QUICK))
        patch.setattr("benchmark.probing.figures.DPI", 30)
        yield


def emergence(*words) -> str:
    """What the command prints; it must succeed."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        arguments = [*map(str, words), "--suite", PAIR_SUITE, "--processes", "0"]
        assert benchmark.emergence.command.main(arguments) == 0
    return printed.getvalue()


@pytest.fixture(scope="module")
def measured(training, small_settings, tmp_path_factory):
    """What the command writes of the training and of a copy of it."""
    folder = tmp_path_factory.mktemp("emergence")
    again = folder / "two"
    shutil.copytree(training, again)
    return folder / "out", emergence(training, again, "--out", folder / "out")


def read_table(folder: Path) -> list[dict[str, str]]:
    with (folder / "points.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_table_and_the_figure_hold_every_checkpoint(measured):
    out, printed = measured
    lines = read_table(out)
    assert [(line["run"], line["step"], line["tasks"]) for line in lines] == [
        ("one", "0", "0"), ("one", "8", "128"), ("two", "0", "0"), ("two", "8", "128"),
    ]  # fmt: skip
    for line in lines:
        assert float(line["rotation_delta_low"]) <= float(line["rotation_delta"]) <= float(line["rotation_delta_high"])
        assert (line["probe_seeds"], line["represents"] != "", line["uses"] != "") == ("3", True, True)
        assert 0 <= float(line["agreement"]) <= 1
        assert int(line["distinct_programs"]) <= 20
        assert {"solved_from_prefix", "arithmetic"} <= set(line)
        assert "perplexity" not in line
    assert (out / "emergence.svg").read_text().count("use of the rotation") <= 1
    assert json.loads((out / "summary.json").read_text())["axis"] == "training tasks"
    assert "points.csv" in printed
    # The two series hold the same weights, so their runs are the same.
    assert len(list((out / "checkpoints").iterdir())) == 2


def test_a_point_keeps_the_resamples_that_its_intervals_are_of(measured):
    for point in read_points(measured[0] / "one.json"):
        values = np.array(point.resampled[DELTA])
        delta = point.rotation.delta
        assert values.std(ddof=1) == pytest.approx((delta.high - delta.low) / 3.92, rel=0.3)
        if point.merges.merges:
            merges = point.merges.merges
            low, high = np.quantile(point.resampled[MERGES], [0.025, 0.975])
            assert low == pytest.approx(merges.low, abs=0.1)
            assert high == pytest.approx(merges.high, abs=0.1)


def test_what_is_there_is_not_computed_again(training, measured, small_settings, tmp_path, monkeypatch):
    shutil.copytree(measured[0], tmp_path / "out")
    monkeypatch.setattr(RunStages, "evaluate", None)
    monkeypatch.setattr(benchmark.emergence.evaluation, "write_figure", lambda *_: [])
    emergence(training, "--out", tmp_path / "out")
    assert (tmp_path / "out" / "one.json").read_bytes() == (measured[0] / "one.json").read_bytes()
    # The points stand for the series, whose checkpoints may be deleted.
    emergence(tmp_path / "out" / "one.json", "--out", tmp_path / "redrawn")
    for name in RESULTS[:2]:
        assert (tmp_path / "redrawn" / name).read_bytes() == (tmp_path / "out" / name).read_bytes(), name


def test_a_stopped_command_continues_to_the_same_bytes(training, measured, small_settings, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark.emergence.evaluation, "write_figure", lambda *_: [])
    items: list[str] = []
    commit = RunStages._on_commit

    def stop_at(number: int):
        def on_commit(stages, result):
            commit(stages, result)
            items.append(result.name)
            if len(items) == number:
                raise KeyboardInterrupt

        return on_commit

    words = [str(training), "--suite", PAIR_SUITE, "--processes", "0", "--out", str(tmp_path)]
    for number in (12, 30):
        monkeypatch.setattr(RunStages, "_on_commit", stop_at(number))
        with pytest.raises(KeyboardInterrupt):
            benchmark.emergence.evaluation.evaluate_runs(options_of(words))
    monkeypatch.setattr(RunStages, "_on_commit", commit)
    emergence(training, "--out", tmp_path)
    # Nothing was computed twice, and each number is that of the undisturbed command.
    assert len(set(items)) <= len(items) <= 2 * len(set(items))
    assert (tmp_path / "one.json").read_bytes() == (measured[0] / "one.json").read_bytes()


def options_of(words):
    from benchmark.cli.declare import parse_options

    return parse_options(benchmark.emergence.command.EmergenceOptions, words, "emergence")


def test_a_selection_is_measured_and_more_is_added_later(training, small_settings, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark.emergence.evaluation, "write_figure", lambda *_: [])
    spec = f"path:{training}/checkpoints/step-{{0000000,0000008}}"
    emergence(spec, "--out", tmp_path, "--measure", "accuracy")
    (first, last) = read_points(tmp_path / "one.json")
    assert (first.rotation, first.use, first.resampled, last.step) == (None, None, {}, 8)
    answered = []
    monkeypatch.setattr(reach, "pack_texts", lambda texts: answered.append(len(texts)) or pack_texts(texts))
    emergence(spec, "--out", tmp_path, "--measure", "reach")
    assert answered == [load_suite(PAIR_SUITE).probe_programs] * 2
    assert {line["step"] for line in read_table(tmp_path)} == {"0", "8"}
    (point, _) = read_points(tmp_path / "one.json")
    assert point.accuracy == first.accuracy
    # Eight steps teach no program.
    assert (point.content, point.reach) == (None, None)


def test_fewer_test_tasks_change_the_accuracy_only(training, measured, small_settings, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark.emergence.evaluation, "write_figure", lambda *_: [])
    emergence(training, "--out", tmp_path, "--test-tasks", 7)
    all_tasks, some_tasks = (read_points(folder / "one.json") for folder in (measured[0], tmp_path))
    for everything, part in zip(all_tasks, some_tasks, strict=True):
        assert (everything.accuracy.shown.n, part.accuracy.shown.n) == (30, 7)
        assert (part.rotation, part.use, part.merges) == (everything.rotation, everything.use, everything.merges)
    records = [json.loads(path.read_text()) for path in tmp_path.glob("checkpoints/*/record.json")]
    assert [record["official"] for record in records] == [False, False]
    assert all("--test-tasks 7" in record["unofficial"] for record in records)


def test_a_checkpoint_that_cannot_be_measured_leaves_the_others(training, small_settings, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark.emergence.evaluation, "write_figure", lambda *_: [])
    damaged = tmp_path / "bad"
    shutil.copytree(training, damaged)
    weights = damaged / "checkpoints" / "step-0000000" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-200] + b"\xff" * 200)
    words = [
        str(damaged),
        "--suite",
        PAIR_SUITE,
        "--processes",
        "0",
        "--measure",
        "accuracy",
        "--out",
        str(tmp_path / "out"),
    ]
    assert benchmark.emergence.command.main(words) == 3
    assert [line["step"] for line in read_table(tmp_path / "out")] == ["8"]


def test_the_records_of_earlier_trainings_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark.emergence.evaluation, "write_figure", lambda *_: [])
    emergence(*sorted(DOCS.glob("gpt-laptop-?.json")), "--out", tmp_path)
    before, after = (json.loads((folder / "summary.json").read_text()) for folder in (DOCS, tmp_path))
    for name, phases in before["phases"].items():
        assert after["phases"][name]["shares"] == pytest.approx(phases["shares"], abs=1e-6)
        assert after["relations"][name]["sc_linear"]["r2"] == pytest.approx(
            before["relations"][name]["sc_linear"]["r2"]
        )
    line = read_table(tmp_path)[-1]
    assert float(line["delta"]) == pytest.approx(after["last checkpoint, over runs"]["delta of facing"]["low"], abs=0.1)
    assert "use" not in line


def test_noise_makes_the_spread_of_resamples_that_of_the_interval():
    values = np.random.default_rng(1).normal(0.2, 0.01, 4000)
    spread = add_spread(values, Estimate(0.2, 0.2 - 1.96 * 0.03, 0.2 + 1.96 * 0.03, 100), "12" * 32)
    assert spread.std() == pytest.approx(0.03, rel=0.05)
    assert spread.mean() == pytest.approx(0.2, abs=0.002)
    assert np.array_equal(add_spread(values, Estimate(0.2, 0.199, 0.201, 100), "12" * 32), values)


def test_a_file_that_holds_no_points_is_refused(tmp_path):
    (tmp_path / "points.json").write_text("[1]")
    with pytest.raises(UsageError, match="expected a file of points"):
        read_points(tmp_path / "points.json")
    (tmp_path / "points.json").write_text("[]")
    with pytest.raises(UsageError, match="no points in it"):
        read_points(tmp_path / "points.json")


def test_a_point_without_tasks_is_read_as_it_was_written(tmp_path):
    point = CurvePoint(3, None, None, summary(), 0.2, is_ordinal=True)
    (tmp_path / "points.json").write_bytes(b"[" + dump_point(point) + b"]")
    assert read_points(tmp_path / "points.json") == [point]


@pytest.mark.slow
def test_the_script_of_the_experiment_keeps_the_points_and_deletes_the_weights(tmp_path):
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    settings = {
        "RUNS": str(tmp_path / "runs"), "POINTS": str(tmp_path / "points"), "TRAIN": "", "XDG_CACHE_HOME": str(tmp_path),
        "MEASURE": f"--suite {PAIR_SUITE} --measure accuracy --processes 0", "KEEP": str(tmp_path / "hub"),
    }  # fmt: skip
    command = [str(ROOT / "examples" / "series.sh"), str(tmp_path / "tiny.yaml"), "2"]
    for expected in ("wrote", "measured already"):
        result = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env=os.environ | settings, check=False
        )
        assert (result.returncode, expected in result.stdout) == (0, True), result.stderr
    # Steps that 19 even steps of the logarithm round to.
    assert [point.step for point in read_points(tmp_path / "points" / "tiny-2.json")] == [0, 1, 2, 3, 4, 5, 6, 8]
    assert not (tmp_path / "runs" / "tiny-2" / "checkpoints").exists()
    assert {path.parent.name for path in (tmp_path / "hub" / "tiny-2").glob("*/model.safetensors")} == {
        f"step-{step}" for step in (0, 1, 2, 3, 4, 5, 6, 8)
    }
    assert (tmp_path / "runs" / "tiny-2" / "model.safetensors").is_file()


def test_factories_of_a_module_are_measured_as_a_series(small_settings, tmp_path, monkeypatch):
    source = "from benchmark.models.interface import Generation\n\n\nclass Words:\n    def __init__(self, text):\n        self.text = text\n\n"
    source += "    def generate(self, prompts, max_new_words, decoding=None):\n"
    source += "        return [Generation(self.text, 2, True) for _ in prompts]\n\n\n"
    source += 'def early(random_seed=None):\n    return Words("move();")\n\n\ndef late(random_seed=None):\n    return Words("move(); }")\n'
    (tmp_path / "written_series.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    printed = emergence("py:written_series:{early,late}", "--allow-code", "--out", tmp_path / "out")
    first, last = read_points(tmp_path / "out" / "written_series.json")
    assert (first.step, first.is_ordinal, last.step) == (0, True, 1)
    assert (first.accuracy.valid.value, last.accuracy.valid.value, last.num_distinct) == (0, 1, 1)
    assert (last.rotation, last.use.verdict, last.merges) == (None, "N/A", None)
    assert "checkpoint" in (tmp_path / "out" / "emergence.svg").read_text()
    assert "half of the final value" not in printed


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["gpt-laptop-1"], "gpt-laptop-1"),
        (["gpt-laptop-1", "gpt-laptop-2"], "gpt-laptop"),
        (["gpt-laptop-1", "gpt-laptop-12"], "gpt-laptop"),
        (["gpt-laptop-1", "lstm-laptop-1", "neox-laptop-1"], "gpt-laptop-1 and 2 more"),
        (["gpt-laptop-1", "gpt-large-1"], "gpt-laptop-1 and 1 more"),
        (["1", "2"], "1 and 1 more"),
    ],
)
def test_the_figure_names_what_its_series_have_in_common(names, expected):
    assert benchmark.emergence.evaluation.common_name(names) == expected


def test_every_checkpoint_is_edited_and_evidence_without_edits_gives_no_figures(tiny_folder, tmp_path):
    """A run of a model that solves too few tasks has none; a point may be of such a run."""
    run = CheckpointRun(RunConfig("laptop", out=tmp_path), open_checkpoint(ModelSpec("path", str(tiny_folder))))
    (measurement,) = [item for item in run.measurements() if isinstance(item, UsesMeasurement)]
    assert measurement.edits_every_model
    assert measurement.settings(run.job) != UsesMeasurement().settings(run.job)
    pairs = derive_pairs(run.suite, STANDARD_PAIRS)
    arrays = pieces.empty_evidence(len(pairs), 2) | {"is_solved": np.ones(len(pairs), np.uint8)}
    arrays |= {"unedited": pairs.base_word.astype(np.int8), "merge_scores": np.zeros((0, 6), np.float32)}
    record = SimpleNamespace(merges=None, use=SimpleNamespace(verdict="N/A", solved=None))
    figures, resampled = run._use(STANDARD_PAIRS, record, arrays)
    assert (figures.solved, figures.steered, figures.margin, figures.use, resampled) == (1.0, None, None, None, {})
