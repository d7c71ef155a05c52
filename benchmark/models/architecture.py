"""Load a checkpoint as a transformers model: with stored weights, on the meta device, or with random weights.

Only weights, configuration and end-of-sequence ids are taken from the files; other generation settings are ignored.
Errors are `ModelError`.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from itertools import chain
from threading import RLock
from typing import Any

import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from benchmark.errors import BenchmarkError, ModelError
from benchmark.models.checkpoint import Checkpoint, check_unchanged
from benchmark.models.devices.placement import check_disk, check_entries, dispatch, load_kwargs, offload_folder
from benchmark.models.json_files import CONFIG_FILE, read_json
from benchmark.models.weights import check_weights, read_model_tensors

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
REGISTERING_MODULES = {"karel-lstm": "baselines.lstm"}
"""Modules that register model types unknown to transformers; imported if a checkpoint has that type."""
META = "meta"
GENERATION_CONFIG = "generation_config.json"
LOAD_LOCK = RLock()
"""Held while transformers builds a model: meanwhile it patches methods of its classes (`no_tie_weights`), and a global random
state is set. With two threads, the one that ends last would restore the patch of the other for good."""


def load_stored_model(checkpoint: Checkpoint, dtype: str, device: str = "cpu") -> Any:
    """Load the model with all its stored weights, copied out of the mapped files: into main memory, or as its device map tells.

    Args:
        checkpoint: the model's files.
        dtype: one of `DTYPES`.
        device: kind of device that computes, for a device map.

    Raises:
        ModelError: the files cannot be loaded, lack weights, or have changed since they were opened.
    """
    device_map = checkpoint.device_map
    if device_map is not None and device_map.entries:
        skeleton = _load(checkpoint, "float32", META)
        check_entries(checkpoint.spec, skeleton, device_map, find_blocks(skeleton.base_model, skeleton.config))
    model = _load(checkpoint, dtype, device)
    if device_map is not None:
        check_disk(checkpoint.spec, model, device_map)
    # The loader maps files into memory: a later write to them would change the model.
    for tensor in {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}.values():
        if tensor.device.type == "cpu" and type(tensor.data) is torch.Tensor:
            tensor.data = tensor.data.clone()
    check_unchanged(checkpoint)
    return model


def check_architecture(checkpoint: Checkpoint) -> None:
    """Check that the files hold the weights of the architecture, by names and shapes; no value is read.

    Raises:
        ModelError: the weights do not match, or the configuration is not that of a causal language model.
    """
    if (read_json(checkpoint.folder / CONFIG_FILE)).get("quantization_config"):
        return  # its quantizer may need the values; `load_stored_model` checks them
    _load(checkpoint, "float32", META)


def build_untrained_copy(checkpoint: Checkpoint, dtype: str, seed: int, device: str = "cpu") -> Any:
    """Build the architecture with weights initialised from a seed, in main memory, then spread as the device map tells."""
    with LOAD_LOCK, _failures_as_model_errors(checkpoint):
        register_classes(checkpoint)
        config = AutoConfig.from_pretrained(str(checkpoint.folder), trust_remote_code=checkpoint.loading.remote_code)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(config, **_load_kwargs(checkpoint))
            cast_weights(model, DTYPES[dtype])
            copy_computed_buffers(_computed_buffers_of(checkpoint, config, dtype), model)
        if checkpoint.device_map is not None:
            with offload_folder(checkpoint.device_map) as (folder, keep_with):
                dispatch(model, checkpoint.device_map, device, folder)
                keep_with(model)
    _reset_generation_config(checkpoint, model)
    return model


def cast_weights(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Cast what the files of a model hold, in place: parameters and persistent buffers, as `from_pretrained` does.

    `model.to(dtype)` casts computed buffers as well; rotary frequencies that are rounded to bfloat16 move the positions.
    """
    stored = model.state_dict().keys()
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if name in stored and tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)


def copy_computed_buffers(source: torch.nn.Module, target: torch.nn.Module) -> None:
    """Give a model the buffers of another of its architecture that no file holds, such as tables of positions."""
    stored, buffers = source.state_dict().keys(), dict(source.named_buffers())
    for name, buffer in target.named_buffers():
        if name not in stored and name in buffers:
            buffer.data = buffers[name].data.clone()


