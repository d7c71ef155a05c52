"""Measure full detail in one process: compute all pieces and judge what was written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmark.causal.detail.detail_evidence import DetailEvidence, detail_rows, detail_sites
from benchmark.causal.detail.detail_pieces import Arrays, DetailCollector, assemble_detail, plan_detail
from benchmark.causal.detail.detail_verdict import DetailResult, detail_not_applicable, judge_detail
from benchmark.causal.detail.displacement import mean_codes
from benchmark.causal.interventions import SteerableModel
from benchmark.causal.pairs import STANDARD_PAIRS, PairSettings
from benchmark.causal.session import CausalSession
from benchmark.errors import ModelError
from benchmark.tasks.prompt_template import PLAIN, PromptTemplate
from benchmark.tasks.suite import Suite


@dataclass(frozen=True)
class DetailMeasurement:
    """The result of a model on a suite.

    Attributes:
        sites: names of the sites that were edited.
        result: figures and verdict.
        evidence: words written; None if not applicable before any was.
    """

    sites: tuple[str, ...]
    result: DetailResult
    evidence: DetailEvidence | None


def measure_detail(
    model: SteerableModel,
    suite: Suite,
    settings: PairSettings = STANDARD_PAIRS,
    template: PromptTemplate = PLAIN,
    on_step: Callable[[str], None] = lambda step: None,
) -> DetailMeasurement:
    """Measure the full detail of a model; arguments as of `measurement.measure_use`.

    Raises:
        UsageError: the suite has control flow.
    """
    rows = detail_rows(suite, settings)
    session = CausalSession(model, suite, rows.pairs, template)
    stored: dict[str, Arrays | ModelError] = {}

    def read(name: str) -> Arrays:
        arrays = stored[name]
        if isinstance(arrays, ModelError):
            raise arrays
        return arrays

    collector = DetailCollector(session, rows, mean_codes(suite, settings), read)
    for piece in (piece for phase in plan_detail(rows) for piece in phase):
        if piece.number == 0:
            on_step(piece.kind)
        try:
            stored[piece.name] = collector.compute(piece)
        except ModelError as problem:
            stored[piece.name] = problem
    sites = detail_sites(len(model.sites))
    try:
        evidence, reason = assemble_detail(rows, len(sites), read)
    except ModelError as problem:
        return DetailMeasurement((), detail_not_applicable(str(problem)), None)
    names = tuple(model.sites[site] for site in sites)
    return DetailMeasurement(names, judge_detail(evidence, rows, suite, reason), evidence)
