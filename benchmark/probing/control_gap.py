"""Skill, gap between semantics, control-adjusted gap (delta) and verdict, computed from probe predictions. NumPy only.

The definitions are in docs/probing.md, "What is measured" and "How to read a verdict". Letters: `Q` seeds, `S` semantics
(0 is the original), `F` features, `P` test programs, `U` groups of test programs, `W` bootstrap resamples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from benchmark.probing.labels import MISSING, ProbeSet, Split
from benchmark.probing.prior import LabelPrior, fit_step_prior
from benchmark.probing.probe_fit import ProbeFit
from benchmark.probing.protocol import Protocol
from benchmark.statistics import Estimate, bootstrap_weights, holm, interval_over_units_and_seeds, normal_quantile
from karel_env.features import FEATURES, PRIMARY

REPRESENTS, RECORD_ONLY, INCONCLUSIVE = "REPRESENTS", "RECORD-ONLY", "INCONCLUSIVE"
MODEL = "model"
CONTROLS = RANDOM_INIT, TOKEN_HISTORY = ("random-init", "recorder")
"""Names of the sources of states in the stored evidence: the model, and the controls of the protocol."""


class Bootstrap(NamedTuple):
    """A statistic with what its interval is computed from; every array ends in the same axes.

    Attributes:
        value: float64 [1, ...], over all test programs.
        resampled: float64 [W, ...], in each bootstrap resample of programs.
        by_seed: float64 [Q, ...], on the test programs of each probe seed.
    """

    value: np.ndarray
    resampled: np.ndarray
    by_seed: np.ndarray


@dataclass(frozen=True)
class Evidence:
    """Cross-entropies of the probes of one source of states, summed over the test states of each group of programs.

    A run stores these arrays in this precision, so that `submit` recomputes its deltas exactly.

    Attributes:
        probe: float32 [S, F, U], nats, mean over the seeds that test a program.
        totals: float32 [Q, S, F], nats, sum over the programs of the seed's test fold.
        pool: int64 [Q, S, F], index of the view that each seed, semantics and feature selected on validation.
    """

    probe: np.ndarray
    totals: np.ndarray
    pool: np.ndarray


@dataclass(frozen=True)
class FeatureResult:
    """Results of one feature.

    Attributes:
        skill: skill score 1 - CE / CE_prior under the original, on all test states; 0 is the label prior, 1 is perfect.
        skill_alternatives: mean skill over the alternatives.
        gap, control_gaps: original - alternatives, for the model and for each control.
        delta, delta90: gap minus the larger control gap, with its 95% and its 90% interval.
        p_rand: (1 + number of alternatives with at least the skill of the original) / (alternatives + 1).
        p, p_holm: one-sided p of delta > 0, and the same Holm-adjusted over features.
        alternatives: names of the alternatives that the derivability screen keeps for this feature.
        degenerate: one class holds nearly all states, so the feature carries no information in this suite.
        view: the view (pooled state or layer) that most seeds selected under the original.
        extras: skill by name of the extra semantics, which enter no gap.
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
    """The test programs of a protocol and the cross-entropy of the label prior on them, the zero of `skill`.

    Attributes:
        programs: int64 [P], program indices.
        prior: float64 [S, F, U], nats, mean over the seeds that test a program.
        totals: float64 [Q, S, F], nats, sum over the programs of the seed's test fold.
        priors: the label prior of each seed's split.
    """

    programs: np.ndarray
    prior: np.ndarray
    totals: np.ndarray
    priors: list[LabelPrior]

    @classmethod
    def from_probe_set(cls, probe_set: ProbeSet, protocol: Protocol, present: ProbeSet | None = None) -> PriorBaseline:
        """Fit the prior of each seed of the protocol; `present` adds a condition, see `fit_step_prior`."""
        splits = [probe_set.split(seed) for seed in protocol.seeds]
        used = {seed % probe_set.folds for seed in protocol.seeds}
        by_fold = {fold: fit_step_prior(probe_set, probe_set.split(fold), present) for fold in used}
        priors = [by_fold[seed % probe_set.folds] for seed in protocol.seeds]
        summed, totals = sum_by_program([-prior.log_prob for prior in priors], splits, probe_set)
        return cls(list_test_programs(splits, probe_set), group_sums(summed, protocol.units), totals, priors)


def list_test_programs(splits: Sequence[Split], probe_set: ProbeSet) -> np.ndarray:
    """int64 [P], indices of the programs that any of the splits tests, in the order of `sum_by_program`."""
    return np.unique(probe_set.program[np.concatenate([split.test for split in splits])])