def _computed_buffers_of(checkpoint: Checkpoint, config: Any, dtype: str) -> Any:
    """A model without weights whose computed buffers are those of one that is loaded in this dtype."""
    with init_empty_weights(include_buffers=False):
        # What some buffers are depends on the default dtype at building; the configuration has that of the files.
        model = AutoModelForCausalLM.from_config(deepcopy(config), dtype=DTYPES[dtype], **_load_kwargs(checkpoint))
    for module in model.modules():
        # As `from_pretrained` computes them: again, once the default dtype is float32 as before.
        model._init_weights(module)
    return model


def _load(checkpoint: Checkpoint, dtype: str, device: str) -> Any:
    device_map = None if device == META else checkpoint.device_map
    with LOAD_LOCK, _failures_as_model_errors(checkpoint), offload_folder(device_map) as (folder, keep_with):
        register_classes(checkpoint)
        placement = {"device_map": META} if device == META else load_kwargs(device_map, device, folder)
        model, loading_info = AutoModelForCausalLM.from_pretrained(
            str(checkpoint.folder),
            dtype=DTYPES[dtype],
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            generation_config=GenerationConfig(),
            **placement,
            **_load_kwargs(checkpoint),
        )
        keep_with(model)
    check_weights(checkpoint.spec, model, loading_info, read_model_tensors(checkpoint.spec, checkpoint.folder))
    _reset_generation_config(checkpoint, model)
    return model


def _load_kwargs(checkpoint: Checkpoint) -> dict[str, Any]:
    loading = checkpoint.loading
    options: dict[str, Any] = {"trust_remote_code": loading.remote_code}
    if loading.attention:
        options["attn_implementation"] = loading.attention
    return options


def find_blocks(base: torch.nn.Module, config: Any) -> torch.nn.ModuleList:
    """Find the blocks: the outermost ModuleList of `num_hidden_layers` modules."""
    count = config.get_text_config().num_hidden_layers
    for module in base.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return module
    raise ModelError(f"{type(base).__name__}: no list of {count} blocks found; its hidden states cannot be read")


def register_classes(checkpoint: Checkpoint) -> None:
    model_type = read_json(checkpoint.folder / CONFIG_FILE).get("model_type")
    if model_type in REGISTERING_MODULES:
        importlib.import_module(REGISTERING_MODULES[model_type])


def _reset_generation_config(checkpoint: Checkpoint, model: Any) -> None:
    """Keep only the end-of-sequence ids of the generation settings, since decoding is the argmax of the logits."""
    config = model.config.get_text_config()
    model.generation_config = GenerationConfig(
        eos_token_id=read_end_token_ids(checkpoint, config.vocab_size), use_cache=True
    )
    # Code of the folder may have replaced the class's method.
    vars(model).pop("generate", None)


def read_end_token_ids(checkpoint: Checkpoint, vocabulary: int) -> list[int] | None:
    """Read the token ids that end an answer from `generation_config.json`, else `config.json`; None if neither names one.

    Args:
        checkpoint: the model's files.
        vocabulary: vocabulary size V.

    Raises:
        ModelError: the entry is not a token id or a list of them.
    """
    path = checkpoint.folder / GENERATION_CONFIG
    config = read_json(checkpoint.folder / CONFIG_FILE)
    stored = read_json(path) if path.is_file() else {}
    value = stored.get("eos_token_id")
    if value is None:
        value = config.get("eos_token_id")
    if value is None and isinstance(config.get("text_config"), dict):
        value = config["text_config"].get("eos_token_id")
    if value is None:
        return None
    ids = value if isinstance(value, list) else [value]
    if not ids or not all(type(token) is int for token in ids):
        raise ModelError(
            f"{checkpoint.spec}: eos_token_id is {json.dumps(value)[:80]}; expected a token's number, or a list"
        )
    # Ids outside the vocabulary are never generated; older files use -1, V or V + 1 for "none".
    return [token for token in ids if 0 <= token < vocabulary] or None


@contextmanager
def _failures_as_model_errors(checkpoint: Checkpoint) -> Iterator[None]:
    try:
        yield
    except (BenchmarkError, MemoryError):
        raise
    except Exception as error:  # libraries and remote code may raise anything
        raise ModelError(f"{checkpoint.spec}: cannot be loaded: {failure_message(error, 300)}") from error


def failure_message(problem: BaseException, length: int) -> str:
    """The message of an exception on one line, at most `length` characters; remote code is named by our option."""
    text = " ".join(str(problem).split())
    if "trust_remote_code" in text:
        return "it comes with its own code; --trust-remote-code runs it (such a run is never official)"
    return text[:length] or type(problem).__name__
