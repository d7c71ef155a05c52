"""Coverage of the intervals of protocol 4: over the draws of a calibration, and with tied controls in a simulation.

A 95% interval should hold the true value in 95% of draws. The true value of a pseudo-model is not known exactly; the mean
over its draws stands for it, and deviations from that mean are scaled by sqrt(n / (n - 1)), since each draw is part of it.

Letters: `U` groups of prompts, `W` resamples, `Q` probe seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmark.calibrate.trained.rotation_network import TRAINED_KINDS
from benchmark.probing.version4.rotation_interval import GapSample, estimate_gap, subtract_controls
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.statistics import bootstrap_weights

JUDGED_FIGURES = ("delta", "pose_delta", "arithmetic")
"""Figures of a cell whose lower ends decide REPRESENTS."""
NETWORK_PER_DRAW = ("random-init", "random-init, similar markers", "planted layer", *TRAINED_KINDS)
"""Pseudo-models whose network has other weights in each draw, so that their draws vary by more than an interval states."""
MIN_DRAWS = 5
"""Fewest draws of a pseudo-model whose coverage is counted."""
LEVEL = 0.95
TIED_GAP, MODEL_GAP = 0.10, 0.30
PROMPT_SPREAD, SEED_SPREAD, SHARED = 0.5, 0.01, 0.5
"""Standard deviations of a gap between prompts and between probe seeds in the simulation; share of the variance between
prompts that all sources have in common."""


def coverage_by_pseudo_model(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many of the 95% intervals hold the mean over draws, per pseudo-model and judged figure.

    Intervals of width zero, as those of noise, are left out: there is nothing to cover.

    Args:
        cells: finished cells, several draws per pseudo-model.

    Returns:
        one entry per pseudo-model of at least `MIN_DRAWS` draws: `pseudo-model`, `network_per_draw`, and per judged
        figure `[covered, draws]`.
    """
    entries = []
    for name in dict.fromkeys(cell["pseudo-model"] for cell in cells):
        own = [cell for cell in cells if cell["pseudo-model"] == name]
        if len(own) < MIN_DRAWS:
            continue
        counts = {}
        for figure in JUDGED_FIGURES:
            value, low, high = np.array([cell[figure] for cell in own], dtype=float).T
            deviation = (value - value.mean()) * np.sqrt(len(own) / (len(own) - 1))
            has_width = high > low
            covered = (deviation <= value - low) & (-deviation <= high - value)
            counts[figure] = [int(covered[has_width].sum()), int(has_width.sum())]
        entries.append({"pseudo-model": name, "network_per_draw": name in NETWORK_PER_DRAW, **counts})
    return entries


def pooled_coverage(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Coverage over all pseudo-models that stay the same from draw to draw.

    Returns:
        `intervals`, `covered` and `share` per judged figure; and `fewest`, the least share of a single pseudo-model
        over all judged figures, with its name. Empty if there are no intervals.
    """
    fixed = [entry for entry in entries if not entry["network_per_draw"]]
    pooled: dict[str, Any] = {}
    for figure in JUDGED_FIGURES:
        covered, intervals = (sum(entry[figure][part] for entry in fixed) for part in (0, 1))
        if intervals:
            pooled[figure] = {"intervals": intervals, "covered": covered, "share": covered / intervals}
    shares = [
        (entry[figure][0] / entry[figure][1], entry["pseudo-model"], figure)
        for entry in fixed
        for figure in JUDGED_FIGURES
        if entry[figure][1]
    ]
    if shares:
        share, name, figure = min(shares)
        pooled["fewest"] = {"share": share, "pseudo-model": name, "figure": figure}
    return pooled


def simulate_tied_controls(num_controls: int, cases: int, seed: int = 0) -> dict[str, float]:
    """Coverage of the 95% interval of delta in simulated cases where several controls have equal true gaps.

    Delta subtracts the largest control. Among equal ones that is the one with the largest error, so that delta is biased
    downwards: the upper end falls below the truth more often than in 2.5% of cases, the lower end, which decides
    REPRESENTS, is above it less often.

    Args:
        num_controls: number of controls with the same true gap.
        cases: number of simulated measurements.
        seed: seed of the simulation.

    Returns:
        shares of cases: `covered`; `low_above`, the lower end is above the truth; `high_below`, the upper end is below it.
    """
    protocol = ROTATION_STANDARD
    random = np.random.default_rng([80_101, num_controls, seed])
    groups, seeds = protocol.folds * 70, len(protocol.seeds)
    weights = bootstrap_weights(groups, 400, seed)
    low_above = high_below = 0
    truth = MODEL_GAP - TIED_GAP
    for _ in range(cases):
        common = random.normal(size=groups) * np.sqrt(SHARED)
        samples = [
            simulated_gap(random, gap, common, weights, seeds)
            for gap in (MODEL_GAP, *[TIED_GAP] * num_controls)
        ]  # fmt: skip
        controls = {f"control {i}": sample for i, sample in enumerate(samples[1:])}
        delta, _ = subtract_controls(samples[0], controls)
        estimate = estimate_gap(delta, groups, LEVEL)
        low_above += estimate.low > truth
        high_below += estimate.high < truth
    shares = {"low_above": low_above / cases, "high_below": high_below / cases}
    return {"covered": 1 - sum(shares.values()), **shares}


def simulated_gap(
    random: np.random.Generator, truth: float, common: np.ndarray, weights: np.ndarray, seeds: int
) -> GapSample:
    """A gap over `U` groups, of which each of `Q` seeds tests a fold; `common` is what all sources share."""
    own = random.normal(size=len(common)) * np.sqrt(1 - SHARED)
    fold = np.arange(len(common)) % seeds
    by_group = truth + PROMPT_SPREAD * (common + own) + SEED_SPREAD * random.normal(size=seeds)[fold]
    by_seed = np.array([by_group[fold == number].mean() for number in range(seeds)])
    return GapSample(float(by_group.mean()), weights @ by_group / weights.sum(1), by_seed)
