"""Find a model's files on disk or on the hub, check them before loading, and compute their digest.

A baseline without a network (`baseline:NAME`) is the source of its module; it has no weights and no hidden states. A
custom model (`py:`) is the source of its module.

Weights are safetensors only: other formats can run code when they are opened. Errors are `ModelError`.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from benchmark.artifacts import (
    FRAME,
    PREVIEW_RECORD,
    REACH_RECORD,
    RECORD,
    REPRESENTS_RECORD,
    STATUS,
    USES_DETAIL_RECORD,
    USES_RECORD,
)
from benchmark.environment import available_limit
from benchmark.errors import ModelError, UsageError
from benchmark.models import custom, hub
from benchmark.models.devices.device_map import DeviceMap
from benchmark.models.formats import list_local_names, missing_config_error, missing_weights_error, refuse_adapter
from benchmark.models.interface import DEFAULT_LOAD_OPTIONS, LoadOptions, ModelSpec
from benchmark.models.json_files import CONFIG_FILE, TRAINING_FILE, read_config
from benchmark.models.weights import count_parameters, list_weight_files, read_stored_tensors
from karel_env.command import nearest
from karel_env.shadowing import shadowing_message

FILE_PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
"""Files that are downloaded from the hub and digested: configuration, weights, tokenizer."""
CODE_PATTERN = "*.py"
"""Also downloaded and digested if remote code may run."""
MEMORY_PREFIX = "memory:"
"""Start of the spec of a model in memory, which no command line accepts."""
COMMIT_HASH = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class Checkpoint:
    """The files of a model.

    Attributes:
        spec: model spec as the user gave it, with a hub revision resolved to a commit.
        folder: folder of the files.
        name: short name for rows and run folders.
        parameters: number of parameters, tied ones counted once, see `weights.count_parameters`.
        weight_bytes: size of the weight files in bytes.
        digest: SHA-256 over configuration, weights and tokenizer files.
        network: whether the model is a network whose hidden states can be read.
        loading: options it is loaded with.
        device_map: which devices store its modules; None for all on the one that computes.
    """

    spec: str
    folder: Path
    name: str
    parameters: int
    weight_bytes: int
    digest: str
    has_hidden_states: bool = True
    loading: LoadOptions = DEFAULT_LOAD_OPTIONS
    device_map: DeviceMap | None = None

    @property
    def is_custom(self) -> bool:
        """Whether the model is a custom class (`py:`) instead of a transformers folder."""
        return self.spec.startswith("py:")

    @property
    def is_in_memory(self) -> bool:
        """Whether the model is an object in memory (`memory.MemoryCheckpoint`), without files."""
        return self.spec.startswith(MEMORY_PREFIX)

    def current_digest(self) -> str:
        """Recompute `digest` from the files as they are now; empty string if one is missing."""
        spec = ModelSpec.parse(self.spec)
        try:
            if spec.scheme == "baseline":
                return _open_baseline(spec).digest
            if spec.scheme == "py":
                return custom.module_source(spec, self.loading)[1]
            return _digest_files(
                self.folder, (*FILE_PATTERNS, CODE_PATTERN) if self.loading.remote_code else FILE_PATTERNS
            )
        except OSError:
            return ""


BASELINE_REGISTRY = "baselines.non_neural.registry"
"""Module of the baselines; imported only if a spec names one, since `benchmark` does not depend on `baselines`."""


def open_checkpoint(
    spec: ModelSpec, loading: LoadOptions = DEFAULT_LOAD_OPTIONS, device_map: DeviceMap | None = None
) -> Checkpoint:
    """Find, check and digest the files of a model; a hub model is downloaded to the hub's cache.

    Raises:
        UsageError: load options that do not apply to the scheme.
        ModelError: files are missing, in another format, or damaged.
    """
    is_file_model = spec.scheme not in ("baseline", "py")
    if not is_file_model and (replace(loading, own_code=False) != DEFAULT_LOAD_OPTIONS or device_map is not None):
        raise UsageError(
            f"{spec}: attention, quantization, remote code and device maps are for hf: and path: models only"
        )
    if device_map is not None and loading.quantization:
        raise UsageError(
            f"{spec}: expected a quantization or a device map; weights on several devices are not quantized"
        )
    if not is_file_model:
        return _open_baseline(spec) if spec.scheme == "baseline" else _open_custom(spec, loading)
    loading = replace(loading, own_code=False)
    patterns = (*FILE_PATTERNS, CODE_PATTERN) if loading.remote_code else FILE_PATTERNS
    folder = Path(spec.target) if spec.scheme == "path" else hub.download(spec, patterns)
    if not folder.is_dir():
        if spec.scheme == "hf":
            raise missing_weights_error(spec, folder, hub.list_remote_names(spec, folder.name))
        problem = f"{folder} is a file" if folder.is_file() else f"no folder at {folder}"
        raise ModelError(f"{spec}: {problem}; give a folder that save_pretrained wrote")
    refuse_adapter(spec, folder)
    weights = list_weight_files(folder)
    if not weights:
        names = list_local_names(folder)
        names += hub.list_remote_names(spec, folder.resolve().name) if spec.scheme == "hf" else []
        raise missing_weights_error(spec, folder, names)
    if not (folder / CONFIG_FILE).is_file():
        raise missing_config_error(spec, folder)
    tensors = [tensor for path in weights for tensor in read_stored_tensors(path)]
    config = read_config(folder, len(tensors))
    resolved_spec = str(spec)
    if spec.scheme == "hf":
        resolved_spec = f"hf:{spec.target}@{folder.resolve().name}"
    return Checkpoint(
        spec=resolved_spec,
        folder=folder.resolve(),
        name=_short_name(spec, folder),
        parameters=count_parameters(tensors, config.get("tie_word_embeddings")),
        weight_bytes=sum(path.stat().st_size for path in weights),
        digest=_digest_files(folder, patterns),
        loading=loading,
        device_map=device_map,
    )


def check_unchanged(checkpoint: Checkpoint) -> None:
    """Check that the files of a model still have the digest they were opened with.

    Raises:
        ModelError: a file has changed.
    """
    digest = checkpoint.current_digest()
    if digest != checkpoint.digest:
        raise ModelError(
            f"{checkpoint.spec}: its files have changed since the run began (SHA-256 {digest[:12]}..., was "
            f"{checkpoint.digest[:12]}...); do not edit them during a run, and run the same command again"
        )


def _open_custom(spec: ModelSpec, loading: LoadOptions) -> Checkpoint:
    path, digest = custom.module_source(spec, loading)
    model = custom.build_model(spec)
    return Checkpoint(
        spec=str(spec),
        folder=path.parent,
        name=spec.target,
        parameters=int(getattr(model, "parameters", 0)),
        weight_bytes=0,
        digest=digest,
        has_hidden_states=hasattr(model, "hidden_states"),
        loading=loading,
    )


def _open_baseline(spec: ModelSpec) -> Checkpoint:
    message = shadowing_message(["baselines"])
    if message:
        raise UsageError(f"{spec}: {message}")
    registry = importlib.import_module(BASELINE_REGISTRY)
    if spec.target not in registry.BASELINES:
        hint = nearest(spec.target, registry.BASELINES)
        raise ModelError(f"{spec}: no such baseline; expected one of {', '.join(registry.BASELINES)}{hint}")
    source = Path(inspect.getfile(registry.BASELINES[spec.target]))
    digest = hashlib.sha256(spec.target.encode())
    for path in (source, source.with_name("prompt_reading.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return Checkpoint(str(spec), source.parent, spec.target, 0, 0, digest.hexdigest(), has_hidden_states=False)


def resolve_digest(claimed: str, digest: str, spec: str) -> str:
    """Return the digest to compare a claimed one with.

    Args:
        claimed: digest in a record.
        digest: `Checkpoint.digest` of the model as it is now.
        spec: spec of the model.

    Returns:
        `claimed` if it is the digest of an earlier source of the same baseline with the same answers, else `digest`.
    """
    scheme, _, name = spec.partition(":")
    if scheme != "baseline":
        return digest
    registry = importlib.import_module(BASELINE_REGISTRY)
    return claimed if claimed in registry.EARLIER_DIGESTS.get(name, ()) else digest


def _short_name(spec: ModelSpec, folder: Path) -> str:
    if spec.scheme == "path":
        return folder.resolve().name
    revision = spec.revision[:8] if COMMIT_HASH.fullmatch(spec.revision) else spec.revision
    return spec.target + (f"@{revision}" if revision else "")


def _digest_files(folder: Path, patterns: Sequence[str]) -> str:
    """SHA-256 over name and content of every file that can change the outputs of the model."""
    digest = hashlib.sha256()
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            if path.name in EXCLUDED_FILES or fnmatch(path.name, hub.DUPLICATE_PATTERN):
                continue
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
            digest.update(path.name.encode() + b"\0" + content)
    return digest.hexdigest()


EXCLUDED_FILES = (
    RECORD, STATUS, FRAME, REPRESENTS_RECORD, PREVIEW_RECORD, USES_RECORD, USES_DETAIL_RECORD, REACH_RECORD,
    TRAINING_FILE, "README.txt",
)  # fmt: skip
"""Files of a submission folder that are not part of its model, though their names are like those of one."""


def available_memory() -> int:
    """Bytes of memory available to a new process: of the machine (Linux: MemAvailable; elsewhere the physical size), or
    what is left of the limit of this process or its control group, whichever is less."""
    limit = available_limit()
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
                return available if limit is None else min(available, limit)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
