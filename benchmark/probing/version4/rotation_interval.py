"""Skills and gaps of protocol 4 with their intervals. NumPy and SciPy only.

Three sources of variance enter an interval: the prompts drawn (bootstrap), the probe seeds, and the randomly initialised
copies. The last two are estimated from few values, so that the interval takes a t quantile with the degrees of freedom of
Welch and Satterthwaite (Satterthwaite 1946).

Letters: `Q` seeds, `K` labels, `U` groups of prompts, `W` resamples, `C` copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.probing.control_gap import skill_score
from benchmark.probing.version4.rotation_evidence import RotationEvidence
from benchmark.statistics import Estimate, normal_quantile, t_quantile

ALL_ROWS, UNSEEN_ROWS = (0, 1), (1,)
"""Novelties that a figure is computed from."""


@dataclass(frozen=True)
class GapSample:
    """A gap with what its variance is estimated from.

    Attributes:
        value: over all test rows.
        resampled: float64 [W], in each bootstrap resample of prompts.
        by_seed: float64 [Q], on the test rows of each seed.
    """

    value: float
    resampled: np.ndarray
    by_seed: np.ndarray


@dataclass(frozen=True)
class Skills:
    """Skill scores 1 - CE / CE_prior of one source and feature on a selection of test rows.

    Attributes:
        value: float64 [K].
        resampled: float64 [W, K].
        by_seed: float64 [Q, K].
    """

    value: np.ndarray
    resampled: np.ndarray
    by_seed: np.ndarray

    def gap(self, columns: Sequence[int]) -> GapSample:
        """Skill under the original minus mean skill under the labels `columns`."""
        parts = (self.value, self.resampled, self.by_seed)
        return GapSample(*(part[..., 0] - part[..., list(columns)].mean(-1) for part in parts))

    def original(self) -> GapSample:
        """Skill under the original."""
        return GapSample(float(self.value[0]), self.resampled[:, 0], self.by_seed[:, 0])


def compute_skills(
    evidence: RotationEvidence,
    prior: RotationEvidence,
    weights: np.ndarray,
    novelties: Sequence[int] = ALL_ROWS,
    displacement: int | None = None,
) -> Skills:
    """Skills of one source.

    Args:
        evidence: losses of the source.
        prior: losses of the label prior.
        weights: float64 [W, U], bootstrap weights of the groups of prompts.
        novelties: `ALL_ROWS` or `UNSEEN_ROWS`; displacement has all rows only.
        displacement: index of a displacement, 0 for forward and 1 for sideways; None for rotation.
    """

    def sums(source: RotationEvidence) -> tuple[np.ndarray, np.ndarray]:
        if displacement is None:
            chosen = list(novelties)
            by_group, by_seed = source.rotation[:, chosen].sum(1, dtype=float), source.rotation_by_seed[..., chosen]
            return by_group, by_seed.sum(-1, dtype=float)
        return source.displacement[displacement].astype(float), source.displacement_by_seed[:, displacement].astype(
            float
        )

    (loss, seed_loss), (prior_loss, seed_prior) = sums(evidence), sums(prior)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Skills(
            skill_score(loss.sum(-1), prior_loss.sum(-1)),
            skill_score(weights @ loss.T, weights @ prior_loss.T),
            skill_score(seed_loss, seed_prior),
        )


def subtract_controls(model: GapSample, controls: Mapping[str, GapSample]) -> tuple[GapSample, dict[str, float]]:
    """Delta: the gap of the model minus the largest gap of the controls, at least 0; and how often each is the largest.

    By seed the controls have the weights of how often each is the largest in a resample, so that the spread between
    seeds is that of the difference and not that of a maximum of noisy values.
    """
    names = list(controls)
    resampled = np.stack([np.zeros_like(model.resampled), *(controls[name].resampled for name in names)])
    largest = resampled.argmax(0)
    shares = {name: float((largest == i + 1).mean()) for i, name in enumerate(names)}
    by_seed = model.by_seed - sum(shares[name] * controls[name].by_seed for name in names)
    value = model.value - max(0.0, *(controls[name].value for name in names))
    return GapSample(value, model.resampled - resampled.max(0), by_seed), shares


def estimate_gap(
    sample: GapSample,
    n: int,
    level: float,
    random_init: GapSample | None = None,
    random_share: float = 0.0,
    copy_of_seed: Sequence[int] = (),
) -> Estimate:
    """Interval of a gap or delta.

    Args:
        sample: the gap.
        n: number of prompts.
        level: level of the interval.
        random_init: gap of the randomly initialised copies, if the sample subtracts it.
        random_share: how often it is the largest control.
        copy_of_seed: index of the copy that each seed reads.
    """
    prompts = float(np.var(sample.resampled, ddof=1))
    components = [(prompts, np.inf)]
    between_copies = 0.0
    if random_init is not None and random_share > 0 and len(set(copy_of_seed)) > 1:
        copies = np.unique(copy_of_seed)
        means = [random_init.by_seed[np.array(copy_of_seed) == copy].mean() for copy in copies]
        spread = float(np.var(means, ddof=1)) / len(copies) - float(np.var(random_init.resampled, ddof=1))
        between_copies = random_share**2 * max(0.0, spread)
        components.append((between_copies, len(copies) - 1))
    num_seeds = len(sample.by_seed)
    if num_seeds > 1:
        num_copies = max(1, len(set(copy_of_seed)))
        spread = float(np.var(sample.by_seed, ddof=1)) / num_seeds
        components.append((max(0.0, spread - prompts - between_copies * num_copies / num_seeds), num_seeds - 1))
    half = welch_satterthwaite_half_width(components, level)
    return Estimate(sample.value, sample.value - half, sample.value + half, n)


def welch_satterthwaite_half_width(components: Sequence[tuple[float, float]], level: float) -> float:
    """Half-width of the interval of an estimate whose variance is a sum of (variance, degrees of freedom)."""
    total = sum(variance for variance, _ in components)
    if total <= 0:
        return 0.0
    inverse = sum(variance**2 / freedom for variance, freedom in components)
    quantile = 0.5 + level / 2
    value = t_quantile(quantile, total**2 / inverse) if inverse > 0 else normal_quantile(quantile)
    return float(value * np.sqrt(total))
