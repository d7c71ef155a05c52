"""Measure whether a model uses its state, in one process: compute all pieces and judge what was written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmark.causal import pieces
from benchmark.causal.evidence import CausalEvidence
from benchmark.causal.interventions import SteerableModel, SteerableScorer, WordScorer
from benchmark.causal.merges import MergeResult, merge_pairs, score_merges
from benchmark.causal.pairs import STANDARD_PAIRS, PairSettings, derive_pairs
from benchmark.causal.pieces import Arrays, Piece
from benchmark.causal.session import CausalSession, SiteStates
from benchmark.causal.verdict import UseResult, judge, not_applicable
from benchmark.errors import ModelError
from benchmark.tasks.prompt_template import PLAIN, PromptTemplate
from benchmark.tasks.suite import Suite

STEPS = {
    pieces.MERGES: "merges",
    pieces.UNEDITED: "unedited words",
    pieces.MEANS: "class means",
    pieces.CHOOSE: "choosing the site",
    pieces.REPORT: "edits and controls",
    pieces.UNTRAINED: "untrained copy",
}
"""What each kind of piece does, for a display."""


@dataclass(frozen=True)
class CausalMeasurement:
    """The result of a model on a suite.

    Attributes:
        suite: name of the suite.
        sites: names of the places at which states were replaced.
        use: score and verdict.
        merges: figure of `merges`; None if no word was scored.
        evidence: words written; None if not applicable before any was.
    """

    suite: str
    sites: tuple[str, ...]
    use: UseResult
    merges: MergeResult | None
    evidence: CausalEvidence | None


def measure_use(
    model: SteerableModel,
    suite: Suite,
    untrained: SteerableModel | None = None,
    settings: PairSettings = STANDARD_PAIRS,
    template: PromptTemplate = PLAIN,
    on_step: Callable[[str], None] = lambda step: None,
    edits_every_model: bool = False,
) -> CausalMeasurement:
    """Measure whether a model uses the rotation that its states hold, and whether it merges equal states.

    Args:
        model: the model.
        suite: suite of straight-line programs, from which the pairs are derived.
        untrained: a copy of the same architecture with random weights, a control.
        settings: number of pairs.
        template: prompt template of the track.
        on_step: called with the name of each step.
        edits_every_model: edit a model that solves too few tasks for a verdict too.

    Returns:
        The result. A model that cannot be edited has the verdict N/A with the reason.

    Raises:
        UsageError: the suite has control flow.
    """
    pairs = derive_pairs(suite, settings)
    try:
        evidence = collect_evidence(model, suite, settings, untrained, template, on_step, edits_every_model)
    except ModelError as problem:
        try:
            merged = measure_merges(SteerableScorer(model), suite, settings)
        except ModelError:
            merged = None
        return CausalMeasurement(suite.name, (), not_applicable(str(problem)), merged, None)
    merges = score_merges(merge_pairs(suite, settings), evidence.merge_scores)
    return CausalMeasurement(suite.name, tuple(model.sites), judge(evidence, pairs), merges, evidence)


def collect_evidence(
    model: SteerableModel,
    suite: Suite,
    settings: PairSettings,
    untrained: SteerableModel | None,
    template: PromptTemplate,
    on_step: Callable[[str], None],
    edits_every_model: bool,
) -> CausalEvidence:
    """Run every pair under every edit and control, if the model solves enough tasks unedited or `edits_every_model`.

    Raises:
        ModelError: states cannot be read or replaced, or are not finite.
    """
    pairs, merges = derive_pairs(suite, settings), merge_pairs(suite, settings)
    session = CausalSession(model, suite, pairs, template)
    stored: dict[str, Arrays] = {}

    def compute(piece: Piece) -> Arrays:
        if piece.kind == pieces.UNEDITED:
            return pieces.collect_unedited(session, piece.rows)
        if piece.kind == pieces.MEANS:
            return pieces.collect_means(session)
        if piece.kind == pieces.MERGES:
            scores = pieces.score_prefixes(SteerableScorer(model), suite, pairs, merges.task, merges.prefix)
            return {"merge_scores": scores}
        if piece.kind == pieces.UNTRAINED:
            if untrained is None:
                return pieces.empty_untrained(len(pairs), len(model.sites))
            return pieces.collect_untrained(CausalSession(untrained, suite, pairs, template))
        means = SiteStates.from_arrays(stored[pieces.name_of(pieces.MEANS)])
        if piece.kind == pieces.CHOOSE:
            return pieces.collect_choose(session, means, piece.rows)
        return pieces.collect_report(session, means, pieces.choose_sites(pairs, stored.__getitem__), piece.rows)

    def run(phase: Sequence[Piece]) -> None:
        for piece in phase:
            if piece.number == 0:
                on_step(STEPS[piece.kind])
            stored[piece.name] = compute(piece)

    first, *edits = pieces.plan_pieces(pairs)
    run(first)
    has_edits = edits_every_model or pieces.is_edited(pairs, stored.__getitem__)
    for phase in edits if has_edits else []:
        run(phase)
    return pieces.assemble(pairs, stored.__getitem__, has_edits)


def measure_merges(scorer: WordScorer, suite: Suite, settings: PairSettings = STANDARD_PAIRS) -> MergeResult | None:
    """The figure of `merges` of any model that scores words; None if the suite has no pairs of prefixes.

    Raises:
        ModelError: a score is NaN or infinite.
    """
    merges = merge_pairs(suite, settings)
    scores = pieces.score_prefixes(scorer, suite, derive_pairs(suite, settings), merges.task, merges.prefix)
    return score_merges(merges, scores)
