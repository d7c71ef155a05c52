"""Known answers of the causal measurement: `karel-bench calibrate causal [--seeds N]`.

Every seed draws other tasks and other directions, and every training starts from other weights. Prints a row per planner:
verdicts, score, and how many are right; then the coverage of the 95% intervals over simulated draws at several true margins.
Writes `causal.json`. Trained networks are stored beside it, and are not trained again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmark.calibrate.causal import CausalCalibrateOptions
from benchmark.calibrate.draws import suite_of_draw
from benchmark.calibrate.planners import (
    ALTERNATIVE,
    DORMANT,
    ERASER,
    LATE,
    NEXT_WORD,
    NOISE,
    PLANNER,
    PUSHER,
    SHARE,
    UNREAD,
    Planner,
    PlannerWorld,
)
from benchmark.calibrate.trained.open_worlds import TRAINED_READER, TRAINED_RECURRENT, TRAINED_UNREAD
from benchmark.causal.measurement import CausalMeasurement, measure_use
from benchmark.causal.pairs import STANDARD_PAIRS, PairSettings
from benchmark.causal.verdict import LOOK_UP, NOT_APPLICABLE, NOT_SHOWN, USES, Rates, score_rates
from benchmark.command import make_folder
from benchmark.statistics import format_outcomes
from benchmark.tasks.suite import Suite, load_suite

SHARES = (0.0, 0.25, 0.5, 1.0)
SHARE_TOLERANCE = 0.1
EXPECTED = {
    PLANNER: (USES, "layer 1"),
    LATE: (USES, "layer 2"),
    UNREAD: (NOT_SHOWN, ""),
    ALTERNATIVE: (NOT_SHOWN, ""),
    NEXT_WORD: (NOT_SHOWN, ""),
    PUSHER: (NOT_SHOWN, ""),
    ERASER: (NOT_SHOWN, ""),
    DORMANT: (NOT_SHOWN, ""),
    NOISE: (NOT_APPLICABLE, ""),
}
TRAINED_EXPECTED = {TRAINED_UNREAD: (NOT_SHOWN, ""), TRAINED_READER: (USES, ""), TRAINED_RECURRENT: (USES, "")}
"""Expected verdict of each kind, and the site of the edit if it matters."""
MIN_COVERAGE, MAX_COVERAGE = 0.93, 0.97
COVERAGE_TASKS = 160
NATURAL_RATE, LOOK_UP_RATE = 0.9, 0.5
TRUE_RATES = (0.8, 0.02, 0.03, 0.05, 0.03, 0.02, 0.02)
"""Rates of the edit and of the controls in simulated draws."""
STEERED_RATES = (0.5, 0.6, 0.7, 0.8, 0.95)
"""Rates of the edit at which the coverage is simulated: true margins of 0, 0.1, 0.2, 0.3 and 0.45."""
Cell = dict[str, Any]


def measure_planners(
    suite: Suite, seed: int, settings: PairSettings = STANDARD_PAIRS, kinds: Sequence[str] | None = None
) -> list[Cell]:
    """Measure one planner of each kind with the tasks and directions of one seed.

    Args:
        suite: gives worlds and lengths; its seed is replaced.
        seed: seed of all draws.
        settings: number of pairs.
        kinds: kinds of planners; None for all.

    Returns:
        A cell per kind: expected and measured verdict, site, score, and whether it is right.
    """
    drawn_suite = suite_of_draw(suite, seed)
    world = PlannerWorld(drawn_suite, settings)
    kinds = [*EXPECTED, *(f"{SHARE} {share:g}" for share in SHARES)] if kinds is None else kinds
    return [_measure(world, kind, seed, settings) for kind in kinds]


def _measure(world: PlannerWorld, kind: str, seed: int, settings: PairSettings) -> Cell:
    return make_cell(kind, seed, measure_use(Planner(world, kind, seed), world.suite, settings=settings))


def make_cell(kind: str, seed: int, measurement: CausalMeasurement) -> Cell:
    """The cell of a measured pseudo-model, see `measure_planners`."""
    use = measurement.use
    site = measurement.sites[use.site] if use.site is not None else ""
    cell: Cell = {
        "planner": kind, "seed": seed, "verdict": use.verdict, "site": site,
        "use": None if use.use is None else [use.use.value, use.use.low, use.use.high],
        "strict": None if use.strict is None else use.strict.steered.value,
        "every": None if use.every is None else use.every.steered.value,
    }  # fmt: skip
    if kind.startswith(SHARE):
        share = float(kind.split()[1])
        is_false_use = use.verdict == USES and share < 1
        is_right = use.use is not None and abs(use.use.value - share) <= SHARE_TOLERANCE and not is_false_use
        return cell | {"expected": f"use {share:g}", "is_right": is_right, "is_false_use": is_false_use and share == 0}
    verdict, expected_site = (EXPECTED | TRAINED_EXPECTED)[kind]
    is_right = use.verdict == verdict and expected_site in ("", site)
    is_false_use = use.verdict == USES and verdict != USES
    return cell | {
        "expected": " ".join([verdict, expected_site]).strip(),
        "is_right": is_right,
        "is_false_use": is_false_use,
    }


def simulate_coverage(
    draws: int, true_rates: Sequence[float] = TRUE_RATES, look_up_rate: float = LOOK_UP_RATE, seed: int = 0
) -> dict[str, float]:
    """Share of simulated draws whose 95% interval covers the true margin, and the true score.

    Tasks differ in how often they succeed, and have different numbers of pairs.

    Args:
        draws: number of draws.
        true_rates: rates of the edit and of the controls that are run on the model.
        look_up_rate: rate of the look-up.
        seed: seed of the simulation.
    """
    random = np.random.default_rng([80_002, seed])
    rates = np.array([*true_rates, look_up_rate])
    names = ("steered", *(f"control {i}" for i in range(len(true_rates) - 1)), LOOK_UP)
    covered = np.zeros(2)
    for _ in range(draws):
        counts = 1.0 + random.poisson(1.2, COVERAGE_TASKS)
        hits = np.stack([_clustered(random, rate, counts) for rate in rates])
        base_counts = 1.0 + random.poisson(4, COVERAGE_TASKS)
        natural = Rates(("natural",), _clustered(random, NATURAL_RATE, base_counts)[None], base_counts[None])
        score = score_rates(Rates(names, hits, np.repeat(counts[None], len(names), 0)), natural, int(counts.sum()))
        truths = rates[0] - rates[1:].max(), (rates[0] - rates[1:-1].max()) / NATURAL_RATE
        for index, (truth, estimate) in enumerate(zip(truths, (score.margin, score.use), strict=True)):
            covered[index] += estimate.low <= truth <= estimate.high
    return {"margin": float(covered[0] / draws), "use": float(covered[1] / draws)}


def coverage_by_margin(draws: int) -> list[dict[str, float]]:
    """Coverage at each of `STEERED_RATES`: the true margin, the true use, and the shares of draws that cover them."""
    rows = []
    for steered in STEERED_RATES:
        rates = (steered, *TRUE_RATES[1:])
        covered = simulate_coverage(draws, rates)
        rows.append({
            "true margin": round(steered - max(*TRUE_RATES[1:], LOOK_UP_RATE), 6),
            "true use": round((steered - max(TRUE_RATES[1:])) / NATURAL_RATE, 6),
            **covered,
        })  # fmt: skip
    return rows


def _clustered(random: np.random.Generator, rate: float, counts: np.ndarray) -> np.ndarray:
    """Hits per task, whose own rate is beta distributed around `rate` (intraclass correlation 0.2)."""
    own = random.beta(4 * rate, 4 * (1 - rate), len(counts))
    return random.binomial(counts.astype(int), own).astype(np.float64)


def format_table(cells: Sequence[Cell]) -> str:
    """One row per kind: verdicts over seeds, mean score, and how many are right."""
    rows = []
    for kind in dict.fromkeys(cell["planner"] for cell in cells):
        own = [cell for cell in cells if cell["planner"] == kind]
        uses = [cell["use"] for cell in own if cell["use"] is not None]
        value, low, high = np.mean(uses, 0) if uses else (np.nan,) * 3
        rows.append({
            "planner": kind,
            "expected": own[0]["expected"],
            "measured": format_outcomes(f"{cell['verdict']} {cell['site']}".strip() for cell in own),
            "right": f"{sum(cell['is_right'] for cell in own)}/{len(own)}",
            "use": f"{value:+.3f} [{low:+.3f}, {high:+.3f}]" if uses else "",
            "steered, strict": f"{np.mean([c['strict'] for c in own]):.3f}" if uses else "",
            "steered, all": f"{np.mean([c['every'] for c in own]):.3f}" if uses else "",
        })  # fmt: skip
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def run(options: CausalCalibrateOptions) -> int:
    """Measure, write the record and print the tables; returns the exit code."""
    make_folder(options.output_dir, "--output-dir")
    suite = load_suite(options.suite)
    cells: list[Cell] = []
    for seed in range(options.seeds):
        cells += measure_planners(suite, seed)
        print(f"seed {seed}: {sum(c['is_right'] for c in cells)} of {len(cells)} right", file=sys.stderr, flush=True)
    if options.trainings:
        # Planners need no torch, which takes 5 s to import.
        from benchmark.calibrate.trained.calibration import measure_trained

        cells += measure_trained(suite, options.trainings, options.output_dir)
    coverage = simulate_coverage(options.draws) if options.draws else {}
    by_margin = coverage_by_margin(options.draws) if options.draws else []
    num_false = sum(cell["is_false_use"] for cell in cells)
    path = options.output_dir / "causal.json"
    record = {
        "suite": suite.name, "seeds": options.seeds, "cells": cells, "coverage": coverage, "coverage_by_margin": by_margin
    }  # fmt: skip
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(format_table(cells))
    shares = ", ".join(f"{name} {share:.1%}" for name, share in coverage.items())
    if by_margin:
        shown = [{name: f"{value:.3f}" for name, value in row.items()} for row in by_margin]
        print(f"\n{tabulate(shown, headers='keys', tablefmt='github', disable_numparse=True)}")
    print(f"\nfalse USES: {num_false}. Coverage of 95% intervals: {shares or 'not simulated'}. Record: {path}")
    return 0
