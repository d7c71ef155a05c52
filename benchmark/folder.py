"""The folder of a run: shards committed one by one, found again by the same command.

A shard is two files, its states and then its samples, each written aside, synced and renamed; the samples' file
holds the digest of the states, so a torn or altered pair counts as not there. States are one tensor a position and
view in a safetensors file, and are read through memory maps: what is probed is never all in memory.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from benchmark.errors import BenchmarkError
from benchmark.evaluation import Shard, ShardResult
from benchmark.labels import ProbeSet

PROBES = "probes.data"


class RunFolder:
    """One run's files.

    Args:
        root: the folder; made if it is not there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shards = root / "shards"
        self.shards.mkdir(parents=True, exist_ok=True)

    def commit(self, shard: Shard, result: ShardResult) -> None:
        """Store a shard for good."""
        states = save({name: np.ascontiguousarray(array) for name, array in result.states.items()})
        write_durably(self.shards / f"{shard.name}.safetensors", states)
        entry = {
            "stop": shard.stop,
            "seconds": result.seconds,
            "states": hashlib.sha256(states).hexdigest(),
            "samples": result.samples,
        }
        write_durably(self.shards / f"{shard.name}.json", json.dumps(entry).encode())

    def committed(self, shard: Shard) -> bool:
        """Whether a shard is there, whole and unaltered."""
        states = self.shards / f"{shard.name}.safetensors"
        try:
            entry = json.loads((self.shards / f"{shard.name}.json").read_bytes())
            intact = hashlib.sha256(states.read_bytes()).hexdigest() == entry["states"]
        except (OSError, ValueError, KeyError):
            return False
        return bool(intact and entry["stop"] == shard.stop)

    def samples(self, shards: Sequence[Shard], stage: str) -> list[dict[str, Any]]:
        """All samples of a stage, in order."""
        return [sample for shard in shards if shard.stage == stage for sample in self._entry(shard)["samples"]]

    def states(self, shards: Sequence[Shard], stage: str, view: str) -> StoredRows:
        """float32 [rows, D], the states of a stage at a position and view, such as `read.mean`, in order, as stored."""
        files = [self.shards / f"{shard.name}.safetensors" for shard in shards if shard.stage == stage]
        return StoredRows([part for file in files for name, part in mapped(file).items() if name == view])

    def views(self, shards: Sequence[Shard], stage: str, position: str) -> list[str]:
        """Names of the views that a stage stores at a position."""
        files = [self.shards / f"{shard.name}.safetensors" for shard in shards if shard.stage == stage]
        names = dict.fromkeys(name for file in files for name in mapped(file))
        found = [name.removeprefix(f"{position}.") for name in names if name.startswith(f"{position}.")]
        return sorted(found, key=lambda view: (view.startswith("layer"), int(view.split()[-1]) if " " in view else 0))

    def write_index(self, stage: str, probe_set: ProbeSet) -> None:
        """`index-STAGE.safetensors`: of each row of a stage's states its program, step, word and fold, int32 each."""
        columns = {
            "task": probe_set.program, "step": probe_set.step, "token": probe_set.word,
            "split": probe_set.fold[probe_set.program],
        }  # fmt: skip
        whole = save({name: np.ascontiguousarray(column, np.int32) for name, column in columns.items()})
        write_durably(self.shards / f"index-{stage}.safetensors", whole)

    def seconds(self, shards: Sequence[Shard]) -> dict[str, float]:
        """Worker seconds of each stage."""
        spent: dict[str, float] = {}
        for shard in shards:
            spent[shard.stage] = spent.get(shard.stage, 0.0) + self._entry(shard)["seconds"]
        return {stage: round(value, 1) for stage, value in spent.items()}

    def _entry(self, shard: Shard) -> dict[str, Any]:
        entry: dict[str, Any] = json.loads((self.shards / f"{shard.name}.json").read_bytes())
        return entry

    def write_samples(self, rows: Sequence[dict[str, Any]]) -> Path:
        """`samples.jsonl.gz`, the same bytes for the same rows."""
        text = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
        path = self.root / "samples.jsonl.gz"
        write_durably(path, gzip.compress(text.encode(), mtime=0))
        return path

    def write_probes(self, arrays: Mapping[str, np.ndarray]) -> None:
        """`probes.data`: what the verdict is computed from, as safetensors."""
        # The format takes an array's memory as it lies, so one that is a view in another order would come back mixed up.
        write_durably(self.root / PROBES, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))

    def drop_states(self) -> None:
        """Delete the shards once the record holds what they were for."""
        for path in self.shards.iterdir():
            path.unlink()
        self.shards.rmdir()

    def log(self, message: str) -> None:
        """Append a line with the time (UTC) to `log.txt`."""
        with (self.root / "log.txt").open("a") as file:
            file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {message}\n")


class StoredRows:
    """Rows that lie in several memory-mapped arrays [rows, D] one behind the other; indexing reads only what it asks."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        if not parts:
            raise BenchmarkError("states: none are stored for this stage and view; run the same command again")
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])
        self.shape = (int(self.ends[-1]), parts[0].shape[1])

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


def mapped(path: Path) -> dict[str, np.ndarray]:
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


def read_probes(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of `RunFolder.write_probes`."""
    arrays: dict[str, np.ndarray] = load_file(folder / PROBES)
    return arrays


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, even if the machine stops."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
