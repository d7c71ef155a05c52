"""From probe predictions to skill, gap, delta and the verdict.

Source: shared/PROBING.md, The score. Letters: `Q` seeds, `S` semantics (0 is the original), `F` features, `P` test
programs, `W` bootstrap resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from benchmark.labels import MISSING, TEST, TRAIN, ProbeSet
from benchmark.probing import Fit
from benchmark.protocol import Protocol
from benchmark.statistics import Estimate, bootstrap_weights, holm, interval_over_units_and_seeds
from karel_env.features import FEATURES, PRIMARY

REPRESENTS, RECORD_ONLY, INCONCLUSIVE = "REPRESENTS", "RECORD-ONLY", "INCONCLUSIVE"
CONTROLS = ("random-init", "recorder")


@dataclass(frozen=True)
class Evidence:
    """Cross-entropies of one source of states, summed over the test states of each program.

    These arrays are stored with a run, in this precision, so that its deltas can be computed again exactly.

    Attributes:
        probe: float32 [S, F, P], nats, mean over seeds.
        totals: float32 [Q, S, F], nats, sum over programs, a seed.
        pool: int64 [S, F], which pooled state each semantics chose on validation.
    """

    probe: np.ndarray
    totals: np.ndarray
    pool: np.ndarray


@dataclass(frozen=True)
class FeatureResult:
    """What is found for one feature.

    Attributes:
        skill: under the original, on all test states.
        skill_unseen: on test states whose action prefix does not occur in training.
        skill_alternatives: mean over the alternatives.
        gap, control_gaps: skill under the original less that mean, for the model and for each control.
        delta, delta90: gap less the larger control gap, with its 95% and its 90% interval.
        p_rand: (1 + alternatives at least as skilled as the original) / (alternatives + 1).
        p_holm: one-sided p of delta > 0, Holm-adjusted over features.
        alternatives: those that the screen keeps for this feature.
        degenerate: one class holds nearly all states, so the feature says nothing in this suite.
        pool: the pooled state that the original chose.
    """

    skill: Estimate
    skill_unseen: float | None
    skill_alternatives: float
    gap: Estimate
    control_gaps: dict[str, Estimate]
    delta: Estimate
    delta90: Estimate
    p_rand: float
    p_holm: float
    alternatives: tuple[str, ...]
    degenerate: bool
    pool: str


def prior_log_prob(probe_set: ProbeSet) -> np.ndarray:
    """float64 [S, F, Rt], log-probability of each test label under its step's frequencies in training.

    The step-conditional prior, with one added to each count; 0 where the label is missing.
    """
    train, test = probe_set.rows(TRAIN), probe_set.rows(TEST)
    steps = int(probe_set.step.max()) + 1
    found = np.zeros((*probe_set.classes.shape[:2], len(test)))
    for s in range(found.shape[0]):
        for f, classes in enumerate(probe_set.counts):
            label = probe_set.classes[s, f]
            there = train[label[train] != MISSING]
            count = np.ones((steps, classes))
            np.add.at(count, (probe_set.step[there], label[there]), 1)
            log_prob = np.log(count / count.sum(1, keepdims=True))
            known = label[test] != MISSING
            found[s, f, known] = log_prob[probe_set.step[test[known]], label[test[known]]]
    return found


def choose_pool(fits: Sequence[Fit]) -> np.ndarray:
    """int [S, F], the pooled state with the lowest cross-entropy on validation, mean over seeds."""
    return np.argmin([fit.validation.mean(0) for fit in fits], axis=0)


def gather_evidence(fits: Sequence[Fit], pool: np.ndarray, probe_set: ProbeSet) -> Evidence:
    """Sum over programs the cross-entropies of the chosen pooled state of each semantics and feature."""
    per_state = np.stack([fit.log_prob for fit in fits])
    semantics, features = np.indices(pool.shape)
    chosen = np.moveaxis(per_state[pool, :, semantics, features], 2, 0)
    probe = -by_program(chosen, probe_set)
    return Evidence(probe.mean(0).astype(np.float32), probe.sum(-1).astype(np.float32), pool)


def by_program(values: np.ndarray, probe_set: ProbeSet) -> np.ndarray:
    """float64 [..., P] sums over each test program of values [..., Rt]."""
    owner = probe_set.program[probe_set.rows(TEST)]
    _, starts = np.unique(owner, return_index=True)
    return np.add.reduceat(values.astype(np.float64), starts, axis=-1)


class _Skills:
    """Skills of every source, over all programs and in each bootstrap resample."""

    def __init__(self, evidence: Mapping[str, Evidence], prior: np.ndarray, weights: np.ndarray) -> None:
        self.evidence, self.prior, self.weights = evidence, prior, weights

    def whole(self, source: str) -> np.ndarray:
        """float64 [S, F], from the mean cross-entropy over seeds."""
        return 1 - self.evidence[source].probe.sum(-1, dtype=np.float64) / self.prior.sum(-1)

    def by_seed(self, source: str) -> np.ndarray:
        """float64 [Q, S, F]."""
        return 1 - self.evidence[source].totals / self.prior.sum(-1)

    def resampled(self, source: str) -> np.ndarray:
        """float64 [W, S, F], on means over seeds."""
        probe = np.tensordot(self.weights, self.evidence[source].probe, (1, 2))
        return 1 - probe / np.tensordot(self.weights, self.prior, (1, 2))


def analyse(
    evidence: Mapping[str, Evidence],
    probe_set: ProbeSet,
    kept: Mapping[str, Sequence[str]],
    protocol: Protocol,
    pools: Sequence[str],
    seed: int,
    unseen: np.ndarray | None = None,
) -> dict[str, FeatureResult]:
    """Skill, gap and delta of each feature that has a kept alternative.

    Args:
        evidence: of `model` and of each of `CONTROLS`.
        probe_set: the labels that the evidence rests on.
        kept: alternatives that the screen keeps, by feature.
        protocol: resamples, margin.
        pools: names of the pooled states.
        seed: of the bootstrap.
        unseen: float [F], skills on unseen prefixes, if computed.
    """
    prior = -by_program(prior_log_prob(probe_set), probe_set)
    skills = _Skills(evidence, prior, bootstrap_weights(prior.shape[-1], protocol.resamples, seed))
    draws = {s: (skills.whole(s)[None], skills.resampled(s), skills.by_seed(s)) for s in evidence}
    raw: dict[str, FeatureResult] = {}
    p_values: dict[str, float] = {}
    for f, feature in enumerate(FEATURES):
        columns = [i for i, name in enumerate(probe_set.semantics) if i and name in kept[feature]]
        if not columns:
            continue
        gaps = {s: tuple(d[:, 0, f] - d[:, columns, f].mean(1) for d in three) for s, three in draws.items()}
        largest = [np.max([gaps[c][i] for c in CONTROLS], axis=0) for i in range(3)]
        delta = tuple(gaps["model"][i] - largest[i] for i in range(3))
        n = prior.shape[-1]
        whole = draws["model"][0][0, :, f]
        estimate = _estimate(delta, n, 0.95)
        spread = (estimate.high - estimate.low) / 2 / 1.959964
        p_values[feature] = float(stats.norm.sf(estimate.value / spread)) if spread > 0 else 1.0
        raw[feature] = FeatureResult(
            skill=_estimate(tuple(d[:, 0, f] for d in draws["model"]), n, 0.95),
            skill_unseen=None if unseen is None or np.isnan(unseen[f]) else float(unseen[f]),
            skill_alternatives=float(whole[columns].mean()),
            gap=_estimate(gaps["model"], n, 0.95),
            control_gaps={c: _estimate(gaps[c], n, 0.95) for c in CONTROLS},
            delta=estimate,
            delta90=_estimate(delta, n, 0.90),
            p_rand=(1 + int((whole[columns] >= whole[0]).sum())) / (len(columns) + 1),
            p_holm=1.0,
            alternatives=tuple(probe_set.semantics[i] for i in columns),
            degenerate=_degenerate(probe_set, f, protocol),
            pool=pools[int(evidence["model"].pool[0, f])],
        )
    adjusted = holm(p_values)
    return {name: FeatureResult(**{**vars(result), "p_holm": adjusted[name]}) for name, result in raw.items()}


def _estimate(three: tuple[np.ndarray, ...], n: int, level: float) -> Estimate:
    whole, resampled, seeds = three
    return interval_over_units_and_seeds(float(whole[0]), resampled, seeds, n, level)


def _degenerate(probe_set: ProbeSet, feature: int, protocol: Protocol) -> bool:
    label = probe_set.classes[0, feature, probe_set.rows(TEST)]
    label = label[label != MISSING]
    return len(label) == 0 or float(np.bincount(label).max() / len(label)) >= protocol.degenerate


def skill_on_unseen(fits: Sequence[Fit], pool: np.ndarray, probe_set: ProbeSet) -> np.ndarray:
    """float64 [F], skill under the original on test states with an action prefix not seen in training; NaN if none."""
    test = probe_set.rows(TEST)
    fresh = ~probe_set.seen[test]
    prior = prior_log_prob(probe_set)[0][:, fresh].sum(-1)
    probe = np.array([fits[pool[0, f]].log_prob[:, 0, f][:, fresh].mean(0).sum() for f in range(len(FEATURES))])
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - probe / prior


def verdict(results: Mapping[str, FeatureResult], protocol: Protocol) -> str:
    """REPRESENTS, RECORD-ONLY or INCONCLUSIVE, decided on facing (PROBING.md, The score)."""
    primary = results[PRIMARY]
    if primary.delta.low > protocol.margin:
        return REPRESENTS
    judged = [r for name, r in results.items() if name == PRIMARY or not r.degenerate]
    within = all(-protocol.margin <= r.delta90.low and r.delta90.high <= protocol.margin for r in judged)
    return RECORD_ONLY if within else INCONCLUSIVE
