"""Models that see later tokens, or write what their logits do not say: refused by the run and by the doctor."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from families import LLAMA, family_params, save
from quick_protocol import SMALL_SUITE
from transformers import GenerationMixin
from whole_runs import call

from baselines.lstm import LstmConfig, LstmForCausalLM
from baselines.tokenizer import build_tokenizer
from benchmark.doctor import command as doctor
from benchmark.errors import ModelError
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.huggingface import HuggingFaceModel
from benchmark.models.interface import LoadOptions, ModelSpec
from benchmark.runner.plan import Job
from benchmark.runner.worker import Worker
from benchmark.tasks.suite import load_suite

BERT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
SEEING = {
    "bert": ("BertLMHeadModel", {**BERT, "is_decoder": False, "initializer_range": 0.5}),
    "bert, small weights": ("BertLMHeadModel", {**BERT, "is_decoder": False, "initializer_range": 0.02}),
    "roberta": ("RobertaForCausalLM", {**BERT, "is_decoder": False, "initializer_range": 0.2}),
    "gemma3": ("Gemma3ForCausalLM", {**LLAMA, "use_bidirectional_attention": True, "query_pre_attn_scalar": 8}),
}
DTYPES = ("float32", "bfloat16")


def saved(name: str, folder: Path, **more: object) -> Path:
    tokenizer = build_tokenizer()
    kind, fields = SEEING[name]
    chosen = getattr(transformers, kind)
    marks = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    torch.manual_seed(1)
    chosen(
        chosen.config_class(vocab_size=len(tokenizer), max_position_embeddings=256, **marks, **fields | more)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def checked(folder: Path, dtype: str = "float32") -> None:
    Worker(Job(load_suite("smoke"), open_checkpoint(ModelSpec("path", str(folder))), dtype, "cpu", 0)).check()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SEEING)
def test_a_model_that_sees_later_tokens(name, dtype, tmp_path):
    folder = saved(name, tmp_path)
    if (name, dtype) == ("bert, small weights", "bfloat16"):
        return  # what it sees is within the rounding of bfloat16
    with pytest.raises(ModelError, match=r"it sees later tokens: with the last \d+ of \d+ tokens exchanged") as caught:
        checked(folder, dtype)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", family_params(["gpt2", "gemma3", "mixtral", "jamba", "qwen3-next"]))
def test_causal_models_are_not(family, dtype, tmp_path):
    checked(save(family, tmp_path), dtype)


def test_the_same_model_as_a_decoder_is_not(tmp_path):
    checked(saved("bert", tmp_path, is_decoder=True))


def test_run_and_doctor_refuse_it(tmp_path, capsys):
    folder = saved("gemma3", tmp_path / "model")
    words = ("--model", f"path:{folder}", "--suite", "smoke", "--limit", 4, "--no-states", "--out", tmp_path / "runs")
    assert call(*words) == 3
    error = capsys.readouterr().err
    assert "it sees later tokens" in error
    assert error.count("error: ") == 1
    assert not list((tmp_path / "runs").glob("*/shards/test*"))
    assert doctor.main(["--model", f"path:{folder}", "--suite", SMALL_SUITE, "--load-deadline", "0"]) == 3
    assert re.search(r"^fail +causality +.*sees later tokens", capsys.readouterr().out, re.MULTILINE)


def test_what_is_written_is_not_the_argmax_of_what_is_probed(tmp_path, monkeypatch):
    folder = save("gpt2", tmp_path)
    checked(folder)
    real = HuggingFaceModel.new_tokens

    def other(self, prompts, room, *more):
        return [[*row[:2], (row[2] + 1) % 300, *row[3:]] for row in real(self, prompts, room, *more)]

    monkeypatch.setattr(HuggingFaceModel, "new_tokens", other)
    with pytest.raises(ModelError, match=r"as token 3, while .* has the largest logit of the pass that is probed"):
        checked(folder)


def test_a_generate_that_keeps_no_whole_text(tmp_path, monkeypatch):
    tokenizer = build_tokenizer()
    torch.manual_seed(5)
    model = LstmForCausalLM(LstmConfig(len(tokenizer), 16, 3, pad_token_id=0, eos_token_id=tokenizer.eos_token_id))
    for values in model.parameters():
        torch.nn.init.normal_(values, std=1.0)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    checked(tmp_path)
    monkeypatch.setattr(HuggingFaceModel, "_cache_kwargs", lambda self, batch: {})
    monkeypatch.setattr(LstmForCausalLM, "prepare_inputs_for_generation", GenerationMixin.prepare_inputs_for_generation)
    with pytest.raises(ModelError, match="its cache or its generate is wrong"):
        checked(tmp_path)


OWN = """
import importlib
import numpy as np
template = importlib.import_module("own_template")


class Changed(template.Recurrent):
{body}


def load(random_seed=None):
    model = template.load(random_seed)
    model.__class__ = Changed
    return model
"""
BODIES = {
    "sees later tokens: states at earlier words": """
    def hidden_states(self, prompts, programs):
        found = super().hidden_states(prompts, programs)
        later = [float(program.count("move")) for program in programs]
        counts = np.diff(found.offsets)
        rows = np.concatenate([found.emit, found.read])
        scale = np.repeat(np.array(later, np.float32), counts)
        values = found.values[rows] * (1 + 0.01 * np.concatenate([scale, scale]))[:, None, None]
        place = np.arange(len(rows))
        return type(found)(values.astype(np.float32), place[: len(found.emit)], place[len(found.emit) :], found.offsets)
""",
    "both must use the same model": """
    def generate(self, prompts, max_new_words, *more):
        from benchmark.models.interface import Generation
        from karel_env.language import WORDS
        words = sorted(WORDS)
        scored = self.log_likelihoods([prompts[0]] * len(words), words)
        worst = min(range(len(words)), key=lambda i: scored[i][0])
        return [Generation(words[worst], 1, False) for _ in prompts]
""",
}


@pytest.mark.parametrize("message", BODIES)
def test_a_class_of_the_users(message, tmp_path, monkeypatch):
    (source,) = re.findall(
        r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs" / "models.md").read_text(), re.DOTALL
    )
    (tmp_path / "own_template.py").write_text(source)
    name = f"own_changed_{len(message)}"
    (tmp_path / f"{name}.py").write_text(OWN.format(body=BODIES[message]))
    monkeypatch.syspath_prepend(tmp_path)
    for module, refused in (("own_template", False), (name, True)):
        checkpoint = open_checkpoint(ModelSpec.parse(f"py:{module}:load"), LoadOptions(own_code=True))
        worker = Worker(Job(load_suite("smoke"), checkpoint, "float32", "cpu", 0))
        if not refused:
            worker.check()
            continue
        with pytest.raises(ModelError, match=message):
            worker.check()


def test_a_doctor_finds_a_tokenizer_that_appends_its_end_mark_sound(tiny_folder, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    end = content["model"]["vocab"]["<end>"]
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<end>", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<end>": {"id": "<end>", "ids": [end], "tokens": ["<end>"]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert doctor.main(["--model", f"path:{folder}", "--load-deadline", "0"]) == 0
    report = capsys.readouterr().out
    assert "after it (left out of prompts): 1" in report
    assert "fail" not in report
