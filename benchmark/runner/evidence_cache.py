"""A cache of evidence that several runs share, in the user's cache folder: content-addressed, safe for several processes.

A file is named by the SHA-256 of everything that its content depends on, is written under another name and renamed, and
begins with the SHA-256 of the rest, so that a torn or altered file counts as missing. A folder that cannot be written to
is no cache; nothing fails. Reading a file renews its time; after a write, the files that were used least recently are removed
until the rest fits the bound. A reader that has opened a removed file still reads it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from benchmark.environment import package_versions, source_digest
from benchmark.errors import StorageError
from benchmark.installation.bounded_cache import remove_oldest
from benchmark.installation.cache_settings import DEFAULT_CACHE, NO_CACHE, CacheSettings
from benchmark.models.checkpoint import EXCLUDED_FILES, FILE_PATTERNS, Checkpoint
from benchmark.models.json_files import CONFIG_FILE, read_json
from benchmark.probing.version4.rotation_protocol import RotationProtocol
from benchmark.probing.version4.suite_controls import read_pinned, suite_controls_key
from benchmark.runner.blind_reading import blind_template
from benchmark.runner.plan import Job
from benchmark.runner.store import to_safetensors, write_atomic_in
from benchmark.tasks.prompt_template import TRAINED
from benchmark.tasks.suite import identify_suite

FOLDER_NAME, SUFFIX = "karel-bench", ".data"
DIGEST_BYTES = 64
_UNUSED_FILES = ("*.safetensors", "*.safetensors.index.json", "generation_config.json", CONFIG_FILE, *EXCLUDED_FILES)
"""Files of a model that are weights or tell nothing of its tokenizer."""
SHIPPED_COPIES: dict[str, str] = {
    "untrained-829fa40bd8a77eed.data": "c64d4cae773b0feb1b8755c8fd4fdf5cb60225e371bcdaf9376dd0526c5b1c90",
    "untrained-f19e166cf2c54665.data": "d43004f495c45d99034695ae73738e669f2b9d6065bbef4e18d0d6daa0e31e52",
    "untrained-c8afa87d43a07309.data": "b357263bb96acb5a936c2aa9a06e5419e61e30de4a3421785139ae523d627803",
    "untrained-622099eac5215640.data": "38c1a966b6fefc6cfbf1813fd2b46c93c13a715cc25e9813d0ae9bb31b05ece5",
    "untrained-43a5939a40bdfc2e.data": "9f27db886d413cb4ab37f6bd5136584257a1e5026775b46af3803406d88fdb24",
    "untrained-e3c90fa2ded9fb0a.data": "f7647ed7213f753fd59b18ca5dccb62492e4d7dd43a7052611729bf9e11a0a52",
    "untrained-adf04a0cd4bb9279.data": "3faf5c0998d75271b0571664bf756c92db3450c4cc0fcad694435c55bf30f421",
    "untrained-c103e1cd8aa4db55.data": "3a37ebbc0101ec11d747898339dfbfd1891eee0030c28c71a27b1f21fd793f60",
    "untrained-e931e526c41775be.data": "172d4f8422f90dd2b480d12e72712c5cc600cc0d67acdbe532a07fb5637fd3dc",
    "untrained-53796c28feaf3c13.data": "86affe8af4b70125a5c6cb2fc043e0ab2dcd712cb1cb5111a95e969275ae1f0d",
}
"""SHA-256 of the shipped evidence of the default model's randomly initialised copies on `laptop` and `smoke`, by file name."""
_UNUSED_CONFIG = ("_name_or_path", "transformers_version")


