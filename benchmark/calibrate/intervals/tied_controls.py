"""Intervals of delta with several controls of equal or nearly equal gaps: that of protocol 4, and others.

Delta subtracts the largest control gap. The largest of several noisy gaps is too large on average, so that the interval of
protocol 4 is too low where controls are tied: its upper end falls below the truth too often, its lower end, which decides
REPRESENTS, is above it less often than in 2.5% of cases. The others are an analysis; the rule is frozen.

Run as a module, it prints the tables of docs/protocol4.md.

Letters: `U` groups of prompts, `W` resamples, `C` controls.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tabulate import tabulate

from benchmark.calibrate.rotation_coverage import (
    LEVEL,
    MODEL_GAP,
    PROMPT_SPREAD,
    SEED_SPREAD,
    SHARED,
    TIED_GAP,
    simulated_gap,
)
from benchmark.probing.version4.rotation_interval import GapSample, estimate_gap, subtract_controls
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.statistics import bootstrap_weights, normal_quantile

NUM_RESAMPLES, CASES = 400, 2000
NUM_CONTROLS = (1, 2, 3, 4)
SPACINGS = (0.0, 0.5, 1.0, 2.0)
"""Distances of the other controls below the largest, in standard errors of the difference of two gaps."""
SUBSAMPLE = 2 / 3
"""Power of the number of groups that a resample of the m-out-of-n bootstrap has."""


@dataclass(frozen=True)
class Case:
    """One simulated measurement.

    Attributes:
        model: gap of the model.
        controls: gap of each control.
        groups: U.
    """

    model: GapSample
    controls: tuple[GapSample, ...]
    groups: int

    @property
    def difference(self) -> GapSample:
        """Delta of protocol 4."""
        return subtract_controls(
            self.model, dict(zip(map(str, range(len(self.controls))), self.controls, strict=True))
        )[0]

    def beyond(self, c: int) -> GapSample:
        """Gap of the model minus that of one control."""
        model, control = self.model, self.controls[c]
        return GapSample(
            model.value - control.value, model.resampled - control.resampled, model.by_seed - control.by_seed
        )

    @property
    def resampled_controls(self) -> np.ndarray:
        """float64 [C, W]."""
        return np.stack([control.resampled for control in self.controls])


Interval = Callable[[Case], tuple[float, float]]


def frozen(case: Case) -> tuple[float, float]:
    """The interval of protocol 4."""
    estimate = estimate_gap(case.difference, case.groups, LEVEL)
    return estimate.low, estimate.high


def bias_corrected(case: Case) -> tuple[float, float]:
    """That of protocol 4, moved up by the bootstrap's estimate of the bias of the largest gap."""
    largest = max(control.value for control in case.controls)
    bias = float(case.resampled_controls.max(0).mean()) - largest
    low, high = frozen(case)
    return low + bias, high + bias


