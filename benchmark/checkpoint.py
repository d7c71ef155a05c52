"""A model's files: found on disk or on the hub, checked before anything is loaded, and digested.

A baseline that is no network (`baseline:NAME`) is the source of its package; it has no weights and no states.

Weights are safetensors only: other formats can run code when they are opened. Errors are `ModelError`.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import os
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

from benchmark.errors import ModelError
from benchmark.models import ModelSpec

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
"""Files of a hub model that are fetched: configuration, weights, tokenizer."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder that holds a model.

    Attributes:
        spec: as the user named it; a hub revision is resolved to a commit.
        folder: where the files are.
        name: short, for rows and run folders.
        parameters: number of stored weights.
        weight_bytes: size of the stored weights in bytes.
        digest: SHA-256 over configuration, weights and tokenizer files.
        network: whether there are hidden states to read.
    """

    spec: str
    folder: Path
    name: str
    parameters: int
    weight_bytes: int
    digest: str
    network: bool = True


BASELINES = "baselines.registry"
"""Module of the baselines; imported where one is asked for by name, since nothing here depends on them."""


def open_checkpoint(spec: ModelSpec) -> Checkpoint:
    """Find and check the files of a model; a hub model is downloaded to the hub's cache."""
    if spec.scheme == "baseline":
        return _baseline(spec)
    folder = Path(spec.target) if spec.scheme == "path" else _download(spec)
    if not folder.is_dir():
        raise ModelError(f"{spec}: no folder at {folder}; give a folder that save_pretrained wrote")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{spec}: {folder} has no config.json; expected a folder that save_pretrained wrote")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickles = sorted(p.name for pattern in PICKLES for p in folder.glob(pattern))
        if pickles:
            raise ModelError(
                f"{spec}: weights only as {pickles[0]}, a format that can run code when opened; "
                "save them as safetensors (model.save_pretrained of transformers does)"
            )
        raise ModelError(f"{spec}: {folder} has no *.safetensors weights; save them with model.save_pretrained")
    named = str(spec)
    if spec.scheme == "hf":
        named = f"hf:{spec.target}@{folder.resolve().name}"
    shapes = [shape for path in weights for shape in _tensor_shapes(path)]
    return Checkpoint(
        spec=named,
        folder=folder.resolve(),
        name=_short_name(spec, folder),
        parameters=sum(prod(shape) for shape in shapes),
        weight_bytes=sum(path.stat().st_size for path in weights),
        digest=_digest(folder),
    )


def _baseline(spec: ModelSpec) -> Checkpoint:
    registry = importlib.import_module(BASELINES)
    if spec.target not in registry.BASELINES:
        raise ModelError(f"{spec}: no such baseline; expected one of {', '.join(registry.BASELINES)}")
    source = Path(inspect.getfile(registry.BASELINES[spec.target]))
    whole = hashlib.sha256(spec.target.encode())
    for path in (source, source.with_name("prompt_reading.py")):
        whole.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return Checkpoint(str(spec), source.parent, spec.target, 0, 0, whole.hexdigest(), network=False)


def _short_name(spec: ModelSpec, folder: Path) -> str:
    return folder.resolve().name if spec.scheme == "path" else spec.target


def _download(spec: ModelSpec) -> Path:
    try:
        return Path(snapshot_download(spec.target, revision=spec.revision or None, allow_patterns=list(WANTED)))
    except (RepositoryNotFoundError, HFValidationError) as problem:
        raise ModelError(
            f"{spec}: no such model on the hub, or no access to it; check the name and your token"
        ) from problem
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as problem:
        raise ModelError(
            f"{spec}: not in the local hub cache and the hub cannot be reached "
            f"({type(problem).__name__}); download it where there is a network, or use path:FOLDER"
        ) from problem


def _tensor_shapes(path: Path) -> list[list[int]]:
    """Shapes in the header of a safetensors file (8 bytes of length, then JSON), without reading the weights."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(100_000_000, path.stat().st_size):
                raise ValueError(f"header of {length} bytes")
            header = json.loads(file.read(length))
        return [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, struct.error) as problem:
        raise ModelError(f"{path}: not a safetensors file ({problem}); save the weights again") from problem


def _digest(folder: Path) -> str:
    """SHA-256 over name and content of every file that can change what the model computes."""
    whole = hashlib.sha256()
    for pattern in WANTED:
        for path in sorted(folder.glob(pattern)):
            if path.name in NOT_THE_MODEL:
                continue
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
            whole.update(path.name.encode() + b"\0" + content)
    return whole.hexdigest()


NOT_THE_MODEL = ("record.json", "status.json", "training.json", "README.txt")
"""Files of a submission beside its model."""


def available_memory() -> int:
    """Bytes of memory that a new process could take (Linux: MemAvailable; elsewhere the physical size)."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
