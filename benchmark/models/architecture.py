"""A checkpoint made into a module of transformers: with its stored weights, without values, or with fresh ones.

Nothing but weights, configuration and end marks is taken from the files: settings of generation are not. Errors are
`ModelError`.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from benchmark.errors import BenchmarkError, ModelError
from benchmark.models.checkpoint import Checkpoint, check_unchanged
from benchmark.models.json_files import CONFIG_FILE, read_json
from benchmark.models.weights import check_weights, read_model_tensors

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
REGISTERING_MODULES = {"karel-lstm": "baselines.lstm"}
"""Modules that tell transformers of model types it does not know; imported where a checkpoint is of such a type."""
GENERATION_CONFIG = "generation_config.json"
LOAD_LOCK = RLock()
"""Held while transformers makes a model. It replaces methods of its classes meanwhile (`no_tie_weights`) and a global random
state is set; of two threads, the one that ends last would put the other's replacement back for good."""


def load_stored_model(checkpoint: Checkpoint, dtype: str) -> Any:
    """The model with its stored weights, every one of them, in memory of its own.

    Raises:
        ModelError: files that cannot be loaded, lack weights, or have changed since they were opened.
    """
    model = _load(checkpoint, dtype, "cpu")
    # The loader maps files into memory: what is written to them later would reach the model.
    for tensor in {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}.values():
        if tensor.device.type == "cpu" and type(tensor.data) is torch.Tensor:
            tensor.data = tensor.data.clone()
    check_unchanged(checkpoint)
    return model


def check_architecture(checkpoint: Checkpoint) -> None:
    """Whether the files hold the weights of the architecture, by names and shapes; no value is read.

    Raises:
        ModelError: they do not, or the configuration is none of a causal language model.
    """
    if (read_json(checkpoint.folder / CONFIG_FILE)).get("quantization_config"):
        return  # its quantizer may need the values; `stored_model` looks then
    _load(checkpoint, "float32", "meta")


def build_untrained_copy(checkpoint: Checkpoint, dtype: str, seed: int) -> Any:
    """The architecture with weights drawn from a seed."""
    with LOAD_LOCK, _failures_as_model_errors(checkpoint):
        register_classes(checkpoint)
        config = AutoConfig.from_pretrained(str(checkpoint.folder), trust_remote_code=checkpoint.loading.remote_code)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(config, **_load_kwargs(checkpoint)).to(DTYPES[dtype])
    _reset_generation_config(checkpoint, model)
    return model


def _load(checkpoint: Checkpoint, dtype: str, device: str) -> Any:
    with LOAD_LOCK, _failures_as_model_errors(checkpoint):
        register_classes(checkpoint)
        model, loading_info = AutoModelForCausalLM.from_pretrained(
            str(checkpoint.folder),
            dtype=DTYPES[dtype],
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            generation_config=GenerationConfig(),
            **({"device_map": "meta"} if device == "meta" else {}),
            **_load_kwargs(checkpoint),
        )
    check_weights(checkpoint.spec, model, loading_info, read_model_tensors(checkpoint.spec, checkpoint.folder))
    _reset_generation_config(checkpoint, model)
    return model


def _load_kwargs(checkpoint: Checkpoint) -> dict[str, Any]:
    loading = checkpoint.loading
    options: dict[str, Any] = {"trust_remote_code": loading.remote_code}
    if loading.attention:
        options["attn_implementation"] = loading.attention
    return options


def register_classes(checkpoint: Checkpoint) -> None:
    model_type = read_json(checkpoint.folder / CONFIG_FILE).get("model_type")
    if model_type in REGISTERING_MODULES:
        importlib.import_module(REGISTERING_MODULES[model_type])


def _reset_generation_config(checkpoint: Checkpoint, model: Any) -> None:
    """Answers are the argmax of the logits: of the settings of generation, only end marks are taken."""
    config = model.config.get_text_config()
    model.generation_config = GenerationConfig(
        eos_token_id=read_end_token_ids(checkpoint, config.vocab_size), use_cache=True
    )
    # A function of the folder's own may stand in place of the class's.
    vars(model).pop("generate", None)


def read_end_token_ids(checkpoint: Checkpoint, vocabulary: int) -> list[int] | None:
    """Ids that end an answer: of `generation_config.json`, else of the configuration; None if neither names one.

    Args:
        checkpoint: the model's files.
        vocabulary: number of tokens.

    Raises:
        ModelError: what stands there is no token of the model.
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
    # Ids beyond the vocabulary are never written; -1 and 0 to 1 beyond stand for "none" in older files.
    return [token for token in ids if 0 <= token < vocabulary] or None


@contextmanager
def _failures_as_model_errors(checkpoint: Checkpoint) -> Iterator[None]:
    try:
        yield
    except (BenchmarkError, MemoryError):
        raise
    except Exception as problem:  # libraries, and code that comes with a model, may raise anything
        raise ModelError(f"{checkpoint.spec}: cannot be loaded: {failure_message(problem, 300)}") from problem


def failure_message(problem: BaseException, length: int) -> str:
    """A message of transformers on one line, in this command's words where code that comes with a model is meant."""
    text = " ".join(str(problem).split())
    if "trust_remote_code" in text:
        return "it comes with code of its own; --trust-remote-code runs it (such a run is never official)"
    return text[:length] or type(problem).__name__
