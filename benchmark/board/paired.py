"""Paired comparison of two models on the same tasks: exact McNemar test, cluster bootstrap, detectable difference.

Letters: `N` tasks, `K` clusters of tasks. Sources: McNemar 1947 (exact two-sided binomial form); power by definition,
summed over the number of discordant pairs (Connor 1987 gives the normal approximation).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmark.statistics import Estimate, normal_quantile

ALPHA, POWER = 0.05, 0.80
RESAMPLES_PER_CHUNK = 100
"""Bootstrap resamples drawn per chunk, to bound memory."""


@dataclass(frozen=True)
class McNemarResult:
    """Result of an exact McNemar test.

    Attributes:
        first, second: number of tasks that only the first and only the second model solves.
        n: number of tasks.
        p: two-sided p value; 1 without discordant tasks.
    """

    first: int
    second: int
    n: int
    p: float

    @property
    def rate(self) -> float:
        """Share of discordant tasks."""
        return (self.first + self.second) / self.n


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemarResult:
    """Exact two-sided McNemar test of equal solve rates; assumes independently drawn tasks.

    Args:
        first, second: bool [N], whether each model solves each task.

    Raises:
        ValueError: The shapes differ, or there are no tasks.
    """
    if first.shape != second.shape or not len(first):
        raise ValueError(f"mcnemar: {first.shape} and {second.shape} outcomes; expected the same tasks, at least one")
    from scipy import stats

    discordant = int((first & ~second).sum()), int((second & ~first).sum())
    p = float(stats.binomtest(discordant[0], sum(discordant)).pvalue) if sum(discordant) else 1.0
    return McNemarResult(*discordant, len(first), min(1.0, p))


def cluster_bootstrap_difference(
    first: np.ndarray, second: np.ndarray, cluster: np.ndarray, resamples: int, seed: int, level: float = 0.95
) -> Estimate:
    """Difference of two shares with the percentile interval of a cluster bootstrap; the estimate's n is K.

    Args:
        first, second: bool [N], whether each model solves each task.
        cluster: int [N], cluster index per task, 0 to K - 1 (tasks of one program form one cluster).
        resamples, seed: number of bootstrap resamples and their seed.
        level: coverage of the interval.
    """
    differences = first.astype(np.int64) - second
    sums, sizes = np.bincount(cluster, differences), np.bincount(cluster)
    num_clusters = len(sizes)
    random = np.random.Generator(np.random.Philox(seed))
    resampled = []
    for start in range(0, resamples, RESAMPLES_PER_CHUNK):
        cluster_indices = random.integers(
            num_clusters, size=(min(RESAMPLES_PER_CHUNK, resamples - start), num_clusters)
        )
        resampled.append(sums[cluster_indices].sum(1) / sizes[cluster_indices].sum(1))
    low, high = np.quantile(np.concatenate(resampled), [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(float(differences.mean()), float(low), float(high), num_clusters)


def mcnemar_power(n: int, rate: float, difference: float, alpha: float = ALPHA) -> float:
    """Power of the exact McNemar test in the direction of the difference.

    Args:
        n: number of tasks.
        rate: share of discordant tasks, above 0.
        difference: difference of the two solve rates, at most `rate`.
        alpha: two-sided significance level.
    """
    from scipy import stats

    half_range = 6 * np.sqrt(n * rate * (1 - rate)) + 6
    discordant = np.arange(max(0, int(n * rate - half_range)), min(n, int(n * rate + half_range)) + 1)
    critical = stats.binom.isf(alpha / 2, discordant, 0.5) + 1
    rejects = stats.binom.sf(critical - 1, discordant, (1 + difference / rate) / 2)
    return float(stats.binom.pmf(discordant, n, rate) @ rejects)


def min_detectable_difference(n: int, rate: float, alpha: float = ALPHA, target_power: float = POWER) -> float | None:
    """Smallest difference of solve rates detectable on n tasks with the target power; None if none is.

    Args:
        n: number of tasks.
        rate: observed share of discordant tasks.
        alpha, target_power: significance level and power of the test.
    """
    from scipy import optimize

    if rate <= 0 or mcnemar_power(n, rate, rate, alpha) < target_power:
        return None
    return float(optimize.brentq(lambda d: mcnemar_power(n, rate, d, alpha) - target_power, 0.0, rate, xtol=1e-5))


def min_detectable_effect(estimate: Estimate, alpha: float = ALPHA, target_power: float = POWER) -> float | None:
    """Smallest detectable value of an estimate with a normal 95% interval; None if the interval has no width."""

    standard_error = (estimate.high - estimate.low) / 2 / normal_quantile(0.975)
    return (
        float((normal_quantile(1 - alpha / 2) + normal_quantile(target_power)) * standard_error)
        if standard_error > 0
        else None
    )


def normal_p_value(estimate: Estimate) -> float:
    """Two-sided p value against 0 of an estimate with a normal 95% interval; 1 if the interval has no width."""
    from scipy import stats

    standard_error = (estimate.high - estimate.low) / 2 / normal_quantile(0.975)
    return float(2 * stats.norm.sf(abs(estimate.value) / standard_error)) if standard_error > 0 else 1.0
