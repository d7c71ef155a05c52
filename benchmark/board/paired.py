"""Two models on the same tasks: the exact test of their difference, its interval, and what n could have shown.

Letters: `N` tasks, `K` clusters of them. Sources: McNemar 1947, exact two-sided binomial form; power after its
definition, over the number of discordant pairs (Connor 1987 gives the normal approximation).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from benchmark.statistics import Estimate

ALPHA, POWER = 0.05, 0.80
RESAMPLES_PER_CHUNK = 100
"""Bootstrap resamples that are drawn at a time, for memory."""


@dataclass(frozen=True)
class McNemarResult:
    """Tasks on which two models differ.

    Attributes:
        first, second: those that only the one and only the other has right.
        n: of all tasks.
        p: exact two-sided McNemar; 1 where they differ on none.
    """

    first: int
    second: int
    n: int
    p: float

    @property
    def rate(self) -> float:
        """Share of tasks on which they differ."""
        return (self.first + self.second) / self.n


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemarResult:
    """Exact McNemar test that both models solve tasks equally often; assumes tasks that are drawn independently.

    Args:
        first, second: bool [N], whether each task is solved.

    Raises:
        ValueError: different or no tasks.
    """
    if first.shape != second.shape or not len(first):
        raise ValueError(f"mcnemar: {first.shape} and {second.shape} outcomes; expected the same tasks, at least one")
    discordant = int((first & ~second).sum()), int((second & ~first).sum())
    p = float(stats.binomtest(discordant[0], sum(discordant)).pvalue) if sum(discordant) else 1.0
    return McNemarResult(*discordant, len(first), min(1.0, p))


def cluster_bootstrap_difference(
    first: np.ndarray, second: np.ndarray, cluster: np.ndarray, resamples: int, seed: int, level: float = 0.95
) -> Estimate:
    """Difference of two shares with the percentile interval of a bootstrap that draws whole clusters; n is K.

    Args:
        first, second: bool [N].
        cluster: int [N], 0 to K - 1; tasks of one program are one cluster.
        resamples, seed: of the bootstrap.
        level: of the interval.
    """
    differences = first.astype(np.int64) - second
    sums, sizes = np.bincount(cluster, differences), np.bincount(cluster)
    num_clusters = len(sizes)
    random = np.random.Generator(np.random.Philox(seed))
    resampled = []
    for start in range(0, resamples, RESAMPLES_PER_CHUNK):
        cluster_indices = random.integers(num_clusters, size=(min(RESAMPLES_PER_CHUNK, resamples - start), num_clusters))
        resampled.append(sums[cluster_indices].sum(1) / sizes[cluster_indices].sum(1))
    low, high = np.quantile(np.concatenate(resampled), [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(float(differences.mean()), float(low), float(high), num_clusters)


def mcnemar_power(n: int, rate: float, difference: float, alpha: float = ALPHA) -> float:
    """Probability that the exact McNemar test rejects, in the direction of the difference.

    Args:
        n: tasks.
        rate: share of them on which two models differ, above 0.
        difference: of the models' shares, at most `rate`.
        alpha: two-sided level.
    """
    half_range = 6 * np.sqrt(n * rate * (1 - rate)) + 6
    discordant = np.arange(max(0, int(n * rate - half_range)), min(n, int(n * rate + half_range)) + 1)
    critical = stats.binom.isf(alpha / 2, discordant, 0.5) + 1
    rejects = stats.binom.sf(critical - 1, discordant, (1 + difference / rate) / 2)
    return float(stats.binom.pmf(discordant, n, rate) @ rejects)


def min_detectable_difference(n: int, rate: float, alpha: float = ALPHA, target_power: float = POWER) -> float | None:
    """The smallest difference of shares that n tasks show with this power; None if these show none at any.

    Args:
        n: tasks.
        rate: share of them on which the two models differ, as observed.
        alpha, wanted: level and power of the test.
    """
    if rate <= 0 or mcnemar_power(n, rate, rate, alpha) < target_power:
        return None
    return float(optimize.brentq(lambda d: mcnemar_power(n, rate, d, alpha) - target_power, 0.0, rate, xtol=1e-5))


def min_detectable_effect(estimate: Estimate, alpha: float = ALPHA, target_power: float = POWER) -> float | None:
    """The same of a figure whose 95% interval is normal: its standard error times both quantiles; None without a width."""
    standard_error = (estimate.high - estimate.low) / 2 / stats.norm.ppf(0.975)
    return float((stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(target_power)) * standard_error) if standard_error > 0 else None


def normal_p_value(estimate: Estimate) -> float:
    """Two-sided p of a figure whose 95% interval is normal; 1 without a width."""
    standard_error = (estimate.high - estimate.low) / 2 / stats.norm.ppf(0.975)
    return float(2 * stats.norm.sf(abs(estimate.value) / standard_error)) if standard_error > 0 else 1.0
