"""The stored weights of a model: tensors by the headers of its safetensors files, and whether they fit the architecture.

transformers initialises missing weights at random and ignores unknown ones; both are errors here. Not errors: tied
heads, buffers (computed from the configuration) and value heads.

Parameters are counted over the stored tensors of the files that transformers loads, without buffers (masks, rotary
frequencies, positions, counters) and value heads, and a tied embedding once. Errors are `ModelError`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

from benchmark.artifacts import INDEX_FILE, WEIGHTS_FILE
from benchmark.errors import ModelError, SubmissionError
from benchmark.files import read_safetensors_header
from benchmark.models.json_files import check_kind, read_json

MAX_MODEL_HEADER_BYTES = 100_000_000
MASK_NAME = re.compile(r"(^|\.)(attn|attention|self_attn|self_attention)\.(bias|masked_bias|mask|causal_mask)$")
"""Names of causal masks stored by older versions of transformers; a trained bias has one dimension."""
BUFFER_NAME = re.compile(r"(^|\.)(inv_freq|original_inv_freq|position_ids|num_batches_tracked|cos_cached|sin_cached)$")
VALUE_HEAD_NAME = re.compile(
    r"^(\w+_)?(v|value|values|reward|rm|critic|score|classifier|classification|regression|multiple_choice|mc)(_heads?)?\."
)
"""First part of the names of additional heads, as reinforcement learning and classification add them."""
OTHER_MODALITY_NAME = re.compile(r"^(model\.)?(vision|visual|audio|image|multi_modal|multimodal|mm_)\w*\.")
"""Weights of a multimodal model that its text model does not have."""
WRAPPER_PREFIXES = {
    "_orig_mod.": "torch.compile; save the module inside (model._orig_mod)",
    "module.": "DataParallel; save the module inside (model.module)",
    "_fsdp_wrapped_module.": "FSDP; gather the whole state dict before saving",
    "base_model.model.": "PEFT; merge_and_unload() before saving",
    "pretrained_model.": "TRL; save the model inside (model.pretrained_model)",
    "state_dict.": "a trainer; save with save_pretrained",
}


@dataclass(frozen=True)
class StoredTensor:
    """An entry of a safetensors header.

    Attributes:
        name, dtype, shape: as in the header.
        path: path of the file.
        start, stop: byte range of the values in the file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)

    @property
    def is_buffer(self) -> bool:
        """Whether the tensor is computed from the configuration instead of trained."""
        mask = MASK_NAME.search(self.name) is not None and (len(self.shape) > 1 or self.size <= 1)
        return mask or BUFFER_NAME.search(self.name) is not None

    @property
    def is_value_head(self) -> bool:
        """Whether the tensor belongs to a head that a language model does not use."""
        return VALUE_HEAD_NAME.match(self.name) is not None

    def digest(self) -> str:
        """SHA-256 of the stored values."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            return sha256(file.read(self.stop - self.start)).hexdigest()


def list_weight_files(folder: Path) -> list[Path]:
    """List the weight files that transformers reads: `model.safetensors` if it exists, else the shards of the index.

    The list is empty if neither exists.

    Raises:
        ModelError: a damaged index, or a shard that is missing or outside the folder.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    index = folder / INDEX_FILE
    if not index.is_file():
        return []
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise ModelError(f"{index}: not an index of shards (no weight_map of file names); save the weights again")
    shards = sorted(set(weight_map.values()))
    outside = [shard for shard in shards if Path(shard).name != shard]
    if outside:
        raise ModelError(f"{index}: names the shard {outside[0]!r}; expected files beside it; save the weights again")
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise ModelError(
            f"{folder}: {missing[0]} is missing, one of {len(missing)} missing of the {len(shards)} shards that "
            f"{INDEX_FILE} names; fetch or save the model again"
        )
    if not shards:
        raise ModelError(f"{index}: names no shards; save the weights again")
    return [folder / shard for shard in shards]