def percentile(case: Case) -> tuple[float, float]:
    """Quantiles of the resampled delta; no variance between seeds."""
    low, high = np.quantile(case.difference.resampled, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return float(low), float(high)


def basic(case: Case) -> tuple[float, float]:
    """Quantiles of the resampled delta, reflected at the value; no variance between seeds."""
    low, high = percentile(case)
    return 2 * case.difference.value - high, 2 * case.difference.value - low


def fewer_groups(case: Case) -> tuple[float, float]:
    """The basic interval from resamples of m = U^(2/3) groups, scaled by sqrt(m / U).

    Resampled gaps of m groups are those of U groups with sqrt(U / m) times the deviation.
    """
    scale = case.groups ** ((1 - SUBSAMPLE) / 2)

    def widened(sample: GapSample) -> np.ndarray:
        return np.asarray(sample.value + scale * (sample.resampled - sample.value))

    resampled = widened(case.model) - np.stack([widened(control) for control in case.controls]).max(0)
    deviation = (resampled - case.difference.value) / scale
    low, high = np.quantile(deviation, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return case.difference.value - float(high), case.difference.value - float(low)


def share_weighted(case: Case) -> tuple[float, float]:
    """Gap minus the mean control gap, weighted by how often a control is the largest in a resample: a smooth maximum."""
    shares = np.bincount(case.resampled_controls.argmax(0), minlength=len(case.controls)) / NUM_RESAMPLES
    parts = [case.beyond(c) for c in range(len(case.controls))]
    weighted = GapSample(
        sum(share * part.value for share, part in zip(shares, parts, strict=True)),
        np.tensordot(shares, np.stack([part.resampled for part in parts]), 1),
        np.tensordot(shares, np.stack([part.by_seed for part in parts]), 1),
    )
    estimate = estimate_gap(weighted, case.groups, LEVEL)
    return estimate.low, estimate.high


def intersection_bounds(case: Case) -> tuple[float, float]:
    """Smallest ends over the controls; the upper ends hold for all controls that may be the largest at the same time.

    Delta is the smallest of the differences to the controls (Chernozhukov, Lee and Rosen 2013). The lower end needs no
    correction: it is wrong only if that of the true smallest difference is. The critical value of the upper end is a
    quantile of the largest standardised deviation over the controls within reach of the smallest difference.
    """
    parts = [case.beyond(c) for c in range(len(case.controls))]
    estimates = [estimate_gap(part, case.groups, LEVEL) for part in parts]
    lows = np.array([estimate.low for estimate in estimates])
    values = np.array([part.value for part in parts])
    errors = (values - lows) / normal_quantile(0.5 + LEVEL / 2)
    reach = np.sqrt(2 * np.log(max(np.e, case.groups)))
    is_near = values - values.min() <= reach * errors
    deviations = np.stack([(part.resampled - part.value) / part.resampled.std(ddof=1) for part in parts])[is_near]
    critical = float(np.quantile(-deviations.min(0), 0.5 + LEVEL / 2))
    return float(lows.min()), float((values + critical * errors)[is_near].min())


INTERVALS: dict[str, Interval] = {
    "protocol 4": frozen,
    "bias-corrected": bias_corrected,
    "percentile": percentile,
    "basic": basic,
    "m out of n": fewer_groups,
    "share-weighted": share_weighted,
    "intersection bounds": intersection_bounds,
}


def simulate(num_controls: int, spacing: float, cases: int = CASES, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Shares of cases whose lower end is above the truth and whose upper end is below it, by interval.

    Args:
        num_controls: C.
        spacing: distance of the other controls below the largest, in standard errors of a difference.
        cases: number of simulated measurements.
        seed: seed of the simulation.
    """
    protocol = ROTATION_STANDARD
    random = np.random.default_rng([80_102, num_controls, round(10 * spacing), seed])
    groups, seeds = protocol.folds * 70, len(protocol.seeds)
    weights = bootstrap_weights(groups, NUM_RESAMPLES, seed)
    error = np.sqrt(2 * (1 - SHARED) * PROMPT_SPREAD**2 / groups + 2 * SEED_SPREAD**2 / seeds)
    gaps = [TIED_GAP, *[TIED_GAP - spacing * error] * (num_controls - 1)]
    truth = MODEL_GAP - TIED_GAP
    outside = {name: np.zeros(2) for name in INTERVALS}
    for _ in range(cases):
        common = random.normal(size=groups) * np.sqrt(SHARED)
        model, *controls = (simulated_gap(random, gap, common, weights, seeds) for gap in (MODEL_GAP, *gaps))
        case = Case(model, tuple(controls), groups)
        for name, interval in INTERVALS.items():
            low, high = interval(case)
            outside[name] += [low > truth, high < truth]
    return {name: (float(counts[0]) / cases, float(counts[1]) / cases) for name, counts in outside.items()}


def format_simulation(
    num_controls: Sequence[int] = NUM_CONTROLS, spacings: Sequence[float] = SPACINGS, cases: int = CASES
) -> str:
    """One row per interval and number of controls: percent covered, and (lower end above, upper end below) the truth."""
    rows = []
    for number in num_controls:
        by_spacing = {
            spacing: simulate(number, spacing, cases) for spacing in (spacings if number > 1 else spacings[:1])
        }
        for name in INTERVALS:
            row: dict[str, object] = {"controls": number, "interval": name}
            for spacing, shares in by_spacing.items():
                low, high = shares[name]
                row[f"{spacing:g} errors apart"] = f"{100 * (1 - low - high):.1f} ({100 * low:.1f}, {100 * high:.1f})"
            rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def main() -> int:
    """Print the table."""
    print(format_simulation())
    return 0


if __name__ == "__main__":
    sys.exit(main())
