"""Storage of results: two files per item, arrays and a JSON entry, that are either valid or count as missing.

A worker stages arrays under a unique name on storage that all nodes share. Only the driver commits: it renames the
arrays, then writes the entry, which holds their digest. So a worker that was cut off may stage its result a second time
without any effect.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from benchmark.errors import BenchmarkError, StorageError
from benchmark.files import read_safetensors_header

VALID, MISSING, CORRUPT = "whole", "absent", "damaged"
STAGED_PREFIX = ".attempt-"
DIGEST_KEY = "sha256"
"""Key of the digest that a stored JSON object holds of its other entries."""


@dataclass(frozen=True)
class StagedResult:
    """A computed result that is not committed yet.

    Attributes:
        name: name of the item.
        file: temporary file of its arrays, in the folder of the store.
        entry: JSON entry stored with the arrays; its key `arrays` is their SHA-256.
    """

    name: str
    file: str
    entry: dict[str, Any]


class ResultStore:
    """The results in one folder.

    Args:
        root: the folder, at the same path on every node.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def stage(self, name: str, arrays: Mapping[str, np.ndarray], entry: Mapping[str, Any]) -> StagedResult:
        """Write the arrays of an item to a temporary file.

        Raises:
            StorageError: the folder does not exist on this node, or is full.
        """
        content = to_safetensors(arrays)
        file = f"{STAGED_PREFIX}{uuid.uuid4().hex}"
        if not self.root.is_dir():
            raise StorageError(
                f"{self.root}: not there on {os.uname().nodename}; --output-dir must be on storage that all nodes share"
            )
        try:
            with open_folder(self.root) as folder:
                _create_file(folder, file, content)
        except OSError as error:
            with suppress(OSError):
                (self.root / file).unlink(missing_ok=True)
            raise storage_error(self.root, error) from error
        return StagedResult(name, file, {**entry, "arrays": hashlib.sha256(content).hexdigest()})

    def commit(self, staged: StagedResult) -> None:
        """Commit a staged result.

        Raises:
            FileNotFoundError: the staged arrays are gone.
            StorageError: the folder is full.
        """
        with open_folder(self.root) as folder:
            os.replace(staged.file, self.arrays_path(staged.name).name, src_dir_fd=folder, dst_dir_fd=folder)
        write_atomic_in(self.root, self._entry_file(staged.name).name, dump_with_digest(staged.entry))

    def status(self, name: str, **expected: Any) -> str:
        """`VALID`, `MISSING` or `CORRUPT` (torn, altered, or an entry other than `expected`)."""
        try:
            entry = self.entry(name)
            with self.arrays_path(name).open("rb") as file:
                is_intact = hashlib.file_digest(file, "sha256").hexdigest() == entry["arrays"]
        except FileNotFoundError:
            # The arrays are written first, so arrays without an entry come from a stopped driver and are not corrupt.
            return CORRUPT if self._entry_file(name).exists() else MISSING
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return CORRUPT
        return VALID if is_intact and all(entry.get(key) == value for key, value in expected.items()) else CORRUPT

    def entry(self, name: str) -> dict[str, Any]:
        """The JSON entry of an item.

        Raises:
            ValueError: the entry is altered, or holds no digest.
        """
        return load_with_digest(self._entry_file(name).read_bytes())

    def arrays_path(self, name: str) -> Path:
        """The safetensors file of an item."""
        return self.root / f"{name}.safetensors"

    def _entry_file(self, name: str) -> Path:
        return self.root / f"{name}.json"

    def delete(self, name: str) -> None:
        """Delete the files of an item."""
        for path in (self._entry_file(name), self.arrays_path(name)):
            path.unlink(missing_ok=True)

    def delete_staged(self) -> None:
        """Delete staged files that were never committed."""
        for path in self.root.glob(f"{STAGED_PREFIX}*"):
            path.unlink(missing_ok=True)


