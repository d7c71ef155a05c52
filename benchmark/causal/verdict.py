"""Score and verdict of the causal measurement, from the words that were written. NumPy only.

USES: the edit writes the word that is right for the edited state more often than any control, by more than a margin, and
through activations in their natural range. NOT SHOWN otherwise; that is not evidence that the model does not use its state.
Definitions: docs/causal.md. Letters: `P` pairs, `U` report tasks, `X` controls, `W` resamples, `V` random draws.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from benchmark.causal.evidence import NOT_RUN, CausalEvidence
from benchmark.causal.pairs import MIN_EDITED, PairSet, most_frequent
from benchmark.causal.rotation import alternative_semantics, net_rotation
from benchmark.causal.targets import END, TURNS
from benchmark.statistics import Estimate, bootstrap_weights

USES, NOT_SHOWN, NOT_APPLICABLE = "USES", "NOT SHOWN", "N/A"
MARGIN = 0.1
"""Smallest lower bound of steered minus largest control for USES."""
MIN_NATURAL_SHARE = 0.7
"""Smallest share of the effect that must remain with later activations in their natural range."""
MIN_SOLVED = 0.3
"""Smallest share of prefixes from which the model must solve the task."""
STANDARD_ERRORS = 3.0
"""Standard errors below `MIN_SOLVED` from which the share on choose pairs alone decides that there is no verdict."""
RESAMPLES, BOOTSTRAP_SEED, LEVEL = 2000, 31_338, 0.95
LOOK_UP = "look-up"


@dataclass(frozen=True)
class Rates:
    """Hits and attempts of several conditions, summed per report task.

    Attributes:
        names: X names.
        hits, counts: float64 [X, U].
    """

    names: tuple[str, ...]
    hits: np.ndarray
    counts: np.ndarray

    def resampled(self, weights: np.ndarray) -> np.ndarray:
        """float64 [W, X], rate of each condition in each resample; 0 where nothing was attempted."""
        counts = weights @ self.counts.T
        return np.divide(weights @ self.hits.T, counts, out=np.zeros_like(counts), where=counts > 0)

    @property
    def values(self) -> np.ndarray:
        """float64 [X], over all tasks."""
        return np.asarray(self.resampled(np.ones((1, self.hits.shape[1])))[0])


@dataclass(frozen=True)
class UseScore:
    """Scores on one set of pairs, each with its 95% interval over tasks.

    Attributes:
        pairs, tasks: n.
        steered: share of pairs in which the edit writes the target.
        controls: the same under each control.
        largest: name of the largest control.
        margin: steered minus the largest control, which is taken again in each resample; it decides the verdict.
        use: steered minus the largest control that was run on the model, divided by the natural accuracy: the share of
            pairs in which the state is used. The look-up is not subtracted, since no model ran it.
    """

    pairs: int
    tasks: int
    steered: Estimate
    controls: dict[str, Estimate]
    largest: str
    margin: Estimate
    use: Estimate


@dataclass(frozen=True)
class UseResult:
    """The result of a measurement.

    Attributes:
        verdict: `USES`, `NOT_SHOWN` or `NOT_APPLICABLE`.
        reason: why it is not USES; empty for USES.
        strict: scores on strict pairs, which decide; None if not applicable.
        every: scores on all report pairs with the controls that are run on all.
        natural: accuracy of the unedited next word on prefixes with a word of probability 0.5 or more.
        clamped: share of the effect that remains in the natural range.
        solved: share of pairs from whose prefix the model solves the task.
        is_argmax: share of unedited words that begin with the most probable token of the full vocabulary.
        site: index of the site of the edit.
        by_site: share of strict choose pairs with the target, per site.
        dropped: number of pairs by the reason for which they do not count.
    """

    verdict: str
    reason: str
    strict: UseScore | None = None
    every: UseScore | None = None
    natural: Estimate | None = None
    clamped: float | None = None
    solved: float | None = None
    is_argmax: float | None = None
    site: int | None = None
    by_site: tuple[float, ...] = ()
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def use(self) -> Estimate | None:
        """The score on strict pairs."""
        return None if self.strict is None else self.strict.use


def not_applicable(reason: str, dropped: dict[str, int] | None = None) -> UseResult:
    """The result of a model that cannot be measured."""
    return UseResult(NOT_APPLICABLE, reason, dropped=dropped or {})


def choose_site(words: np.ndarray, pairs: PairSet, is_valid: np.ndarray) -> tuple[int, np.ndarray]:
    """The site with the largest share of targets on strict choose pairs; and the shares [L].

    Of equals, the site with the largest share on all choose pairs, then the first.

    Args:
        words: int8 [L, P], words written with the edit at each site.
        pairs: the pairs.
        is_valid: bool [P], pairs that count.
    """
    rows = is_valid & ~pairs.is_report
    hits = words == pairs.target
    strict, scores = (
        hits[:, part].mean(1) if part.any() else np.zeros(len(words)) for part in (rows & pairs.is_strict, rows)
    )
    return int(np.lexsort((-np.arange(len(words)), scores, strict))[-1]), strict


def differing_values(pairs: PairSet) -> np.ndarray:
    """bool [S, P], pairs on which each semantics counts: all for the original, for others those whose rotation differs."""
    true_value = net_rotation(pairs.prefix)
    rows = [net_rotation(pairs.prefix, semantics) != true_value for semantics in alternative_semantics()]
    return np.stack([np.ones(len(pairs), bool), *rows])


def look_up_words(pairs: PairSet) -> np.ndarray:
    """int64 [P], the most frequent target of strict choose pairs by turn, base word and last word; -1 if there is none."""
    key = (pairs.turn.astype(np.int64) * (END + 1) + pairs.base_word) * END + pairs.prefix[:, -1]
    rows = ~pairs.is_report & pairs.is_strict
    return most_frequent(key[rows], pairs.target[rows], TURNS * (END + 1) * END)[key]


def control_words(evidence: CausalEvidence, pairs: PairSet) -> dict[str, np.ndarray]:
    """int [V, P] or int [P] per control, the words that it writes; `NOT_RUN` where it does not count."""
    counts = differing_values(pairs)
    names = [f"alternative {semantics.name}" for semantics in alternative_semantics()]
    return {
        "no edit": evidence.unedited,
        "random vector": evidence.random,
        **{
            name: np.where(counts[i], evidence.steered[i], NOT_RUN) for i, name in enumerate(names, start=1)
        },
        "other value": evidence.other_value,
        "wrong position": evidence.wrong_position,
        "untrained": evidence.untrained,
        LOOK_UP: np.where(look_up_words(pairs) < 0, END + 1, look_up_words(pairs)),
    }  # fmt: skip


def sum_by_task(words: np.ndarray, pairs: PairSet, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float64 [U] each: targets written and pairs attempted per report task, averaged over draws; `rows` bool [P]."""
    words = np.atleast_2d(words)[:, rows]
    tasks = np.flatnonzero(pairs.split)
    slot = np.searchsorted(tasks, pairs.task[rows])
    is_run = (words != NOT_RUN).mean(0)
    hits = (words == pairs.target[rows]).mean(0)
    return np.bincount(slot, hits, len(tasks)), np.bincount(slot, is_run, len(tasks))


