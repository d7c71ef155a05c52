"""Names of models, series, how they are loaded, and classes of the user's."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from quick_protocol import SMALL_SUITE
from whole_runs import call, only

from benchmark.errors import ModelError, UsageError
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.huggingface import HuggingFaceModel
from benchmark.models.interface import LoadOptions, ModelSpec, expand_series
from benchmark.runner.plan import Job
from benchmark.runner.record import read_record
from benchmark.runner.worker import Worker
from benchmark.sweep import read_models
from benchmark.tasks.suite import load_suite

ROOT = Path(__file__).parents[2]
OWN = LoadOptions(own_code=True)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("hf:a/b@{x,y}", ["hf:a/b@x", "hf:a/b@y"]),
        ("hf:a/b@step{10, 2}-f", ["hf:a/b@step10-f", "hf:a/b@step2-f"]),
        ("hf:a/b@x", ["hf:a/b@x"]),
        ("path:a/step-{1,2}", ["path:a/step-1", "path:a/step-2"]),
        ("py:own.models:{early,late}", ["py:own.models:early", "py:own.models:late"]),
        ("baseline:odd{1,2}", ["baseline:odd{1,2}"]),
    ],
)
def test_braces_name_a_series(text, names):
    assert expand_series(text) == names


def test_a_wildcard_names_folders_by_their_numbers(tmp_path):
    for name in ("checkpoint-1000", "checkpoint-20", "checkpoint-3", "odd{1,2}"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-4").write_text("a file")
    names = [Path(spec).name for spec in expand_series(f"path:{tmp_path}/checkpoint-*")]
    assert names == ["checkpoint-3", "checkpoint-20", "checkpoint-1000"]
    assert expand_series(f"path:{tmp_path}/odd{{1,2}}") == [f"path:{tmp_path}/odd{{1,2}}"]
    with pytest.raises(UsageError, match="no folder matches"):
        expand_series(f"path:{tmp_path}/step-*")


@pytest.mark.parametrize("text", ["hf:a/b@{x", "hf:a/b@{x,}", "hf:a/b@{x,x}", "hf:a/{b,c}@{x,y}"])
def test_braces_that_name_none(text):
    with pytest.raises(UsageError, match="expected"):
        expand_series(text)


@pytest.mark.parametrize("text", ["py:own", "py:own:", "py::load", "py:a-b:load", "py:a.:load", "hf:a/b@"])
def test_names_that_are_none(text):
    with pytest.raises(UsageError, match="expected"):
        ModelSpec.parse(text)


def test_a_sweep_takes_a_series_apart(tmp_path):
    path = tmp_path / "models.yaml"
    path.write_text('models: ["hf:a/b@{x,y}"]\nsuites: [smoke, laptop]\n')
    found = [(entry.model, entry.suite) for entry in read_models(path, ())]
    assert found == [(f"hf:a/b@{r}", suite) for r in "xy" for suite in ("smoke", "laptop")]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("own_writer:absent", "has no function absent"),
        ("own_writer:constant", "has no function constant"),
        ("own_writer:no_argument", "cannot be called with random_seed"),
        ("own_writer:no_model", "made a object, which has no method generate"),
        ("own_writer:failing", r"failing failed: FileNotFoundError: weights\.pt"),
        ("sys:exit", "its module has no file"),
        ("not_there:load", "cannot import not_there .* PYTHONPATH"),
    ],
)
def test_factories_that_make_no_model(target, said):
    with pytest.raises(ModelError, match=said):
        open_checkpoint(ModelSpec.parse(f"py:{target}"), OWN)


def test_code_runs_only_when_allowed(tmp_path, monkeypatch, capsys):
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert call("--model", "py:trap:load", "--suite", "smoke", "--out", tmp_path / "runs") == 2
    assert "--allow-code" in capsys.readouterr().err
    assert not (tmp_path / "sprung").exists()


def test_options_that_cannot_apply_are_refused():
    with pytest.raises(UsageError, match="hf: and path: models only"):
        open_checkpoint(ModelSpec.parse("py:own_writer:load"), LoadOptions(attention="eager", own_code=True))


def test_a_writer_has_a_row_and_no_meaning_in_both_tracks(tmp_path, capsys):
    words = ("--model", "py:own_writer:load", "--allow-code", "--suite", "smoke", "--limit", 20)
    assert call(*words, "--out", tmp_path / "a") == 0
    assert call(*words, "--out", tmp_path / "b", "--track", "fewshot") == 0
    for out in ("a", "b"):
        record = read_record(only(tmp_path / out) / "record.json")
        assert record.model.own_code
        assert any("--allow-code" in reason for reason in record.unofficial)
        assert (
            record.model.digest
            == hashlib.sha256((ROOT / "tests" / "helpers" / "own_writer.py").read_bytes()).hexdigest()
        )
        assert record.meaning is None
        assert record.accuracy.valid.value == 1
    assert record.frame is not None
    assert not record.frame.chat_template
    assert record.constrained is None
    assert call(*words, "--out", tmp_path / "c", "--samples", 2) == 2
    assert "a class without states has no draws or grammar" in capsys.readouterr().err


@pytest.fixture
def template(tmp_path, monkeypatch) -> str:
    """Name of a module that holds the template of the documents."""
    (source,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "models.md").read_text(), re.DOTALL)
    (tmp_path / "own_template.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    return "py:own_template:load"


@pytest.mark.usefixtures("quick")
def test_the_template_of_the_documents_is_a_whole_model(template, tmp_path):
    assert call("--model", template, "--allow-code", "--suite", SMALL_SUITE, "--out", tmp_path / "runs") == 0
    record = read_record(only(tmp_path / "runs") / "record.json")
    assert record.meaning is not None
    assert record.model.parameters > 1000
    assert not record.official


def test_the_templates_states_and_likelihoods_are_those_of_its_words(template):
    checkpoint = open_checkpoint(ModelSpec.parse(template), OWN)
    worker = Worker(Job(load_suite("smoke"), checkpoint, "float32", "cpu", 2))
    model = worker.model()
    prompts, programs = ["input . def run() {", "def run() {"], ["move(); }", "turn_left(); move(); }"]
    states = model.hidden_states(prompts, programs)
    assert states.offsets.tolist() == [0, 2, 5]
    for i, (prompt, program) in enumerate(zip(prompts, programs, strict=True)):
        whole = model.model.layers(f"{prompt} {program}").detach().numpy()
        at = slice(*states.offsets[i : i + 2])
        start = len(prompt.split())
        assert np.array_equal(states.values[states.read[at]], whole[start:])
        assert np.array_equal(states.values[states.emit[at]], whole[start - 1 : -1])
    one, other = (worker.model(i).model.head.weight for i in range(2))
    assert not torch.equal(one, other)
    ((value, count), _) = model.log_likelihoods(prompts, programs)
    assert count == 2
    assert value < 0


def with_code(folder: Path, tiny_folder: Path) -> Path:
    """The tiny model under a type that only the code beside it knows."""
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own-llama",
        "auto_map": {"AutoConfig": "own_llama.OwnConfig", "AutoModelForCausalLM": "own_llama.OwnModel"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own_llama.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n\n\n"
        'class OwnConfig(LlamaConfig):\n    model_type = "own-llama"\n\n\n'
        "class OwnModel(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    return folder


@pytest.mark.usefixtures("quick")
def test_code_that_comes_with_a_model_runs_only_when_trusted(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = with_code(tmp_path / "coded", tiny_folder)
    words = ("--model", f"path:{folder}", "--suite", "smoke", "--limit", 4, "--no-states", "--out", tmp_path / "runs")
    assert call(*words) == 3
    assert "--trust-remote-code" in capsys.readouterr().err
    assert call(*words, "--trust-remote-code") == 0
    (path,) = (tmp_path / "runs").glob("*/record.json")
    record = read_record(path)
    assert record.model.remote_code
    assert any("--trust-remote-code" in reason for reason in record.unofficial)


def test_attention_is_the_one_asked_for_and_another_run(tiny_folder, tmp_path):
    spec = ModelSpec("path", str(tiny_folder))
    for attention in ("eager", "sdpa"):
        for seed in (None, 1):
            model = HuggingFaceModel(open_checkpoint(spec, LoadOptions(attention=attention)), random_seed=seed)
            assert model.model.config._attn_implementation == attention
    words = ("--model", str(spec), "--suite", "smoke", "--limit", 4, "--no-states", "--out", tmp_path)
    assert call(*words) == 0
    assert call(*words, "--attention", "eager") == 0
    found = [read_record(path) for path in tmp_path.glob("*/record.json")]
    assert sorted(record.model.attention for record in found) == ["", "eager"]


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="needs torchao, of the extra quantization")
def test_quantized_weights_give_states_that_are_near(tiny_folder, tmp_path):
    spec = ModelSpec("path", str(tiny_folder))
    exact, rounded = (
        HuggingFaceModel(open_checkpoint(spec, LoadOptions(quantization=name))).hidden_states(
            ["def run() {"], ["move(); }"]
        )
        for name in ("", "int8")
    )
    assert not np.array_equal(exact.values, rounded.values)
    assert np.allclose(exact.values, rounded.values, atol=0.1)
    words = ("--model", str(spec), "--suite", "smoke", "--limit", 4, "--no-states", "--quantization", "int8")
    assert call(*words, "--out", tmp_path) == 0
    record = read_record(only(tmp_path) / "record.json")
    assert record.model.quantization == "int8"
    assert "--quantization int8" in record.unofficial


def test_quantization_without_its_package_is_said(tiny_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ModelError, match="needs torchao"):
        HuggingFaceModel(open_checkpoint(ModelSpec("path", str(tiny_folder)), LoadOptions(quantization="int8")))
