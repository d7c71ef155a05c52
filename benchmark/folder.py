"""The folder of a run: shards committed one by one, found again by the same command.

A shard is two files, its states and then its samples, each written aside, synced and renamed; the samples' file
holds the digest of the states, so a torn or altered pair counts as not there.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from benchmark.evaluation import Shard, ShardResult

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
        states = save({"states": np.ascontiguousarray(result.states)})
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

    def states(self, shards: Sequence[Shard], stage: str) -> np.ndarray:
        """float32 [rows, pools, D], all states of a stage, in order."""
        parts = [load_file(self.shards / f"{s.name}.safetensors")["states"] for s in shards if s.stage == stage]
        filled = [part for part in parts if len(part)]
        return np.concatenate(filled) if filled else parts[0]

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
