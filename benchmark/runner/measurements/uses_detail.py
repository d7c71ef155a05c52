"""The full detail of the measurement of use (docs/causal.md, Full detail) as items of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.causal.detail.detail_evidence import detail_rows, detail_sites
from benchmark.causal.detail.detail_pieces import MEANS, DetailCollector, assemble_detail, piece_name, plan_detail
from benchmark.causal.detail.detail_report import format_detail
from benchmark.causal.detail.detail_verdict import detail_not_applicable, judge_detail
from benchmark.causal.detail.displacement import mean_codes
from benchmark.causal.interventions import SteerableModel
from benchmark.causal.pairs import STANDARD_PAIRS, PairSettings
from benchmark.causal.session import CausalSession
from benchmark.errors import ModelError
from benchmark.runner.measurement_record import UsesDetailRecord
from benchmark.runner.measurements.measurement import Collector, Conclusion, ReadItem
from benchmark.runner.measurements.uses import UsesMeasurement, pair_settings
from benchmark.runner.measurements.word_scorers import load_steerable
from benchmark.runner.plan import Job

DETAIL_VERSION = 1
SITE_NAMES = "names"
MAX_SITE_NAME = 40


@dataclass(frozen=True)
class UsesDetailMeasurement:
    """See `Measurement`.

    Attributes:
        pairs: settings of the pairs; None for those of `uses.pair_settings`.
    """

    pairs: PairSettings | None = None
    name = "uses-detail"
    version = DETAIL_VERSION
    record_type = UsesDetailRecord

    def settings_of(self, job: Job) -> PairSettings:
        """The settings of the pairs of a job."""
        return self.pairs or pair_settings(job.suite)

    def settings(self, job: Job) -> str:
        """See `Measurement.settings`."""
        return str(self.settings_of(job))

    def skip_reason(self, job: Job) -> str | None:
        """See `Measurement.skip_reason`."""
        return UsesMeasurement().skip_reason(job)

    def phases(self, job: Job) -> Sequence[Sequence[str]]:
        """See `Measurement.phases`."""
        rows = detail_rows(job.suite, self.settings_of(job))
        return [[piece.name for piece in phase] for phase in plan_detail(rows)]

    def is_complete(self, job: Job, read: ReadItem, num_phases: int) -> bool:
        """See `Measurement.is_complete`."""
        return False

    def open(self, job: Job) -> Collector:
        """See `Measurement.open`."""
        return UsesDetailCollector(job, self.settings_of(job))

    def conclude(self, job: Job, read: ReadItem) -> Conclusion:
        """See `Measurement.conclude`."""
        settings = self.settings_of(job)
        unofficial = [] if settings == STANDARD_PAIRS else ["the settings of the pairs are not the standard ones"]
        rows = detail_rows(job.suite, settings)
        try:
            names = [bytes(name).decode().rstrip("\0") for name in read(piece_name(MEANS))[SITE_NAMES]]
            sites = [names[site] for site in detail_sites(len(names))]
            evidence, reason = assemble_detail(rows, len(sites), read)
        except ModelError as error:
            return Conclusion({"sites": [], "detail": detail_not_applicable(str(error))}, {}, unofficial)
        result = judge_detail(evidence, rows, job.suite, reason)
        return Conclusion({"sites": sites, "detail": result}, evidence.to_arrays(), unofficial)

    def format_card(self, record: UsesDetailRecord) -> str:
        """See `Measurement.format_card`."""
        return format_detail(record.sites, record.detail)


class UsesDetailCollector:
    """See `Collector`: holds the model."""

    def __init__(self, job: Job, settings: PairSettings) -> None:
        self.job, self.settings = job, settings
        self.model: SteerableModel | None = None
        self.collector: DetailCollector | None = None

    def collect(self, item: str, read: ReadItem, batch_scale: float) -> dict[str, np.ndarray]:
        """See `Collector.collect`."""
        suite, rows = self.job.suite, detail_rows(self.job.suite, self.settings)
        if self.model is None:
            self.model = load_steerable(self.job)
        if self.collector is None:
            session = CausalSession(self.model, suite, rows.pairs)
            self.collector = DetailCollector(session, rows, mean_codes(suite, self.settings), read)
        batch_rows = max(1, int(self.model.batch_rows * batch_scale))
        self.collector.session.batch_rows, self.collector.read = batch_rows, read
        piece = next(piece for phase in plan_detail(rows) for piece in phase if piece.name == item)
        arrays = self.collector.compute(piece)
        if piece.kind == MEANS:
            names = [list(name.encode().ljust(MAX_SITE_NAME, b"\0")[:MAX_SITE_NAME]) for name in self.model.sites]
            arrays |= {SITE_NAMES: np.array(names, np.uint8)}
        return arrays
