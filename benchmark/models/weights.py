"""Whether a model's files hold the weights of its architecture: all of them, of the right shapes, and no others.

transformers draws what the files lack at random and leaves what it does not know aside; both are errors here. Tied
heads, buffers (computed from the configuration) and value heads beside the language model's are not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmark.errors import ModelError
from benchmark.models.safetensors_header import StoredTensor, list_weight_files, read_stored_tensors

OTHER_MODALITY_NAME = re.compile(r"^(model\.)?(vision|visual|audio|image|multi_modal|multimodal|mm_)\w*\.")
"""Weights of a model of several modalities that its text model does not have."""
WRAPPER_PREFIXES = {
    "_orig_mod.": "torch.compile; save the module inside (model._orig_mod)",
    "module.": "DataParallel; save the module inside (model.module)",
    "_fsdp_wrapped_module.": "FSDP; gather the whole state dict before saving",
    "base_model.model.": "PEFT; merge_and_unload() before saving",
    "pretrained_model.": "TRL; save the model inside (model.pretrained_model)",
    "state_dict.": "a trainer; save with save_pretrained",
}


def check_weights(spec: str, model: Any, loading_info: Mapping[str, Any], tensors: Sequence[StoredTensor]) -> None:
    """Refuse a model whose files do not hold its weights.

    Args:
        spec: of the model, for messages.
        model: as `from_pretrained` made it, on any device.
        loading_info: what `from_pretrained` gives with `output_loading_info`.
        tensors: of the files.

    Raises:
        ModelError: naming the first missing, unused or misshapen weight, and how many there are.
    """
    order = {name: index for index, name in enumerate(model.state_dict())}
    buffers = {name for name, _ in model.named_buffers()}
    missing = sorted(set(loading_info["missing_keys"]) - buffers, key=lambda name: (order.get(name, len(order)), name))
    by_name = {tensor.name: tensor for tensor in tensors}
    unused = sorted(name for name in loading_info["unexpected_keys"] if not _is_allowed(name, by_name))
    mismatched = sorted(loading_info["mismatched_keys"], key=lambda entry: order.get(entry[0], len(order)))
    wrapper_hint = _wrapper_hint(by_name)
    if missing:
        unused_text = f", while {len(unused)} stored weights are unused, the first {unused[0]}" if unused else ""
        raise ModelError(
            f"{spec}: its files lack weights: {missing[0]}, the first of {len(missing)} missing{unused_text}; they would be "
            f"drawn at random; {wrapper_hint or _save_advice(model)}"
        )
    if mismatched:
        name, stored, expected = mismatched[0]
        raise ModelError(
            f"{spec}: {name} is {list(stored)} in its files, {list(expected)} by config.json, the first of "
            f"{len(mismatched)} such weights; {wrapper_hint or _save_advice(model)}"
        )
    if unused:
        raise ModelError(
            f"{spec}: the stored weight {unused[0]}, the first of {len(unused)}, has no place in {type(model).__name__} "
            f"as config.json describes it, and would be left unused; {wrapper_hint or _save_advice(model)}"
        )
    errors = [*loading_info.get("error_msgs", ())]
    if errors:
        raise ModelError(f"{spec}: its weights cannot be loaded: {' '.join(str(errors[0]).split())[:200]}")
    _check_stored_once(spec, by_name, model.base_model_prefix)


def _is_allowed(name: str, by_name: Mapping[str, StoredTensor]) -> bool:
    """Whether a stored tensor may be left unused; `name` may lack or have a prefix that the stored one does not."""
    tensor = by_name.get(name) or next(
        (by_name[key] for key in by_name if key.endswith(name) or name.endswith(key)), None
    )
    if tensor is None:
        return False
    return tensor.is_buffer or tensor.is_value_head or OTHER_MODALITY_NAME.match(tensor.name) is not None


def _check_stored_once(spec: str, names: Iterable[str], prefix: str) -> None:
    """A weight that is stored with and without the model's prefix is loaded from one of them only."""
    stored = set(names)
    duplicates = sorted(name for name in stored if prefix and f"{prefix}.{name}" in stored)
    if duplicates:
        raise ModelError(
            f"{spec}: {duplicates[0]} is stored twice, also as {prefix}.{duplicates[0]}, the first of {len(duplicates)} such weights; "
            "save the model again with save_pretrained"
        )


def check_files_store_once(spec: str, tensors: Sequence[StoredTensor]) -> None:
    """Refuse shards that hold a tensor of the same name twice: which of them is loaded depends on their order."""
    duplicates = [name for name, count in Counter(tensor.name for tensor in tensors).items() if count > 1]
    if duplicates:
        raise ModelError(
            f"{spec}: {duplicates[0]} is stored in two shards, the first of {len(duplicates)} such weights; save the model again"
        )


def read_model_tensors(spec: str, folder: Any) -> list[StoredTensor]:
    """The tensors of the files that transformers loads from a folder."""
    tensors = [tensor for path in list_weight_files(folder) for tensor in read_stored_tensors(path)]
    check_files_store_once(spec, tensors)
    return tensors


def _wrapper_hint(names: Iterable[str]) -> str:
    """What wrapped the model when it was saved, by what every name begins with."""
    names = list(names)
    for prefix, wrapper in WRAPPER_PREFIXES.items():
        if names and all(name.startswith(prefix) or f".{prefix}" in name for name in names):
            return f"every name holds {prefix!r}, as saved from {wrapper}"
    return ""


def _save_advice(model: Any) -> str:
    return f"save the whole {type(model).__name__} with save_pretrained, and its config.json with it"
