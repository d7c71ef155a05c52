"""On a GPU: models write and hold there what they do on the CPU, and training goes the same way."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from agreement import TOLERANCE, WORDS, loaded
from families import FAMILIES, cases, metaspace_tokenizer, save
from whole_runs import call, only

from baselines.recipe import find_recipe, load_recipe
from baselines.trainer import Trainer
from baselines.tuning.tuner import Tuner, TuningSettings
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.models.steering import open_steerable
from benchmark.runner.record import read_record

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

STEPS = 3


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory):
    """A model on the CPU and on the GPU."""
    folder = save(request.param, tmp_path_factory.mktemp(request.param))
    return loaded(folder), loaded(folder, device="cuda")


def test_a_gpu_writes_and_holds_what_a_cpu_does(pair):
    prompts, programs = cases()
    ours, theirs = ([one.text for one in model.generate(prompts, WORDS)] for model in pair)
    assert ours == theirs
    ours, theirs = (model.hidden_states(prompts, programs) for model in pair)
    assert np.array_equal(ours.read, theirs.read)
    np.testing.assert_allclose(ours.values, theirs.values, atol=TOLERANCE)
    ours, theirs = (np.array(model.log_likelihoods(prompts, programs)) for model in pair)
    np.testing.assert_allclose(ours, theirs, atol=20 * TOLERANCE)


def test_an_edit_scores_as_on_a_cpu(pair):
    """With words of several tokens, as a tree where the model attends as a mask says."""
    prompts = cases()[0][:2]
    prefixes = ["move(); turn_left(); move();", "put_marker();"]
    prepared = [open_steerable(model).prepare(prompts, prefixes) for model in pair]
    for site, (ours, theirs) in enumerate(zip(*(part.states() for part in prepared), strict=True)):
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)
        scores = [part.score(site, ours + np.float32(0.1)).log_probs for part in prepared]
        np.testing.assert_allclose(*scores, atol=20 * TOLERANCE)


def test_a_whole_run_scores_the_same(tiny_folder, quick, tmp_path):
    for device in ("cpu", "cuda"):
        words = ["--model", f"path:{tiny_folder}", "--suite", "smoke", "--device", device]
        assert call(*words, "--out", tmp_path / device) == 0
    one, other = (only(tmp_path / device) for device in ("cpu", "cuda"))
    assert (one / "samples.jsonl.gz").read_bytes() == (other / "samples.jsonl.gz").read_bytes()
    one, other = (read_record(folder / "record.json") for folder in (one, other))
    assert one.accuracy == other.accuracy
    assert (other.model.device, other.provenance.gpu) == ("cuda", torch.cuda.get_device_name())
    assert one.provenance.gpu == ""


@pytest.mark.parametrize(("lora", "task"), [(0, "execute"), (4, "write")])
def test_fine_tuning_goes_as_on_a_cpu_and_resumes_there(lora, task, tmp_path):
    if lora:
        pytest.importorskip("peft")
    checkpoint = open_checkpoint(ModelSpec("path", str(save("llama", tmp_path / "llama", metaspace_tokenizer()))))
    settings = TuningSettings(checkpoint.spec, checkpoint.digest, task, "laptop", "karel", STEPS, 2, 0.002, 5, lora)
    losses = {}
    for device in ("cpu", "cuda"):
        tuner = Tuner(checkpoint, settings, tmp_path, device=device)
        losses[device] = [tuner.train_step() for _ in range(STEPS - 1)]
    tuner.save_state()
    expected = tuner.train_step()
    for device in ("cpu", "cuda"):
        resumed = Tuner(checkpoint, settings, tmp_path, device=device)
        assert resumed.step == STEPS - 1
        assert resumed.train_step() == pytest.approx(expected, rel=1e-3)
    assert losses["cpu"] == pytest.approx(losses["cuda"], rel=1e-3)
    resumed.save_model()
    assert json.loads((tmp_path / "training.json").read_text())["device"] == torch.cuda.get_device_name()


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_training_goes_as_on_a_cpu(compiled, tmp_path, monkeypatch):
    changes = ["optimizer.batch=16", "micro=8", "optimizer.tasks=1600"]
    training = load_recipe(find_recipe("gpt-laptop"), changes)
    losses = {}
    for cpu in ("true", "false"):
        monkeypatch.setenv("ACCELERATE_USE_CPU", cpu)
        torch._dynamo.reset()
        AcceleratorState._reset_state()
        PartialState._reset_state()
        run = Trainer(training, tmp_path / cpu, compiled, "no")
        assert run.accelerator.device.type == ("cpu" if cpu == "true" else "cuda")
        losses[cpu] = [float(run.train_step()) for _ in range(STEPS)]
        run.save_state()
    assert losses["true"] == pytest.approx(losses["false"], rel=1e-3)
