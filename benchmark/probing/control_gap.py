"""From probe predictions to skill, gap, delta and the verdict.

Source: shared/PROBING.md, The score. Letters: `Q` seeds, `S` semantics (0 is the original), `F` features, `P` test
programs, `U` groups of them, `W` bootstrap resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from benchmark.probing.labels import MISSING, ProbeSet, Split
from benchmark.probing.prior import LabelPrior, fit_step_prior
from benchmark.probing.probe_fit import ProbeFit
from benchmark.probing.protocol import Protocol
from benchmark.statistics import Estimate, bootstrap_weights, holm, interval_over_units_and_seeds
from karel_env.features import FEATURES, PRIMARY

REPRESENTS, RECORD_ONLY, INCONCLUSIVE = "REPRESENTS", "RECORD-ONLY", "INCONCLUSIVE"
CONTROLS = ("random-init", "recorder")
Bootstrap = tuple[np.ndarray, ...]
"""A figure over all programs, in each bootstrap resample, and of each seed."""


@dataclass(frozen=True)
class Evidence:
    """Cross-entropies of one source of states, summed over the test states of each group of programs.

    These arrays are stored with a run, in this precision, so that its deltas can be computed again exactly.

    Attributes:
        probe: float32 [S, F, U], nats, mean over the seeds that a program is tested on.
        totals: float32 [Q, S, F], nats, sum over the programs of the seed's fold.
        pool: int64 [Q, S, F], which pooled state each seed and semantics chose on validation.
    """

    probe: np.ndarray
    totals: np.ndarray
    pool: np.ndarray


@dataclass(frozen=True)
class FeatureResult:
    """What is found for one feature.

    Attributes:
        skill: under the original, on all test states.
        skill_alternatives: mean over the alternatives.
        gap, control_gaps: skill under the original less that mean, for the model and for each control.
        delta, delta90: gap less the larger control gap, with its 95% and its 90% interval.
        p_rand: (1 + alternatives at least as skilled as the original) / (alternatives + 1).
        p, p_holm: one-sided p of delta > 0, and Holm-adjusted over features.
        alternatives: those that the screen keeps for this feature.
        degenerate: one class holds nearly all states, so the feature says nothing in this suite.
        view: the view (pooled state or layer) that the original chose with most seeds.
        extras: skills under the semantics that are named beside and enter no gap.
    """

    skill: Estimate
    skill_alternatives: float
    gap: Estimate
    control_gaps: dict[str, Estimate]
    delta: Estimate
    delta90: Estimate
    p_rand: float
    p: float
    p_holm: float
    alternatives: tuple[str, ...]
    degenerate: bool
    view: str
    extras: dict[str, float]


@dataclass(frozen=True)
class PriorBaseline:
    """The programs that the seeds of a protocol test, and their prior cross-entropies.

    Attributes:
        programs: int64 [P].
        prior: float64 [S, F, U], nats, mean over the seeds that a program is tested on.
        totals: float64 [Q, S, F], nats, sum over the programs of the seed's fold.
        priors: a seed, the prior of its split.
    """

    programs: np.ndarray
    prior: np.ndarray
    totals: np.ndarray
    priors: list[LabelPrior]

    @classmethod
    def of(cls, probe_set: ProbeSet, protocol: Protocol, present: ProbeSet | None = None) -> PriorBaseline:
        """Of the seeds of a protocol; with the prior given the state of `present`, see `step_prior`."""
        splits = [probe_set.split(seed) for seed in protocol.seeds]
        used = {seed % probe_set.folds for seed in protocol.seeds}
        by_fold = {fold: fit_step_prior(probe_set, probe_set.split(fold), present) for fold in used}
        priors = [by_fold[seed % probe_set.folds] for seed in protocol.seeds]
        summed, totals = sum_by_program([-prior.log_prob for prior in priors], splits, probe_set)
        return cls(list_test_programs(splits, probe_set), group_sums(summed, protocol.units), totals, priors)


def list_test_programs(splits: Sequence[Split], probe_set: ProbeSet) -> np.ndarray:
    """int64 [P], the programs that any of the splits tests, in the order of `over_programs`."""
    return np.unique(probe_set.program[np.concatenate([split.test for split in splits])])


def sum_by_program(
    values: Sequence[np.ndarray], splits: Sequence[Split], probe_set: ProbeSet
) -> tuple[np.ndarray, np.ndarray]:
    """Sums over the test states of each program, float64 [..., P], and over those of each seed, float64 [Q, ...].

    Args:
        values: a seed, [..., Rt] of its test states.
        splits: of the seeds.
        probe_set: whose programs; those tested more than once get the mean over their seeds.
    """
    leading_shape = values[0].shape[:-1]
    summed, num_tests = np.zeros((*leading_shape, len(probe_set.fold))), np.zeros(len(probe_set.fold))
    for value, split in zip(values, splits, strict=True):
        programs, starts = np.unique(probe_set.program[split.test], return_index=True)
        summed[..., programs] += np.add.reduceat(value.astype(np.float64), starts, axis=-1)
        num_tests[programs] += 1
    is_tested = num_tests > 0
    totals = np.stack([value.sum(-1, dtype=np.float64) for value in values])
    return summed[..., is_tested] / num_tests[is_tested], totals


def group_sums(values: np.ndarray, units: int) -> np.ndarray:
    """[..., U], sums of [..., P] over at most `units` groups of neighbouring programs, of a size as equal as may be.

    Programs are drawn independently, so a bootstrap of groups tells the same variance as one of programs, within
    sqrt(2 / U) of itself, and a row's arrays are some 2 MB instead of 30.
    """
    num_programs = values.shape[-1]
    starts = np.unique(np.linspace(0, num_programs, min(units, num_programs), endpoint=False).astype(int))
    return np.add.reduceat(values, starts, axis=-1)


def select_pool(fits: Sequence[ProbeFit]) -> np.ndarray:
    """int [Q, S, F], the pooled state with the lowest cross-entropy on each seed's validation states."""
    return np.argmin([fit.validation for fit in fits], axis=0)


