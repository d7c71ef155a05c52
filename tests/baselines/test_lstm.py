"""The recurrent model: padding changes nothing, a saved one is the same, and the benchmark reads its states."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import GenerationMixin

from baselines.lstm import LstmConfig, LstmForCausalLM
from baselines.tokenizer import build_tokenizer
from benchmark.doctor.checks import generate_without_cache
from benchmark.doctor.command import main
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.huggingface import HuggingFaceModel
from benchmark.models.interface import ModelSpec

PROMPTS = ["program\ndef run() {", "input\n> .\noutput\n. >\nprogram\ndef run() {"]
PROGRAMS = ["move(); turn_left(); }", "put_marker(); }"]


@pytest.fixture
def folder(tmp_path):
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = LstmConfig(len(tokenizer), 16, 3, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    LstmForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_padding_on_the_left_changes_nothing(folder):
    model = LstmForCausalLM.from_pretrained(folder)
    ids = torch.randint(3, 40, (1, 7))
    alone = model(ids).logits
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.long), ids], 1)
    mask = (torch.arange(11) >= 4).long()[None]
    assert torch.allclose(model(padded, mask).logits[:, 4:], alone, atol=1e-6)
    assert torch.allclose(model(ids, logits_to_keep=2).logits, alone[:, -2:], atol=1e-6)


def test_the_benchmark_reads_it_layer_by_layer(folder):
    model = HuggingFaceModel(open_checkpoint(ModelSpec("path", str(folder))))
    together = model.hidden_states(PROMPTS, PROGRAMS)
    assert together.values.shape[1:] == (4, 16)
    for i in range(2):
        alone = model.hidden_states(PROMPTS[i : i + 1], PROGRAMS[i : i + 1])
        words = slice(together.offsets[i], together.offsets[i + 1])
        np.testing.assert_allclose(together.values[together.read[words]], alone.values[alone.read], atol=1e-6)
    ids = model.tokenizer(f"{PROMPTS[0]} {PROGRAMS[0]}", return_tensors="pt")["input_ids"]
    last = model.base(ids).last_hidden_state[0, -3:]
    np.testing.assert_allclose(together.values[together.read[:3], -1], last.detach().numpy(), atol=1e-6)
    assert len(model.generate(PROMPTS, 4)) == 2


def test_untrained_copies_come_from_its_configuration(folder):
    checkpoint = open_checkpoint(ModelSpec("path", str(folder)))
    one, two = (HuggingFaceModel(checkpoint, random_seed=seed).model.head.weight for seed in (1, 1))
    other = HuggingFaceModel(checkpoint, random_seed=2).model.head.weight
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.fixture
def loud(folder):
    """With weights so large that what is written depends on all that was read."""
    torch.manual_seed(5)
    raw = LstmForCausalLM.from_pretrained(folder)
    for values in raw.parameters():
        torch.nn.init.normal_(values, std=1.0)
    raw.save_pretrained(folder)
    return folder


def test_the_benchmark_writes_what_it_writes_token_by_token(loud):
    """It has no cache: transformers must not give it each new token alone."""
    model = HuggingFaceModel(open_checkpoint(ModelSpec("path", str(loud))))
    for prompt, written in zip(PROMPTS, model.generate(PROMPTS, 4), strict=True):
        assert written.tokens > 2
        assert generate_without_cache(model, prompt, written.tokens).startswith(written.text)


def test_the_doctor_finds_nothing_wrong_with_it(folder, capsys):
    main(["--model", f"path:{folder}", "--suite", "smoke", "--load-deadline", "0"])
    told = capsys.readouterr().out
    assert "fail" not in told
    assert "4 layers equal output_hidden_states" in told


def test_the_doctor_finds_answers_that_are_not_those_of_the_whole_text(loud, capsys, monkeypatch):
    monkeypatch.setattr(HuggingFaceModel, "_cache_kwargs", lambda self, batch: {})
    monkeypatch.setattr(LstmForCausalLM, "prepare_inputs_for_generation", GenerationMixin.prepare_inputs_for_generation)
    assert main(["--model", f"path:{loud}", "--suite", "smoke", "--load-deadline", "0"]) == 3
    told = capsys.readouterr().out
    assert [line.split()[1] for line in told.splitlines() if line.startswith("fail")] == ["generation", "argmax"]
    assert "prepare_inputs_for_generation" in told
