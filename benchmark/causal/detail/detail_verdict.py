"""Figures of full detail and the verdict NOT USED, from the words that were written. NumPy only.

NOT USED: no edit of rank 16 or less, at any site, writes the target more often than no edit does by 0.1 or more, although
a planted user of equal accuracy would be recognised with as many pairs. It reads "not by a linear edit of rank <= 16 at
one place". Otherwise the verdict of the standard measurement stands. Definitions: docs/causal.md.

Letters: `P` strict report pairs, `M` displacement pairs that report, `U` report tasks, `X` rates, `W` resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmark.causal.detail.das import DAS_RANKS
from benchmark.causal.detail.detail_evidence import (
    CONDITIONS,
    DAS,
    DOSES,
    EDIT_NAMES,
    FALSE,
    MAX_DAS_RANK,
    MOVE_CONDITIONS,
    PROGRAMS,
    STEERED,
    UNRANKED,
    DetailEvidence,
    DetailRows,
)
from benchmark.causal.detail.whole_programs import reaches_outputs
from benchmark.causal.evidence import NOT_RUN
from benchmark.causal.pairs import MIN_EDITED
from benchmark.causal.targets import END
from benchmark.causal.verdict import (
    BOOTSTRAP_SEED,
    LEVEL,
    LOOK_UP,
    MARGIN,
    MIN_SOLVED,
    NOT_APPLICABLE,
    RESAMPLES,
    Rates,
    choose_site,
    differing_values,
    look_up_words,
    score_rates,
)
from benchmark.statistics import Estimate, bootstrap_weights
from benchmark.tasks.suite import Suite

NOT_USED, STANDARD_STANDS = "NOT USED", "STANDARD"
"""Verdicts of full detail besides N/A: `STANDARD_STANDS` leaves that of the standard measurement as it is."""
NOT_USED_TEXT = f"not by a linear edit of rank <= {MAX_DAS_RANK} at one place"
MIN_NATURAL = 0.5
"""Smallest accuracy of the unedited next word for NOT USED."""
MAX_OVERFIT = 0.1
"""Largest share of training pairs minus share of test pairs of a subspace that counts as not overfitted."""
PLANTED_DRAWS, PLANTED_RIGHT, PLANTED_SEED = 20, 19, 90_401


@dataclass(frozen=True)
class EditDetail:
    """One edit at every site.

    Attributes:
        name: one of `EDIT_NAMES`.
        by_site: share of pairs with the target by condition, an entry per site; None where it was not made.
        clamped: the same as steered, with later activations in their natural range, at the site of the verdict.
    """

    name: str
    by_site: dict[str, list[Estimate | None]]
    clamped: Estimate | None


@dataclass(frozen=True)
class SubspaceDetail:
    """A trained subspace: strict choose pairs that it was trained on, and strict report pairs.

    Attributes:
        rank, site: dimension, and index of the site.
        semantics: `steered` under the true semantics, else `false semantics`.
        train, test: share of pairs with the target.
    """

    rank: int
    site: int
    semantics: str
    train: Estimate
    test: Estimate


@dataclass(frozen=True)
class MoveDetail:
    """The displacement of the robot instead of its rotation.

    Attributes:
        pairs, tasks: n, of pairs that the model solves unedited.
        site: index of the site, chosen on choose pairs.
        by_site: share of pairs with the target.
        steered, controls: the same at that site.
        strict: the same without controls on pairs whose target differs from the most frequent one.
        clamped: at that site with later activations in their natural range.
    """

    pairs: int
    tasks: int
    site: int
    by_site: list[Estimate | None]
    steered: Estimate | None
    controls: dict[str, Estimate | None]
    strict: Estimate | None
    clamped: Estimate | None


@dataclass(frozen=True)
class DetailResult:
    """The result of full detail; intervals are of 95%, a bootstrap of tasks.

    Attributes:
        verdict: `NOT_USED`, `STANDARD_STANDS` or `NOT_APPLICABLE`.
        reason: what NOT USED says; otherwise why it is not that.
        pairs, tasks: n of strict report pairs that the model solves unedited.
        natural: accuracy of the unedited next word at their prefixes.
        no_edit: share of unedited words that are the target.
        site: index of the site of the mean shift, chosen on choose pairs.
        edits: every edit.
        subspaces: the trained ones.
        no_subspaces: why none was trained; empty if some were.
        largest_effect: the largest upper end of steered - no edit over edits of rank 16 or less and sites, with its edit.
        power: of 20 planted users of the same natural accuracy, how many are found with these pairs.
        doses: share of targets by scale of the mean shift.
        programs: share of programs that reach the outputs from the turned state, by `PROGRAMS`.
        moves: displacement; None without pairs.
    """

    verdict: str
    reason: str
    pairs: int = 0
    tasks: int = 0
    natural: Estimate | None = None
    no_edit: Estimate | None = None
    site: int | None = None
    edits: list[EditDetail] = field(default_factory=list)
    subspaces: list[SubspaceDetail] = field(default_factory=list)
    no_subspaces: str = ""
    largest_effect: Estimate | None = None
    largest_effect_of: str = ""
    power: int | None = None
    doses: dict[str, Estimate | None] = field(default_factory=dict)
    programs: dict[str, Estimate | None] = field(default_factory=dict)
    moves: MoveDetail | None = None


def detail_not_applicable(reason: str) -> DetailResult:
    """The result of a model that cannot be measured."""
    return DetailResult(NOT_APPLICABLE, reason)


class _Sampler:
    """Shares of pairs with intervals, from hits summed by task."""

    def __init__(self, task: np.ndarray, split: np.ndarray, side: int = 1) -> None:
        tasks = np.flatnonzero(split == side)
        self.slot, self.num_tasks = np.searchsorted(tasks, task), len(tasks)
        self.weights = bootstrap_weights(self.num_tasks, RESAMPLES, BOOTSTRAP_SEED)

    def sums(self, hits: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """float64 [U] each, of bool [P]."""
        return np.bincount(self.slot, hits & counts, self.num_tasks), np.bincount(self.slot, counts, self.num_tasks)

    def share(self, hits: np.ndarray, counts: np.ndarray) -> Estimate | None:
        """Share of `hits` bool [P] among `counts` bool [P]; None if nothing counts."""
        if not counts.any():
            return None
        hit_sums, count_sums = self.sums(hits, counts)
        rates = Rates(("share",), hit_sums[None], count_sums[None])
        return _estimate(rates.values[0], rates.resampled(self.weights)[:, 0], int((count_sums > 0).sum()))

    def difference(self, hits: np.ndarray, base: np.ndarray, counts: np.ndarray) -> Estimate:
        """Share of `hits` minus share of `base` among `counts`, which are not empty."""
        (first, total), (second, _) = self.sums(hits, counts), self.sums(base, counts)
        rates = Rates(("hits", "base"), np.stack([first, second]), np.stack([total, total]))
        values, resampled = rates.values, rates.resampled(self.weights)
        return _estimate(values[0] - values[1], resampled[:, 0] - resampled[:, 1], int((total > 0).sum()))


def _estimate(value: float, resampled: np.ndarray, n: int) -> Estimate:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(value), float(low), float(high), n)


def judge_detail(evidence: DetailEvidence, rows: DetailRows, suite: Suite, no_subspaces: str = "") -> DetailResult:
    """Every figure and the verdict; `no_subspaces` is the reason for which no subspace was trained."""
    pairs, report = rows.pairs, rows.report
    is_solved = evidence.is_solved
    solved = float(np.concatenate([evidence.choose_is_solved, is_solved]).mean()) if len(report) else 0.0
    if solved < MIN_SOLVED:
        return detail_not_applicable(solved_reason(solved))
    if not is_solved.any():
        return detail_not_applicable("no strict pair is left; use more tasks or a model that solves more of them")
    target = pairs.target[report]
    sampler = _Sampler(pairs.task[report], pairs.split)
    site = chosen_site(evidence.choose, evidence.choose_is_solved, rows)
    differs = differing_values(pairs)[1][report]
    counted = {condition: is_solved & differs if condition == FALSE else is_solved for condition in CONDITIONS}

    def share(words: np.ndarray, counts: np.ndarray) -> Estimate | None:
        return sampler.share(words == target, counts & (words != NOT_RUN))

    edits = [
        EditDetail(
            name,
            {
                condition: [share(words, counted[condition]) for words in evidence.edits[x, e]]
                for x, condition in enumerate(CONDITIONS)
            },
            share(evidence.clamped[e], is_solved),
        )
        for e, name in enumerate(EDIT_NAMES)
    ]
    natural, natural_rates = _natural(evidence, rows, sampler)
    largest, largest_of = _largest_effect(evidence, sampler, target, is_solved)
    subspaces = _subspaces(evidence, rows, share, counted)
    power = planted_users(rows, is_solved, natural_rates)
    verdict, reason = _decide(largest, largest_of, natural, power, subspaces)
    return DetailResult(
        verdict=verdict,
        reason=reason,
        pairs=int(is_solved.sum()),
        tasks=len(np.unique(pairs.task[report][is_solved])),
        natural=natural,
        no_edit=share(evidence.unedited, is_solved),
        site=site,
        edits=edits,
        subspaces=subspaces,
        no_subspaces=no_subspaces,
        largest_effect=largest,
        largest_effect_of=largest_of,
        power=power,
        doses={f"{dose:g}": share(words, is_solved) for dose, words in zip(DOSES, evidence.doses, strict=True)},
        programs=_programs(evidence, rows, suite),
        moves=_moves(evidence, rows),
    )


def solved_reason(share: float) -> str:
    """Why a model that solves too few tasks is not applicable."""
    return f"the model solves {share:.0%} of the tasks from the prefix; expected at least {MIN_SOLVED:.0%}"


def chosen_site(words: np.ndarray, is_solved: np.ndarray, rows: DetailRows) -> int:
    """Position of the site of the mean shift, from words int8 [L, C] and bool [C] of choose pairs."""
    every = np.full((len(words), len(rows.pairs)), NOT_RUN, np.int8)
    valid = np.zeros(len(rows.pairs), bool)
    every[:, rows.choose], valid[rows.choose] = words, is_solved
    return choose_site(every, rows.pairs, valid)[0]


def chosen_move_site(words: np.ndarray, is_solved: np.ndarray, rows: DetailRows) -> int:
    """Position of the site of the shift of displacement, from words int8 [L, J] and bool [Q]."""
    hits = (words == rows.moves.target[rows.move_choose]) & is_solved[rows.move_choose]
    return int(hits.sum(1).argmax()) if len(words) else 0


def _natural(evidence: DetailEvidence, rows: DetailRows, sampler: _Sampler) -> tuple[Estimate | None, Rates]:
    """Accuracy of the unedited word, once per prefix of the solved pairs, where a word has probability 0.5 or more."""
    pairs, report = rows.pairs, rows.report
    posterior = pairs.posterior[report, 0]
    solved = np.flatnonzero(evidence.is_solved)
    _, first = np.unique(pairs.base_row[report[solved]], return_index=True)
    counted = np.zeros(len(report), bool)
    counted[solved[first]] = True
    counted &= posterior.max(1) >= MIN_EDITED
    # Of two words that are equally probable, either is right.
    hits = np.isclose(posterior[np.arange(len(report)), evidence.unedited], posterior.max(1))
    sums = sampler.sums(hits, counted)
    return sampler.share(hits, counted), Rates(("natural",), sums[0][None], sums[1][None])


def _largest_effect(
    evidence: DetailEvidence, sampler: _Sampler, target: np.ndarray, is_solved: np.ndarray
) -> tuple[Estimate | None, str]:
    """The estimate of steered - no edit with the largest upper end, over edits of low rank and sites; and its edit."""
    base, effects = evidence.unedited == target, []
    for e, name in enumerate(EDIT_NAMES):
        if name in UNRANKED:
            continue
        for site, words in enumerate(evidence.edits[CONDITIONS.index(STEERED), e]):
            if (words != NOT_RUN).any():
                effects.append((sampler.difference(words == target, base, is_solved), f"{name}, site {site}"))
    return max(effects, key=lambda effect: effect[0].high, default=(None, ""))


Share = Callable[[np.ndarray, np.ndarray], Estimate | None]


def _subspaces(
    evidence: DetailEvidence, rows: DetailRows, share: Share, counted: dict[str, np.ndarray]
) -> list[SubspaceDetail]:
    """Train and test shares of every trained subspace, on strict pairs."""
    pairs, choose = rows.pairs, rows.choose
    sampler = _Sampler(pairs.task[choose], pairs.split, 0)
    strict = pairs.is_strict[choose] & evidence.choose_is_solved
    details = []
    for index, condition in enumerate((STEERED, FALSE)):
        valid = strict & differing_values(pairs)[index][choose]
        for k, rank in enumerate(DAS_RANKS):
            edit = EDIT_NAMES.index(DAS[k])
            for site, words in enumerate(evidence.trained[index, k]):
                train = sampler.share(words == pairs.target[choose], valid & (words != NOT_RUN))
                test = share(evidence.edits[CONDITIONS.index(condition), edit, site], counted[condition])
                if train is not None and test is not None:
                    details.append(SubspaceDetail(rank, site, condition, train, test))
    return details


def planted_users(rows: DetailRows, is_solved: np.ndarray, natural: Rates) -> int:
    """Of `PLANTED_DRAWS` planted users, how many have a margin for USES on the solved strict pairs.

    A planted user reads the edited state, and is as accurate as the model: in a random share of the pairs, the model's
    natural accuracy, it writes the target under the edit, and in the others the unedited base word. Its controls are no
    edit and the look-up, as of a planner of the known answers that knows the exact distributions.
    """
    pairs, report = rows.pairs, rows.report
    sampler = _Sampler(pairs.task[report], pairs.split)
    target, accuracy = pairs.target[report], float(natural.values[0])
    base = sampler.sums(pairs.base_word[report] == target, is_solved)
    look_up = sampler.sums(look_up_words(pairs)[report] == target, is_solved)
    right = 0
    for draw in range(PLANTED_DRAWS):
        reads = np.random.Generator(np.random.Philox([PLANTED_SEED, draw])).random(len(report)) < accuracy
        sums = [sampler.sums(reads, is_solved), base, look_up]
        rates = Rates(("steered", "no edit", LOOK_UP), *(np.stack([pair[i] for pair in sums]) for i in range(2)))
        right += score_rates(rates, natural, int(is_solved.sum())).margin.low > MARGIN
    return right


def _decide(
    largest: Estimate | None,
    largest_of: str,
    natural: Estimate | None,
    power: int,
    subspaces: Sequence[SubspaceDetail],
) -> tuple[str, str]:
    true = [part for part in subspaces if part.semantics == STEERED]
    if not true:
        return STANDARD_STANDS, "no subspace was trained, so NOT USED cannot be concluded"
    if largest is None or largest.high >= MARGIN:
        detail = (
            "" if largest is None else f": {largest_of}: {largest.value:.3f} [{largest.low:.3f}, {largest.high:.3f}]"
        )
        return STANDARD_STANDS, f"an edit may have an effect{detail}; NOT USED needs upper ends below {MARGIN}"
    if natural is None or natural.value < MIN_NATURAL:
        return STANDARD_STANDS, f"the unedited next word is right too rarely; NOT USED needs {MIN_NATURAL} or more"
    if power < PLANTED_RIGHT:
        return STANDARD_STANDS, (
            f"{power} of {PLANTED_DRAWS} planted users of the same accuracy would be found with these pairs; NOT USED needs "
            f"{PLANTED_RIGHT}"
        )
    gap = max(part.train.value - part.test.value for part in true)
    if gap > MAX_OVERFIT:
        return STANDARD_STANDS, (
            f"a trained subspace is overfitted (train - test {gap:.3f}, at most {MAX_OVERFIT}), so that it says nothing"
        )
    return NOT_USED, NOT_USED_TEXT


def _programs(evidence: DetailEvidence, rows: DetailRows, suite: Suite) -> dict[str, Estimate | None]:
    """Share of programs that lead from the turned state to the outputs, on the pairs that the model solves."""
    written = rows.report[rows.programs]
    sampler = _Sampler(rows.pairs.task[written], rows.pairs.split)
    is_solved = evidence.is_solved[rows.programs]
    has_other = rows.pairs.other_turns()[written] > 0
    return {
        name: sampler.share(
            reaches_outputs(suite, rows.pairs, written, words), is_solved & (has_other | (name != PROGRAMS[2]))
        )
        for name, words in zip(PROGRAMS, evidence.programs, strict=True)
    }


def _moves(evidence: DetailEvidence, rows: DetailRows) -> MoveDetail | None:
    moves, report = rows.moves, rows.move_report
    is_solved = evidence.moves_are_solved[report]
    if not is_solved.any():
        return None
    sampler, target = _Sampler(moves.task[report], rows.pairs.split), moves.target[report]

    def share(words: np.ndarray, counts: np.ndarray = is_solved) -> Estimate | None:
        return sampler.share(words == target, counts & (words != NOT_RUN))

    controls = {name: share(words) for name, words in zip(MOVE_CONDITIONS, evidence.move_controls, strict=True)}
    steered = controls.pop(STEERED)
    look_up = np.where(moves.look_up[report] < 0, END + 1, moves.look_up[report])
    return MoveDetail(
        pairs=int(is_solved.sum()),
        tasks=len(np.unique(moves.task[report][is_solved])),
        site=chosen_move_site(evidence.moves_choose, evidence.moves_are_solved, rows),
        by_site=[share(words) for words in evidence.moves],
        steered=steered,
        controls={"no edit": share(evidence.moves_unedited[report]), **controls, LOOK_UP: share(look_up)},
        strict=share(evidence.move_controls[0], is_solved & moves.is_strict[report]),
        clamped=share(evidence.move_clamped),
    )
