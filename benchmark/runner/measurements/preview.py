"""The measurement of representation as a preview: as many probe seeds as the verdict needs (docs/protocol4.md, Preview).

States are read in parts and probed one seed at a time, so that all processes have work. A look that decides is the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import ClassVar

import numpy as np

from benchmark.models.interface import LanguageModel
from benchmark.models.loading import load_model
from benchmark.probing.control_gap import RANDOM_INIT
from benchmark.probing.device.trainer import trainer_on
from benchmark.probing.version4.readable_record import RECORDS
from benchmark.probing.version4.rotation_evidence import RotationEvidence, merge_evidence
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD, RotationProtocol
from benchmark.probing.version4.rotation_sources import execute_records, probe_rotation
from benchmark.probing.version4.rotation_verdict import MODEL, TOKEN_HISTORY, RotationResult
from benchmark.probing.version4.sequential_verdict import Look, is_decided, list_looks, select_seeds, verdict_of_seeds
from benchmark.probing.version4.suite_controls import SuiteControls
from benchmark.runner.blind_reading import read_blind_states
from benchmark.runner.measurement_record import MeasurementRecord, PreviewRecord
from benchmark.runner.measurements.limited import is_small_suite
from benchmark.runner.measurements.measurement import Collector, Conclusion, ReadItem
from benchmark.runner.measurements.represents import (
    CONTROLS_ITEM,
    STORED_SOURCES,
    RepresentsCollector,
    RepresentsMeasurement,
    copy_item,
    format_rotation,
    seeds_of_copy,
)
from benchmark.runner.plan import Job
from benchmark.tasks.prompt_template import PLAIN
from benchmark.tasks.shared_prompts import SharedPrompts

NUM_PARTS = 4
STATES_ITEM, PROBE_ITEM, RECORD_ITEM = "states", "probe", "record"


@dataclass(frozen=True)
class PreviewMeasurement(RepresentsMeasurement):
    """See `Measurement`; the verdict of `RepresentsMeasurement` from the first seeds that decide it.

    Attributes:
        fixed_looks: the looks instead of those of the protocol; a single one takes its seeds whatever they say.
    """

    fixed_looks: tuple[Look, ...] = ()
    name = "preview"
    version = ROTATION_STANDARD.version
    record_type: ClassVar[type[MeasurementRecord]] = PreviewRecord

    @property
    def looks(self) -> list[Look]:
        """The looks, in order."""
        return list(self.fixed_looks) or list_looks(self.protocol)

    def settings(self, job: Job) -> str:
        """See `Measurement.settings`."""
        return f"{super().settings(job)} {self.looks}"

    def phases(self, job: Job) -> Sequence[Sequence[str]]:
        """See `Measurement.phases`: the states, then for each look the probes of the seeds that it adds."""
        protocol = self.protocol_of(job)
        looks = [0, *(look.seeds for look in self.looks)]
        copies = [_copies_of(protocol, protocol.seeds[:count]) for count in looks]
        phases = [[*map(copy_item, copies[1]), *(f"{STATES_ITEM}-{part}" for part in range(NUM_PARTS)), CONTROLS_ITEM]]
        for number, (first, last) in enumerate(pairwise(looks)):
            added = [] if number == 0 else [copy for copy in copies[number + 1] if copy not in copies[number]]
            probes = [f"{kind}-{seed}" for seed in protocol.seeds[first:last] for kind in (PROBE_ITEM, RECORD_ITEM)]
            phases.append([*map(copy_item, added), *probes])
        return phases

    def is_complete(self, job: Job, read: ReadItem, num_phases: int) -> bool:
        """See `Measurement.is_complete`: the last look decides."""
        looks = self.looks[: num_phases - 1]
        if not looks:
            return False
        collector = PreviewCollector(job, self)
        return collector.is_last(looks[-1], collector.result(read, looks[-1]))

    def open(self, job: Job) -> Collector:
        """See `Measurement.open`."""
        return PreviewCollector(job, self)

    def conclude(self, job: Job, read: ReadItem) -> Conclusion:
        """See `Measurement.conclude`."""
        collector = PreviewCollector(job, self)
        for look in self.looks:
            result = collector.result(read, look)
            if collector.is_last(look, result):
                break
        evidence = collector.evidence(read, look)
        arrays = {name: array for source in STORED_SOURCES for name, array in evidence[source].arrays(source).items()}
        entries = {
            "rotation": result,
            "few_programs": self.few_programs,
            "seeds": look.seeds,
            "planned_seeds": len(self.protocol.seeds),
        }
        return Conclusion(entries, arrays)

    def format_card(self, record: PreviewRecord) -> str:  # type: ignore[override]
        """See `Measurement.format_card`."""
        seeds = f"{'seeds':<10} {record.seeds} of {record.planned_seeds}; --all-seeds takes all"
        return f"{format_rotation(record.rotation, record.few_programs)}\n{seeds}"


class PreviewCollector(RepresentsCollector):
    """See `Collector`: holds the model while states are read, and then the states."""

    def __init__(self, job: Job, measurement: PreviewMeasurement) -> None:
        super().__init__(job, measurement.protocol_of(job))
        self.is_standard = measurement.protocol == ROTATION_STANDARD
        self.last_look = measurement.looks[-1]
        self.model: LanguageModel | None = None
        self.views: list[np.ndarray] | None = None

    def collect(self, item: str, read: ReadItem, batch_scale: float) -> dict[str, np.ndarray]:
        """See `Collector.collect`."""
        kind, _, number = item.partition("-")
        if kind == STATES_ITEM:
            return self._read_part(int(number), batch_scale)
        self.model = None
        if kind not in (PROBE_ITEM, RECORD_ITEM):
            return super().collect(item, read, batch_scale)
        rows = self.judged.judged_rows.select([int(number)])
        views, trainer = self._stored_views(read), trainer_on(self.job.device)
        if kind == PROBE_ITEM:
            return probe_rotation(self.judged.probe_set, rows, [views], self.protocol, trainer).arrays(MODEL)
        records = execute_records(self.judged.probe_set, rows, views, self.protocol, trainer)
        return {name: array for source, part in records.items() for name, array in part.arrays(source).items()}

    def is_last(self, look: Look, result: RotationResult) -> bool:
        """Whether the verdict after a look stands."""
        if look == self.last_look:
            return True
        # More seeds would decide no more of a suite that is too small for a verdict.
        if self.is_standard and is_small_suite(self.job.suite):
            return True
        has_enough = self.judged.judged_rows.num_unseen >= self.protocol.min_unseen
        return is_decided(result, self.protocol, look.widening, has_enough)

    def result(self, read: ReadItem, look: Look) -> RotationResult:
        """Figures and verdict after a look."""
        controls = SuiteControls.from_arrays(read(CONTROLS_ITEM))
        seeds, rows = self.protocol.seeds[: look.seeds], self.judged.judged_rows
        history = select_seeds(controls.token_history, self.protocol.seeds, seeds, rows)
        sources = {**self.evidence(read, look), TOKEN_HISTORY: history}
        return verdict_of_seeds(sources, rows, seeds, self.protocol, *controls.kept_pairs(self.protocol))

    def evidence(self, read: ReadItem, look: Look) -> dict[str, RotationEvidence]:
        """Evidence of `STORED_SOURCES` on the seeds of a look, with all groups of prompts."""
        protocol, rows = self.protocol, self.judged.judged_rows
        seeds = protocol.seeds[: look.seeds]
        probes, records = ({s: read(f"{kind}-{s}") for s in seeds} for kind in (PROBE_ITEM, RECORD_ITEM))
        evidence = {
            name: merge_evidence([([s], RotationEvidence.from_arrays(arrays[s], name)) for s in seeds], seeds)
            for names, arrays in (((MODEL,), probes), (RECORDS, records))
            for name in names
        }
        copies = []
        for copy in _copies_of(protocol, seeds):
            own = seeds_of_copy(protocol, copy)
            used = [seed for seed in own if seed in seeds]
            of_copy = RotationEvidence.from_arrays(read(copy_item(copy)), RANDOM_INIT)
            copies.append((used, select_seeds(of_copy, own, used, rows)))
        return evidence | {RANDOM_INIT: merge_evidence(copies, seeds)}

    def _read_part(self, part: int, batch_scale: float) -> dict[str, np.ndarray]:
        """float32 [R, D] per view, states behind one part of the prompts; empty for a part without prompts."""
        if not len(self._parts[part].prompt):
            return {}
        template, job = self.job.prompt_template or PLAIN, self.job
        if self.model is None:
            self.model = load_model(job.checkpoint, job.dtype, job.device, None, template.before)
        suite = replace(job.suite, batch=max(1, int(job.suite.batch * batch_scale)))
        return read_blind_states(self.model, suite, self._parts[part], template)

    @cached_property
    def _parts(self) -> list[SharedPrompts]:
        """The blind set in parts of whole batches, so that each batch has the prompts that it has without parts."""
        blind, batch = self.judged.blind, self.job.suite.batch
        num_batches = -(-blind.num_prompts // batch)
        bounds = [round(part * num_batches / NUM_PARTS) * batch for part in range(NUM_PARTS + 1)]
        parts = []
        for start, stop in pairwise(bounds):
            indices = np.flatnonzero((blind.prompt >= start) & (blind.prompt < stop))
            parts.append(SharedPrompts(blind.tasks.take(indices), blind.prompt[indices] - start, blind.group[indices]))
        return parts

    def _stored_views(self, read: ReadItem) -> list[np.ndarray]:
        """float32 [R, D] per view, joined from the parts."""
        if self.views is None:
            parts = [read(f"{STATES_ITEM}-{part}") for part in range(NUM_PARTS)]
            views = dict.fromkeys(view for part in parts for view in part)
            self.views = [np.concatenate([part[view] for part in parts if view in part]) for view in views]
        return self.views


def _copies_of(protocol: RotationProtocol, seeds: Sequence[int]) -> list[int]:
    """The randomly initialised copies that some seeds read."""
    return sorted({seed % protocol.random_inits for seed in seeds})
