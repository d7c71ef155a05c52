"""A training off a terminal prints where it writes when it starts, and never stays silent for long."""

from __future__ import annotations

import json

import baselines.train
import baselines.trainer

RECIPE = """
suite: smoke
architecture:
  class: LlamaForCausalLM
  config: {hidden_size: 8, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2, max_position_embeddings: 192}
optimizer:
  {batch: 2, tasks: 8, muon_lr: 0.02, adam_lr: 0.003, weight_decay: 0.01, warmup: 0.1, decay: 0.5, clip: 1.0}
seed: 3
"""


def test_a_training_into_a_file_prints_lines_from_the_start(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(baselines.trainer, "MAX_SILENT_SECONDS", 0.0)
    path, folder = tmp_path / "recipe.yaml", tmp_path / "trained"
    path.write_text(RECIPE)
    assert baselines.train.main([str(path), "--out", str(folder), "--threads", "1"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    assert lines[0] == {"step": 0, "steps": 4, "out": str(folder)}
    assert [line["step"] for line in lines[1:]] == [1, 2, 3, 4]
    assert "loss" in lines[-1]
