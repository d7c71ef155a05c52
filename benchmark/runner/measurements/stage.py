"""Run a measurement: its items as work of a pool, its record and evidence from their committed arrays."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load_file

from benchmark.cluster.local_executor import ComputeFn
from benchmark.errors import ModelError
from benchmark.models.checkpoint import check_unchanged
from benchmark.runner.folder import RunFolder
from benchmark.runner.jobs import localize, num_threads
from benchmark.runner.measurement_record import MeasurementRecord, read_measurement
from benchmark.runner.measurements.item_words import MEASUREMENT_WORDS, describe_items
from benchmark.runner.measurements.measurement import Measurement
from benchmark.runner.plan import Job
from benchmark.runner.stages import Backend, Progress, RunStages
from benchmark.runner.store import VALID, ResultStore, StagedResult, to_safetensors

if TYPE_CHECKING:
    from benchmark.runner.run import Run

REASON, SETTINGS = "reason", "settings"
"""Keys of an item's entry: why the model did not allow to compute it, and the digest of the settings."""


@dataclass(frozen=True)
class MeasurementWork:
    """Computes items of a measurement of one model; the payload is the name of an item.

    Attributes:
        measurement: the measurement.
        job: the job of the run.
        root: folder of the committed results.
    """

    measurement: Measurement
    job: Job
    root: Path

    def prepare(self) -> ComputeFn:
        """Open the measurement; its first item loads the model."""
        collector, store = self.measurement.open(localize(self.job)), ResultStore(self.root)
        settings = settings_digest(self.measurement, self.job)

        def compute(item: str, batch_scale: float) -> list[StagedResult]:
            start, reason = time.perf_counter(), ""
            arrays: dict[str, np.ndarray] = {}
            try:
                with num_threads(self.job.threads):
                    arrays = collector.collect(item, partial(read_item, store, self.measurement), batch_scale)
            except ModelError as error:
                reason = " ".join(str(error).split())
            seconds = round(time.perf_counter() - start, 3)
            entry = {REASON: reason, SETTINGS: settings, "seconds": seconds, "share": batch_scale}
            return [store.stage(stored_name(self.measurement, item), arrays, entry)]

        return compute


class MeasurementStages(RunStages):
    """The stages of one measurement of a run."""

    def __init__(self, run: Run, folder: RunFolder, backend: Backend, progress: Progress) -> None:
        super().__init__(run.job, run.identity, folder, backend, progress, run.estimate)
        self.run = run

    def measure(self, measurement: Measurement) -> MeasurementRecord:
        """Compute what is missing, and write the evidence and then the record.

        Raises:
            ItemsFailed: items were given up for other reasons than the model.
        """
        started = datetime.now(UTC).isoformat(timespec="seconds")
        read = partial(read_item, self.folder.store, measurement)
        names: list[str] = []
        phases = measurement.phases(self.job)
        words = describe_items(measurement.name, phases)
        if self.estimate is not None:
            seconds_of_all = self.estimate.measurement_seconds.get(measurement.name, 0.0)
            self.backend.pool.deadlines.expect(self._key(measurement), seconds_of_all / sum(map(len, phases)))
        for number, items in enumerate(phases):
            if number and measurement.is_complete(self.job, read, number):
                break
            self._compute(measurement, items, words)
            names += [stored_name(measurement, item) for item in items]
        entries = [self.folder.store.entry(name) for name in names]
        start = time.perf_counter()
        conclusion = measurement.conclude(self.job, read)
        seconds = {
            measurement.name: round(sum(float(entry["seconds"]) for entry in entries), 1),
            f"{measurement.name} figures": round(time.perf_counter() - start, 1),
        }
        has_halved = any(entry["share"] < 1.0 for entry in entries)
        reasons = [*self.run.ineligibility_reasons(has_halved), *conclusion.unofficial]
        content = to_safetensors(conclusion.evidence) if conclusion.evidence else None
        kind = measurement.record_type
        record = kind(
            version=measurement.version,
            official=not reasons,
            unofficial=reasons,
            model=self.run.model_entry(),
            suite=self.run.suite_entry(),
            track=self.job.generation.track,
            evidence_sha256=None if content is None else hashlib.sha256(content).hexdigest(),
            provenance=self.run.provenance(self.folder, self.backend, seconds, started),
            **conclusion.entries,
        )
        if content is None:
            (self.folder.root / kind.EVIDENCE).unlink(missing_ok=True)
        else:
            self.folder.write(kind.EVIDENCE, content)
        self.folder.finish(kind.FILE, record.to_json().encode())
        return record

    def _key(self, measurement: Measurement) -> str:
        """The affinity key of the items of a measurement."""
        return f"{self.identity} {measurement.name}"

    def _compute(self, measurement: Measurement, items: Sequence[str], words: Mapping[str, str]) -> None:
        settings = settings_digest(measurement, self.job)
        named = {stored_name(measurement, item): item for item in items}
        missing = self._missing({name: {SETTINGS: settings} for name in named})
        work = MeasurementWork(measurement, self.job, self.folder.store.root)
        label = MEASUREMENT_WORDS.get(measurement.name, measurement.name)
        self.progress.start(f"measuring {label}", len(items), len(items) - len(missing))
        self._drain(
            self._key(measurement), work, [(name, named[name], 1, f"{label}: {words[named[name]]}") for name in missing]
        )