class MemmapStates:
    """Hidden states [rows, D] as the concatenation of memory-mapped arrays; indexing reads only the requested rows.

    Args:
        parts: the arrays [rows, D].
        files: their safetensors files, if any.
        tensor: name of their tensor in each file.
    """

    def __init__(self, parts: Sequence[np.ndarray], files: Sequence[Path] = (), tensor: str = "") -> None:
        if not parts:
            raise BenchmarkError("states: none are stored for this stage and view; run the same command again")
        self.parts, self.files, self.tensor = parts, tuple(files), tensor
        self.ends = np.cumsum([len(part) for part in parts])
        self.shape = (int(self.ends[-1]), parts[0].shape[1])

    @classmethod
    def open(cls, files: Sequence[Path], tensor: str) -> MemmapStates:
        """Memory-map a tensor of safetensors files; files without it are skipped."""
        return cls([part for file in files for part in mmap_safetensors(file, tensor).values()], files, tensor)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """float32 [requested rows, D]."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        states = np.empty((len(rows), self.shape[1]), np.float32)
        owner = np.searchsorted(self.ends, rows, side="right")
        for part in np.unique(owner):
            is_owned = owner == part
            start = self.ends[part] - len(self.parts[part])
            states[is_owned] = self.parts[part][rows[is_owned] - start]
        return states


def mmap_safetensors(path: Path, tensor: str | None = None) -> dict[str, np.ndarray]:
    """Memory-map the float32 tensors of a safetensors file, or the one of that name, if it is there."""
    with path.open("rb") as file:
        header, data_start = read_safetensors_header(file, path.name)
    return {
        name: np.memmap(path, "<f4", "r", data_start + entry["data_offsets"][0], tuple(entry["shape"]))
        if entry["data_offsets"][1] > entry["data_offsets"][0]
        else np.zeros(entry["shape"], np.float32)
        for name, entry in header.items()
        if tensor in (None, name)
    }


def to_safetensors(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The content of a safetensors file."""
    # The format stores an array's memory as it is, so a view in another order would be read back permuted.
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def dump_with_digest(entry: Mapping[str, Any]) -> bytes:
    """Serialize a JSON object with a digest of itself, which `load_with_digest` checks."""
    return json.dumps({**entry, DIGEST_KEY: _json_digest(entry)}).encode()


def load_with_digest(content: bytes | str) -> dict[str, Any]:
    """Parse and check the output of `dump_with_digest`.

    Raises:
        ValueError: the object is altered, or has no digest.
    """
    try:
        entry = json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(entry, dict) or entry.pop(DIGEST_KEY, None) != _json_digest(entry):
        raise ValueError("its digest of itself does not fit")
    return entry


def _json_digest(entry: Mapping[str, Any]) -> str:
    # Through JSON once, so that the digest is of what a reader gets: tuples as lists, keys as strings.
    normalized = json.loads(json.dumps(dict(entry)))
    return hashlib.sha256(json.dumps(normalized, sort_keys=True).encode()).hexdigest()


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file atomically and durably: after a crash it exists completely or not at all."""
    try:
        folder = path.parent.resolve(strict=True)
    except OSError as error:
        raise storage_error(path.parent, error) from error
    write_atomic_in(folder, path.name, content)


def write_atomic_in(folder: Path, name: str, content: bytes) -> None:
    """As `write_atomic`, into a folder that must not be a symbolic link, which a user of shared storage may have put there."""
    temporary = f".{name[:100]}.{uuid.uuid4().hex}"
    try:
        with open_folder(folder) as descriptor:
            try:
                _create_file(descriptor, temporary, content)
                os.replace(temporary, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
            except OSError:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=descriptor)
                raise
    except OSError as error:
        raise storage_error(folder, error) from error


@contextmanager
def open_folder(folder: Path) -> Iterator[int]:
    """Open a folder; yields its descriptor, which stays valid if the path is replaced."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _create_file(folder: int, name: str, content: bytes) -> None:
    """Create a file in an open folder; an existing file or a link is an error."""
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def storage_error(folder: Path, error: OSError) -> StorageError:
    """The error for a folder that cannot be written to."""
    return StorageError(
        f"{folder}: cannot be written to ({error.strerror}); make room there, or choose another --output-dir, and run the "
        "same command again: what is committed is kept"
    )
