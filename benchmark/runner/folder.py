"""The folder of a run: what is committed, what happened, and one driver at a time.

`shards/` holds the committed pieces, `events.jsonl` one line an event, `lock` the driver that has the folder; a finished
run has `record.json`, `samples.jsonl.gz`, `probes.data`, `readings.json.gz` and figures. The same command finds the
folder again.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
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
from typing import Any, BinaryIO

import numpy as np
from safetensors.numpy import load_file

from benchmark.errors import BenchmarkError, StorageError
from benchmark.probing.labels import ProbeSet
from benchmark.runner.plan import Shard, ShardResult
from benchmark.runner.store import (
    MISSING,
    CORRUPT,
    DIGEST_KEY,
    VALID,
    StagedResult,
    ResultStore,
    MemmapStates,
    mmap_safetensors,
    to_safetensors,
    dump_with_digest,
    storage_error,
    load_with_digest,
    write_atomic_in,
)

PROBES, EVENTS = "probes.data", "events.jsonl"
FINAL = "final"
"""Event that holds the digest of the file that makes a run done."""
RETRIED = "retried"
"""Event of a piece that is computed again; its `cause` is one of `pool.CAUSES` or `damaged`."""


class RunFolder:
    """One run's files.

    Args:
        root: the folder; made if it is not there.
    """

    def __init__(self, root: Path) -> None:
        # Resolved once: whoever shares the storage cannot lead later writes elsewhere by a link in its place.
        self.root = root.resolve()
        self.store = ResultStore(self.root / "shards")
        try:
            self.store.root.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise storage_error(self.root, problem) from problem
        if self.store.root.is_symlink():
            raise StorageError(f"{self.store.root}: is a symbolic link; expected a folder, remove it and run again")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Within, no other driver has the folder; the lock goes with the process, however it ends.

        Raises:
            BenchmarkError: another driver has it.
        """
        with self._appended("lock") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as problem:
                file.seek(0)
                who = " ".join(file.read(300).decode(errors="replace").split())
                raise BenchmarkError(
                    f"{self.root}: another driver computes this run ({who or 'starting'}); wait for it, stop it, or use "
                    "another --out"
                ) from problem
            try:
                file.truncate(0)
                file.write(f"process {os.getpid()} on {os.uname().nodename} since {_now()}".encode())
                file.flush()
            except OSError as problem:
                raise storage_error(self.root, problem) from problem
            yield

    def _appended(self, name: str) -> BinaryIO:
        """A file of the folder, to read and append to; never one that a link leads to."""
        try:
            number = os.open(self.root / name, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
        except OSError as problem:
            raise storage_error(self.root, problem) from problem
        return os.fdopen(number, "ab+")

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the folder durably."""
        write_atomic_in(self.root, name, content)

    def finish(self, name: str, content: bytes) -> None:
        """Write the file that makes the run done, once the events hold its digest, see `finished`."""
        self.log(FINAL, file=name, digest=hashlib.sha256(content).hexdigest())
        self.write(name, content)

    @staticmethod
    def file_status(root: Path, name: str) -> str:
        """`WHOLE`, `ABSENT` or `DAMAGED`: whether a file of `finish` is there as it was written."""
        path = root / name
        if not path.is_file():
            return MISSING
        digests = [e.get("digest") for e in RunFolder.events_of(root) if e["event"] == FINAL and e.get("file") == name]
        return VALID if digests and hashlib.sha256(path.read_bytes()).hexdigest() == digests[-1] else CORRUPT

    def commit(self, shard: Shard, result: ShardResult) -> None:
        """Store a shard that was computed in this process."""
        self.store.commit(stage_result(self.store, shard, result))

    def is_committed(self, shard: Shard) -> bool:
        """Whether a shard is there, whole and unaltered."""
        return self.status(shard) == "whole"

    def status(self, shard: Shard) -> str:
        """See `Shards.condition`."""
        return self.store.status(shard.name, stop=shard.stop)

    def samples(self, shards: Sequence[Shard], stage: str) -> list[dict[str, Any]]:
        """All samples of a stage, in order."""
        mine = [shard for shard in shards if shard.stage == stage]
        return [sample for shard in mine for sample in self.store.entry(shard.name)["samples"]]

    def states(self, shards: Sequence[Shard], stage: str, view: str) -> MemmapStates:
        """float32 [rows, D], the states of a stage at a position and view, such as `read.mean`, in order, as stored."""
        return MemmapStates.open(self._files(shards, stage), view)

    def views(self, shards: Sequence[Shard], stage: str, position: str) -> list[str]:
        """Names of the views that a stage stores at a position."""
        names = dict.fromkeys(name for file in self._files(shards, stage) for name in mmap_safetensors(file))
        found = [name.removeprefix(f"{position}.") for name in names if name.startswith(f"{position}.")]
        return sorted(found, key=lambda view: (view.startswith("layer"), int(view.split()[-1]) if " " in view else 0))

    def _files(self, shards: Sequence[Shard], stage: str) -> list[Path]:
        return [self.store.arrays_path(shard.name) for shard in shards if shard.stage == stage]

    def write_index(self, stage: str, probe_set: ProbeSet) -> None:
        """`index-STAGE.safetensors`: of each row of a stage's states its program, step, word and fold, int32 each."""
        columns = {
            "task": probe_set.program, "step": probe_set.step, "token": probe_set.word,
            "split": probe_set.fold[probe_set.program],
        }  # fmt: skip
        whole = to_safetensors({name: np.asarray(column, np.int32) for name, column in columns.items()})
        write_atomic_in(self.store.root, f"index-{stage}.safetensors", whole)

    def seconds(self, shards: Sequence[Shard]) -> dict[str, float]:
        """Worker seconds of each stage."""
        spent: dict[str, float] = {}
        for shard in shards:
            spent[shard.stage] = spent.get(shard.stage, 0.0) + self.store.entry(shard.name)["seconds"]
        return {stage: round(value, 1) for stage, value in spent.items()}

    def write_samples(self, rows: Sequence[dict[str, Any]]) -> Path:
        """`samples.jsonl.gz`, the same bytes for the same rows."""
        text = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
        name = "samples.jsonl.gz"
        self.write(name, gzip.compress(text.encode(), mtime=0))
        return self.root / name

    def write_probes(self, arrays: Mapping[str, np.ndarray]) -> None:
        """`probes.data`: what the verdict is computed from, as safetensors."""
        self.write(PROBES, to_safetensors(arrays))

    def delete_states(self) -> None:
        """Delete the shards once the record holds what they were for."""
        try:
            shutil.rmtree(self.store.root)
        except OSError as problem:
            raise storage_error(self.store.root, problem) from problem

    def log(self, event: str, **details: Any) -> None:
        """Append an event with the time (UTC) to `events.jsonl`."""
        line = dump_with_digest({"time": _now(), "event": event, **details}) + b"\n"
        try:
            with self._appended(EVENTS) as file:
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    # A driver that was killed may have left half a line.
                    line = line if file.read(1) == b"\n" else b"\n" + line
                file.write(line)
        except OSError as problem:
            raise storage_error(self.root, problem) from problem

    def events(self) -> list[dict[str, Any]]:
        """All events so far."""
        return self.events_of(self.root)

    @staticmethod
    def events_of(root: Path) -> list[dict[str, Any]]:
        """All events of a run folder; a line that a killed driver left unfinished, or that was altered, is passed over.

        A log whose first event has no digest of itself is of an earlier version, and none of its lines is asked for one.
        """
        path, events, is_earlier = root / EVENTS, [], None
        for line in path.read_bytes().decode(errors="replace").split("\n") if path.is_file() else []:
            try:
                entry = json.loads(line)
                if is_earlier is None:
                    is_earlier = isinstance(entry, dict) and "event" in entry and DIGEST_KEY not in entry
                entry = entry if is_earlier else load_with_digest(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict) and "event" in entry and "time" in entry:
                events.append(entry)
        return events

    def retries(self) -> dict[str, int]:
        """How often a piece was computed again, by cause, in all sessions of the run."""
        causes = Counter(str(entry.get("cause")) for entry in self.events() if entry["event"] == RETRIED)
        return dict(sorted(causes.items()))

    def has_halved_batch(self, shards: Sequence[Shard]) -> bool:
        """Whether a shard was computed with less than its batch."""
        return any(self.store.entry(shard.name).get("share", 1.0) < 1.0 for shard in shards)


def lock_holder(root: Path) -> int | None:
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


def stage_result(pieces: ResultStore, shard: Shard, result: ShardResult) -> StagedResult:
    """A shard's result, written aside."""
    entry = {"stop": shard.stop, "seconds": result.seconds, "share": result.share, "samples": result.samples}
    return pieces.stage(shard.name, result.states, entry)


def read_probes(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of `RunFolder.write_probes`."""
    arrays: dict[str, np.ndarray] = load_file(folder / PROBES)
    return arrays


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