def stored_name(measurement: Measurement, item: str) -> str:
    """Name of an item in the store."""
    return f"{measurement.name}-{item}"


def settings_digest(measurement: Measurement, job: Job) -> str:
    """Digest of the version and settings of a measurement, part of every item's entry."""
    return hashlib.sha256(f"{measurement.version} {measurement.settings(job)}".encode()).hexdigest()


def read_item(store: ResultStore, measurement: Measurement, item: str) -> dict[str, np.ndarray]:
    """Read the committed arrays of an item.

    Raises:
        ModelError: the model did not allow to compute it.
    """
    name = stored_name(measurement, item)
    reason = store.entry(name)[REASON]
    if reason:
        raise ModelError(reason)
    arrays: dict[str, np.ndarray] = load_file(store.arrays_path(name))
    return arrays


def is_measured(root: Path, measurement: Measurement) -> bool:
    """Whether a run folder has the record and the evidence of a measurement, unaltered."""
    kind = measurement.record_type
    if RunFolder.file_status(root, kind.FILE) != VALID:
        return False
    expected = kind.model_validate_json((root / kind.FILE).read_bytes()).evidence_sha256
    path = root / kind.EVIDENCE
    return expected is None or (path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == expected)


def measure_missing(run: Run, folder: RunFolder, backend: Backend, progress: Progress) -> None:
    """Make the measurements of a run that its folder lacks.

    Raises:
        ItemsFailed: items were given up for other reasons than the model.
    """
    for measurement in run.measurements():
        if not is_measured(folder.root, measurement):
            record = MeasurementStages(run, folder, backend, progress).measure(measurement)
            label = MEASUREMENT_WORDS.get(measurement.name, measurement.name)
            progress.write(f"{label}: {' '.join(measurement.format_card(record).splitlines()[0].split())}")


def measure_only(run: Run, backend: Backend, progress: Progress) -> None:
    """Make the measurements of a run without its record, in its run folder; errors as for `Run.execute`."""
    folder = RunFolder(run.root())
    with folder.lock(), backend.pool.reporting(folder.log, progress.write):
        folder.store.delete_staged()
        measure_missing(run, folder, backend, progress)
        check_unchanged(run.checkpoint)
        folder.delete_states()


def read_measured(run: Run) -> dict[str, MeasurementRecord]:
    """The records of the measurements that are in a run's folder, by name."""
    records = {item.name: read_measurement(item.record_type, run.root()) for item in run.measurements()}
    return {name: record for name, record in records.items() if record is not None}
