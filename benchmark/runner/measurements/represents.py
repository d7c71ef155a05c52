"""The measurement of representation, protocol 4 of the probes (docs/protocol4.md), as items of a run.

Items: the controls of the suite (shipped, else computed once and cached), the model with the records that its states hold,
and each randomly initialised copy, which is read by the probe seeds of its number (shipped for the default model, else
cached per architecture).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np

from benchmark.models.loading import load_model
from benchmark.probing.control_gap import RANDOM_INIT
from benchmark.probing.device.trainer import trainer_on
from benchmark.probing.version4.measure_rotation import JudgedSuite, judge_suite
from benchmark.probing.version4.readable_record import RECORDS
from benchmark.probing.version4.rotation_evidence import JudgedRows, RotationEvidence, merge_evidence
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD, RotationProtocol
from benchmark.probing.version4.rotation_sources import execute_records, probe_rotation
from benchmark.probing.version4.rotation_verdict import (
    MODEL,
    TOKEN_HISTORY,
    RotationResult,
    verdict_from_rotation_evidence,
)
from benchmark.probing.version4.suite_controls import (
    SuiteControls,
    compute_suite_controls,
    shipped_suite_controls,
    suite_controls_key,
)
from benchmark.probing.version4.track_protocol import rotation_protocol, view_layers
from benchmark.runner.blind_reading import blind_template, layer_view, read_blind_states
from benchmark.runner.evidence_cache import read_cached, shipped_copy, untrained_copy_key, write_cached
from benchmark.runner.measurement_record import MeasurementRecord, RepresentsRecord
from benchmark.runner.measurements.measurement import Collector, Conclusion, ReadItem
from benchmark.runner.plan import Job
from benchmark.runner.worker import RANDOM_INIT_SEED
from benchmark.statistics import Estimate
from benchmark.tasks.prompt_template import TRAINED
from benchmark.tasks.suite import Suite

CONTROLS_ITEM, MODEL_ITEM = "suite", "model"
STORED_SOURCES = (MODEL, *RECORDS, RANDOM_INIT)
"""Sources whose evidence a run stores; the token history is that of the suite."""


def seeds_of_copy(protocol: RotationProtocol, copy: int) -> list[int]:
    """The probe seeds that read a randomly initialised copy."""
    return [seed for seed in protocol.seeds if seed % protocol.random_inits == copy]


def copy_item(copy: int) -> str:
    """Name of the item of a randomly initialised copy."""
    return f"random-{copy}"


def conclude_rotation(
    evidence: dict[str, RotationEvidence], controls: SuiteControls, judged_rows: JudgedRows, protocol: RotationProtocol
) -> RotationResult:
    """Every figure and the verdict, from the evidence of `STORED_SOURCES` and the controls of the suite."""
    sources = {**evidence, TOKEN_HISTORY: controls.token_history}
    return verdict_from_rotation_evidence(sources, judged_rows, protocol, *controls.kept_pairs(protocol))


@dataclass(frozen=True)
class RepresentsMeasurement:
    """See `Measurement`.

    Attributes:
        protocol: settings of the probes in the trained track; see `rotation_protocol` for those of others.
        few_programs: whether to read few programs in the trained track too.
    """

    protocol: RotationProtocol = ROTATION_STANDARD
    few_programs: bool = False
    name = "represents"
    version = ROTATION_STANDARD.version
    record_type: ClassVar[type[MeasurementRecord]] = RepresentsRecord

    def settings(self, job: Job) -> str:
        """See `Measurement.settings`."""
        return self.protocol_of(job).digest()

    def protocol_of(self, job: Job) -> RotationProtocol:
        """The settings of the probes in a run."""
        return rotation_protocol(job.generation.track, self.protocol, self.few_programs)

    def skip_reason(self, job: Job) -> str | None:
        """See `Measurement.skip_reason`."""
        return None if job.reads_states else "no hidden states are read"

    def phases(self, job: Job) -> Sequence[Sequence[str]]:
        """See `Measurement.phases`."""
        protocol = self.protocol_of(job)
        copies = [copy for copy in range(protocol.random_inits) if seeds_of_copy(protocol, copy)]
        return [[MODEL_ITEM, *map(copy_item, copies), CONTROLS_ITEM]]

    def is_complete(self, job: Job, read: ReadItem, num_phases: int) -> bool:
        """See `Measurement.is_complete`."""
        return False

    def open(self, job: Job) -> Collector:
        """See `Measurement.open`."""
        return RepresentsCollector(job, self.protocol_of(job))

    def conclude(self, job: Job, read: ReadItem) -> Conclusion:
        """See `Measurement.conclude`; raises `ModelError` if the states cannot be read, which a run has checked before."""
        protocol = self.protocol_of(job)
        model = read(MODEL_ITEM)
        evidence = {name: RotationEvidence.from_arrays(model, name) for name in (MODEL, *RECORDS)}
        copies = [
            (seeds, RotationEvidence.from_arrays(read(copy_item(copy)), RANDOM_INIT))
            for copy in range(protocol.random_inits)
            if (seeds := seeds_of_copy(protocol, copy))
        ]
        evidence[RANDOM_INIT] = merge_evidence(copies, protocol.seeds)
        controls = SuiteControls.from_arrays(read(CONTROLS_ITEM))
        judged_rows = judge_suite(rotation_suite(job.suite), protocol).judged_rows
        result = conclude_rotation(evidence, controls, judged_rows, protocol)
        arrays = {name: array for source in STORED_SOURCES for name, array in evidence[source].arrays(source).items()}
        is_standard = protocol == rotation_protocol(job.generation.track, few_programs=self.few_programs)
        unofficial = [] if is_standard else ["the settings of protocol 4 are not the standard ones"]
        return Conclusion({"rotation": result, "few_programs": self.few_programs}, arrays, unofficial)

    def format_card(self, record: RepresentsRecord) -> str:
        """See `Measurement.format_card`."""
        return format_rotation(record.rotation, record.few_programs)


def format_rotation(result: RotationResult, few_programs: bool = False) -> str:
    """The verdict and the figures it rests on, as text for a terminal."""

    def interval(estimate: Estimate | None) -> str:
        return "none" if estimate is None else f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"

    reason = f": {result.reason}" if result.reason else ""
    largest = max(result.control_gaps, key=lambda name: result.control_gaps[name])
    lines = {
        "verdict": f"{result.verdict}{reason}",
        "skill": f"{interval(result.skill)} of rotation, {result.unseen_rows:,} rows with unseen prefixes",
        "delta": f"{interval(result.delta)} beyond {largest} (gap {result.gap.value:+.3f})",
        "pose delta": interval(result.pose_delta),
        "arithmetic": interval(result.arithmetic),
        "turn count": f"{interval(result.turn_count)} (decides nothing)",
        "by word": " ".join(f"{point.skill:.2f}" for point in result.curve),
        "record": " ".join(f"{point.record_skill:.2f}" for point in result.curve),
    }
    if few_programs:
        lines["programs"] = f"{rotation_protocol(TRAINED, few_programs=True).max_programs:,} at most (--few-programs)"
    return "\n".join(f"{name:<10} {text}" for name, text in lines.items())


def rotation_suite(suite: Suite) -> Suite:
    """The suite without what its blind set does not depend on, so that equal blind sets are drawn once."""
    return replace(suite, batch=1, tasks=1, sha256="")


class RepresentsCollector:
    """See `Collector`: loads a model per item, since each item reads another one.

    Attributes:
        template_digest: SHA-256 of the text of the prompts, where it is not the one of the job's track.
    """

    template_digest: ClassVar[str | None] = None

    def __init__(self, job: Job, protocol: RotationProtocol) -> None:
        self.job, self.protocol = job, protocol

    @property
    def judged(self) -> JudgedSuite:
        """The labelled blind set."""
        return judge_suite(rotation_suite(self.job.suite), self.protocol)

    def collect(self, item: str, read: ReadItem, batch_scale: float) -> dict[str, np.ndarray]:
        """See `Collector.collect`."""
        if item == CONTROLS_ITEM:
            return self.suite_controls()
        if item == MODEL_ITEM:
            views = self._views(None, batch_scale)
            evidence = probe_model_on(self.job.device, self.judged, self.judged.judged_rows, views, self.protocol)
            return {name: array for source, part in evidence.items() for name, array in part.arrays(source).items()}
        return self._copy(int(item.removeprefix(copy_item(0)[:-1])), batch_scale)

    def _copy(self, copy: int, batch_scale: float) -> dict[str, np.ndarray]:
        """Evidence of a randomly initialised copy on the seeds that read it: shipped, from the cache, or new."""
        seed = RANDOM_INIT_SEED + copy
        shipped = shipped_copy(self.job, self.protocol, seed, self.template_digest)
        if shipped is not None:
            return shipped
        key = untrained_copy_key(self.job, self.protocol, seed, self.template_digest)
        cached = None if key is None else read_cached(key, self.job.cache)
        if cached is not None:
            return cached
        arrays = collect_copy(
            self.judged,
            self._views(copy, batch_scale),
            self.protocol,
            seeds_of_copy(self.protocol, copy),
            self.job.device,
        )
        if key is not None and batch_scale == 1:
            write_cached(key, arrays, self.job.cache)
        return arrays

    def suite_controls(self) -> dict[str, np.ndarray]:
        """Controls of the suite: the shipped ones, those in the cache, or new ones."""
        suite = rotation_suite(self.job.suite)
        shipped = shipped_suite_controls(suite, self.protocol)
        if shipped is not None:
            return shipped.arrays()
        key = suite_controls_key(suite, self.protocol)
        cached = read_cached(key, self.job.cache)
        if cached is None:
            cached = compute_suite_controls(suite, self.protocol).arrays()
            write_cached(key, cached, self.job.cache)
        return cached

    def _views(self, copy: int | None, batch_scale: float) -> list[np.ndarray]:
        """float32 [R, D] per view, the states of the model or of its randomly initialised copy."""
        return read_views(self.job, self.judged, copy, batch_scale)


def probe_model_on(
    device: str, judged: JudgedSuite, rows: JudgedRows, views: list[np.ndarray], protocol: RotationProtocol
) -> dict[str, RotationEvidence]:
    """Evidence of a model and of the records that its states hold, by source; the probes are trained on its device."""
    trainer = trainer_on(device)
    return {
        MODEL: probe_rotation(judged.probe_set, rows, [views], protocol, trainer),
        **execute_records(judged.probe_set, rows, views, protocol, trainer),
    }


def collect_copy(
    judged: JudgedSuite, views: list[np.ndarray], protocol: RotationProtocol, seeds: Sequence[int], device: str = "cpu"
) -> dict[str, np.ndarray]:
    """Arrays of the evidence of a randomly initialised copy on some seeds; the probes are trained on its device."""
    rows = judged.judged_rows.select(seeds)
    evidence = probe_rotation(judged.probe_set, rows, [views], protocol, trainer_on(device))
    return evidence.arrays(RANDOM_INIT)


def read_views(job: Job, judged: JudgedSuite, copy: int | None, batch_scale: float = 1.0) -> list[np.ndarray]:
    """float32 [R, D] per view, the states of the model of a job, or of its randomly initialised copy."""
    return list(_read(job, judged, copy, partial(view_layers, job.generation.track), batch_scale).values())


def read_layers(
    job: Job,
    judged: JudgedSuite,
    copy: int | None,
    step: int = 1,
    on_programs: Callable[[int], None] = lambda count: None,
) -> dict[int, np.ndarray]:
    """float32 [R, D] by index of the layer: every `step`-th and the last, of a model or of a randomly initialised copy.

    `on_programs` is called with the number of programs read since the last call.
    """
    selected: list[int] = []

    def select(num_layers: int) -> list[int]:
        selected[:] = sorted({*range(0, num_layers, step), num_layers - 1})
        return selected

    states = _read(job, judged, copy, select, on_programs=on_programs)
    return {layer: states[layer_view(layer)] for layer in selected}


def _read(
    job: Job,
    judged: JudgedSuite,
    copy: int | None,
    select_layers: Callable[[int], Sequence[int]],
    batch_scale: float = 1.0,
    on_programs: Callable[[int], None] = lambda count: None,
) -> dict[str, np.ndarray]:
    template = blind_template(job)
    seed = None if copy is None else RANDOM_INIT_SEED + copy
    model = load_model(job.checkpoint, job.dtype, job.device, seed, template.before)
    suite = replace(job.suite, batch=max(1, int(job.suite.batch * batch_scale)))
    return read_blind_states(model, suite, judged.blind, template, on_programs, select_layers)