def sum_by_program(
    values: Sequence[np.ndarray], splits: Sequence[Split], probe_set: ProbeSet
) -> tuple[np.ndarray, np.ndarray]:
    """Sums over the test states of each program, float64 [..., P], and over those of each seed, float64 [Q, ...].

    Args:
        values: array [..., Rt] per seed, one column per test state.
        splits: split per seed.
        probe_set: labelled programs; a program that several seeds test gets the mean over these seeds.
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
    """[..., U], sums of [..., P] over at most `units` groups of neighbouring programs of nearly equal size.

    Programs are drawn independently, so a bootstrap over groups estimates the same variance as one over programs, with a
    relative error of sqrt(2 / U), and the arrays of a row take about 2 MB instead of 30.
    """
    num_programs = values.shape[-1]
    starts = np.unique(np.linspace(0, num_programs, min(units, num_programs), endpoint=False).astype(int))
    return np.add.reduceat(values, starts, axis=-1)


def select_pool(fits: Sequence[ProbeFit]) -> np.ndarray:
    """int [Q, S, F], the view with the lowest cross-entropy on each seed's validation states; `fits` has one per view."""
    return np.argmin([fit.validation for fit in fits], axis=0)


def gather_evidence(
    fits: Sequence[ProbeFit], pool: np.ndarray, probe_set: ProbeSet, baseline: PriorBaseline, protocol: Protocol
) -> Evidence:
    """Sum the cross-entropies of the selected view of each seed, semantics and feature over programs.

    A probe whose validation cross-entropy is not below that of the step-conditional prior is replaced by the prior, so
    that states without information have a skill of 0 instead of the negative skill of an overfitted probe.

    Args:
        fits: probe fit per view.
        pool: int [Q, S, F], selected view, see `select_pool`.
        probe_set: labels.
        baseline: label prior on the same labels.
        protocol: seeds and number of groups.
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


def skill_score(cross_entropy: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """The skill score 1 - CE / CE_prior of cross-entropies and those of the label prior, in one unit and of equal shape."""
    return 1 - cross_entropy / prior


def overall_skill(evidence: Evidence, baseline: PriorBaseline) -> np.ndarray:
    """float64 [S, F], skill of a source over all programs."""
    return skill_score(evidence.probe.sum(-1, dtype=np.float64), baseline.prior.sum(-1))


class SkillScores:
    """Skill scores of every source: over all programs, in each bootstrap resample, and of each seed.

    Args:
        evidence: evidence by source.
        baseline: label prior on the same labels.
        weights: float [W, U], bootstrap weights of the groups of programs.
    """

    def __init__(self, evidence: Mapping[str, Evidence], baseline: PriorBaseline, weights: np.ndarray) -> None:
        self.evidence, self.baseline, self.weights = evidence, baseline, weights

    def overall(self, source: str) -> np.ndarray:
        """float64 [S, F], over all programs."""
        return overall_skill(self.evidence[source], self.baseline)

    def by_seed(self, source: str) -> np.ndarray:
        """float64 [Q, S, F], of each seed on the programs of its test fold."""
        return skill_score(self.evidence[source].totals, self.baseline.totals)

    def resampled(self, source: str) -> np.ndarray:
        """float64 [W, S, F], in each bootstrap resample."""
        probe = np.tensordot(self.weights, self.evidence[source].probe, (1, 2))
        return skill_score(probe, self._resampled_prior)

    @cached_property
    def _resampled_prior(self) -> np.ndarray:
        return np.tensordot(self.weights, self.baseline.prior, (1, 2))

    def bootstrap(self, source: str) -> Bootstrap:
        """All three, with trailing axes [S, F]."""
        return Bootstrap(self.overall(source)[None], self.resampled(source), self.by_seed(source))


def compute_skills(
    evidence: Mapping[str, Evidence], baseline: PriorBaseline, protocol: Protocol, seed: int
) -> dict[str, Bootstrap]:
    """Skill of each source, trailing axes [S, F]; `seed` draws the bootstrap resamples."""
    skills = SkillScores(evidence, baseline, bootstrap_weights(baseline.prior.shape[-1], protocol.resamples, seed))
    return {source: skills.bootstrap(source) for source in evidence}


def compute_gaps(skills: Mapping[str, Bootstrap], feature: int, columns: Sequence[int]) -> dict[str, Bootstrap]:
    """The gap of each source for one feature: skill under the original minus mean skill under the alternatives `columns`."""
    return {
        source: Bootstrap(*(part[:, 0, feature] - part[:, list(columns), feature].mean(1) for part in skill))
        for source, skill in skills.items()
    }


def compute_delta(gaps: Mapping[str, Bootstrap]) -> Bootstrap:
    """The control-adjusted gap: gap of the model minus the largest gap of the controls, which are all other sources."""
    controls = [gap for name, gap in gaps.items() if name != MODEL]
    return Bootstrap(*(gaps[MODEL][i] - np.max([gap[i] for gap in controls], axis=0) for i in range(3)))


def list_controls(sources: Iterable[str]) -> list[str]:
    """The controls among the names of sources: those of the protocol first, then others in their order."""
    names = list(sources)
    return [c for c in CONTROLS if c in names] + [name for name in names if name not in (MODEL, *CONTROLS)]


def check_controls(sources: Iterable[str], required: Sequence[str] = CONTROLS) -> None:
    """Check that the sources have every control by name.

    Raises:
        ValueError: names the controls that are missing.
    """
    names = list(sources)
    missing = [name for name in required if name not in names]
    if missing:
        raise ValueError(
            f"controls: {', '.join(missing)} missing among {', '.join(list_controls(names)) or 'none'}; the verdict of the "
            f"protocol compares the model with {' and '.join(required)}"
        )


def analyze_features(
    evidence: Mapping[str, Evidence],
    probe_set: ProbeSet,
    baseline: PriorBaseline,
    alternatives: Mapping[str, Sequence[str]],
    protocol: Protocol,
    views: Sequence[str],
    seed: int,
) -> dict[str, FeatureResult]:
    """Compute skill, gap and delta of each feature with at least one alternative.

    Args:
        evidence: evidence of `model` and of at least one control; every other source is a control.
        probe_set: the labels that the probes were tested on.
        baseline: label prior on the same labels.
        alternatives: names of the alternatives that the screen keeps, by feature.
        protocol: resamples, margin.
        views: names of the views that `Evidence.pool` indexes.
        seed: seed of the bootstrap.
    """
    num_programs = len(baseline.programs)
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
        skills = skills_by_source["model"].value[0, :, f]
        estimate = _estimate(delta, num_programs, 0.95)
        p_values[feature] = one_sided_p(estimate)
        results[feature] = FeatureResult(
            skill=_estimate(Bootstrap(*(part[:, 0, f] for part in skills_by_source["model"])), num_programs, 0.95),
            skill_alternatives=float(skills[columns].mean()),
            gap=_estimate(gaps["model"], num_programs, 0.95),
            control_gaps={c: _estimate(gaps[c], num_programs, 0.95) for c in list_controls(gaps)},
            delta=estimate,
            delta90=_estimate(delta, num_programs, 0.90),
            p_rand=(1 + int((skills[columns] >= skills[0]).sum())) / (len(columns) + 1),
            p=p_values[feature],
            p_holm=1.0,
            alternatives=tuple(probe_set.semantics[i] for i in columns),
            degenerate=_is_degenerate(probe_set, baseline, f, protocol),
            view=views[int(np.bincount(evidence["model"].pool[:, 0, f]).argmax())],
            extras={name: float(skills[i]) for i, name in enumerate(probe_set.semantics) if i and name not in screened},
        )
    adjusted = holm(p_values)
    return {name: FeatureResult(**{**vars(result), "p_holm": adjusted[name]}) for name, result in results.items()}


def one_sided_p(estimate: Estimate) -> float:
    """One-sided p of value > 0 from the 95% interval, by the normal distribution; 1 for an interval without width."""
    from scipy import stats

    deviation = (estimate.high - estimate.low) / 2 / normal_quantile(0.975)
    return float(stats.norm.sf(estimate.value / deviation)) if deviation > 0 else 1.0


def _estimate(statistic: Bootstrap, n: int, level: float) -> Estimate:
    value, resampled, by_seed = statistic
    return interval_over_units_and_seeds(float(value[0]), resampled, by_seed, n, level)


def _is_degenerate(probe_set: ProbeSet, baseline: PriorBaseline, feature: int, protocol: Protocol) -> bool:
    label = probe_set.classes[0, feature, np.isin(probe_set.program, baseline.programs)]
    label = label[label != MISSING]
    return len(label) == 0 or float(np.bincount(label).max() / len(label)) >= protocol.degenerate


def decide_verdict(results: Mapping[str, FeatureResult], protocol: Protocol) -> str:
    """REPRESENTS, RECORD-ONLY or INCONCLUSIVE, decided on facing (docs/probing.md, "How to read a verdict")."""
    primary = results[PRIMARY]
    if primary.delta.low > protocol.margin:
        return REPRESENTS
    varying = [r for name, r in results.items() if name == PRIMARY or not r.degenerate]
    within = all(-protocol.margin <= r.delta90.low and r.delta90.high <= protocol.margin for r in varying)
    return RECORD_ONLY if within else INCONCLUSIVE
