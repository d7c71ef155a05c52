"""Intervals and tests. Every function states what it assumes; undefined is `None`, never 0.

scipy is imported by the functions that need it: its `stats` costs a second, its `special` a fifth, and most commands that
read records need neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval.

    Attributes:
        value: the point estimate.
        low, high: the interval, at the level that the producing function states.
        n: how many independent units it rests on.
    """

    value: float
    low: float
    high: float
    n: int


def in_percent(estimate: Estimate) -> str:
    """A share with its interval, in percent."""
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def format_outcomes(outcomes: Iterable[object]) -> str:
    """Each outcome with how often it occurred, such as `INCONCLUSIVE 2, REPRESENTS 8`."""
    values = list(outcomes)
    return ", ".join(f"{value} {values.count(value)}" for value in sorted(set(values), key=str))


def wilson(successes: int, n: int, level: float = 0.95) -> Estimate | None:
    """Wilson score interval of a proportion (Wilson 1927); None for n = 0."""
    if n == 0:
        return None
    from scipy import stats

    interval = stats.binomtest(int(successes), n).proportion_ci(level, method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high), n)


def mean(values: np.ndarray, level: float = 0.95) -> Estimate | None:
    """Mean with a t interval over independent values; None for fewer than two."""
    n = len(values)
    if n < 2:
        return None
    from scipy import stats

    half = float(stats.t.ppf(0.5 + level / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    centre = float(np.mean(values))
    return Estimate(centre, centre - half, centre + half, n)


@lru_cache(maxsize=6)
def bootstrap_weights(units: int, resamples: int, seed: int) -> np.ndarray:
    """float64 [resamples, units], how often each unit is drawn in each resample of the bootstrap; read-only."""
    generator = np.random.Generator(np.random.Philox(seed))
    weights = generator.multinomial(units, np.full(units, 1 / units), size=resamples).astype(np.float64)
    weights.setflags(write=False)
    return weights


def interval_over_units_and_seeds(
    value: float, resampled: np.ndarray, by_seed: np.ndarray, n: int, level: float, same_units: bool = False
) -> Estimate:
    """Interval of a figure that varies with the units drawn and with the seeds of its probes.

    Each seed is tested on units of its own, so the spread between seeds holds both sources; the bootstrap over all
    units tells how much of it is due to the units. The rest is due to the seeds, and takes a t quantile of
    seeds - 1 degrees of freedom, since a handful of seeds resampled undercovers (docs/probing.md). The two
    half-widths add in squares.

    Args:
        value: the point estimate, over all units.
        resampled: float [resamples], the figure in each bootstrap resample of the units.
        by_seed: float [seeds], the figure of each seed on its own units, at least two.
        n: number of units.
        level: of the interval, such as 0.95.
        same_units: every seed has all units, so that the spread between seeds is due to the seeds alone.
    """
    quantile = 0.5 + level / 2
    units = float(np.var(resampled, ddof=1))
    seeds = max(0.0, float(np.var(by_seed, ddof=1)) / len(by_seed) - (0 if same_units else units))
    half = float(
        np.hypot(normal_quantile(quantile) * np.sqrt(units), t_quantile(quantile, len(by_seed) - 1) * np.sqrt(seeds))
    )
    return Estimate(value, value - half, value + half, n)


@lru_cache(maxsize=64)
def normal_quantile(quantile: float) -> float:
    """Quantile of the normal distribution; one report asks for the same ones thousands of times."""
    from scipy import special

    return float(special.ndtri(quantile))


@lru_cache(maxsize=64)
def t_quantile(quantile: float, degrees: float) -> float:
    """Quantile of Student's t distribution."""
    from scipy import special

    return float(special.stdtrit(degrees, quantile))


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Holm's step-down adjustment of p values, by name (Holm 1979)."""
    adjusted, worst = {}, 0.0
    ranked = sorted(p_values.items(), key=lambda item: item[1])
    for rank, (name, p) in enumerate(ranked):
        worst = max(worst, min(1.0, (len(ranked) - rank) * p))
        adjusted[name] = worst
    return adjusted
