"""Committed pieces of work: two files each, arrays and an entry, that are there whole or count as not there.

Whoever computes a piece writes its arrays under a name that no other attempt has, on storage that all nodes share, and
commits nothing. Only the driver commits: it renames the arrays, then writes the entry, which holds their digest. So a
worker that was cut off may finish its piece a second time and harm nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from benchmark.errors import BenchmarkError, StorageError

VALID, MISSING, CORRUPT = "whole", "absent", "damaged"
STAGED_PREFIX = ".attempt-"
DIGEST_KEY = "sha256"
"""Name of the digest that a stored JSON object carries of its own other entries."""


@dataclass(frozen=True)
class StagedResult:
    """A computed piece that is not committed yet.

    Attributes:
        name: of the piece.
        file: of its arrays, beside where they will be.
        entry: what is stored beside the arrays; `arrays` in it is their SHA-256.
    """

    name: str
    file: str
    entry: dict[str, Any]


class ResultStore:
    """The pieces in one folder.

    Args:
        root: the folder, which all workers see at the same path.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def stage(self, name: str, arrays: Mapping[str, np.ndarray], entry: Mapping[str, Any]) -> StagedResult:
        """Write the arrays of a piece aside.

        Raises:
            StorageError: the folder is not there, or is full.
        """
        content = to_safetensors(arrays)
        file = f"{STAGED_PREFIX}{uuid.uuid4().hex}"
        if not self.root.is_dir():
            raise StorageError(
                f"{self.root}: not there on {os.uname().nodename}; --out must be on storage that all nodes share"
            )
        try:
            with open_folder(self.root) as folder:
                _create_file(folder, file, content)
        except OSError as problem:
            with suppress(OSError):
                (self.root / file).unlink(missing_ok=True)
            raise storage_error(self.root, problem) from problem
        return StagedResult(name, file, {**entry, "arrays": hashlib.sha256(content).hexdigest()})

    def commit(self, attempt: StagedResult) -> None:
        """Make a piece count.

        Raises:
            FileNotFoundError: the arrays of the attempt are not where they were written.
            StorageError: the folder is full.
        """
        with open_folder(self.root) as folder:
            os.replace(attempt.file, self.arrays_path(attempt.name).name, src_dir_fd=folder, dst_dir_fd=folder)
        write_atomic_in(self.root, self._entry_file(attempt.name).name, dump_with_digest(attempt.entry))

    def status(self, name: str, **expected: Any) -> str:
        """`WHOLE`, `ABSENT`, or `DAMAGED` (torn, altered, or not made from what is `expected` of its entry)."""
        try:
            entry = self.entry(name)
            with self.arrays_path(name).open("rb") as file:
                intact = hashlib.file_digest(file, "sha256").hexdigest() == entry["arrays"]
        except FileNotFoundError:
            # The arrays come first, so a driver that was stopped between the two leaves them alone: no damage.
            return CORRUPT if self._entry_file(name).exists() else MISSING
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return CORRUPT
        return VALID if intact and all(entry.get(key) == value for key, value in expected.items()) else CORRUPT

    def entry(self, name: str) -> dict[str, Any]:
        """What is stored beside the arrays of a piece.

        Raises:
            ValueError: it is not what was written, or has no digest of itself.
        """
        return load_with_digest(self._entry_file(name).read_bytes())

    def arrays_path(self, name: str) -> Path:
        """The file of a piece's arrays."""
        return self.root / f"{name}.safetensors"

    def _entry_file(self, name: str) -> Path:
        return self.root / f"{name}.json"

    def delete(self, name: str) -> None:
        """Remove a piece."""
        for path in (self._entry_file(name), self.arrays_path(name)):
            path.unlink(missing_ok=True)

    def delete_staged(self) -> None:
        """Remove what workers that were cut off left behind."""
        for path in self.root.glob(f"{STAGED_PREFIX}*"):
            path.unlink(missing_ok=True)


