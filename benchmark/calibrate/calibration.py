"""Calibration against known outcomes: `python -m benchmark.calibrate [--seeds N]`.

Builds the pseudo-models of `pseudo_models` and the trained pair, probes each with the code that probes a model, and
prints expected and measured outcomes. Each seed draws different programs, pseudo-models and controls. Finished seeds are
stored in the output folder and not recomputed.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from tabulate import tabulate

from benchmark.calibrate import trained_pair
from benchmark.calibrate.command import NUM_SWEEP_ALTERNATIVES, CalibrateOptions
from benchmark.calibrate.draws import suite_of_draw
from benchmark.calibrate.pseudo_models import (
    DEGRADED_SHARES,
    FUTURE_OFFSET,
    NUM_LAYERS,
    PLANTED_LAYER,
    PseudoModelInputs,
)
from benchmark.command import make_folder
from benchmark.environment import describe_environment, source_digest
from benchmark.probing.control_gap import RECORD_ONLY, REPRESENTS, PriorBaseline, overall_skill
from benchmark.probing.labels import build_probe_set, list_semantics
from benchmark.probing.protocol import STANDARD, Protocol
from benchmark.probing.state_source import (
    ProbedSource,
    Views,
    fit_view,
    probe_source,
    validation_gaps,
)
from benchmark.probing.token_history import token_history_states
from benchmark.probing.verdict import verdict_from_evidence
from benchmark.runner.plain_progress import PlainProgress
from benchmark.runner.store import dump_with_digest, load_with_digest, write_atomic
from benchmark.tasks.probe_sets import first_inputs
from benchmark.tasks.suite import Suite, blind_tasks, load_suite
from karel_env.features import FEATURES, PRIMARY

NO_SKILL, NEGATIVE_GAP, FALLING_DELTA = "skill 0", "negative gap", "falls"
EXPECTED_PEAK, EXPECTED_LAYER = f"peak at {FUTURE_OFFSET:+d}", f"layer {PLANTED_LAYER}"
EXPECTED_OUTCOMES = {
    "noise": NO_SKILL,
    "recorder": RECORD_ONLY,
    "recorder + outputs": RECORD_ONLY,
    "random-init": RECORD_ONLY,
    "oracle": REPRESENTS,
    "oracle + recorder": REPRESENTS,
}
"""Expected outcomes; the oracle of an alternative must have a negative gap, degraded oracles a falling delta."""
MAX_NOISE_SKILL = 0.02
"""Stride between the seed of a suite and the seeds of its calibrations."""
CONTROL_SEED_OFFSET = 500
OFFSETS = (0, -2, -1, 1, 2)
SEEDS_PER_PAIR = 5
"""Number of calibration seeds that share one trained pair."""
Cell = dict[str, Any]


def calibrate(
    suite: Suite, protocol: Protocol, seed: int, on_cell: Callable[[Cell], None] = lambda cell: None
) -> list[Cell]:
    """Calibrate with the programs, states and controls of one seed; returns one cell per pseudo-model.

    Args:
        suite: suite that gives worlds and program lengths; its seed is replaced.
        protocol: probing protocol.
        seed: seed of all draws.
        on_cell: callback for each finished cell.
    """
    drawn_suite = suite_of_draw(suite, seed)
    calibration = _CalibrationRun(drawn_suite, protocol, seed)
    cells: list[Cell] = []

    def add(name: str, measure: Callable[[], Cell]) -> None:
        started = time.perf_counter()
        cells.append({"pseudo-model": name, "seed": seed, **measure(), "seconds": time.perf_counter() - started})
        on_cell(cells[-1])

    controls = calibration.controls()
    for name, states in calibration.content.pseudo_models().items():
        add(name, lambda n=name, s=states: calibration.measure_cell(n, [[s]], controls))  # type: ignore[misc]
    add("future oracle", lambda: calibration.sweep_offsets(calibration.content.future_oracle()))
    add("planted layer", lambda: calibration.sweep_layers(calibration.content.planted_layers()))
    pair = cached_trained_pair(suite, seed // SEEDS_PER_PAIR)
    controls["random-init"] = calibration.read_source(
        [calibration.pools(pair.random_init(CONTROL_SEED_OFFSET + 10 * seed + i)) for i in range(protocol.random_inits)]
    )
    add(
        "trained to track",
        lambda: calibration.measure_cell("trained to track", [calibration.pools(pair.tracker)], controls),
    )
    add(
        "trained to copy",
        lambda: calibration.measure_cell("trained to copy", [calibration.pools(pair.copier)], controls),
    )
    return check_falling_delta(cells)


@lru_cache(maxsize=1)
def cached_trained_pair(suite: Suite, seed: int) -> trained_pair.TrainedPair:
    """Trained pair of a seed (cached), trained on tasks that no calibration uses."""
    return trained_pair.train_pair(suite, seed)


class _CalibrationRun:
    """The probe set of one calibration seed and the measurements on it."""

    def __init__(self, suite: Suite, protocol: Protocol, seed: int) -> None:
        tasks = blind_tasks(suite)
        self.protocol, self.seed = protocol, seed
        inputs = first_inputs(tasks)
        semantics = list_semantics(protocol)
        probe_set = build_probe_set(tasks.programs, inputs, semantics, protocol, OFFSETS, suite.probe_programs)
        self.content = PseudoModelInputs(tasks.programs, inputs, probe_set, seed)
        self.probe_set = probe_set.at_offset(0)
        self.tested = PriorBaseline.from_probe_set(self.probe_set, protocol)

    def read_source(self, random_inits: Sequence[Views]) -> ProbedSource:
        """Probe one source of states."""
        return probe_source(self.probe_set, self.tested, random_inits, self.protocol)

    def pools(self, model: trained_pair.Network) -> list[np.ndarray]:
        """Pooled states of a transformer of the trained pair, one array [R, D] per pool."""
        content = self.content
        return list(
            np.moveaxis(trained_pair.pooled_states(model, content.programs, content.inputs, self.probe_set), 1, 0)
        )

    def controls(self) -> dict[str, ProbedSource]:
        """Controls of the pseudo-models, from seeds that no measured pseudo-model uses."""
        content, first = self.content, CONTROL_SEED_OFFSET + 10 * self.seed
        recorder = token_history_states(content.programs, content.inputs, self.probe_set)
        return {
            "random-init": self.read_source(
                [[content.random_init(first + i)] for i in range(self.protocol.random_inits)]
            ),
            "recorder": self.read_source([[recorder]]),
        }

    def measure_cell(self, name: str, random_inits: Sequence[Views], controls: dict[str, ProbedSource]) -> Cell:
        """Measure verdict, skill and delta of the primary feature of one pseudo-model."""
        sources = {"model": self.read_source(random_inits), **controls}
        evidence = {name: source.evidence for name, source in sources.items()}
        views = [f"view {i}" for i in range(len(random_inits[0]))]
        result = verdict_from_evidence(self.probe_set, self.tested, evidence, self.protocol, views)
        primary = result.features[PRIMARY]
        skill = overall_skill(evidence["model"], self.tested)
        expected, is_right = self._expected(name, result.verdict, skill)
        return {
            "expected": expected,
            "found": result.verdict,
            "right": is_right,
            "skill": primary.skill.value,
            "delta": [primary.delta.value, primary.delta.low, primary.delta.high],
            "widest": max((r.delta90.high - r.delta90.low) / 2 for r in result.features.values() if not r.degenerate),
        }

    def _expected(self, name: str, verdict: str, skill: np.ndarray) -> tuple[str, bool]:
        """Expected outcome of a pseudo-model and whether it was measured; `skill` is float [S, F]."""
        trained = {"trained to track": REPRESENTS, "trained to copy": RECORD_ONLY}
        alternative = name.removeprefix("oracle of ")
        expected = (EXPECTED_OUTCOMES | trained).get(name, NEGATIVE_GAP if alternative != name else FALLING_DELTA)
        if expected == NO_SKILL:
            return expected, bool(np.abs(skill).max() < MAX_NOISE_SKILL) and verdict != REPRESENTS
        if expected == NEGATIVE_GAP:
            f, k = FEATURES.index(PRIMARY), self.probe_set.semantics.index(alternative)
            return expected, bool(skill[0, f] < skill[k, f]) and verdict != REPRESENTS
        return expected, verdict == expected

    def sweep_offsets(self, states: np.ndarray) -> Cell:
        """Find the offset with the largest gap on test programs."""
        gaps = {}
        for offset in OFFSETS:
            reduced_set = self._reduced_set(offset)
            tested = PriorBaseline.from_probe_set(reduced_set, self._sweep_protocol)
            source = probe_source(reduced_set, tested, [[states]], self._sweep_protocol)
            skill = overall_skill(source.evidence, tested)
            gaps[offset] = skill[0, FEATURES.index(PRIMARY)] - skill[1:, FEATURES.index(PRIMARY)].mean()
        peak = max(gaps, key=lambda offset: gaps[offset])
        outcome = f"peak at {peak:+d}"
        return {"expected": EXPECTED_PEAK, "found": outcome, "right": outcome == EXPECTED_PEAK, "gaps": gaps}

    def sweep_layers(self, layers: Sequence[np.ndarray]) -> Cell:
        """Find the layer with the largest gap on validation programs."""
        reduced_set = self._reduced_set(0)
        fits = [fit_view(reduced_set, [layer], self._sweep_protocol, [self.protocol.hidden]) for layer in layers]
        tested = PriorBaseline.from_probe_set(reduced_set, self._sweep_protocol)
        gaps = validation_gaps(fits, tested, FEATURES.index(PRIMARY), range(1, 1 + NUM_SWEEP_ALTERNATIVES)).tolist()
        outcome = f"layer {int(np.argmax(gaps))}"
        assert len(gaps) == NUM_LAYERS
        return {"expected": EXPECTED_LAYER, "found": outcome, "right": outcome == EXPECTED_LAYER, "gaps": gaps}

    @property
    def _sweep_protocol(self) -> Protocol:
        return replace(self.protocol, copies=1)

    def _reduced_set(self, offset: int) -> Any:
        """Probe set at an offset with the original and the first `NUM_SWEEP_ALTERNATIVES` alternatives."""
        full_set = self.content.probe_set.at_offset(offset)
        return replace(
            full_set,
            classes_by_offset=full_set.classes_by_offset[:, : 1 + NUM_SWEEP_ALTERNATIVES],
            semantics=full_set.semantics[: 1 + NUM_SWEEP_ALTERNATIVES],
        )


def check_falling_delta(cells: list[Cell]) -> list[Cell]:
    """Mark degraded oracles as right if delta falls from each to the next, starting at the intact oracle."""
    names = ["oracle", *(f"oracle degraded {share:.0%}" for share in DEGRADED_SHARES)]
    by_name = {cell["pseudo-model"]: cell for cell in cells}
    for before, after in pairwise(names):
        by_name[after]["right"] = by_name[after]["delta"][0] < by_name[before]["delta"][0]
    return cells


def format_table(cells: Sequence[Cell]) -> str:
    """Format one row per pseudo-model: over seeds, counts of each outcome and of expected outcomes."""
    rows = []
    for name in dict.fromkeys(cell["pseudo-model"] for cell in cells):
        model_cells = [cell for cell in cells if cell["pseudo-model"] == name]
        outcomes = [cell["found"] for cell in model_cells]
        row = {
            "pseudo-model": name,
            "expected": model_cells[0]["expected"],
            "found": ", ".join(f"{verdict} {outcomes.count(verdict)}" for verdict in dict.fromkeys(sorted(outcomes))),
            "right": f"{sum(cell['right'] for cell in model_cells)}/{len(model_cells)}",
        }
        if "delta" in model_cells[0]:
            value, low, high = np.mean([cell["delta"] for cell in model_cells], 0)
            row |= {
                "skill": f"{np.mean([cell['skill'] for cell in model_cells]):+.3f}",
                "delta": f"{value:+.3f} [{low:+.3f}, {high:+.3f}]",
                "widest 90%": f"+-{np.mean([cell['widest'] for cell in model_cells]):.3f}",
            }
        rows.append(row | {"seconds": f"{np.mean([cell['seconds'] for cell in model_cells]):.0f}"})
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True, missingval="")


def count_false_represents(cells: Sequence[Cell]) -> tuple[int, int]:
    """Count false REPRESENTS verdicts, and the cells in which REPRESENTS would be false."""
    negative_cells = [cell for cell in cells if "delta" in cell and cell["expected"] not in (REPRESENTS, FALLING_DELTA)]
    return sum(cell["found"] == REPRESENTS for cell in negative_cells), len(negative_cells)


def _cells_path(folder: Path, suite: Suite, protocol: Protocol, seed: int) -> Path:
    settings = [suite.name, suite.version, suite.seed, suite.probe_programs, protocol.digest(), source_digest()]
    return folder / f"seed-{seed:03d}-{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]}.json"


def _read_cells(path: Path) -> list[Cell] | None:
    """Read the stored cells of a seed; None if missing or corrupt."""
    try:
        cells: list[Cell] = load_with_digest(path.read_bytes())["cells"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError):
        print(f"{path}: corrupt (digest mismatch), recomputing", file=sys.stderr)
        return None
    return cells


def calibrate_seeds(options: CalibrateOptions) -> list[Cell]:
    """Compute or read the cells of all requested seeds."""
    suite = load_suite(options.suite)
    suite = replace(suite, probe_programs=options.programs or suite.probe_programs)
    protocol = replace(STANDARD, alternatives=options.alternatives)
    make_folder(options.output_dir, "--output-dir")
    cells: list[Cell] = []
    progress = PlainProgress(Console(stderr=True, highlight=False))
    progress.write(f"calibrating on suite {suite.name}, {options.seeds} seeds; cells in {options.output_dir}")
    with progress.displayed():
        for seed in range(options.seeds):
            cells += _calibrate_seed(
                _cells_path(options.output_dir, suite, protocol, seed), suite, protocol, seed, progress
            )
    return cells


def _calibrate_seed(path: Path, suite: Suite, protocol: Protocol, seed: int, progress: PlainProgress) -> list[Cell]:
    """Compute or read the cells of one seed."""
    stored = _read_cells(path)
    if stored is not None:
        return stored
    progress.start(f"calibrating: seed {seed}, pseudo-models")

    def on_cell(cell: Cell) -> None:
        progress.write(f"seed {cell['seed']}: {cell['pseudo-model']}: {cell['found']} ({cell['seconds']:.0f} s)")
        progress.advance(1)

    cells: list[Cell] = json.loads(json.dumps(calibrate(suite, protocol, seed, on_cell)))
    write_atomic(path, dump_with_digest({"cells": cells}))
    return cells


def run(options: CalibrateOptions) -> int:
    """Calibrate, write the record and print the table; returns the exit code."""
    cells = calibrate_seeds(options)
    num_false, num_negatives = count_false_represents(cells)
    record = {
        "suite": options.suite, "seeds": options.seeds, "alternatives": options.alternatives,
        "false_represents": [num_false, num_negatives], "environment": describe_environment(), "cells": cells,
    }  # fmt: skip
    write_atomic(options.output_dir / "calibration.json", (json.dumps(record, indent=1) + "\n").encode())
    print(format_table(cells))
    print(f"\nfalse REPRESENTS: {num_false} of {num_negatives}. Record: {options.output_dir / 'calibration.json'}")
    return 0
