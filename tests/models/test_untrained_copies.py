"""Randomly initialised copies differ from a loaded model in their weights alone: dtypes and other buffers are equal."""

from __future__ import annotations

import json
from itertools import chain

import pytest
import torch
from families import FAMILIES, family_params, save

from benchmark.models.architecture import build_untrained_copy, load_stored_model
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.models.json_files import CONFIG_FILE
from benchmark.models.memory import hold_in_memory
from benchmark.models.tokenizer import load_tokenizer


def tensors(model):
    return dict(chain(model.named_parameters(), model.named_buffers()))


@pytest.fixture(scope="module", params=family_params(FAMILIES))
def checkpoint(request, tmp_path_factory):
    return open_checkpoint(ModelSpec("path", str(save(request.param, tmp_path_factory.mktemp(request.param)))))


def check_copy(model, copy):
    """A copy has the keys and dtypes of the model, equal buffers that no file holds, and other weights."""
    expected, found = tensors(model), tensors(copy)
    assert {name: tensor.dtype for name, tensor in found.items()} == {n: tensor.dtype for n, tensor in expected.items()}
    stored = model.state_dict().keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected if name not in stored)
    weights = next(name for name, tensor in expected.items() if tensor.ndim == 2)
    assert not torch.equal(found[weights], expected[weights])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_a_copy_has_the_dtypes_and_buffers_of_the_loaded_model(checkpoint, dtype):
    check_copy(load_stored_model(checkpoint, dtype), build_untrained_copy(checkpoint, dtype, 5))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_copy_of_a_model_in_memory_has_them_too(checkpoint, dtype):
    model = load_stored_model(checkpoint, dtype)
    check_copy(model, hold_in_memory(model, load_tokenizer(checkpoint)).build(5))


def test_a_table_of_positions_is_exact_whatever_the_dtype_of_the_files(checkpoint):
    config = json.loads((checkpoint.folder / CONFIG_FILE).read_text())
    (checkpoint.folder / CONFIG_FILE).write_text(json.dumps(config | {"dtype": "bfloat16"}))
    try:
        changed = open_checkpoint(ModelSpec("path", str(checkpoint.folder)))
        check_copy(load_stored_model(changed, "float32"), build_untrained_copy(changed, "float32", 5))
    finally:
        (checkpoint.folder / CONFIG_FILE).write_text(json.dumps(config))