def gather_evidence(
    fits: Sequence[ProbeFit], pool: np.ndarray, probe_set: ProbeSet, baseline: PriorBaseline, protocol: Protocol
) -> Evidence:
    """Sum over programs the cross-entropies of the chosen pooled state of each seed, semantics and feature.

    A probe that does no better on validation than the step-conditional prior answers with the prior, so that what
    holds nothing has a skill of 0 and not of an overfitted probe.
    """
    semantics, features = np.indices(pool.shape[1:])
    cross_entropies = []
    for q, prior in enumerate(baseline.priors):
        log_prob = np.stack([fit.log_prob[q] for fit in fits])[pool[q], semantics, features].astype(np.float64)
        best_validation = np.min([fit.validation[q] for fit in fits], axis=0)
        cross_entropies.append(-np.where((best_validation < prior.validation)[..., None], log_prob, prior.log_prob))
    splits = [probe_set.split(seed) for seed in protocol.seeds]
    probe, totals = sum_by_program(cross_entropies, splits, probe_set)
    return Evidence(group_sums(probe, protocol.units).astype(np.float32), totals.astype(np.float32), pool)


class SkillScores:
    """Skills of every source, over all programs, in each bootstrap resample, and of each seed."""

    def __init__(self, evidence: Mapping[str, Evidence], baseline: PriorBaseline, weights: np.ndarray) -> None:
        self.evidence, self.tested, self.weights = evidence, baseline, weights

    def whole(self, source: str) -> np.ndarray:
        """float64 [S, F]."""
        return 1 - self.evidence[source].probe.sum(-1, dtype=np.float64) / self.tested.prior.sum(-1)

    def by_seed(self, source: str) -> np.ndarray:
        """float64 [Q, S, F], each on the programs of its fold."""
        return 1 - self.evidence[source].totals / self.tested.totals

    def resampled(self, source: str) -> np.ndarray:
        """float64 [W, S, F]."""
        probe = np.tensordot(self.weights, self.evidence[source].probe, (1, 2))
        return 1 - probe / np.tensordot(self.weights, self.tested.prior, (1, 2))


def compute_skills(evidence: Mapping[str, Evidence], baseline: PriorBaseline, protocol: Protocol, seed: int) -> dict[str, Bootstrap]:
    """Skills of each source, [1, S, F] over all programs, [W, S, F] in each bootstrap resample, [Q, S, F] by seed."""
    skills = SkillScores(evidence, baseline, bootstrap_weights(baseline.prior.shape[-1], protocol.resamples, seed))
    return {s: (skills.whole(s)[None], skills.resampled(s), skills.by_seed(s)) for s in evidence}


