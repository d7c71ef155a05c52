"""The digest of a model: of its own files, and of none that a run or a submission puts beside them."""

from __future__ import annotations

import shutil

import pytest

from benchmark.artifacts import MAX_BYTES, MODEL_FILES
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec


@pytest.mark.parametrize("name", sorted(MAX_BYTES.keys() - MODEL_FILES))
def test_no_file_of_a_submission_changes_the_digest_of_its_model(tiny_folder, tmp_path, name):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    digest = open_checkpoint(ModelSpec("path", str(folder))).digest
    (folder / name).write_text("{}")
    assert open_checkpoint(ModelSpec("path", str(folder))).digest == digest


def test_another_configuration_changes_it(tiny_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    digest = open_checkpoint(ModelSpec("path", str(folder))).digest
    (folder / "generation_config.json").write_text("{}")
    assert open_checkpoint(ModelSpec("path", str(folder))).digest != digest