def score_pairs(evidence: CausalEvidence, pairs: PairSet, rows: np.ndarray, natural: Rates) -> UseScore:
    """Score the pairs `rows`, bool [P], of report tasks; controls that were not run on them are left out."""
    return score_rates(sum_rates(evidence, pairs, rows), natural, int(rows.sum()))


def sum_rates(evidence: CausalEvidence, pairs: PairSet, rows: np.ndarray) -> Rates:
    """Sums per task of the pairs `rows`, bool [P]: first steered, then the controls that were run on them."""
    controls = {name: sum_by_task(words, pairs, rows) for name, words in control_words(evidence, pairs).items()}
    complete = {
        name: sums for name, sums in controls.items() if sums[1].sum() > 0 and not _is_partial(name, sums, rows)
    }
    steered = sum_by_task(evidence.steered[0], pairs, rows)
    sums = [steered, *complete.values()]
    return Rates(("steered", *complete), *(np.stack([pair[i] for pair in sums]) for i in range(2)))


def _is_partial(name: str, sums: tuple[np.ndarray, np.ndarray], rows: np.ndarray) -> bool:
    """Whether a control that applies to all pairs was run on a part of them only."""
    return name in ("random vector", "wrong position", "untrained") and sums[1].sum() < rows.sum()


def score_rates(rates: Rates, natural: Rates, num_pairs: int) -> UseScore:
    """Scores with intervals from sums per task: a bootstrap of tasks in which the largest control is taken again.

    Args:
        rates: first the steered pairs, then the controls.
        natural: one condition, accuracy of the unedited model.
        num_pairs: number of pairs.
    """
    num_tasks = int((rates.counts[0] > 0).sum())
    weights = bootstrap_weights(rates.hits.shape[1], RESAMPLES, BOOTSTRAP_SEED)
    values, resampled = rates.values, rates.resampled(weights)
    estimates = [_estimate(values[x], resampled[:, x], num_tasks) for x in range(len(values))]
    margin, margins = values[0] - values[1:].max(), resampled[:, 0] - resampled[:, 1:].max(1)
    return UseScore(
        pairs=num_pairs,
        tasks=num_tasks,
        steered=estimates[0],
        controls=dict(zip(rates.names[1:], estimates[1:], strict=True)),
        largest=rates.names[1 + int(values[1:].argmax())],
        margin=_estimate(margin, margins, num_tasks),
        use=_estimate(*resample_use(rates, natural), num_tasks),
    )


def resample_use(rates: Rates, natural: Rates) -> tuple[float, np.ndarray]:
    """`UseScore.use`, and in each bootstrap resample of the tasks, float64 [W]; arguments as for `score_rates`.

    Resample w draws the same tasks for every model of a suite.
    """
    weights = bootstrap_weights(rates.hits.shape[1], RESAMPLES, BOOTSTRAP_SEED)
    is_run = np.array([name != LOOK_UP for name in rates.names])
    is_run[0] = False

    def divide(values: np.ndarray, base: np.ndarray) -> np.ndarray:
        return np.asarray((values[..., 0] - values[..., is_run].max(-1)) / base[..., 0].clip(min=1e-9))

    value = float(divide(rates.values, natural.values))
    return value, divide(rates.resampled(weights), natural.resampled(weights))


