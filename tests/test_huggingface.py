"""Models of other families, sub-word tokenizers, left padding, and the hub's cache layout."""

from __future__ import annotations

import shutil

import pytest

from benchmark.checkpoint import open_checkpoint
from benchmark.errors import ModelError, UsageError
from benchmark.models import ModelSpec


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


@pytest.mark.parametrize("text", ["llama", "path:", "http:x/y", "hf:alone", "hf:a/b/c"])
def test_names_that_are_none(text):
    with pytest.raises(UsageError, match="expected"):
        ModelSpec.parse(text)
