"""Training: a stopped run resumed equals one that was never stopped; Muon's update is orthogonal."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

import baselines.train
from baselines.muon import orthogonalize
from benchmark.checkpoint import open_checkpoint
from benchmark.huggingface import HuggingFaceModel
from benchmark.models import ModelSpec

RECIPE = """
suite: smoke
architecture:
  class: LlamaForCausalLM
  config: {hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2, max_position_embeddings: 128}
optimizer:
  {batch: 4, tasks: 24, muon_lr: 0.02, adam_lr: 0.003, weight_decay: 0.01, warmup: 0.1, decay: 0.5, clip: 1.0}
seed: 3
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_a_resumed_training_is_the_same_training(recipe, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    words = ["--threads", "1", "--save-every", "2"]
    assert baselines.train.main([str(recipe), "--out", str(whole), *words]) == 0
    real = baselines.train.Run.train_step

    def stopped(self):
        if self.step == 5:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(baselines.train.Run, "train_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        baselines.train.main([str(recipe), "--out", str(broken), *words])
    monkeypatch.setattr(baselines.train.Run, "train_step", real)
    assert baselines.train.main([str(recipe), "--out", str(broken), *words]) == 0
    one, two = (load_file(folder / "model.safetensors") for folder in (whole, broken))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    facts = json.loads((whole / "training.json").read_text())
    assert facts["tasks_seen"] == 24
    assert facts["log"][-1]["step"] == 6
    model = HuggingFaceModel(open_checkpoint(ModelSpec("path", str(whole))))
    assert len(model.generate(["program\ndef run() {"], 4)) == 1


def test_training_lowers_the_loss(recipe, tmp_path):
    recipe.write_text(RECIPE.replace("tasks: 24", "tasks: 320"))
    run = baselines.train.Run(baselines.train.load_recipe(recipe), tmp_path, False, "no")
    losses = [run.train_step() for _ in range(60)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_a_wrong_recipe_names_its_file(recipe):
    recipe.write_text(RECIPE.replace("clip: 1.0", "clap: 1.0"))
    with pytest.raises(ValueError, match=r"recipe\.yaml.*clap"):
        baselines.train.load_recipe(recipe)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 6, 20), (1, 20, 6)])
def test_orthogonalized_singular_values_are_near_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape), steps=8))
    assert values.max() < 1.4
    assert values.min() > 0.4