class MemmapStates:
    """Rows that lie in several memory-mapped arrays [rows, D] one behind the other; indexing reads only what it asks.

    Args:
        parts: the arrays.
        files, tensor: where they are, if in files: the tensor of that name in each file that has it.
    """

    def __init__(self, parts: Sequence[np.ndarray], files: Sequence[Path] = (), tensor: str = "") -> None:
        if not parts:
            raise BenchmarkError("states: none are stored for this stage and view; run the same command again")
        self.parts, self.files, self.tensor = parts, tuple(files), tensor
        self.ends = np.cumsum([len(part) for part in parts])
        self.shape = (int(self.ends[-1]), parts[0].shape[1])

    @classmethod
    def open(cls, files: Sequence[Path], tensor: str) -> MemmapStates:
        """The rows of a tensor in safetensors files."""
        return cls([part for file in files for name, part in mmap_safetensors(file).items() if name == tensor], files, tensor)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """float32 [asked, D]."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        found = np.empty((len(rows), self.shape[1]), np.float32)
        owner = np.searchsorted(self.ends, rows, side="right")
        for part in np.unique(owner):
            mine = owner == part
            start = self.ends[part] - len(self.parts[part])
            found[mine] = self.parts[part][rows[mine] - start]
        return found


def mmap_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The float32 tensors of a safetensors file, memory-mapped (8 bytes of header length, JSON header, data)."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return {
        name: np.memmap(path, "<f4", "r", 8 + length + entry["data_offsets"][0], tuple(entry["shape"]))
        if entry["data_offsets"][1] > entry["data_offsets"][0]
        else np.zeros(entry["shape"], np.float32)
        for name, entry in header.items()
    }


def to_safetensors(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The content of a safetensors file."""
    # The format takes an array's memory as it lies, so one that is a view in another order would come back mixed up.
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def dump_with_digest(entry: Mapping[str, Any]) -> bytes:
    """A JSON object with a digest of itself, see `unsealed`."""
    return json.dumps({**entry, DIGEST_KEY: _json_digest(entry)}).encode()


def load_with_digest(content: bytes | str) -> dict[str, Any]:
    """The object of `sealed`.

    Raises:
        ValueError: it is not as it was written. One without a digest is not either: nothing that this version finds
            again was written without.
    """
    try:
        entry = json.loads(content)
    except RecursionError as problem:
        raise ValueError("nested too deep") from problem
    if not isinstance(entry, dict) or entry.pop(DIGEST_KEY, None) != _json_digest(entry):
        raise ValueError("its digest of itself does not fit")
    return entry


def _json_digest(entry: Mapping[str, Any]) -> str:
    # Through JSON once, so that what is digested is what a reader gets: tuples as lists, keys as texts.
    plain = json.loads(json.dumps(dict(entry)))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, even if the machine stops."""
    try:
        folder = path.parent.resolve(strict=True)
    except OSError as problem:
        raise storage_error(path.parent, problem) from problem
    write_atomic_in(folder, path.name, content)


def write_atomic_in(folder: Path, name: str, content: bytes) -> None:
    """As `write_durably`, into a folder that must not be a symbolic link by now, whoever shares the storage."""
    aside = f".{name[:100]}.{uuid.uuid4().hex}"
    try:
        with open_folder(folder) as number:
            try:
                _create_file(number, aside, content)
                os.replace(aside, name, src_dir_fd=number, dst_dir_fd=number)
            except OSError:
                with suppress(OSError):
                    os.unlink(aside, dir_fd=number)
                raise
    except OSError as problem:
        raise storage_error(folder, problem) from problem


@contextmanager
def open_folder(folder: Path) -> Iterator[int]:
    """The number of an open folder; what is done by it is done there, even if the path leads elsewhere by then."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield number
    finally:
        os.close(number)


def _create_file(folder: int, name: str, content: bytes) -> None:
    """A new file in an open folder; never one that is there, nor where a link leads."""
    number = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666, dir_fd=folder)
    with os.fdopen(number, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(number)


def storage_error(folder: Path, problem: OSError) -> StorageError:
    """What to say of a folder that cannot be written to."""
    return StorageError(
        f"{folder}: cannot be written to ({problem.strerror}); make room there, or choose another --out, and run the "
        "same command again: what is committed is kept"
    )