def read_stored_tensors(path: Path) -> list[StoredTensor]:
    """Read the header of a safetensors file.

    Raises:
        ModelError: not a safetensors file, or a file that ends before its tensors do.
    """
    check_kind(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            header, data_start = read_safetensors_header(file, path.name, MAX_MODEL_HEADER_BYTES)
        tensors = [_parse_entry(path, data_start, name, entry) for name, entry in header.items()]
    except (SubmissionError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200].removeprefix(f"{path.name}: no safetensors file: ")
        raise ModelError(f"{path}: not a safetensors file ({reason}); save the weights again") from error
    short = next((tensor for tensor in tensors if tensor.stop > size), None)
    if short is not None:
        raise ModelError(
            f"{path}: ends after {size:,} bytes, before {short.name} does ({short.stop:,}); fetch or save it again"
        )
    return tensors


def _parse_entry(path: Path, data_start: int, name: str, entry: dict[str, Any]) -> StoredTensor:
    shape, (start, stop) = entry["shape"], entry["data_offsets"]
    if not all(isinstance(number, int) and number >= 0 for number in (*shape, start, stop)):
        raise ValueError(f"{name}: shape {shape}, bytes {start} to {stop}")
    return StoredTensor(name, str(entry["dtype"]), tuple(shape), path, data_start + start, data_start + stop)


def count_parameters(tensors: Sequence[StoredTensor], is_tied: bool | None) -> int:
    """Count the parameters of a model.

    Args:
        tensors: tensors of all weight files.
        is_tied: `tie_word_embeddings` of the configuration; None if it is not set.
    """
    trained = {tensor.name: tensor for tensor in tensors if not tensor.is_buffer and not tensor.is_value_head}
    total = sum(tensor.size for tensor in trained.values())
    if is_tied is not False:
        total -= sum(tensor.size for tensor in _tied_copies(list(trained.values())))
    return total


def _tied_copies(tensors: Sequence[StoredTensor]) -> list[StoredTensor]:
    """Find tied embeddings that are stored twice: embedding and head matrices of equal dtype, shape and content."""
    matrices = [tensor for tensor in tensors if len(tensor.shape) == 2 and _is_embedding(tensor.name)]
    keys: set[tuple[str, tuple[int, ...], str]] = set()
    copies = []
    for tensor in matrices if len(matrices) > 1 else []:
        key = (tensor.dtype, tensor.shape, tensor.digest())
        if key in keys:
            copies.append(tensor)
        keys.add(key)
    return copies


def _is_embedding(name: str) -> bool:
    return (
        re.search(r"(^|\.)(\w*embed\w*|wte|word_embeddings|lm_head|head|embed_out|output)\.weight$", name) is not None
    )


def check_weights(spec: str, model: Any, loading_info: Mapping[str, Any], tensors: Sequence[StoredTensor]) -> None:
    """Check that the files hold all weights of a model and no others.

    Args:
        spec: model spec for messages.
        model: result of `from_pretrained`, on any device.
        loading_info: second result of `from_pretrained` with `output_loading_info`.
        tensors: tensors of the weight files.

    Raises:
        ModelError: names the first missing, mismatched or unused weight and their number.
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
    """Whether a stored tensor may stay unused; `name` may differ from the stored name by a prefix."""
    tensor = by_name.get(name) or next(
        (by_name[key] for key in by_name if key.endswith(name) or name.endswith(key)), None
    )
    if tensor is None:
        return False
    return tensor.is_buffer or tensor.is_value_head or OTHER_MODALITY_NAME.match(tensor.name) is not None


def _check_stored_once(spec: str, names: Iterable[str], prefix: str) -> None:
    """Refuse a weight stored both with and without the model's prefix, since only one of them is loaded."""
    stored = set(names)
    duplicates = sorted(name for name in stored if prefix and f"{prefix}.{name}" in stored)
    if duplicates:
        raise ModelError(
            f"{spec}: {duplicates[0]} is stored twice, also as {prefix}.{duplicates[0]}, the first of {len(duplicates)} such weights; "
            "save the model again with save_pretrained"
        )


def check_files_store_once(spec: str, tensors: Sequence[StoredTensor]) -> None:
    """Refuse a tensor name that occurs in two shards, since the order of the shards decides which is loaded."""
    duplicates = [name for name, count in Counter(tensor.name for tensor in tensors).items() if count > 1]
    if duplicates:
        raise ModelError(
            f"{spec}: {duplicates[0]} is stored in two shards, the first of {len(duplicates)} such weights; save the model again"
        )


def read_model_tensors(spec: str, folder: Any) -> list[StoredTensor]:
    """Read the headers of all weight files that transformers loads from a folder."""
    tensors = [tensor for path in list_weight_files(folder) for tensor in read_stored_tensors(path)]
    check_files_store_once(spec, tensors)
    return tensors


def _wrapper_hint(names: Iterable[str]) -> str:
    """Name the wrapper that the model was saved from if all names have its prefix; else an empty string."""
    names = list(names)
    for prefix, wrapper in WRAPPER_PREFIXES.items():
        if names and all(name.startswith(prefix) or f".{prefix}" in name for name in names):
            return f"every name holds {prefix!r}, as saved from {wrapper}"
    return ""


def _save_advice(model: Any) -> str:
    return f"save the whole {type(model).__name__} with save_pretrained, and its config.json with it"