def compute_gaps(draws: Mapping[str, Bootstrap], feature: int, columns: Sequence[int]) -> dict[str, Bootstrap]:
    """Of each source the skill of one feature under the original less its mean under the alternatives at `columns`."""
    return {
        s: tuple(d[:, 0, feature] - d[:, list(columns), feature].mean(1) for d in three) for s, three in draws.items()
    }


def compute_delta(gaps: Mapping[str, Bootstrap]) -> Bootstrap:
    """The gap of the model less the larger of those of the controls, over all, in each resample, by seed."""
    return tuple(gaps["model"][i] - np.max([gaps[c][i] for c in CONTROLS], axis=0) for i in range(3))


def analyze_features(
    evidence: Mapping[str, Evidence],
    probe_set: ProbeSet,
    baseline: PriorBaseline,
    alternatives: Mapping[str, Sequence[str]],
    protocol: Protocol,
    views: Sequence[str],
    seed: int,
) -> dict[str, FeatureResult]:
    """Skill, gap and delta of each feature that has a kept alternative.

    Args:
        evidence: of `model` and of each of `CONTROLS`.
        probe_set: the labels that the evidence rests on.
        tested: of the same.
        kept: alternatives that the screen keeps, by feature.
        protocol: resamples, margin.
        views: names of the views.
        seed: of the bootstrap.
    """
    n = len(baseline.programs)
    skills_by_source = compute_skills(evidence, baseline, protocol, seed)
    screened = {name for names in alternatives.values() for name in names}
    results: dict[str, FeatureResult] = {}
    p_values: dict[str, float] = {}
    for f, feature in enumerate(FEATURES):
        columns = [i for i, name in enumerate(probe_set.semantics) if i and name in alternatives[feature]]
        if not columns:
            continue
        gaps = compute_gaps(skills_by_source, f, columns)
        delta = compute_delta(gaps)
        skills = skills_by_source["model"][0][0, :, f]
        estimate = _estimate(delta, n, 0.95)
        p_values[feature] = one_sided_p(estimate)
        results[feature] = FeatureResult(
            skill=_estimate(tuple(d[:, 0, f] for d in skills_by_source["model"]), n, 0.95),
            skill_alternatives=float(skills[columns].mean()),
            gap=_estimate(gaps["model"], n, 0.95),
            control_gaps={c: _estimate(gaps[c], n, 0.95) for c in CONTROLS},
            delta=estimate,
            delta90=_estimate(delta, n, 0.90),
            p_rand=(1 + int((skills[columns] >= skills[0]).sum())) / (len(columns) + 1),
            p=p_values[feature],
            p_holm=1.0,
            alternatives=tuple(probe_set.semantics[i] for i in columns),
            degenerate=_is_degenerate(probe_set, baseline, f, protocol),
            view=views[int(np.bincount(evidence["model"].pool[:, 0, f]).argmax())],
            extras={n: float(skills[i]) for i, n in enumerate(probe_set.semantics) if i and n not in screened},
        )
    adjusted = holm(p_values)
    return {name: FeatureResult(**{**vars(result), "p_holm": adjusted[name]}) for name, result in results.items()}


def one_sided_p(estimate: Estimate) -> float:
    """One-sided p of a figure above 0, from its 95% interval; 1 without a width."""
    spread = (estimate.high - estimate.low) / 2 / stats.norm.ppf(0.975)
    return float(stats.norm.sf(estimate.value / spread)) if spread > 0 else 1.0


def _estimate(three: Bootstrap, n: int, level: float) -> Estimate:
    whole, resampled, seeds = three
    return interval_over_units_and_seeds(float(whole[0]), resampled, seeds, n, level)


def _is_degenerate(probe_set: ProbeSet, baseline: PriorBaseline, feature: int, protocol: Protocol) -> bool:
    label = probe_set.classes[0, feature, np.isin(probe_set.program, baseline.programs)]
    label = label[label != MISSING]
    return len(label) == 0 or float(np.bincount(label).max() / len(label)) >= protocol.degenerate


def decide_verdict(results: Mapping[str, FeatureResult], protocol: Protocol) -> str:
    """REPRESENTS, RECORD-ONLY or INCONCLUSIVE, decided on facing (PROBING.md, The score)."""
    primary = results[PRIMARY]
    if primary.delta.low > protocol.margin:
        return REPRESENTS
    varying = [r for name, r in results.items() if name == PRIMARY or not r.degenerate]
    within = all(-protocol.margin <= r.delta90.low and r.delta90.high <= protocol.margin for r in varying)
    return RECORD_ONLY if within else INCONCLUSIVE
