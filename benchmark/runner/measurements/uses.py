"""The measurement of use and of merges (docs/causal.md) as items of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from benchmark.causal import pieces
from benchmark.causal.interventions import SteerableModel, SteerableScorer, WordScorer
from benchmark.causal.merges import MergeResult, merge_pairs, score_merges
from benchmark.causal.pairs import (
    PAIRS_VERSION,
    STANDARD_PAIRS,
    PairSet,
    PairSettings,
    derive_pairs,
    unsupported_reason,
)
from benchmark.causal.pieces import Piece
from benchmark.causal.report import format_result
from benchmark.causal.session import CausalSession, SiteStates
from benchmark.causal.verdict import judge, not_applicable
from benchmark.errors import ModelError
from benchmark.runner.evidence_cache import read_cached, untrained_use_key, write_cached
from benchmark.runner.measurement_record import UsesRecord
from benchmark.runner.measurements.measurement import Collector, Conclusion, ReadItem
from benchmark.runner.measurements.word_scorers import load_steerable, load_word_scorer
from benchmark.runner.plan import Job
from benchmark.tasks.prompt_template import TRAINED
from benchmark.tasks.suite import Suite

UNTRAINED_SEED = 0
MIN_TASKS = 20


def pair_settings(suite: Suite) -> PairSettings:
    """Settings of the pairs: the standard ones for an official suite, fewer tasks for a small or limited one."""
    if suite.official:
        return STANDARD_PAIRS
    return replace(STANDARD_PAIRS, tasks=min(STANDARD_PAIRS.tasks, max(MIN_TASKS, suite.tasks)))


@dataclass(frozen=True)
class UsesMeasurement:
    """See `Measurement`.

    Attributes:
        pairs: settings of the pairs; None for those of `pair_settings`.
        edits_every_model: whether models that solve too few tasks for a verdict are edited too.
    """

    pairs: PairSettings | None = None
    edits_every_model: bool = False
    name = "uses"
    version = PAIRS_VERSION
    record_type = UsesRecord

    def settings_of(self, suite: Suite) -> PairSettings:
        """The settings of the pairs on a suite."""
        return self.pairs or pair_settings(suite)

    def settings(self, job: Job) -> str:
        """See `Measurement.settings`."""
        return f"{self.settings_of(job.suite)}{', every model is edited' if self.edits_every_model else ''}"

    def skip_reason(self, job: Job) -> str | None:
        """See `Measurement.skip_reason`."""
        if not job.generation.states:
            return "--accuracy-only"
        if job.generation.track != TRAINED:
            return f"track {job.generation.track}; the measurement is of models that were trained on the suite"
        return unsupported_reason(job.suite)

    def phases(self, job: Job) -> Sequence[Sequence[str]]:
        """See `Measurement.phases`."""
        pairs = derive_pairs(job.suite, self.settings_of(job.suite))
        return [[piece.name for piece in phase] for phase in pieces.plan_pieces(pairs)]

    def is_complete(self, job: Job, read: ReadItem, num_phases: int) -> bool:
        """See `Measurement.is_complete`: a model that solves too few tasks unedited, or cannot be edited, needs no edits."""
        if num_phases > 1:
            return False
        try:
            return not self._is_edited(derive_pairs(job.suite, self.settings_of(job.suite)), read)
        except ModelError:
            return True

    def _is_edited(self, pairs: PairSet, read: ReadItem) -> bool:
        return pieces.is_edited(pairs, read) or self.edits_every_model

    def open(self, job: Job) -> Collector:
        """See `Measurement.open`."""
        return UsesCollector(job, self.settings_of(job.suite))

    def conclude(self, job: Job, read: ReadItem) -> Conclusion:
        """See `Measurement.conclude`."""
        settings = self.settings_of(job.suite)
        pairs, merges = derive_pairs(job.suite, settings), merge_pairs(job.suite, settings)
        unofficial = [] if settings == STANDARD_PAIRS else ["the settings of the pairs are not the standard ones"]
        evidence: dict[str, np.ndarray] = {}
        merge_result: MergeResult | None = None
        try:
            evidence = dict(read(pieces.name_of(pieces.MERGES)))
            merge_result = score_merges(merges, evidence["merge_scores"])
        except ModelError:
            pass
        try:
            complete = pieces.assemble(pairs, read, self._is_edited(pairs, read))
        except ModelError as error:
            entries = {"sites": [], "use": not_applicable(str(error)), "merges": merge_result}
            return Conclusion(entries, evidence, unofficial)
        entries = {"sites": pieces.site_names(read), "use": judge(complete, pairs), "merges": merge_result}
        return Conclusion(entries, complete.to_arrays(), unofficial)

    def format_card(self, record: UsesRecord) -> str:
        """See `Measurement.format_card`."""
        return format_result(record.sites, record.use, record.merges)


class UsesCollector:
    """See `Collector`: holds the model, or its untrained copy."""

    def __init__(self, job: Job, settings: PairSettings) -> None:
        self.job, self.suite, self.settings = job, job.suite, settings
        self.loaded: tuple[int | None, SteerableModel] | None = None
        self.states: SiteStates | None = None

    @cached_property
    def pairs(self) -> PairSet:
        """The pairs of the suite."""
        return derive_pairs(self.suite, self.settings)

    @cached_property
    def by_name(self) -> dict[str, Piece]:
        """The pieces by name."""
        return {piece.name: piece for phase in pieces.plan_pieces(self.pairs) for piece in phase}

    def collect(self, item: str, read: ReadItem, batch_scale: float) -> dict[str, np.ndarray]:
        """See `Collector.collect`."""
        piece = self.by_name[item]
        if piece.kind == pieces.UNEDITED:
            return pieces.collect_unedited(self._session(batch_scale), piece.rows)
        if piece.kind == pieces.MEANS:
            return pieces.collect_means(self._session(batch_scale))
        if piece.kind == pieces.MERGES:
            return {"merge_scores": self._score_merges(batch_scale)}
        if piece.kind == pieces.UNTRAINED:
            read(pieces.name_of(pieces.MEANS))
            return self._untrained(batch_scale)
        means = self._mean_states(read)
        if piece.kind == pieces.CHOOSE:
            return pieces.collect_choose(self._session(batch_scale), means, piece.rows)
        sites = pieces.choose_sites(self.pairs, read)
        return pieces.collect_report(self._session(batch_scale), means, sites, piece.rows)

    def _untrained(self, batch_scale: float) -> dict[str, np.ndarray]:
        """Words of the untrained copy, from the cache or new: they depend on the architecture and not on the weights."""
        key = untrained_use_key(self.job, str(self.settings), UNTRAINED_SEED)
        cached = None if key is None else read_cached(key, self.job.cache)
        if cached is not None:
            return cached
        arrays = pieces.collect_untrained(self._session(batch_scale, UNTRAINED_SEED))
        if key is not None and batch_scale == 1:
            write_cached(key, arrays, self.job.cache)
        return arrays

    def _score_merges(self, batch_scale: float) -> np.ndarray:
        """float32 [R, 6], scores of the prefixes of `merge_pairs`."""
        merges = merge_pairs(self.suite, self.settings)
        try:
            scorer: WordScorer = SteerableScorer(self._session(batch_scale).model)
        except ModelError:
            scorer = load_word_scorer(self.job)
        return pieces.score_prefixes(scorer, self.suite, self.pairs, merges.task, merges.prefix, batch_scale)

    def _mean_states(self, read: ReadItem) -> SiteStates:
        if self.states is None:
            self.states = SiteStates.from_arrays(read(pieces.name_of(pieces.MEANS)))
        return self.states

    def _session(self, batch_scale: float, seed: int | None = None) -> CausalSession:
        """The model, or with `seed` its untrained copy, with the pairs."""
        if self.loaded is None or self.loaded[0] != seed:
            self.loaded = None
            self.loaded = (seed, load_steerable(self.job, seed))
        model = self.loaded[1]
        return CausalSession(model, self.suite, self.pairs, batch_rows=max(1, int(model.batch_rows * batch_scale)))