def cache_folder() -> Path:
    """`karel-bench/evidence` in `XDG_CACHE_HOME`, by default in `~/.cache`."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The specification says that relative paths are invalid and to be ignored.
    return (base if base.is_absolute() else Path.home() / ".cache") / FOLDER_NAME / "evidence"


def _settings_folder(settings: CacheSettings) -> Path | None:
    """The folder that settings name; None for no cache."""
    if settings.folder == NO_CACHE:
        return None
    return Path(settings.folder) if settings.folder else cache_folder()


def is_cached(key: str, settings: CacheSettings = DEFAULT_CACHE) -> bool:
    """Whether there is a file of a key; its content is not checked."""
    folder = _settings_folder(settings)
    return folder is not None and (folder / f"{key}{SUFFIX}").is_file()


def read_cached(key: str, settings: CacheSettings = DEFAULT_CACHE) -> dict[str, np.ndarray] | None:
    """The arrays of a key; None if they are not there, torn or altered."""
    folder = _settings_folder(settings)
    if folder is None:
        return None
    path = folder / f"{key}{SUFFIX}"
    try:
        content = path.read_bytes()
        if hashlib.sha256(content[DIGEST_BYTES:]).hexdigest().encode() != content[:DIGEST_BYTES]:
            return None
        arrays: dict[str, np.ndarray] = load(content[DIGEST_BYTES:])
    except (OSError, RuntimeError, SafetensorError):
        return None
    with suppress(OSError):
        os.utime(path)
    return arrays


def write_cached(key: str, arrays: Mapping[str, np.ndarray], settings: CacheSettings = DEFAULT_CACHE) -> None:
    """Store the arrays of a key, if the folder can be written to, and remove what no longer fits."""
    folder = _settings_folder(settings)
    if folder is None:
        return
    content = to_safetensors(arrays)
    with suppress(OSError, StorageError, RuntimeError):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic_in(folder, f"{key}{SUFFIX}", hashlib.sha256(content).hexdigest().encode() + content)
        remove_unused(folder, settings.max_bytes, current=f"{key}{SUFFIX}")


def remove_unused(folder: Path, max_bytes: int, current: str) -> None:
    """Remove the files of a folder that were used least recently, but not `current`, until at most `max_bytes` are left.

    Other processes may remove or renew files meanwhile; what is gone already counts as removed.
    """
    files = []
    for path in folder.glob(f"*{SUFFIX}"):
        with suppress(FileNotFoundError):
            status = path.stat()
            files.append((status.st_mtime_ns, status.st_size, path))

    def remove(path: Path) -> bool:
        if path.name == current:
            return False
        path.unlink(missing_ok=True)
        return True

    remove_oldest(files, max_bytes, remove)


def untrained_copy_key(
    job: Job, protocol: RotationProtocol, seed: int, template_digest: str | None = None
) -> str | None:
    """Key of the evidence of one randomly initialised copy: it depends on the architecture and not on the weights.

    Args:
        job: the job of the run.
        protocol: settings of the probes.
        seed: seed of the copy's initialisation.
        template_digest: SHA-256 of the text of the prompts, where it is not the one of the job's track.

    Returns:
        SHA-256 over configuration, tokenizer, suite, protocol, load options, library versions and source; None for a model
        whose architecture is not in files alone.
    """
    parts = _copy_parts(job, protocol, seed, template_digest)
    return None if parts is None else _digest(parts | _installed())


def untrained_use_key(job: Job, settings: str, seed: int) -> str | None:
    """Key of the words that a randomly initialised copy writes in the measurement of use; as `untrained_copy_key`.

    Args:
        job: the job of the run.
        settings: settings of the pairs, as text.
        seed: seed of the copy's initialisation.
    """
    parts = _architecture_of_job(job)
    if parts is None:
        return None
    return _digest(parts | _installed() | {"suite": identify_suite(job.suite), "pairs": settings, "seed": seed})


def _installed() -> dict[str, Any]:
    """Library versions and source, on which computed evidence depends."""
    import torch

    from benchmark.probing.probes import select_matmul_dtype

    return {
        "products": str(select_matmul_dtype()), "torch": torch.__version__,
        "packages": package_versions(("transformers", "tokenizers", "numpy")), "source": source_digest(),
    }  # fmt: skip


def shipped_copy(
    job: Job, protocol: RotationProtocol, seed: int, template_digest: str | None = None
) -> dict[str, np.ndarray] | None:
    """The shipped evidence of a randomly initialised copy of the default model; None for another model or setting.

    As for the controls of a suite, library versions and source are no part of its key; a test computes it again.

    Raises:
        VerificationError: the file is missing, or is another than the pinned one.
    """
    parts = _copy_parts(job, protocol, seed, template_digest)
    name = "" if parts is None else f"untrained-{_digest(parts)[:16]}.data"
    if name not in SHIPPED_COPIES:
        return None
    return read_pinned(name, SHIPPED_COPIES[name], "the evidence of a randomly initialised copy")


def _copy_parts(
    job: Job, protocol: RotationProtocol, seed: int, template_digest: str | None = None
) -> dict[str, Any] | None:
    """What the evidence of a copy depends on besides library versions and source; None if it is not in files alone."""
    parts = _architecture_of_job(job)
    if parts is None:
        return None
    if template_digest is None and job.generation.track != TRAINED:
        template_digest = blind_template(job).digest
    template = {} if template_digest is None else {"template": template_digest}
    return parts | template | {
        "suite": suite_controls_key(job.suite, protocol), "protocol": protocol.evidence_digest(), "seed": seed,
    }  # fmt: skip


def _architecture_of_job(job: Job) -> dict[str, Any] | None:
    """The architecture of a job and how it is computed; None if it is not in files alone."""
    checkpoint = job.checkpoint
    if checkpoint.is_custom or checkpoint.is_in_memory or checkpoint.loading.remote_code:
        return None
    return {
        **architecture_parts(checkpoint), "dtype": job.dtype, "device": job.device.split(":")[0], "threads": job.threads,
        "batch": job.suite.batch,
    }  # fmt: skip


def architecture_parts(checkpoint: Checkpoint) -> dict[str, Any]:
    """Configuration, tokenizer and load options, which checkpoints of one architecture have in common."""
    config = {
        name: value for name, value in read_json(checkpoint.folder / CONFIG_FILE).items() if name not in _UNUSED_CONFIG
    }
    tokenizer = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for pattern in FILE_PATTERNS
        for path in sorted(checkpoint.folder.glob(pattern))
        if not any(path.match(name) for name in _UNUSED_FILES)
    }
    return {"config": config, "tokenizer": tokenizer, "loading": asdict(checkpoint.loading)}


def _digest(parts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
