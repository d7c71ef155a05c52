"""The profile of layers finds the layer that holds the rotation, and the command writes what it prints."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
from worlds import WORLDS_SUITE

from benchmark.calibrate.rotation_kinds import RotationKinds
from benchmark.layers import layer_profile
from benchmark.layers.command import main
from benchmark.layers.layer_profile import profile_layers
from benchmark.layers.report import MODEL, UNTRAINED, draw_profile, format_profile, to_csv
from benchmark.probing.version4 import track_protocol
from benchmark.probing.version4.measure_rotation import judge_suite
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.runner.measurements import represents
from benchmark.tasks.suite import load_suite

PROTOCOL = replace(
    ROTATION_STANDARD, folds=4, seeds=(0, 1, 2, 3), steps=60, hidden=24, batch=128, checks=1, resamples=100,
    prompts=200, units=200,
)  # fmt: skip

PLANTED_LAYER, NUM_LAYERS = 2, 4


@pytest.fixture(scope="module")
def planted():
    """Results by source: layers of noise, one of which is the rotation; and noise."""
    judged = judge_suite(load_suite(WORLDS_SUITE), PROTOCOL)
    kinds = RotationKinds(judged.probe_set, judged.blind.tasks.inputs[:, 0], 0).kinds()
    (noise,), (rotation,) = (kinds[name][1]() for name in ("noise", "rotation"))
    layers = {0: noise, PLANTED_LAYER: rotation, NUM_LAYERS - 1: noise}
    model = list(profile_layers(judged, layers, PROTOCOL, (0, 1)))
    return {MODEL: model, UNTRAINED: list(profile_layers(judged, {0: noise}, PROTOCOL, (0, 1)))}


def test_the_planted_layer_is_the_one_that_is_read(planted):
    first, best, last = planted[MODEL]
    assert [result.layer for result in planted[MODEL]] == [0, PLANTED_LAYER, NUM_LAYERS - 1]
    for name, estimate in best.gaps.items():
        assert estimate.low > max(abs(other.gaps[name].value) for other in (first, last)), name
    assert best.skill.low > 0.9
    (noise,) = planted[UNTRAINED]
    assert abs(noise.skill.value) < 0.05
    assert noise.num_rows == best.num_rows > 0


def test_table_csv_and_figure_have_a_line_per_layer(planted, tmp_path):
    lines = format_profile(planted).splitlines()
    assert len(lines) == 2 + 3
    assert f"{planted[MODEL][0].skill.value:+.3f}" in lines[2]
    assert lines[2].split("|")[-2].strip() == f"{planted[UNTRAINED][0].gaps['gap'].value:+.3f}"
    assert not lines[3].split("|")[-2].strip()
    rows = list(csv.DictReader(to_csv(planted).splitlines()))
    assert [(row["source"], row["layer"]) for row in rows] == [(MODEL, layer) for layer in "023"] + [(UNTRAINED, "0")]
    assert float(rows[1]["gap"]) == pytest.approx(planted[MODEL][1].gaps["gap"].value, abs=1e-6)
    draw_profile(planted, "planted", tmp_path / "profile.svg")
    assert "skill of rotation" in (tmp_path / "profile.svg").read_text()


OPTIONS = ["--suite", "smoke", "--seeds", "1", "--step", "2"]


@pytest.fixture
def quick(monkeypatch):
    small = replace(PROTOCOL, steps=2, hidden=4, prompts=20, units=20)
    monkeypatch.setattr(track_protocol, "rotation_protocol", lambda track: small)


def test_the_command_reads_every_other_layer_and_the_last(quick, tiny_folder, tmp_path, capsys, recorded_progress):
    assert main(["--model", f"path:{tiny_folder}", *OPTIONS, "--output-dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    (path,) = tmp_path.glob("*-smoke-layers.json")
    content = json.loads(path.read_text())
    profiles = content["profiles"]
    layers = [result["layer"] for result in profiles[MODEL]]
    assert layers == [result["layer"] for result in profiles[UNTRAINED]] == content["layers"]
    num_layers = layers[-1]
    assert layers == sorted({*range(0, num_layers + 1, 2), num_layers})
    assert list(recorded_progress.stages) == [
        f"{source}: {stage}" for source in (MODEL, UNTRAINED) for stage in ("programs read", "layers probed")
    ]
    assert all(completed == total > 0 for completed, total in recorded_progress.stages.values())
    assert content["settings"]["track"] == "trained"
    assert content["model"] == f"path:{tiny_folder}"
    assert path.name.removesuffix(".json") in out
    assert path.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"


def test_a_stopped_command_continues_with_the_layer_that_is_missing(quick, tiny_folder, tmp_path, monkeypatch, capsys):
    words = ["--model", f"path:{tiny_folder}", *OPTIONS, "--output-dir"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    probe, probed = layer_profile._probe_layer, []

    def probe_until(count):
        def probe_layer(judged, layer, *rest):
            if len(probed) == count:
                raise KeyboardInterrupt
            probed.append(layer)
            return probe(judged, layer, *rest)

        return probe_layer

    monkeypatch.setattr(layer_profile, "_probe_layer", probe_until(1))
    assert main([*words, str(tmp_path / "parts")]) == 1
    assert "run the same command again to continue" in capsys.readouterr().err
    monkeypatch.setattr(layer_profile, "_probe_layer", probe_until(None))
    assert main([*words, str(tmp_path / "parts")]) == 0
    whole, parts = (sorted((tmp_path / name).glob("*.[jc]s*")) for name in ("whole", "parts"))
    assert [path.read_bytes() for path in whole] == [path.read_bytes() for path in parts]
    assert len(probed) == len(json.loads(whole[1].read_text())["layers"]) * 2
    monkeypatch.setattr(represents, "read_layers", None)
    assert main([*words, str(tmp_path / "parts")]) == 0, "a complete file is printed without the model"


def test_a_model_must_be_named_and_have_states(capsys):
    assert main([]) == 2
    assert main(["--model", "baseline:search"]) == 3
    assert "has no hidden states" in capsys.readouterr().err
