"""Tensors of safetensors files as their headers describe them: names, shapes, places, without reading the values.

What is counted as a parameter: every stored tensor of the files that transformers loads, but buffers (masks, rotary
frequencies, positions, counters) and value heads, and a tied embedding once. Errors are `ModelError`.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

from benchmark.errors import ModelError
from benchmark.models.json_files import check_kind, read_json

WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
MAX_MODEL_HEADER_BYTES = 100_000_000
MASK_NAME = re.compile(r"(^|\.)(attn|attention|self_attn|self_attention)\.(bias|masked_bias|mask|causal_mask)$")
"""Names of causal masks that older versions of transformers stored; a bias that is a weight has one dimension."""
BUFFER_NAME = re.compile(r"(^|\.)(inv_freq|original_inv_freq|position_ids|num_batches_tracked|cos_cached|sin_cached)$")
VALUE_HEAD_NAME = re.compile(
    r"^(\w+_)?(v|value|values|reward|rm|critic|score|classifier|classification|regression|multiple_choice|mc)(_heads?)?\."
)
"""First part of the names of a head beside the language model's, as reinforcement learning and classification add it."""


@dataclass(frozen=True)
class StoredTensor:
    """An entry of a safetensors header.

    Attributes:
        name, dtype, shape: as stored.
        path: of its file.
        start, stop: bytes of the file that hold its values.
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
        """Whether it is computed from the configuration, not trained."""
        mask = MASK_NAME.search(self.name) is not None and (len(self.shape) > 1 or self.size <= 1)
        return mask or BUFFER_NAME.search(self.name) is not None

    @property
    def is_value_head(self) -> bool:
        """Whether it belongs to a head that a language model does not use."""
        return VALUE_HEAD_NAME.match(self.name) is not None

    def digest(self) -> str:
        """SHA-256 of its values."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            return sha256(file.read(self.stop - self.start)).hexdigest()


def list_weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads: `model.safetensors` if it is there, else the shards that the index names.

    Empty where there is neither. Shards that are missing are an error.
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
            f"{folder}: {missing[0]} is not there, one of {len(missing)} missing of the {len(shards)} shards that "
            f"{INDEX_FILE} names; fetch or save the model again"
        )
    if not shards:
        raise ModelError(f"{index}: names no shards; save the weights again")
    return [folder / shard for shard in shards]


def read_stored_tensors(path: Path) -> list[StoredTensor]:
    """The header of a safetensors file: 8 bytes of length, then JSON."""
    size = path.stat().st_size
    check_kind(path)
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(MAX_MODEL_HEADER_BYTES, size - 8):
                raise ValueError(f"header of {length} bytes")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        tensors = [_tensor(path, 8 + length, name, entry) for name, entry in header.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as problem:
        reason = " ".join(str(problem).split())[:200]
        raise ModelError(f"{path}: not a safetensors file ({reason}); save the weights again") from problem
    short = next((tensor for tensor in tensors if tensor.stop > size), None)
    if short is not None:
        raise ModelError(
            f"{path}: ends after {size:,} bytes, before {short.name} does ({short.stop:,}); fetch or save it again"
        )
    return tensors


def _tensor(path: Path, begin: int, name: str, entry: dict[str, Any]) -> StoredTensor:
    shape, (start, stop) = entry["shape"], entry["data_offsets"]
    if not all(isinstance(number, int) and number >= 0 for number in (*shape, start, stop)):
        raise ValueError(f"{name}: shape {shape}, bytes {start} to {stop}")
    return StoredTensor(name, str(entry["dtype"]), tuple(shape), path, begin + start, begin + stop)


def count_parameters(tensors: Sequence[StoredTensor], is_tied: bool | None) -> int:
    """Parameters of the model that these tensors make.

    Args:
        tensors: of all files that are loaded.
        is_tied: `tie_word_embeddings` of the configuration; None if it does not say.
    """
    trained = {tensor.name: tensor for tensor in tensors if not tensor.is_buffer and not tensor.is_value_head}
    total = sum(tensor.size for tensor in trained.values())
    if is_tied is not False:
        total -= sum(tensor.size for tensor in _tied_copies(list(trained.values())))
    return total


def _tied_copies(tensors: Sequence[StoredTensor]) -> list[StoredTensor]:
    """Embeddings that are stored once more, as the head: matrices with the most rows, of equal content."""
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
