"""Error messages for folders and repositories without loadable weights: what they hold and what to do.

Covers adapters, Trainer checkpoints, subfolders and formats of other programs. Errors are `ModelError`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from benchmark.artifacts import INDEX_FILE, WEIGHTS_FILE
from benchmark.errors import ModelError
from benchmark.models.interface import ModelSpec
from benchmark.models.json_files import CONFIG_FILE, read_json

ADAPTER = "adapter_config.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.bin.index.json")
OTHER_FORMATS = {
    "*.gguf": "GGUF, the format of llama.cpp",
    "*.ggml": "GGML, the format of llama.cpp",
    "*.h5": "a TensorFlow format",
    "*.msgpack": "a Flax format",
    "*.onnx": "ONNX",
    "*.npz": "a NumPy archive, as MLX writes it",
}
MAX_LISTED = 3
"""Largest number of names in a message."""


def list_local_names(folder: Path) -> list[str]:
    """List the files of a folder and of its direct subfolders, relative to it."""
    names = []
    for path in sorted(folder.iterdir()):
        names += [f"{path.name}/{inner.name}" for inner in sorted(path.iterdir())] if path.is_dir() else [path.name]
    return names


def refuse_adapter(spec: ModelSpec, folder: Path) -> None:
    """Refuse a folder with an adapter: transformers would load the base model that the adapter names.

    Raises:
        ModelError: the folder has an adapter configuration.
    """
    if not (folder / ADAPTER).is_file():
        return
    base = read_json(folder / ADAPTER).get("base_model_name_or_path")
    raise ModelError(
        f"{spec}: an adapter (PEFT) of the model {str(base)[:100]!r}, no model; load it with its base, "
        f"merge_and_unload(), save_pretrained to a folder, and give that one; or remove {ADAPTER} beside whole weights"
    )


def missing_weights_error(spec: ModelSpec, folder: Path, names: Sequence[str]) -> ModelError:
    """Build the error for a folder without `model.safetensors` and index, from its file names (`sub/model.safetensors`)."""
    top = [name for name in names if "/" not in name]
    subfolders = sorted({name.split("/")[0] for name in names if fnmatch(name, "*/*.safetensors")}, key=_by_number)
    checkpoints = [name for name in subfolders if re.fullmatch(r"checkpoint-\d+", name)]
    target = spec.target if spec.scheme == "hf" else str(folder)
    if checkpoints:
        return ModelError(
            f"{spec}: a Trainer output folder, with its checkpoints {_join_names(checkpoints)}; give one of them, such as "
            f"{_subfolder_spec(spec, target, checkpoints[-1])}"
        )
    unread = [name for name in top if fnmatch(name, "*.safetensors")]
    if unread:
        return ModelError(
            f"{spec}: has {unread[0]}, but no {WEIGHTS_FILE} and no {INDEX_FILE}, which transformers reads; "
            "rename it, or save the model with save_pretrained"
        )
    if subfolders:
        return ModelError(
            f"{spec}: its weights lie in the subfolder{'s' * (len(subfolders) > 1)} {_join_names(subfolders)}; give "
            f"{_subfolder_spec(spec, target, subfolders[0])}"
        )
    pickles = [name for name in top if any(fnmatch(name, pattern) for pattern in PICKLES)]
    if pickles:
        return ModelError(
            f"{spec}: weights only as {pickles[0]}, a format that can run code when opened; "
            "save them as safetensors (model.save_pretrained of transformers does)"
        )
    for pattern, description in OTHER_FORMATS.items():
        files = [name for name in names if fnmatch(name, pattern)]
        if files:
            return ModelError(
                f"{spec}: weights only as {files[0]} ({description}); give the folder or repository of the same model in "
                f"safetensors, which {files[0].split('/')[-1]} was converted from"
            )
    return ModelError(f"{spec}: {folder} has no *.safetensors weights; save them with model.save_pretrained")


def missing_config_error(spec: ModelSpec, folder: Path) -> ModelError:
    """Build the error for a folder with weights but without `config.json`."""
    return ModelError(f"{spec}: {folder} has no {CONFIG_FILE}; expected a folder that save_pretrained wrote")


def _subfolder_spec(spec: ModelSpec, target: str, subfolder: str) -> str:
    if spec.scheme == "path":
        return f"path:{target}/{subfolder}"
    return f"path:DIR/{subfolder} after `hf download {target} --include '{subfolder}/*' --local-dir DIR`"


def _by_number(name: str) -> tuple[str, int]:
    stem, _, number = name.rpartition("-")
    return (stem, int(number)) if number.isdigit() else (name, 0)


def _join_names(names: Sequence[str]) -> str:
    suffix = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[-MAX_LISTED:]) + suffix
