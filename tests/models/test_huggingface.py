"""Models of other families, sub-word tokenizers, left padding, and the hub's cache layout."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from benchmark.errors import ModelError, UsageError
from benchmark.models import huggingface
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.huggingface import HuggingFaceModel
from benchmark.models.interface import ModelSpec
from benchmark.tasks.prompt_template import render_prompts
from benchmark.tasks.suite import load_suite
from benchmark.tasks.suite import test_tasks as tasks_of
from karel_env.language import HEADER_TEXT


def test_a_hub_model_is_found_in_the_cache_and_named_by_its_commit(tiny_folder, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--org--tiny"
    shutil.copytree(tiny_folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = open_checkpoint(ModelSpec.parse("hf:org/tiny"))
    assert found.spec == f"hf:org/tiny@{commit}"
    assert found.digest == open_checkpoint(ModelSpec("path", str(tiny_folder))).digest
    assert open_checkpoint(ModelSpec.parse(f"hf:org/tiny@{commit}")).spec == found.spec
    with pytest.raises(ModelError, match="hub"):
        open_checkpoint(ModelSpec.parse("hf:org/absent"))


def test_states_are_read_within_their_budget(tiny_folder, monkeypatch):
    model = HuggingFaceModel(open_checkpoint(ModelSpec("path", str(tiny_folder))))
    tasks = tasks_of(load_suite("smoke")).take(np.arange(9))
    prompts, programs = (
        render_prompts(load_suite("smoke"), tasks),
        [t[len(HEADER_TEXT) + 1 :] for t in tasks.programs.texts()],
    )
    whole, read = model.hidden_states(prompts, programs), []
    real = model._read_states
    monkeypatch.setattr(model, "_read_states", lambda *arguments: read.append(real(*arguments)) or read[-1])
    budget = 3 * (1 + max(len(program.split()) for program in programs)) * 3 * 32 * 4
    monkeypatch.setattr(huggingface, "MAX_STATE_BYTES", budget)
    parts = model.hidden_states(prompts, programs)
    assert len(read) == 3
    assert max(states.nbytes for states in read) <= budget
    np.testing.assert_allclose(parts.values, whole.values, atol=1e-5)
    assert np.array_equal(parts.read, whole.read)
    monkeypatch.setattr(huggingface, "MAX_STATE_BYTES", 1)
    model.hidden_states(prompts, programs)
    assert len(read) == 3 + 9, "one at a time is the least"


@pytest.mark.parametrize("text", ["llama", "path:", "http:x/y", "hf:alone", "hf:a/b/c"])
def test_names_that_are_none(text):
    with pytest.raises(UsageError, match="expected"):
        ModelSpec.parse(text)
