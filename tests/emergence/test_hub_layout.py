"""A series as revisions of a hub repository: loaded by transformers, measured as a series, published by the commands printed."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from curve_points import summary
from hub_server import Repository, folder_files, serving
from huggingface_hub import constants

from benchmark.emergence.hub import main, publishing_commands
from benchmark.emergence.point import CurvePoint, UseFigures, write_points
from benchmark.emergence.series import list_series
from benchmark.statistics import Estimate
from benchmark.submit.draft.model_card import read_model_card

STEPS = (100, 200)


@pytest.fixture
def run(tiny_folder, tmp_path):
    """The folder of a training with two checkpoints of distinct weights."""
    folder = tmp_path / "runs" / "tiny-1"
    for step in STEPS:
        path = folder / "checkpoints" / f"step-{step:07d}"
        shutil.copytree(tiny_folder, path)
        if step == STEPS[0]:
            weights = (path / "model.safetensors").read_bytes()
            (path / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
        training = {
            "command": "python -m baselines.train tiny --out /home/someone/runs/tiny-1", "step": step,
            "recipe": {"suite": "smoke", "seed": 1}, "tasks_seen": 128 * step, "tokens_seen": 9000 * step,
        }  # fmt: skip
        (path / "training.json").write_text(json.dumps(training))
        (path / "optimizer.bin").write_bytes(b"state of the optimizer")
    return folder


@pytest.fixture
def points(tmp_path):
    use = UseFigures("USES", 0.9, None, Estimate(0.4, 0.3, 0.5, 120), Estimate(0.5, 0.4, 0.6, 120))
    path = tmp_path / "tiny-1.json"
    write_points(path, [CurvePoint(step, 128 * step, 9000 * step, summary(), 0.2, use=use) for step in STEPS])
    return path


def lay_out(run: Path, folder: Path, *options: object) -> int:
    return main([str(run), "--repository", "org/tiny-1", "--output-dir", str(folder), *map(str, options)])


def test_revisions_are_loaded_from_a_hub_and_measured_as_a_series(run, points, tmp_path, monkeypatch, capsys):
    assert lay_out(run, tmp_path / "hub", "--points", points) == 0
    printed = capsys.readouterr().out
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        repository = hub.repositories["org/tiny-1"] = Repository()
        # What the printed commands would do: a commit of the folder under the revision.
        commands = [shlex.split(line) for line in printed.splitlines() if line.startswith("hf upload")]
        for _, _, name, folder, target, *revision in commands:
            assert (name, target) == ("org/tiny-1", ".")
            repository.commit(folder_files(Path(folder)), revision[1] if revision else "main")
        assert set(repository.refs) == {"step-100", "step-200", "main"}
        (series,) = list_series(["hf:org/tiny-1@{step-200,step-100}"]).values()
        assert [(m.step, m.tasks, m.tokens) for m in series] == [(100, 12800, 900_000), (200, 25600, 1_800_000)]
        (local,) = list_series([str(run)]).values()
        assert [m.checkpoint.digest for m in series] == [m.checkpoint.digest for m in local]
        from transformers import AutoModelForCausalLM

        early, late, main_model = (
            AutoModelForCausalLM.from_pretrained("org/tiny-1", revision=revision, cache_dir=tmp_path / "cache")
            for revision in ("step-100", "step-200", "main")
        )
        different = [not a.equal(b) for a, b in zip(early.parameters(), late.parameters(), strict=True)]
        assert sum(different) == 1
        assert all(a.equal(b) for a, b in zip(late.parameters(), main_model.parameters(), strict=True))


def test_a_card_tells_what_a_revision_is(run, points, tmp_path):
    assert lay_out(run, tmp_path / "hub", "--points", points) == 0
    folder = tmp_path / "hub" / "tiny-1" / "step-100"
    text = (folder / "README.md").read_text()
    metadata = yaml.safe_load(text.split("---\n")[1])
    assert (metadata["license"], metadata["library_name"]) == ("apache-2.0", "transformers")
    assert "karel" in metadata["tags"]
    assert read_model_card(folder).licence == "Apache-2.0"
    assert "This revision: step 100 of 200, after 12,800 tasks and 900,000 tokens." in text
    assert "suite `smoke`" in text
    assert 'from_pretrained("org/tiny-1", revision="step-100")' in text
    assert "hf:org/tiny-1@step-100" in text
    assert text.count("| `step-") == len(STEPS)
    assert "uses it: USES, margin +0.400 [+0.300, +0.500], n = 120 tasks" in text
    assert not (folder / "optimizer.bin").exists()
    assert "/home" not in (folder / "training.json").read_text()
    assert json.loads((folder / "training.json").read_text())["tasks_seen"] == 12800


def test_a_card_without_points_has_no_figures(run, tmp_path):
    assert lay_out(run, tmp_path / "hub", "--license", "mit") == 0
    text = (tmp_path / "hub" / "tiny-1" / "step-200" / "README.md").read_text()
    assert "license: mit" in text
    assert "Figures" not in text
    assert "solved" not in text


def test_what_cannot_be_laid_out_is_refused(run, points, tiny_folder, tmp_path, capsys):
    assert main([str(run), "--repository", "tiny", "--output-dir", str(tmp_path)]) == 2
    assert "expected ORG/NAME" in capsys.readouterr().err
    write_points(points, [CurvePoint(7, None, None, summary(), 0.2)])
    assert lay_out(run, tmp_path / "hub", "--points", points) == 2
    assert "no point of step 200" in capsys.readouterr().err
    for name in ("early", "late"):
        shutil.copytree(tiny_folder, tmp_path / "own" / name, copy_function=os.link)
    assert lay_out(f"path:{tmp_path}/own/{{early,late}}", tmp_path / "hub") == 2
    assert "no file and no name tells the training steps" in capsys.readouterr().err


def test_folders_with_spaces_are_quoted():
    commands = publishing_commands("org/name", [Path("my runs/name/step-1"), Path("my runs/name/step-2")])
    assert commands == [
        "hf upload org/name 'my runs/name/step-1' . --revision step-1",
        "hf upload org/name 'my runs/name/step-2' . --revision step-2",
        "hf upload org/name 'my runs/name/step-2' .",
    ]
