"""Measure whether a model uses its state: run every pair under every edit and control, and judge what was written.

Letters: `P` pairs, `S` semantics (0 is the original), `L` sites, `D` width of a site, `R` mean prefixes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.causal.edits import MeanShift, mean_shift
from benchmark.causal.evidence import NOT_RUN, CausalEvidence
from benchmark.causal.interventions import AT_PROMPT, PreparedPrefixes, SteerableModel
from benchmark.causal.merges import MergePairs, MergeResult, merge_pairs, score_merges
from benchmark.causal.natural_range import ComponentRange
from benchmark.causal.pairs import STANDARD_PAIRS, PairSet, PairSettings, derive_pairs, prefix_texts
from benchmark.causal.rotation import alternative_semantics, net_rotation
from benchmark.causal.targets import NEXT_WORDS, TURNS
from benchmark.causal.verdict import UseResult, choose_site, differing_values, judge, not_applicable
from benchmark.errors import ModelError
from benchmark.tasks.prompt_template import PLAIN, PromptTemplate, render_prompts
from benchmark.tasks.scoring import score_programs
from benchmark.tasks.suite import Suite
from karel_env.semantics import ORIGINAL

NUM_RANDOM = 20
RANDOM_SEED = 90_101


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


@dataclass(frozen=True)
class SiteShifts:
    """The mean shift of each semantics at each site, with what the controls need.

    Attributes:
        shifts: [S][L].
        site_ranges: components of the natural states per site.
        activation_ranges: natural ranges of the clamped activations.
    """

    shifts: list[list[MeanShift]]
    site_ranges: list[ComponentRange]
    activation_ranges: list[ComponentRange]


class CausalSession:
    """A model with the pairs, the values of the variable under each semantics, and the prompts."""

    def __init__(self, model: SteerableModel, suite: Suite, pairs: PairSet, template: PromptTemplate) -> None:
        self.model, self.suite, self.pairs = model, suite, pairs
        self.prompts = render_prompts(suite, pairs.tasks, template=template)
        self.semantics = [ORIGINAL, *alternative_semantics()]
        self.values = np.stack([net_rotation(pairs.prefix, s) for s in self.semantics])

    def batches(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, PreparedPrefixes]]:
        """Rows of pairs, prepared a batch at a time; neighbouring rows share prompts."""
        for start in range(0, len(rows), self.model.batch_rows):
            chunk = rows[start : start + self.model.batch_rows]
            yield chunk, self.prepare(self.pairs.task[chunk], self.pairs.prefix[chunk])

    def prepare(self, task: np.ndarray, prefix: np.ndarray) -> PreparedPrefixes:
        """Prefixes int8 [B, K] of tasks int64 [B], prepared."""
        return self.model.prepare([self.prompts[i] for i in task], prefix_texts(prefix))

    def read_mean_states(self) -> list[np.ndarray]:
        """float32 [R, D] per site, states at the mean prefixes."""
        return self._read_mean_prefixes()[0]

    def _read_mean_prefixes(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """States per site and clamped activations at the mean prefixes."""
        states: list[list[np.ndarray]] = []
        activations: list[list[np.ndarray]] = []
        for start in range(0, len(self.pairs.mean_task), self.model.batch_rows):
            rows = slice(start, start + self.model.batch_rows)
            prepared = self.prepare(self.pairs.mean_task[rows], self.pairs.mean_prefix[rows])
            states.append(list(prepared.states()))
            activations.append(list(prepared.activations()))
        return _concatenate(states), _concatenate(activations)

    def read_means(self) -> SiteShifts:
        """Mean shifts and natural ranges from the mean prefixes."""
        by_site, activations = self._read_mean_prefixes()
        values = [net_rotation(self.pairs.mean_prefix, s) for s in self.semantics]
        shifts = [[mean_shift(site, value, TURNS) for site in by_site] for value in values]
        return SiteShifts(shifts, _ranges(by_site), _ranges(activations))

    def edited(self, shift: MeanShift, states: np.ndarray, rows: np.ndarray, semantics: int = 0) -> np.ndarray:
        """States of pairs `rows` with the value that the turn of the pair leads to."""
        source = self.values[semantics, rows]
        return shift(states, source, (source + self.pairs.turn[rows]) % TURNS)


def measure_use(
    model: SteerableModel,
    suite: Suite,
    untrained: SteerableModel | None = None,
    settings: PairSettings = STANDARD_PAIRS,
    template: PromptTemplate = PLAIN,
    on_step: Callable[[str], None] = lambda step: None,
) -> CausalMeasurement:
    """Measure whether a model uses the rotation that its states hold, and whether it merges equal states.

    Args:
        model: the model.
        suite: suite of straight-line programs, from which the pairs are derived.
        untrained: a copy of the same architecture with random weights, a control.
        settings: number of pairs.
        template: prompt template of the track.
        on_step: called with the name of each step.

    Returns:
        The result. A model that cannot be edited has the verdict N/A with the reason.

    Raises:
        UsageError: the suite has control flow.
    """
    pairs = derive_pairs(suite, settings)
    try:
        evidence = collect_evidence(model, suite, settings, untrained, template, on_step)
    except ModelError as problem:
        return CausalMeasurement(suite.name, (), not_applicable(str(problem)), None, None)
    merges = score_merges(merge_pairs(suite, settings), evidence.merge_scores)
    return CausalMeasurement(suite.name, tuple(model.sites), judge(evidence, pairs), merges, evidence)


def collect_evidence(
    model: SteerableModel,
    suite: Suite,
    settings: PairSettings,
    untrained: SteerableModel | None,
    template: PromptTemplate,
    on_step: Callable[[str], None],
) -> CausalEvidence:
    """Run every pair under every edit and control.

    Raises:
        ModelError: states cannot be read or replaced, or are not finite.
    """
    pairs, merges = derive_pairs(suite, settings), merge_pairs(suite, settings)
    session = CausalSession(model, suite, pairs, template)
    evidence = _empty_evidence(len(pairs), len(model.sites), len(session.semantics), merges)
    choose = np.flatnonzero(~pairs.is_report)
    strict_report = np.flatnonzero(pairs.is_report & pairs.is_strict)
    other_report = np.flatnonzero(pairs.is_report & ~pairs.is_strict)
    on_step("class means")
    shifts = session.read_means()
    on_step("choosing the site")
    for rows, prepared in session.batches(choose):
        _run_unedited(session, evidence, rows, prepared)
        states = prepared.states()
        for semantics, row in enumerate(shifts.shifts):
            for site, shift in enumerate(row):
                edited = session.edited(shift, states[site], rows, semantics)
                evidence.choose[semantics, site, rows] = _words(prepared, site, edited)
    sites = [_choose(evidence, pairs, s) for s in range(len(session.semantics))]
    on_step("edits and controls")
    for rows, prepared in session.batches(strict_report):
        _run_unedited(session, evidence, rows, prepared)
        _run_edits(session, evidence, rows, prepared, shifts, sites)
        _run_strict_controls(session, evidence, rows, prepared, shifts, sites[0])
    for rows, prepared in session.batches(other_report):
        _run_unedited(session, evidence, rows, prepared)
        _run_edits(session, evidence, rows, prepared, shifts, sites)
    if untrained is not None:
        on_step("untrained copy")
        _run_untrained(CausalSession(untrained, suite, pairs, template), evidence, choose, strict_report)
    on_step("merges")
    _run_merges(session, evidence, merges)
    return evidence


def _empty_evidence(num_pairs: int, num_sites: int, num_semantics: int, merges: MergePairs) -> CausalEvidence:
    def words(*shape: int) -> np.ndarray:
        return np.full((*shape, num_pairs), NOT_RUN, np.int8)

    return CausalEvidence(
        is_solved=np.zeros(num_pairs, bool), unedited=words(), is_argmax=np.zeros(num_pairs, bool),
        choose=words(num_semantics, num_sites), steered=words(num_semantics), random=words(NUM_RANDOM),
        other_value=words(), wrong_position=words(), clamped=words(), untrained_choose=words(num_sites),
        untrained=words(), merge_scores=np.zeros((len(merges.task), len(NEXT_WORDS)), np.float32),
    )  # fmt: skip


def _concatenate(batches: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def _ranges(parts: Sequence[np.ndarray]) -> list[ComponentRange]:
    for part in parts:
        if not np.isfinite(part).all():
            raise ModelError("states are NaN or infinite; try --dtype float32, else the weights are broken")
    return [ComponentRange.of(part) for part in parts]


def _words(prepared: PreparedPrefixes, site: int, states: np.ndarray, **options: object) -> np.ndarray:
    """int64 [B], the best continuation after an edit."""
    return best_words(prepared.score(site, states, **options).log_probs)  # type: ignore[arg-type]


def best_words(log_probs: np.ndarray) -> np.ndarray:
    """int64 [B], index of the best continuation of scores [B, 6].

    Raises:
        ModelError: a score is NaN.
    """
    if np.isnan(log_probs).any():
        raise ModelError("word scores are NaN; try --dtype float32, else the weights are broken")
    best: np.ndarray = log_probs.argmax(1)
    return best


def _choose(evidence: CausalEvidence, pairs: PairSet, semantics: int) -> int:
    is_valid = evidence.is_solved & differing_values(pairs)[semantics]
    return choose_site(evidence.choose[semantics], pairs, is_valid)[0]


def _run_unedited(
    session: CausalSession, evidence: CausalEvidence, rows: np.ndarray, prepared: PreparedPrefixes
) -> None:
    scores = prepared.score()
    evidence.unedited[rows] = best_words(scores.log_probs)
    evidence.is_argmax[rows] = scores.is_argmax
    suite, pairs = session.suite, session.pairs
    texts = prepared.complete(suite.max_new_words)
    programs = [f"{start} {text}" for start, text in zip(prefix_texts(pairs.prefix[rows]), texts, strict=True)]
    evidence.is_solved[rows] = score_programs(suite, pairs.tasks.take(pairs.task[rows]), programs).shown


def _run_edits(
    session: CausalSession,
    evidence: CausalEvidence,
    rows: np.ndarray,
    prepared: PreparedPrefixes,
    shifts: SiteShifts,
    sites: list[int],
) -> None:
    """The edit under each semantics at its own site, and the edit to another value."""
    states = prepared.states()
    for semantics, site in enumerate(sites):
        edited = session.edited(shifts.shifts[semantics][site], states[site], rows, semantics)
        evidence.steered[semantics, rows] = _words(prepared, site, edited)
    site, source = sites[0], session.values[0, rows]
    other = session.pairs.other_turns()[rows]
    edited = shifts.shifts[0][site](states[site], source, (source + other) % TURNS)
    evidence.other_value[rows] = np.where(other > 0, _words(prepared, site, edited), NOT_RUN)


def _run_strict_controls(
    session: CausalSession,
    evidence: CausalEvidence,
    rows: np.ndarray,
    prepared: PreparedPrefixes,
    shifts: SiteShifts,
    site: int,
) -> None:
    """Random vectors, wrong position, natural range."""
    states = prepared.states()[site]
    edited = session.edited(shifts.shifts[0][site], states, rows)
    norms = np.linalg.norm((edited - states).astype(np.float64), axis=1)
    for number in range(NUM_RANDOM):
        vectors = shifts.site_ranges[site].random_vectors(norms, RANDOM_SEED + NUM_RANDOM * int(rows[0]) + number)
        evidence.random[number, rows] = _words(prepared, site, states + vectors)
    at_prompt = prepared.states(AT_PROMPT)[site] + (edited - states)
    evidence.wrong_position[rows] = _words(prepared, site, at_prompt, position=AT_PROMPT)
    evidence.clamped[rows] = _words(prepared, site, edited, ranges=shifts.activation_ranges)


def _run_untrained(
    session: CausalSession, evidence: CausalEvidence, choose: np.ndarray, strict_report: np.ndarray
) -> None:
    """The edit in the untrained copy: its own means, its own site."""
    shifts = session.read_means()
    for rows, prepared in session.batches(choose):
        states = prepared.states()
        for site, shift in enumerate(shifts.shifts[0]):
            evidence.untrained_choose[site, rows] = _words(prepared, site, session.edited(shift, states[site], rows))
    all_sites = np.ones(len(session.pairs), bool)
    site, _ = choose_site(evidence.untrained_choose, session.pairs, all_sites)
    for rows, prepared in session.batches(strict_report):
        edited = session.edited(shifts.shifts[0][site], prepared.states()[site], rows)
        evidence.untrained[rows] = _words(prepared, site, edited)


def _run_merges(session: CausalSession, evidence: CausalEvidence, pairs: MergePairs) -> None:
    for start in range(0, len(pairs.task), session.model.batch_rows):
        rows = slice(start, start + session.model.batch_rows)
        prepared = session.prepare(pairs.task[rows], pairs.prefix[rows])
        evidence.merge_scores[rows] = prepared.score().log_probs
