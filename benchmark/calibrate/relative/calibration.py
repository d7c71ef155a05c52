"""Known answers of `relative`: `karel-bench calibrate relative`.

Pseudo-models on the blind programs with control flow of a suite, measured by the code that measures a model.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmark.calibrate.draws import suite_of_draw
from benchmark.calibrate.relative.command import RelativeCalibrateOptions
from benchmark.calibrate.relative.kinds import ControlKinds
from benchmark.calibrate.rotation_calibration import select_pseudo_models
from benchmark.calibrate.rotation_draw import is_right
from benchmark.command import make_folder
from benchmark.environment import describe_environment
from benchmark.probing.version4.rotation_evidence import RotationEvidence
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD, RotationProtocol
from benchmark.relative.measure import RelativeResult, RelativeSuite
from benchmark.runner.store import write_atomic
from benchmark.statistics import Estimate, format_outcomes
from benchmark.tasks.suite import load_suite

RECORD_FILE = "calibration_relative.json"
NUM_RANDOM_NETWORKS, HIDDEN = 2, 64
Cell = dict[str, Any]


def calibration_protocol(prompts: int, folds: int) -> RotationProtocol:
    """The settings of protocol 4 with fewer prompts and seeds, and smaller probes: the token history has 2,000 columns."""
    return replace(
        ROTATION_STANDARD, prompts=prompts, folds=folds, seeds=tuple(range(folds)), random_inits=NUM_RANDOM_NETWORKS,
        hidden=HIDDEN,
    )  # fmt: skip


def random_networks(kinds: ControlKinds) -> RotationEvidence:
    """Evidence of random networks as controls, other than that of the pseudo-model of this name."""
    networks = [[kinds.random_network(number + 1)] for number in range(NUM_RANDOM_NETWORKS)]
    return kinds.suite.probe(networks)


def measure_cell(kinds: ControlKinds, name: str, networks: RotationEvidence) -> Cell:
    """Measure one pseudo-model."""
    began = time.process_time()
    result = kinds.suite.measure([kinds.states(name)], networks)
    kind = kinds.kinds()[name][0]
    cell = to_cell(name, kind, kinds.seed, result)
    return cell | {"seconds": round(time.process_time() - began, 1)}


def to_cell(name: str, kind: str, seed: int, result: RelativeResult) -> Cell:
    """The JSON record of one measured pseudo-model."""
    rotation = result.rotation

    def bounds(estimate: Estimate | None) -> list[float] | None:
        return None if estimate is None else [estimate.value, estimate.low, estimate.high]

    return {
        "pseudo-model": name, "kind": kind, "seed": seed, "found": rotation.verdict, "reason": rotation.reason,
        "right": is_right(kind, rotation.verdict), "unseen_rows": rotation.unseen_rows,
        "skill": rotation.skill.value, "gap": rotation.gap.value, "controls": rotation.control_gaps,
        "delta": bounds(rotation.delta), "pose_delta": bounds(rotation.pose_delta),
        "arithmetic": bounds(rotation.arithmetic), "surplus": rotation.surplus,
        "displacement": {
            figure.feature: {
                "skill": figure.skill.value, "gap": figure.gap, "controls": figure.control_gaps,
                "delta": bounds(figure.delta), "p_holm": figure.p_holm,
            }
            for figure in result.displacement
        },
    }  # fmt: skip


def format_table(cells: Sequence[Cell]) -> str:
    """One row per pseudo-model, means over draws."""

    def mean(values: Sequence[list[float] | None]) -> str:
        known = [value for value in values if value is not None]
        return "{:+.3f} [{:+.3f}, {:+.3f}]".format(*np.mean(known, 0)) if known else "none"

    rows = []
    for name in dict.fromkeys(cell["pseudo-model"] for cell in cells):
        of_model = [cell for cell in cells if cell["pseudo-model"] == name]
        row = {
            "pseudo-model": name,
            "kind": of_model[0]["kind"],
            "outcome": format_outcomes(cell["found"] for cell in of_model),
            "right": f"{sum(cell['right'] for cell in of_model)}/{len(of_model)}",
            "skill": f"{np.mean([cell['skill'] for cell in of_model]):.3f}",
            "record gap": "{:+.3f}".format(
                np.mean([max(v for n, v in c["controls"].items() if n.startswith("record")) for c in of_model])
            ),
            **{
                figure.replace("_", " "): mean([cell[figure] for cell in of_model])
                for figure in ("delta", "pose_delta", "arithmetic")
            },
            **{
                f"{feature}: delta": mean([cell["displacement"][feature]["delta"] for cell in of_model])
                for feature in of_model[0]["displacement"]
            },
        }
        rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def run(options: RelativeCalibrateOptions) -> int:
    """Measure, write the record and print the table; returns the exit code."""
    make_folder(options.output_dir, "--output-dir")
    suite, protocol = load_suite(options.suite), calibration_protocol(options.prompts, options.folds)
    settings = {name: getattr(options, name) for name in ("suite", "draws", "prompts", "folds", "samples")}
    path = options.output_dir / RECORD_FILE
    cells: list[Cell] = []
    for seed in range(options.draws):
        kinds = ControlKinds(RelativeSuite(suite_of_draw(suite, seed), protocol, options.samples), seed)
        networks = random_networks(kinds)
        for name in select_pseudo_models(options.only, list(kinds.kinds())):
            cells.append(measure_cell(kinds, name, networks))
            message = f"draw {seed}: {name}: {cells[-1]['found']} ({cells[-1]['seconds']:.0f} s)"
            print(message, file=sys.stderr, flush=True)
            shared = {"environment": describe_environment(), "derivability": kinds.suite.derivability}
            record = {**settings, **shared, "cells": cells}
            write_atomic(path, (json.dumps(record, indent=1, default=float) + "\n").encode())
    print(format_table(cells))
    print(f"\nwrong: {sum(not cell['right'] for cell in cells)} of {len(cells)}. Record: {path}")
    return 0
