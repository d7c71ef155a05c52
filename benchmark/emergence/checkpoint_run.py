"""The measurement of one checkpoint: a preview whose number of probe seeds is fixed, and its figures as a point.

Each checkpoint has a run folder as that of `karel-bench run`, so that it continues where it was stopped, and shares the
cache of randomly initialised copies with all checkpoints of its architecture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from safetensors.numpy import load_file

from benchmark.causal.evidence import NOT_RUN, CausalEvidence, has_edits
from benchmark.causal.merges import merge_pairs, resample_merges
from benchmark.causal.pairs import PairSettings, derive_pairs
from benchmark.causal.verdict import natural_rates, resample_use, score_pairs, sum_rates
from benchmark.emergence.point import (
    DELTA,
    MERGES,
    USE,
    CurvePoint,
    RotationFigures,
    UseFigures,
    dump_point,
    read_point,
)
from benchmark.emergence.series import SeriesCheckpoint
from benchmark.probing.version4.rotation_evidence import RotationEvidence
from benchmark.probing.version4.rotation_verdict import TOKEN_HISTORY
from benchmark.probing.version4.sequential_verdict import LOOKS, Look, delta_of_seeds, select_seeds
from benchmark.probing.version4.suite_controls import SuiteControls
from benchmark.probing.written.content import DEPTHS, MODEL
from benchmark.probing.written.content_labels import ABSOLUTE
from benchmark.probing.written.figures import ReachFigures
from benchmark.runner.folder import RunFolder
from benchmark.runner.measurement_record import MeasurementRecord, PreviewRecord, ReachRecord, UsesRecord
from benchmark.runner.measurements.measurement import Measurement
from benchmark.runner.measurements.preview import PreviewMeasurement
from benchmark.runner.measurements.represents import STORED_SOURCES, RepresentsCollector
from benchmark.runner.measurements.stage import read_measured
from benchmark.runner.measurements.uses import UsesMeasurement
from benchmark.runner.record import Record
from benchmark.runner.run import Run
from benchmark.runner.stages import Backend, Progress
from benchmark.runner.store import VALID
from benchmark.statistics import Estimate, normal_quantile

NUM_RESAMPLES = 200
"""Resamples that a point keeps of each figure."""
MIN_USE_TASKS = 20
"""Smallest number of tasks with a strict pair from whose prefix the model solves the task, for a figure of use."""
NOISE_SEED = 4_711


class CheckpointRun(Run):
    """The run of one checkpoint; the first look of protocol 4 is its last, or with all seeds only that at the end."""

    all_seeds = False

    def measurements(self) -> list[Measurement]:
        """See `Run.measurements`."""
        return [self._of_series(item) for item in super().measurements()]

    def _of_series(self, measurement: Measurement) -> Measurement:
        """The measurement as points of a series need it: probe seeds are fixed, and every model is edited."""
        if isinstance(measurement, PreviewMeasurement):
            return replace(measurement, fixed_looks=(self._look(measurement),))
        if isinstance(measurement, UsesMeasurement):
            return replace(measurement, edits_every_model=True)
        return measurement

    def _look(self, measurement: PreviewMeasurement) -> Look:
        planned = len(measurement.protocol.seeds)
        return Look(planned if self.all_seeds else min(planned, LOOKS[0].seeds), 1.0)

    def point(self, moment: SeriesCheckpoint, backend: Backend, progress: Progress) -> CurvePoint:
        """The point of the checkpoint: what is missing of it is measured."""
        folder = RunFolder(self.root())
        settings = [(item.name, item.version, item.settings(self.job)) for item in self.measurements()]
        name = f"point-{hashlib.sha256(repr(settings).encode()).hexdigest()[:8]}.json"
        if folder.file_status(folder.root, name) != VALID:
            record = self.execute(backend, progress)
            folder.finish(name, dump_point(self._compute_point(record)) + b"\n")
        # Another series may hold the same model at another moment.
        return replace(
            read_point(folder.root / name), step=moment.step, tasks=moment.tasks, tokens=moment.tokens,
            is_ordinal=moment.is_ordinal,
        )  # fmt: skip

    def _compute_point(self, record: Record) -> CurvePoint:
        accuracy = record.accuracy
        point = CurvePoint(0, None, None, accuracy, (accuracy.distinct or 0.0) * accuracy.valid.value)
        resampled: dict[str, np.ndarray] = {}
        measurements = {item.name: item for item in self.measurements()}
        for name, result in read_measured(self).items():
            evidence = self._evidence(result)
            if isinstance(result, PreviewRecord):
                measurement = measurements[name]
                assert isinstance(measurement, PreviewMeasurement)
                point = replace(point, rotation=rotation_figures(result))
                resampled[DELTA] = self._resample_delta(measurement, result, evidence)
            elif isinstance(result, UsesRecord):
                measurement = measurements[name]
                assert isinstance(measurement, UsesMeasurement)
                figures, of_use = self._use(measurement.settings_of(self.suite), result, evidence)
                point = replace(point, use=figures, merges=result.merges)
                resampled |= of_use
            elif isinstance(result, ReachRecord):
                point = replace(point, **content_of(result.written))  # type: ignore[arg-type]
        rounded = {name: values[:NUM_RESAMPLES].round(4).tolist() for name, values in resampled.items()}
        return replace(point, resampled=rounded)

    def _evidence(self, record: MeasurementRecord) -> dict[str, np.ndarray]:
        if record.evidence_sha256 is None:
            return {}
        arrays: dict[str, np.ndarray] = load_file(self.root() / record.EVIDENCE)
        return arrays

    def _resample_delta(
        self, measurement: PreviewMeasurement, record: PreviewRecord, arrays: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """float64 [W], delta in resamples of prompts, with the spread between probe seeds and copies added as noise."""
        protocol = measurement.protocol
        seeds = protocol.seeds[: record.seeds]
        collector = RepresentsCollector(self.job, protocol)
        rows = collector.judged.judged_rows
        controls = SuiteControls.from_arrays(collector.suite_controls())
        evidence = {name: RotationEvidence.from_arrays(dict(arrays), name) for name in STORED_SOURCES}
        history = select_seeds(controls.token_history, protocol.seeds, seeds, rows)
        marker_pairs, _ = controls.kept_pairs(protocol)
        sample = delta_of_seeds({**evidence, TOKEN_HISTORY: history}, rows, seeds, protocol, marker_pairs)
        return add_spread(sample.resampled, record.rotation.delta, self.checkpoint.digest)

    def _use(
        self, settings: PairSettings, record: UsesRecord, arrays: dict[str, np.ndarray]
    ) -> tuple[UseFigures, dict[str, np.ndarray]]:
        """Figures of use, and values of use and merges in resamples of tasks."""
        resampled: dict[str, np.ndarray] = {}
        if record.merges is not None and record.merges.merges is not None:
            resampled[MERGES] = resample_merges(merge_pairs(self.suite, settings), arrays["merge_scores"])
        result = record.use
        figures = UseFigures(result.verdict, result.solved, None, None, None)
        if "steered" not in arrays:
            return figures, resampled
        pairs, evidence = derive_pairs(self.suite, settings), CausalEvidence.from_arrays(arrays)
        # The result has no share of solved tasks where it is too small for a verdict.
        figures = replace(figures, solved=float(evidence.is_solved[evidence.unedited != NOT_RUN].mean()))
        rows = pairs.is_report & evidence.is_solved
        natural = natural_rates(evidence, pairs, rows)
        strict = rows & pairs.is_strict
        if not has_edits(arrays) or len(np.unique(pairs.task[strict])) < MIN_USE_TASKS:
            return figures, resampled
        score = score_pairs(evidence, pairs, strict, natural)
        _, resampled[USE] = resample_use(sum_rates(evidence, pairs, strict), natural)
        return replace(figures, steered=score.steered, margin=score.margin, use=score.use), resampled


def add_spread(resampled: np.ndarray, estimate: Estimate, digest: str) -> np.ndarray:
    """Values in resamples of units with normal noise added, so that their spread is that of the 95% interval.

    The noise stands for what does not vary with the units; it is drawn from the digest of the model.
    """
    total = ((estimate.high - estimate.low) / (2 * normal_quantile(0.975))) ** 2
    between = np.sqrt(max(0.0, total - float(np.var(resampled, ddof=1))))
    generator = np.random.default_rng([NOISE_SEED, int(digest[:12], 16)])
    return np.asarray(resampled + between * generator.standard_normal(len(resampled)))


def rotation_figures(record: PreviewRecord) -> RotationFigures:
    """The figures of a preview that a point has."""
    result = record.rotation
    return RotationFigures(
        result.verdict, record.seeds, result.skill, result.delta, result.pose_delta, result.arithmetic
    )


def content_of(figures: ReachFigures) -> dict[str, object]:
    """Content, floors and reach as entries of a point."""
    present = [figure for figure in figures.content if figure.offset == 0 and figure.frame == ABSOLUTE]
    content = {figure.depth: figure.content for figure in present if figure.source == MODEL}
    floors: dict[str, Estimate] = {}
    for depth in DEPTHS:
        # The majority has no depth: it is a floor of each.
        lower = [figure.content for figure in present if figure.source != MODEL and figure.depth in (depth, "")]
        if lower:
            floors[depth] = max(lower, key=lambda estimate: estimate.value)
    return {"content": content or None, "floors": floors or None, "reach": figures.reach}