def _estimate(value: float, resampled: np.ndarray, n: int) -> Estimate:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(value), float(low), float(high), n)


def natural_rates(evidence: CausalEvidence, pairs: PairSet, rows: np.ndarray) -> Rates:
    """Share of unedited words that are the most probable, on prefixes of `rows` with a word of probability 0.5 or more."""
    is_base = np.zeros(len(pairs), bool)
    is_base[np.unique(pairs.base_row[rows])] = True
    is_clear = pairs.posterior[:, 0].max(1) >= MIN_EDITED
    counted = is_base & is_clear
    tasks = np.flatnonzero(pairs.split)
    slot = np.searchsorted(tasks, pairs.task[counted])
    posterior = pairs.posterior[counted, 0]
    written = posterior[np.arange(len(posterior)), evidence.unedited[counted]]
    # Of two words that are equally probable, either is right.
    hits = np.isclose(written, posterior.max(1)).astype(np.float64)
    return Rates(
        ("natural",), np.bincount(slot, hits, len(tasks))[None], np.bincount(slot, None, len(tasks))[None] * 1.0
    )


def solves_too_few(is_solved: np.ndarray, pairs: PairSet) -> bool:
    """Whether the share of choose pairs in `is_solved` [P] is so small that it would not reach `MIN_SOLVED` on all pairs.

    Pairs of one task are solved together or not, so the standard error is that of the number of tasks.
    """
    choose = ~pairs.is_report
    num_tasks = len(np.unique(pairs.task[choose]))
    if num_tasks == 0:
        return False
    error = float(np.sqrt(MIN_SOLVED * (1 - MIN_SOLVED) / num_tasks))
    return float(is_solved[choose].mean()) < MIN_SOLVED - STANDARD_ERRORS * error


def judge(evidence: CausalEvidence, pairs: PairSet) -> UseResult:
    """The result of a measurement, from the words that were written."""
    report, strict = pairs.is_report, pairs.is_strict
    is_run = evidence.unedited != NOT_RUN
    solved = float(evidence.is_solved[is_run].mean()) if is_run.any() else 0.0
    dropped = dict(pairs.dropped)
    if (report & is_run).any():
        unsolved = int((report & is_run & ~evidence.is_solved).sum())
        dropped["the model does not solve the task from the prefix"] = unsolved
    rows = report & evidence.is_solved
    if solved < MIN_SOLVED:
        return not_applicable(
            f"the model solves {solved:.0%} of the tasks from the prefix; expected at least {MIN_SOLVED:.0%}", dropped
        )
    if not (rows & strict).any():
        return not_applicable("no strict pair is left; use more tasks or a model that solves more of them", dropped)
    natural = natural_rates(evidence, pairs, rows)
    score = score_pairs(evidence, pairs, rows & strict, natural)
    site, by_site = choose_site(evidence.choose[0], pairs, evidence.is_solved)
    clamped = _remaining_effect(evidence, pairs, rows & strict)
    verdict, reason = decide_use(score, clamped)
    weights = bootstrap_weights(natural.hits.shape[1], RESAMPLES, BOOTSTRAP_SEED)
    return UseResult(
        verdict=verdict,
        reason=reason,
        strict=score,
        every=score_pairs(evidence, pairs, rows, natural),
        natural=_estimate(natural.values[0], natural.resampled(weights)[:, 0], int((natural.counts[0] > 0).sum())),
        clamped=clamped,
        solved=solved,
        is_argmax=float(evidence.is_argmax[is_run].mean()),
        site=site,
        by_site=tuple(by_site.tolist()),
        dropped=dropped,
    )


def _remaining_effect(evidence: CausalEvidence, pairs: PairSet, rows: np.ndarray) -> float:
    """Share of the effect of the edit that remains with later activations in their natural range; 0 without an effect."""
    steered, clamped, unedited = (
        float((words[rows] == pairs.target[rows]).mean())
        for words in (evidence.steered[0], evidence.clamped, evidence.unedited)
    )
    return (clamped - unedited) / (steered - unedited) if steered > unedited else 0.0


def decide_use(score: UseScore, clamped: float) -> tuple[str, str]:
    """The verdict and its reason, from the scores of the pairs that decide and what remains in the natural range."""
    if score.margin.low <= MARGIN:
        return NOT_SHOWN, (
            f"steered - largest control ({score.largest}) is {score.margin.value:.3f} "
            f"[{score.margin.low:.3f}, {score.margin.high:.3f}]; expected a lower bound above {MARGIN}"
        )
    if clamped < MIN_NATURAL_SHARE:
        return NOT_SHOWN, (
            f"{clamped:.0%} of the effect remain with later activations in their natural range; expected at least "
            f"{MIN_NATURAL_SHARE:.0%}"
        )
    return USES, ""
