"""Read the JSON files of a model as untrusted data, within size limits. Errors are `ModelError`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.errors import ModelError

CONFIG_FILE = "config.json"
TRAINING_FILE, TRAINER_FILE = "training.json", "trainer_state.json"
"""What a training tells of itself beside its model: `karel-bench train`, and the Trainer of transformers."""
MAX_BYTES = {CONFIG_FILE: 2_000_000}
DEFAULT_MAX_BYTES = 200_000_000
"""A vocabulary of 200,000 tokens with its merges takes about 20 MB."""
MAX_LABELS = 100_000
"""transformers creates a name per label, at about 500 bytes each."""
LAYER_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
WIDTH_KEYS = ("hidden_size", "n_embd", "d_model")
FEED_FORWARD_KEYS = ("intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim")
HEAD_KEYS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len")
SIZE_KEYS = (*LAYER_KEYS, *WIDTH_KEYS, "vocab_size")
MAX_DEPTH = 100

FOREIGN_SIGNATURES = {
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself; run git lfs pull in its repository, or download the file",
    b"<!doctype html": "a web page, not the file itself; download the file again, with a token if the model is gated",
    b"<html": "a web page, not the file itself; download the file again, with a token if the model is gated",
    b"PK\x03\x04": "an archive, as torch.save writes; expected the file that save_pretrained of transformers writes",
    b"GGUF": "a GGUF file of llama.cpp; give the model in safetensors that it was converted from",
}
"""Message by the first bytes of a file whose content does not fit its name."""


def read_json(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file.

    Raises:
        ModelError: too large, of another kind, not JSON, not an object, or nested too deep.
    """
    size, most = path.stat().st_size, MAX_BYTES.get(path.name, DEFAULT_MAX_BYTES)
    if size > most:
        raise ModelError(f"{path}: {size:,} bytes; expected at most {most:,} of a model's {path.name}")
    check_kind(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ModelError(f"{path}: nested too deep for JSON of a model; save the model again") from error
    except ValueError as error:
        raise ModelError(f"{path}: not JSON ({error}); save the model again, or fetch it again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: holds a {type(content).__name__}; expected an object; save the model again")
    if _depth(content) > MAX_DEPTH:
        raise ModelError(f"{path}: nested more than {MAX_DEPTH} deep; save the model again")
    return content


def check_kind(path: Path) -> None:
    """Raise `ModelError` if the first bytes of a file are those of another file format (`FOREIGN_SIGNATURES`)."""
    with path.open("rb") as file:
        beginning = file.read(len(max(FOREIGN_SIGNATURES, key=len)))
    for mark, kind in FOREIGN_SIGNATURES.items():
        if beginning.lower().startswith(mark.lower()):
            raise ModelError(f"{path}: {kind}")


def _depth(content: object) -> int:
    """Number of nested levels of lists and objects."""
    depth, level = 0, [content]
    while level:
        depth += 1
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return depth


def read_config(folder: Path, num_tensors: int) -> dict[str, Any]:
    """Read the configuration of a model and check its sizes before a library allocates anything from them.

    Args:
        folder: folder of the model.
        num_tensors: number of tensors in the weight files; each block has at least one.

    Raises:
        ModelError: not a model configuration, or sizes that do not fit the weight files.
    """
    path = folder / CONFIG_FILE
    config = read_json(path)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise ModelError(f"{path}: names no model_type; expected what save_pretrained of transformers writes")
    if "transformers_weights" in config:
        raise ModelError(
            f"{path}: names its weights by transformers_weights; remove it and name them model.safetensors"
        )
    nested = [config, *(part for part in config.values() if isinstance(part, dict))]
    for part in nested:
        labels = part.get("num_labels", 0)
        if isinstance(labels, int) and labels > MAX_LABELS:
            raise ModelError(f"{path}: num_labels is {labels:,}; expected at most {MAX_LABELS:,}; remove it")
        for name in SIZE_KEYS:
            value = part.get(name)
            if isinstance(value, int | float) and not 0 < value < 1 << 31:
                raise ModelError(f"{path}: {name} is {value}; expected a number of 1 or more; save the model again")
        for name in LAYER_KEYS:
            layers = part.get(name)
            if part is config and isinstance(layers, int) and layers > num_tensors:
                raise ModelError(
                    f"{path}: {name} is {layers:,}, but the files store {num_tensors:,} tensors; weights of blocks are "
                    "missing; save the model again"
                )
    return config


def find_size(config: dict[str, Any], keys: Sequence[str]) -> int | None:
    """The first positive integer that a configuration has under one of the keys, its text model first; None without one."""
    values = (part.get(key) for part in _text_configs(config) for key in keys)
    return next((value for value in values if type(value) is int and value > 0), None)


def key_width(config: dict[str, Any], width: int) -> int:
    """Width of the keys, and of the values, of one layer: less than the model's width where query heads share them."""
    heads = find_size(config, HEAD_KEYS)
    if heads is None:
        return width
    # The later architecture of Falcon ignores `multi_query`, and its cache holds the keys of all query heads.
    shares_one = any(
        part.get("multi_query") is True and not part.get("new_decoder_architecture") for part in _text_configs(config)
    )
    key_heads = 1 if shares_one else find_size(config, ("num_key_value_heads",)) or heads
    return key_heads * (find_size(config, ("head_dim",)) or -(-width // heads))


def _text_configs(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Parts of a configuration that may describe the text model, the most specific first."""
    return [part for part in (config.get("text_config"), config) if isinstance(part, dict)]
