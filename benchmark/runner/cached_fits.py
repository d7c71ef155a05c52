"""Probe fits that are shared out and kept: `fit_probes` as pieces of work, one a seed.

What a fit reads lies in files (states where the run stored them; labels, splits and the recorder's states once each,
under the digest of their content), so a worker anywhere reads it from there, and a fit that is committed is found again
by what it was made from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from benchmark.cluster.executor import FIT, WorkItem
from benchmark.cluster.pool import Pool
from benchmark.probing.labels import Split
from benchmark.probing.probe_fit import ProbeFit, StateArray
from benchmark.probing.probes import select_matmul_dtype
from benchmark.probing.protocol import Protocol
from benchmark.runner.jobs import FitPayload, FitWork
from benchmark.runner.store import VALID, MemmapStates, ResultStore, StagedResult, to_safetensors, write_atomic_in

OnRetry = Callable[[str, str, str], None]


class CachedProbeTrainer:
    """Takes the place of `fit_probes`.

    Args:
        shards: where pieces are committed.
        pool: who computes them.
        together: seeds of one piece of work; as many as a worker has threads.
        kept: whether fits stay in the folder, to be found by the run that goes on; otherwise they go when read.
        told: hears of retries: piece, cause and reason.
        committed: hears of each piece that is.
    """

    def __init__(
        self,
        shards: ResultStore,
        pool: Pool,
        together: int = 1,
        kept: bool = True,
        told: OnRetry = lambda *words: None,
        committed: Callable[[StagedResult], None] = lambda attempt: None,
    ) -> None:
        self.shards, self.pool, self.together, self.kept = shards, pool, together, kept
        self.told, self.committed = told, committed

    def __call__(
        self,
        states: Sequence[StateArray],
        targets: np.ndarray,
        counts: np.ndarray,
        splits: Sequence[Split],
        widths: Sequence[int],
        seeds: Sequence[int],
        protocol: Protocol,
        progress: Callable[[int], None] = lambda steps: None,
        inits: Sequence[int] | None = None,
    ) -> ProbeFit:
        """See `fit_probes`."""
        labels = self._spill(
            {
                "targets": np.asarray(targets, np.int16),
                "counts": np.array(np.broadcast_to(counts, targets.shape[:2]), np.int64),
                "inits": np.zeros(len(targets), np.int64) if inits is None else np.asarray(inits, np.int64),
            }
        )
        given = {id(rows): self._rows(rows) for rows in states}
        rows = [given[id(one)] for one in states]
        parts = [self._spill(vars(split)) for split in splits]
        settings = [sorted(asdict(protocol).items()), list(widths), str(select_matmul_dtype()), labels.name]
        names = []
        for seed, (files, tensor), part in zip(seeds, rows, parts, strict=True):
            content = [settings, int(seed), [self._content(file) for file in files], tensor, part.name]
            names.append(f"fit-{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]}")
        steps = protocol.steps * len(targets)
        missing = [q for q, name in enumerate(names) if self.shards.status(name) != VALID]
        progress(steps * (len(names) - len(missing)))
        pieces = []
        for start in range(0, len(missing), self.together):
            some = missing[start : start + self.together]
            call = FitPayload(
                tuple(names[q] for q in some), tuple(int(seeds[q]) for q in some), tuple(rows[q] for q in some),
                labels, tuple(parts[q] for q in some), tuple(widths), protocol,
            )  # fmt: skip
            pieces.append(self._piece(call, partial(progress, steps * len(some))))
        self.pool.drain(pieces)
        return self._read(names)

    def _piece(self, call: FitPayload, progressed: Callable[[], None]) -> WorkItem:
        def commit(attempts: list[StagedResult]) -> None:
            for attempt in attempts:
                self.shards.commit(attempt)
                self.committed(attempt)
            progressed()

        name = call.names[0]
        work = FitWork(self.shards.root)
        return WorkItem(
            name, FIT, f"{FIT} {work.root}", work, call, commit, lambda cause, why: self.told(name, cause, why)
        )

    def _read(self, names: Sequence[str]) -> ProbeFit:
        found = [load_file(self.shards.arrays_path(name)) for name in names]
        if not self.kept:
            for name in names:
                self.shards.delete(name)
        log_prob, predicted = [one["log_prob"] for one in found], [one["predicted"] for one in found]
        return ProbeFit(np.stack([one["validation"] for one in found]), log_prob, predicted)

    def _rows(self, rows: StateArray) -> tuple[tuple[Path, ...], str]:
        """The files and the tensor of states; those that lie in no file are written to one."""
        if isinstance(rows, MemmapStates) and rows.files:
            return rows.files, rows.tensor
        return (self._spill({"states": np.asarray(rows[:], np.float32)}),), "states"

    def _content(self, file: Path) -> str:
        """What identifies the content of a file: its digest, which the name of a spilled one is."""
        return file.name if file.name.startswith("given-") else str(self.shards.entry(file.stem)["arrays"])

    def _spill(self, arrays: dict[str, np.ndarray]) -> Path:
        """The file of these arrays, written unless it is there."""
        content = to_safetensors(arrays)
        path = self.shards.root / f"given-{hashlib.sha256(content).hexdigest()[:32]}.safetensors"
        if not path.is_file() or path.read_bytes() != content:
            write_atomic_in(path.parent, path.name, content)
        return path
