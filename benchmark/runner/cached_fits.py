"""A probe trainer that distributes and caches fits: `fit_probes` as work items, one fit per seed.

The inputs of a fit lie in files (hidden states where the run stored them; labels, splits and token-history states once
each, named by the digest of their content), so that a worker on any node reads them there, and a committed fit is found
again by its inputs.
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
    """A `ProbeTrainer` that trains on the workers of a pool and stores each fit.

    Args:
        store: where fits are committed.
        pool: the pool of workers.
        seeds_per_item: seeds per work item, as many as a worker has threads.
        keep: whether fits stay in the folder, so that a continued run finds them; otherwise they are deleted when read.
        on_retry: called with item name, status and message when an item is computed again or given up.
        on_commit: called with each committed fit.
    """

    def __init__(
        self,
        store: ResultStore,
        pool: Pool,
        seeds_per_item: int = 1,
        keep: bool = True,
        on_retry: OnRetry = lambda name, status, message: None,
        on_commit: Callable[[StagedResult], None] = lambda result: None,
    ) -> None:
        self.store, self.pool, self.seeds_per_item, self.keep = store, pool, seeds_per_item, keep
        self.on_retry, self.on_commit = on_retry, on_commit

    def __call__(
        self,
        states: Sequence[StateArray],
        targets: np.ndarray,
        counts: np.ndarray,
        splits: Sequence[Split],
        widths: Sequence[int],
        seeds: Sequence[int],
        protocol: Protocol,
        on_steps: Callable[[int], None] = lambda steps: None,
        inits: Sequence[int] | None = None,
    ) -> ProbeFit:
        """See `fit_probes`."""
        labels = self._write_inputs(
            {
                "targets": np.asarray(targets, np.int16),
                "counts": np.array(np.broadcast_to(counts, targets.shape[:2]), np.int64),
                "inits": np.zeros(len(targets), np.int64) if inits is None else np.asarray(inits, np.int64),
            }
        )
        files_by_id = {id(array): self._state_files(array) for array in states}
        state_files = [files_by_id[id(array)] for array in states]
        split_files = [self._write_inputs(vars(split)) for split in splits]
        settings = [sorted(asdict(protocol).items()), list(widths), str(select_matmul_dtype()), labels.name]
        names = []
        for seed, (files, tensor), split_file in zip(seeds, state_files, split_files, strict=True):
            inputs = [settings, int(seed), [self._digest(file) for file in files], tensor, split_file.name]
            names.append(f"fit-{hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:32]}")
        steps = protocol.steps * len(targets)
        missing = [q for q, name in enumerate(names) if self.store.status(name) != VALID]
        on_steps(steps * (len(names) - len(missing)))
        items = []
        for start in range(0, len(missing), self.seeds_per_item):
            batch = missing[start : start + self.seeds_per_item]
            payload = FitPayload(
                tuple(names[q] for q in batch), tuple(int(seeds[q]) for q in batch), tuple(state_files[q] for q in batch),
                labels, tuple(split_files[q] for q in batch), tuple(widths), protocol,
            )  # fmt: skip
            items.append(self._work_item(payload, partial(on_steps, steps * len(batch))))
        self.pool.drain(items)
        return self._read(names)

    def _work_item(self, payload: FitPayload, on_done: Callable[[], None]) -> WorkItem:
        def commit(results: list[StagedResult]) -> None:
            for result in results:
                self.store.commit(result)
                self.on_commit(result)
            on_done()

        name = payload.names[0]
        work = FitWork(self.store.root)
        return WorkItem(name, FIT, f"{FIT} {work.root}", work, payload, commit, partial(self.on_retry, name))

    def _read(self, names: Sequence[str]) -> ProbeFit:
        fits = [load_file(self.store.arrays_path(name)) for name in names]
        if not self.keep:
            for name in names:
                self.store.delete(name)
        log_prob, predicted = [fit["log_prob"] for fit in fits], [fit["predicted"] for fit in fits]
        return ProbeFit(np.stack([fit["validation"] for fit in fits]), log_prob, predicted)

    def _state_files(self, states: StateArray) -> tuple[tuple[Path, ...], str]:
        """Files and tensor name of hidden states; states in memory are written to a file."""
        if isinstance(states, MemmapStates) and states.files:
            return states.files, states.tensor
        return (self._write_inputs({"states": np.asarray(states[:], np.float32)}),), "states"

    def _digest(self, file: Path) -> str:
        """Identity of a file's content: its digest, or for files of `_write_inputs` the name that holds it."""
        return file.name if file.name.startswith("given-") else str(self.store.entry(file.stem)["arrays"])

    def _write_inputs(self, arrays: dict[str, np.ndarray]) -> Path:
        """Write arrays to a file named by their digest, unless it exists; returns its path."""
        content = to_safetensors(arrays)
        path = self.store.root / f"given-{hashlib.sha256(content).hexdigest()[:32]}.safetensors"
        if not path.is_file() or path.read_bytes() != content:
            write_atomic_in(path.parent, path.name, content)
        return path
