"""Paired comparison of two models on the same tasks: exact McNemar test, cluster bootstrap, detectable difference.

Letters: `N` tasks, `K` clusters of tasks. Sources: McNemar 1947 (exact two-sided binomial form); power by definition,
summed over the number of discordant pairs (Connor 1987 gives the normal approximation). Of scipy only `special` is
imported, and where it is used: `stats` and `optimize` take longer to import than a comparison takes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmark.statistics import Estimate, normal_quantile

ALPHA, POWER = 0.05, 0.80
DIFFERENCE_TOLERANCE = 1e-9
"""How close to the exact root a detectable difference is."""
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
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return McNemarResult(only_first, only_second, len(first), sign_test(only_first, only_second))


def sign_test(first: int, second: int) -> float:
    """Two-sided p value of an exact sign test, twice the smaller binomial tail at 1/2; 1 without any event.

    Args:
        first, second: number of events of each sign.
    """
    return sign_test_p_values(first + second, min(first, second))[-1]


def sign_test_p_values(trials: int, most: int) -> list[float]:
    """Two-sided p values of exact sign tests on so many events, for 0 to `most` events of the rarer sign.

    Args:
        trials: number of events.
        most: largest number of events of the rarer sign, at most half of them.
    """
    # In whole numbers, so that no tail is too small: the binomial coefficient of k events is made from that of k - 1.
    coefficient = tail = 1
    num_sequences = 2**trials
    p_values = [min(1.0, 2 * tail / num_sequences)]
    for k in range(1, most + 1):
        coefficient = coefficient * (trials - k + 1) // k
        tail += coefficient
        p_values.append(min(1.0, 2 * tail / num_sequences))
    return p_values


@dataclass(frozen=True)
class PairwiseTests:
    """Exact McNemar tests of all pairs of rows, in the order of `itertools.combinations`.

    Attributes:
        first, second: int64 [P], row index of each side, first below second.
        wins, losses: int64 [P], number of tasks that only the first and only the second row solves.
        p: float64 [P], two-sided p value.
    """

    first: np.ndarray
    second: np.ndarray
    wins: np.ndarray
    losses: np.ndarray
    p: np.ndarray


def mcnemar_all_pairs(solved: np.ndarray) -> PairwiseTests:
    """`mcnemar` of all pairs of R rows at once, with the same p values.

    A p value depends on two counts only, and all those of one number of discordant tasks come from one sum of binomial
    coefficients, so thousands of rows take no more sums than there are tasks.

    Args:
        solved: bool [R, N], whether each row solves each task.

    Raises:
        ValueError: There are no tasks.
    """
    if solved.ndim != 2 or not solved.shape[1]:
        raise ValueError(f"mcnemar: outcomes of shape {solved.shape}; expected rows of the same tasks, at least one")
    first, second = np.triu_indices(len(solved), 1)
    # Exact in float64, which BLAS multiplies.
    outcomes = solved.astype(np.float64)
    both = (outcomes @ outcomes.T)[first, second].astype(np.int64)
    totals = solved.sum(1, dtype=np.int64)
    wins, losses = totals[first] - both, totals[second] - both
    counts, pair_of = np.unique((wins + losses) * (solved.shape[1] + 1) + np.minimum(wins, losses), return_inverse=True)
    trials, rarer = np.divmod(counts, solved.shape[1] + 1)
    starts = np.flatnonzero(np.diff(trials, prepend=-1))
    p_values = [
        np.array(sign_test_p_values(int(part_trials[0]), int(part_rarer[-1])))[part_rarer]
        for part_trials, part_rarer in zip(np.split(trials, starts[1:]), np.split(rarer, starts[1:]), strict=True)
        if len(part_trials)
    ]
    p = np.concatenate(p_values)[pair_of] if p_values else np.ones(0)
    return PairwiseTests(first, second, wins, losses, p)


def holm_rejects(p: np.ndarray, alpha: float = ALPHA) -> np.ndarray:
    """Whether Holm's step-down procedure rejects each hypothesis (Holm 1979): its adjusted p value is at most alpha.

    Args:
        p: float64 [P], p values of all hypotheses.
        alpha: family-wise level.

    Returns:
        bool [P].
    """
    order = np.argsort(p, kind="stable")
    exceeds = np.arange(len(p), 0, -1) * p[order] > alpha
    rejects = np.zeros(len(p), bool)
    rejects[order[: int(exceeds.argmax()) if exceeds.any() else len(p)]] = True
    return rejects


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
    return _McNemarPower(n, rate, alpha).at(difference)


class _McNemarPower:
    """Power of the test as a function of the difference: what does not depend on it is computed once.

    Args:
        n, rate, alpha: see `mcnemar_power`.
    """

    def __init__(self, n: int, rate: float, alpha: float) -> None:
        from scipy import special

        self.rate = rate
        half_range = 6 * np.sqrt(n * rate * (1 - rate)) + 6
        self.discordant = np.arange(max(0, int(n * rate - half_range)), min(n, int(n * rate + half_range)) + 1)
        # Difference of the tails: each is accurate, and the range covers all but 1e-9 of the probability.
        self.probability = special.bdtr(self.discordant, n, rate) - np.where(
            self.discordant > 0, special.bdtr(np.maximum(self.discordant - 1, 0), n, rate), 0.0
        )
        self.critical = self._critical_counts(alpha)

    def _critical_counts(self, alpha: float) -> np.ndarray:
        """int64, the smallest number of events of one sign whose upper tail at 1/2 is at most alpha / 2; bisected."""
        low, high = np.zeros_like(self.discordant), self.discordant + 1
        while (low < high).any():
            middle = (low + high) // 2
            is_rejected = _upper_tail(middle, self.discordant, 0.5) <= alpha / 2
            low, high = np.where(is_rejected, low, np.minimum(middle + 1, high)), np.where(is_rejected, middle, high)
        return low

    def at(self, difference: float) -> float:
        """The power at a difference of the two solve rates."""
        rejects = _upper_tail(self.critical, self.discordant, (1 + difference / self.rate) / 2)
        return float(self.probability @ rejects)


def _upper_tail(count: np.ndarray, trials: np.ndarray, probability: float) -> np.ndarray:
    """Probability of at least `count` of `trials` events; count 0 to trials + 1."""
    from scipy import special

    tail = special.bdtrc(np.maximum(count - 1, 0), trials, probability)
    return np.where(count <= 0, 1.0, np.where(count > trials, 0.0, tail))


def min_detectable_difference(n: int, rate: float, alpha: float = ALPHA, target_power: float = POWER) -> float | None:
    """Smallest difference of solve rates detectable on n tasks with the target power; None if none is.

    Args:
        n: number of tasks.
        rate: observed share of discordant tasks.
        alpha, target_power: significance level and power of the test.
    """
    if rate <= 0:
        return None
    power = _McNemarPower(n, rate, alpha)
    if power.at(rate) < target_power:
        return None
    low, high = 0.0, rate
    while high - low > DIFFERENCE_TOLERANCE:
        middle = (low + high) / 2
        low, high = (low, middle) if power.at(middle) >= target_power else (middle, high)
    return high


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
    from scipy import special

    standard_error = (estimate.high - estimate.low) / 2 / normal_quantile(0.975)
    return float(2 * special.ndtr(-abs(estimate.value) / standard_error)) if standard_error > 0 else 1.0
