"""The folder of a run: committed results, event log, and a lock for one driver at a time.

`shards/` holds the committed results, `events.jsonl` one line per event, `lock` the driver that holds the folder; a finished
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

from benchmark.command import note_results_kept
from benchmark.errors import BenchmarkError, StorageError
from benchmark.probing.labels import ProbeSet
from benchmark.runner.plan import Shard, ShardResult
from benchmark.runner.store import (
    CORRUPT,
    DIGEST_KEY,
    MISSING,
    VALID,
    MemmapStates,
    ResultStore,
    StagedResult,
    dump_with_digest,
    load_with_digest,
    mmap_safetensors,
    storage_error,
    to_safetensors,
    write_atomic_in,
)
from benchmark.tasks.stage import Stage

PROBES, EVENTS = "probes.data", "events.jsonl"
FINAL = "final"
"""Event with the digest of the file that completes a run."""
RETRIED = "retried"
"""Event of an item that is computed again; its `cause` is one of `executor.CALL_STATUSES` or `store.CORRUPT`."""


class RunFolder:
    """One run's files.

    Args:
        root: the folder; made if it does not exist.
    """

    def __init__(self, root: Path) -> None:
        # Resolved once, so that a link put in its place later cannot redirect writes.
        self.root = root.resolve()
        self.store = ResultStore(self.root / "shards")
        try:
            self.store.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(self.root, error) from error
        if self.store.root.is_symlink():
            raise StorageError(f"{self.store.root}: is a symbolic link; expected a folder, remove it and run again")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder's lock while the context lasts; it is released when the process ends, however it ends.

        Raises:
            BenchmarkError: another driver holds it.
        """
        with self._open_for_append("lock") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                driver = " ".join(file.read(300).decode(errors="replace").split())
                raise BenchmarkError(
                    f"{self.root}: another driver computes this run ({driver or 'starting'}); wait for it, stop it, or use "
                    "another --output-dir"
                ) from error
            try:
                file.truncate(0)
                file.write(f"process {os.getpid()} on {os.uname().nodename} since {_now()}".encode())
                file.flush()
            except OSError as error:
                raise storage_error(self.root, error) from error
            note_results_kept()
            yield

    def _open_for_append(self, name: str) -> BinaryIO:
        """Open a file of the folder for reading and appending; symbolic links are refused."""
        try:
            descriptor = os.open(self.root / name, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise storage_error(self.root, error) from error
        return os.fdopen(descriptor, "ab+")

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the folder atomically."""
        write_atomic_in(self.root, name, content)

    def finish(self, name: str, content: bytes) -> None:
        """Log the digest of the file that completes the run, then write it; see `file_status`."""
        self.log(FINAL, file=name, digest=hashlib.sha256(content).hexdigest())
        self.write(name, content)

    @staticmethod
    def file_status(root: Path, name: str) -> str:
        """`VALID`, `MISSING` or `CORRUPT`: whether a file of `finish` is as it was written."""
        path = root / name
        if not path.is_file():
            return MISSING
        digests = [e.get("digest") for e in RunFolder.events_of(root) if e["event"] == FINAL and e.get("file") == name]
        return VALID if digests and hashlib.sha256(path.read_bytes()).hexdigest() == digests[-1] else CORRUPT

    def commit(self, shard: Shard, result: ShardResult) -> None:
        """Stage and commit a shard that was computed in this process."""
        self.store.commit(stage_result(self.store, shard, result))

    def is_committed(self, shard: Shard) -> bool:
        """Whether a shard has a valid committed result."""
        return self.status(shard) == VALID

    def status(self, shard: Shard) -> str:
        """See `ResultStore.status`."""
        return self.store.status(shard.name, stop=shard.stop)

    def samples(self, shards: Sequence[Shard], stage: Stage) -> list[dict[str, Any]]:
        """All samples of a stage, in order."""
        stage_shards = [shard for shard in shards if shard.stage == stage]
        return [sample for shard in stage_shards for sample in self.store.entry(shard.name)["samples"]]

    def states(self, shards: Sequence[Shard], stage: Stage, view: str) -> MemmapStates:
        """float32 [rows, D], the hidden states of a stage at a position and view, such as `read.mean`, in order."""
        return MemmapStates.open(self._files(shards, stage), view)

    def views(self, shards: Sequence[Shard], stage: Stage, position: str) -> list[str]:
        """Names of the views that a stage stores at a position, such as `mean` and `layer 3`; layers in order."""
        names = dict.fromkeys(name for file in self._files(shards, stage) for name in mmap_safetensors(file))
        views = [name.removeprefix(f"{position}.") for name in names if name.startswith(f"{position}.")]
        return sorted(views, key=lambda view: (view.startswith("layer"), int(view.split()[-1]) if " " in view else 0))

    def _files(self, shards: Sequence[Shard], stage: Stage) -> list[Path]:
        return [self.store.arrays_path(shard.name) for shard in shards if shard.stage == stage]

    def write_index(self, stage: Stage, probe_set: ProbeSet) -> None:
        """`index-STAGE.safetensors`: program, step, word and fold of each row of a stage's states, int32 each."""
        columns = {
            "task": probe_set.program, "step": probe_set.step, "token": probe_set.word,
            "split": probe_set.fold[probe_set.program],
        }  # fmt: skip
        content = to_safetensors({name: np.asarray(column, np.int32) for name, column in columns.items()})
        write_atomic_in(self.store.root, f"index-{stage}.safetensors", content)

    def seconds(self, shards: Sequence[Shard]) -> dict[str, float]:
        """Worker seconds per stage."""
        seconds: dict[str, float] = {}
        for shard in shards:
            name = str(shard.stage)
            seconds[name] = seconds.get(name, 0.0) + self.store.entry(shard.name)["seconds"]
        return {name: round(value, 1) for name, value in seconds.items()}

    def write_samples(self, rows: Sequence[dict[str, Any]]) -> Path:
        """Write `samples.jsonl.gz`, with equal bytes for equal rows."""
        text = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
        name = "samples.jsonl.gz"
        self.write(name, gzip.compress(text.encode(), mtime=0))
        return self.root / name

    def write_probes(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write `probes.data`: the arrays that the verdict is computed from, as safetensors."""
        self.write(PROBES, to_safetensors(arrays))

    def delete_states(self) -> None:
        """Delete the shards, which the record no longer needs."""
        try:
            shutil.rmtree(self.store.root)
        except OSError as error:
            raise storage_error(self.store.root, error) from error

    def log(self, event: str, **details: Any) -> None:
        """Append an event with the time (UTC) to `events.jsonl`."""
        line = dump_with_digest({"time": _now(), "event": event, **details}) + b"\n"
        try:
            with self._open_for_append(EVENTS) as file:
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    # A killed driver may have left an incomplete line.
                    line = line if file.read(1) == b"\n" else b"\n" + line
                file.write(line)
        except OSError as error:
            raise storage_error(self.root, error) from error

    def events(self) -> list[dict[str, Any]]:
        """All events of the folder."""
        return self.events_of(self.root)

    @staticmethod
    def events_of(root: Path) -> list[dict[str, Any]]:
        """All events of a run folder; incomplete and altered lines are skipped.

        A log whose first event holds no digest was written by an earlier version; its lines are not checked.
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
        """Number of items computed again, by cause, over all sessions of the run."""
        causes = Counter(str(entry.get("cause")) for entry in self.events() if entry["event"] == RETRIED)
        return dict(sorted(causes.items()))

    def has_halved_batch(self, shards: Sequence[Shard]) -> bool:
        """Whether a shard was computed with a reduced batch size."""
        return any(self.store.entry(shard.name).get("share", 1.0) < 1.0 for shard in shards)


def lock_holder(root: Path) -> int | None:
    """Process id of the driver that holds a run folder, or None; does not take the lock.

    Must not be called by that driver: closing the file here would release its lock.
    """
    path = root / "lock"
    if not path.is_file():
        return None
    # `struct flock` of the C library: type, whence, start, length, process; macOS has them in another order.
    layout, order = ("qqihh", (3, 4, 0, 1, 2)) if sys.platform == "darwin" else ("hhqqi4x", (0, 1, 2, 3, 4))
    query = (fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
    with path.open("rb") as file:
        request = struct.pack(layout, *(query[i] for i in np.argsort(order)))
        fields = struct.unpack(layout, fcntl.fcntl(file, fcntl.F_GETLK, request))
    return None if fields[order[0]] == fcntl.F_UNLCK else int(fields[order[4]])


def stage_result(store: ResultStore, shard: Shard, result: ShardResult) -> StagedResult:
    """Stage a shard's result."""
    entry = {"stop": shard.stop, "seconds": result.seconds, "share": result.batch_scale, "samples": result.samples}
    return store.stage(shard.name, result.states, entry)


def read_probes(folder: Path) -> dict[str, np.ndarray]:
    """Read the arrays of `RunFolder.write_probes`."""
    arrays: dict[str, np.ndarray] = load_file(folder / PROBES)
    return arrays


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
