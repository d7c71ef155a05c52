"""The folder of a run: what is committed, what happened, and one driver at a time.

`shards/` holds the committed pieces, `events.jsonl` one line an event, `lock` the driver that has the folder; a finished
run has `record.json`, `samples.jsonl.gz`, `probes.data`, `readings.json.gz` and figures. The same command finds the
folder again.
"""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import shutil
import struct
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from benchmark.errors import BenchmarkError
from benchmark.evaluation import Shard, ShardResult
from benchmark.labels import ProbeSet
from benchmark.shards import Attempt, Shards, StoredRows, mapped, packed, storage_problem, write_durably

PROBES = "probes.data"
RETRIED = "retried"
"""Event of a piece that is computed again; its `cause` is one of `pool.CAUSES` or `damaged`."""


class RunFolder:
    """One run's files.

    Args:
        root: the folder; made if it is not there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pieces = Shards(root / "shards")
        self.pieces.root.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within, no other driver has the folder; the lock goes with the process, however it ends.

        Raises:
            BenchmarkError: another driver has it.
        """
        with (self.root / "lock").open("a+") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as problem:
                file.seek(0)
                raise BenchmarkError(
                    f"{self.root}: another driver computes this run ({file.read().strip() or 'starting'}); wait for it, "
                    "stop it, or use another --out"
                ) from problem
            file.truncate(0)
            file.write(f"process {os.getpid()} on {os.uname().nodename} since {_now()}")
            file.flush()
            yield

    def commit(self, shard: Shard, result: ShardResult) -> None:
        """Store a shard that was computed in this process."""
        self.pieces.commit(attempt_of(self.pieces, shard, result))

    def committed(self, shard: Shard) -> bool:
        """Whether a shard is there, whole and unaltered."""
        return self.condition(shard) == "whole"

    def condition(self, shard: Shard) -> str:
        """See `Shards.condition`."""
        return self.pieces.condition(shard.name, stop=shard.stop)

    def samples(self, shards: Sequence[Shard], stage: str) -> list[dict[str, Any]]:
        """All samples of a stage, in order."""
        mine = [shard for shard in shards if shard.stage == stage]
        return [sample for shard in mine for sample in self.pieces.entry(shard.name)["samples"]]

    def states(self, shards: Sequence[Shard], stage: str, view: str) -> StoredRows:
        """float32 [rows, D], the states of a stage at a position and view, such as `read.mean`, in order, as stored."""
        return StoredRows.of(self._files(shards, stage), view)

    def views(self, shards: Sequence[Shard], stage: str, position: str) -> list[str]:
        """Names of the views that a stage stores at a position."""
        names = dict.fromkeys(name for file in self._files(shards, stage) for name in mapped(file))
        found = [name.removeprefix(f"{position}.") for name in names if name.startswith(f"{position}.")]
        return sorted(found, key=lambda view: (view.startswith("layer"), int(view.split()[-1]) if " " in view else 0))

    def _files(self, shards: Sequence[Shard], stage: str) -> list[Path]:
        return [self.pieces.arrays_of(shard.name) for shard in shards if shard.stage == stage]

    def write_index(self, stage: str, probe_set: ProbeSet) -> None:
        """`index-STAGE.safetensors`: of each row of a stage's states its program, step, word and fold, int32 each."""
        columns = {
            "task": probe_set.program, "step": probe_set.step, "token": probe_set.word,
            "split": probe_set.fold[probe_set.program],
        }  # fmt: skip
        whole = packed({name: np.asarray(column, np.int32) for name, column in columns.items()})
        write_durably(self.pieces.root / f"index-{stage}.safetensors", whole)

    def seconds(self, shards: Sequence[Shard]) -> dict[str, float]:
        """Worker seconds of each stage."""
        spent: dict[str, float] = {}
        for shard in shards:
            spent[shard.stage] = spent.get(shard.stage, 0.0) + self.pieces.entry(shard.name)["seconds"]
        return {stage: round(value, 1) for stage, value in spent.items()}

    def write_samples(self, rows: Sequence[dict[str, Any]]) -> Path:
        """`samples.jsonl.gz`, the same bytes for the same rows."""
        text = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
        path = self.root / "samples.jsonl.gz"
        write_durably(path, gzip.compress(text.encode(), mtime=0))
        return path

    def write_probes(self, arrays: Mapping[str, np.ndarray]) -> None:
        """`probes.data`: what the verdict is computed from, as safetensors."""
        write_durably(self.root / PROBES, packed(arrays))

    def drop_states(self) -> None:
        """Delete the shards once the record holds what they were for."""
        shutil.rmtree(self.pieces.root)

    def log(self, event: str, **details: Any) -> None:
        """Append an event with the time (UTC) to `events.jsonl`."""
        line = json.dumps({"time": _now(), "event": event, **details}) + "\n"
        try:
            with (self.root / "events.jsonl").open("ab+") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    # A driver that was killed may have left half a line.
                    line = line if file.read(1) == b"\n" else "\n" + line
                file.write(line.encode())
        except OSError as problem:
            raise storage_problem(self.root, problem) from problem

    def events(self) -> list[dict[str, Any]]:
        """All events so far."""
        return self.events_of(self.root)

    @staticmethod
    def events_of(root: Path) -> list[dict[str, Any]]:
        """All events of a run folder; a line that a killed driver left unfinished is passed over."""
        found = []
        path = root / "events.jsonl"
        for line in path.read_text(errors="replace").splitlines() if path.is_file() else []:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and "event" in entry:
                found.append(entry)
        return found

    def retries(self) -> dict[str, int]:
        """How often a piece was computed again, by cause, in all sessions of the run."""
        return dict(sorted(Counter(entry["cause"] for entry in self.events() if entry["event"] == RETRIED).items()))


def holder(root: Path) -> int | None:
    """The process that has a run folder, None if there is none; asked without taking the lock.

    Not for the process that has it: the system would take its lock away when the file is closed here.
    """
    path = root / "lock"
    if not path.is_file():
        return None
    # `struct flock` of the C library: type, whence, start, length, process; macOS has them in another order.
    layout, order = ("qqihh", (3, 4, 0, 1, 2)) if sys.platform == "darwin" else ("hhqqi4x", (0, 1, 2, 3, 4))
    wanted = (fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
    with path.open("rb") as file:
        asked = struct.pack(layout, *(wanted[i] for i in np.argsort(order)))
        found = struct.unpack(layout, fcntl.fcntl(file, fcntl.F_GETLK, asked))
    return None if found[order[0]] == fcntl.F_UNLCK else int(found[order[4]])


def attempt_of(pieces: Shards, shard: Shard, result: ShardResult) -> Attempt:
    """A shard's result, written aside."""
    entry = {"stop": shard.stop, "seconds": result.seconds, "samples": result.samples}
    return pieces.attempt(shard.name, result.states, entry)


def read_probes(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of `RunFolder.write_probes`."""
    arrays: dict[str, np.ndarray] = load_file(folder / PROBES)
    return arrays


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
