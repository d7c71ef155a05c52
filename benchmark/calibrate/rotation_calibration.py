"""Known answers of protocol 4: `karel-bench calibrate --protocol 4`.

Each draw has its own programs, pseudo-models and controls. Every finished cell is stored, so that a calibration continues
where it stopped, and a part of the pseudo-models can be measured alone.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save
from tabulate import tabulate

from benchmark.calibrate.draws import suite_of_draw
from benchmark.calibrate.rotation_command import RotationCalibrateOptions
from benchmark.calibrate.rotation_kinds import MIXED_KIND, RECORD_KIND, STATE_KIND, RotationKinds
from benchmark.command import make_folder
from benchmark.environment import describe_environment, source_digest
from benchmark.errors import UsageError
from benchmark.probing.control_gap import RANDOM_INIT, RECORD_ONLY, REPRESENTS
from benchmark.probing.version4.measure_rotation import measure_rotation, prefix_history_states, relative_probe_set
from benchmark.probing.version4.rotation_evidence import RotationEvidence, judge_rows
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD, RotationProtocol
from benchmark.probing.version4.rotation_sources import probe_rotation
from benchmark.probing.version4.rotation_verdict import (
    NOTHING_READ,
    TOKEN_HISTORY,
    RotationResult,
    decide_rotation,
    verdict_from_rotation_evidence,
)
from benchmark.probing.version4.suite_controls import write_suite_controls
from benchmark.runner.store import dump_with_digest, load_with_digest, write_atomic
from benchmark.statistics import Estimate
from benchmark.tasks.shared_prompts import shared_prompts
from benchmark.tasks.suite import Suite, load_suite

CONTROL_SEED_OFFSET = 500
FORBIDDEN = {RECORD_KIND: REPRESENTS, MIXED_KIND: RECORD_ONLY}
"""The verdict that a pseudo-model of each kind must not get; kind R must get REPRESENTS."""
RECORD_FILE = "calibration_protocol4.json"
Cell = dict[str, Any]


@dataclass(frozen=True)
class RotationDraw:
    """One draw of programs, pseudo-models and controls.

    Attributes:
        suite: suite with the seed of the draw.
        protocol: settings of the probes.
        seed: index of the draw.
        prompts: number of prompts, each with several programs.
        controls_file: where the evidence of the controls is stored, since every pseudo-model shares it.
    """

    suite: Suite
    protocol: RotationProtocol
    seed: int
    prompts: int
    controls_file: Path

    @cached_property
    def _blind(self) -> Any:
        return shared_prompts(suite_of_draw(self.suite, self.seed)).take_prompts(self.prompts)

    @cached_property
    def builder(self) -> RotationKinds:
        """The pseudo-models of this draw."""
        probe_set = relative_probe_set(self._blind, self.protocol, self.suite.probe_programs)
        return RotationKinds(probe_set, self._blind.tasks.inputs[:, 0], self.seed)

    @cached_property
    def judged(self) -> Any:
        """The rows that the seeds test."""
        return judge_rows(self.builder.probe_set, self.protocol)

    @cached_property
    def controls(self) -> dict[str, RotationEvidence]:
        """Evidence of the token history and of randomly initialised networks, stored once per draw."""
        if not self.controls_file.is_file():
            arrays = [evidence.arrays(name) for name, evidence in self._probe_controls().items()]
            write_atomic(self.controls_file, save({name: array for part in arrays for name, array in part.items()}))
        stored = load_file(self.controls_file)
        return {name: RotationEvidence.from_arrays(stored, name) for name in (TOKEN_HISTORY, RANDOM_INIT)}

    def _probe_controls(self) -> dict[str, RotationEvidence]:
        probe_set, builder = self.builder.probe_set, self.builder
        first = CONTROL_SEED_OFFSET + 10 * self.seed
        copies = [[builder.random_network(first + i)] for i in range(self.protocol.random_inits)]
        history = [[prefix_history_states(probe_set, builder.inputs)]]
        return {
            TOKEN_HISTORY: probe_rotation(probe_set, self.judged, history, self.protocol),
            RANDOM_INIT: probe_rotation(probe_set, self.judged, copies, self.protocol),
        }

    def measure(self, name: str) -> Cell:
        """Measure one pseudo-model with the code that measures a model."""
        began = time.process_time()
        kind, views = self.builder.kinds()[name]
        evidence = {
            **measure_rotation(
                self.builder.probe_set, self.judged, views(), self.protocol, self.controls[TOKEN_HISTORY]
            ),
            RANDOM_INIT: self.controls[RANDOM_INIT],
        }
        result = verdict_from_rotation_evidence(evidence, self.judged, self.protocol)
        return to_cell(name, kind, self.seed, result) | {"seconds": round(time.process_time() - began, 1)}


def is_right(kind: str, verdict: str) -> bool:
    """Whether a pseudo-model of a kind may get a verdict."""
    return verdict == REPRESENTS if kind == STATE_KIND else verdict != FORBIDDEN[kind]


def to_cell(name: str, kind: str, seed: int, result: RotationResult) -> Cell:
    """The JSON record of one measured pseudo-model."""
    assert result.pose_delta is not None
    assert result.pose_gap is not None
    figures = {
        "skill": result.skill.value,
        "skill_all": result.skill_all,
        "skill_alternatives_all": result.skill_alternatives_all,
        "gap": result.gap.value,
        "controls": result.control_gaps,
        "delta": [result.delta.value, result.delta.low, result.delta.high],
        "delta90": [result.delta90.value, result.delta90.low, result.delta90.high],
        "delta_all": {feature: [e.value, e.low, e.high] for feature, e in result.delta90_all.items()},
        "pose_gap": result.pose_gap,
        "pose_delta": [result.pose_delta.value, result.pose_delta.low, result.pose_delta.high],
        "arithmetic": [result.arithmetic.value, result.arithmetic.low, result.arithmetic.high],
        "turn_count": [result.turn_count.value, result.turn_count.low, result.turn_count.high],
        "label_skills": result.label_skills,
        "surplus": result.surplus,
        "head_skill": result.head_skill,
        "excess": result.excess,
    }
    return {
        "pseudo-model": name, "kind": kind, "seed": seed, "found": result.verdict, "reason": result.reason,
        "right": is_right(kind, result.verdict), "unseen_rows": result.unseen_rows, **figures,
    }  # fmt: skip


def redecide(cell: Cell, protocol: RotationProtocol) -> Cell:
    """The cell with the verdict that the rule as it stands takes from the stored figures, without a fit.

    Cells of the first calibrations have neither `delta90` nor the skills on all rows. Conditions of REPRESENTS do not
    decide between NOTHING READ, RECORD-ONLY and the others, so these two verdicts stay as stored.
    """
    if cell["found"] in (NOTHING_READ, RECORD_ONLY) and "delta90" not in cell:
        return cell

    def estimate(bounds: Sequence[float]) -> Estimate:
        value, low, high = bounds
        return Estimate(value, low, high, 1)

    stored: dict[str, Any] = {
        name: estimate(cell[name]) for name in ("delta", "pose_delta", "arithmetic", "turn_count")
    }
    figures: dict[str, Any] = {
        **stored, "skill": estimate([cell["skill"]] * 3), "gap": estimate([cell["gap"]] * 3),
        "delta90": estimate(cell["delta90"] if "delta90" in cell else cell["delta"]),
        "delta90_all": {name: estimate(bounds) for name, bounds in cell["delta_all"].items()},
        "skill_all": cell.get("skill_all", 1.0), "skill_alternatives_all": cell.get("skill_alternatives_all", 1.0),
        "skill_alternatives": cell["skill"] - cell["gap"], "control_gaps": cell["controls"], "p_rand": 1.0, "curve": [],
    }  # fmt: skip
    copied = ("pose_gap", "label_skills", "surplus", "excess", "head_skill", "unseen_rows")
    result = RotationResult("", "", **figures, **{name: cell[name] for name in copied})
    verdict, reason = decide_rotation(result, protocol)
    if "delta90" not in cell and verdict == RECORD_ONLY:
        verdict, reason = cell["found"], cell["reason"]
    return {**cell, "found": verdict, "reason": reason, "right": is_right(cell["kind"], verdict)}


def format_table(cells: Sequence[Cell]) -> str:
    """One row per pseudo-model, means over draws."""
    rows = []
    for name in dict.fromkeys(cell["pseudo-model"] for cell in cells):
        of_model = [cell for cell in cells if cell["pseudo-model"] == name]
        verdicts = [cell["found"] for cell in of_model]
        bounds = [min(cell[name][1] for name in ("delta", "pose_delta", "arithmetic")) for cell in of_model]
        record = np.mean([max(v for n, v in cell["controls"].items() if n.startswith("record")) for cell in of_model])
        rows.append(
            {
                "pseudo-model": name,
                "kind": of_model[0]["kind"],
                "found": ", ".join(f"{verdict} {verdicts.count(verdict)}" for verdict in sorted(set(verdicts))),
                "right": f"{sum(cell['right'] for cell in of_model)}/{len(of_model)}",
                "skill": f"{np.mean([cell['skill'] for cell in of_model]):.3f}",
                "gap": f"{np.mean([cell['gap'] for cell in of_model]):+.3f}",
                "record gap": f"{record:+.3f}",
                "delta": f"{np.mean([cell['delta'][0] for cell in of_model]):+.3f}",
                "pose delta": f"{np.mean([cell['pose_delta'][0] for cell in of_model]):+.3f}",
                "arithmetic": f"{np.mean([cell['arithmetic'][0] for cell in of_model]):+.3f}",
                "turn count": f"{np.mean([cell['turn_count'][0] for cell in of_model]):+.3f}",
                "lower bounds": f"{min(bounds):+.3f} to {max(bounds):+.3f}",
                "surplus": f"{np.mean([cell['surplus'] for cell in of_model]):+.3f}",
            }
        )
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def run(options: RotationCalibrateOptions) -> int:
    """Measure what is not stored yet, write the record and print the table; returns the exit code."""
    suite = load_suite(options.suite)
    if options.suite_controls is not None:
        make_folder(options.suite_controls, "--suite-controls")
        path = write_suite_controls(suite, ROTATION_STANDARD, options.suite_controls)
        print(f"{path.name}: {hashlib.sha256(path.read_bytes()).hexdigest()}")
        return 0
    if options.redecide is not None:
        return _redecide_record(options.redecide, options.output_dir)
    seeds = tuple(range(options.probe_seeds))
    protocol = replace(
        ROTATION_STANDARD, folds=options.folds, seeds=seeds, copies=options.networks, prompts=options.prompts
    )
    folder = options.output_dir
    make_folder(folder, "--output-dir")
    settings = [suite.name, suite.version, suite.seed, options.prompts, protocol.digest(), source_digest()]
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]
    cells: list[Cell] = []
    for seed in range(options.draws):
        controls_file = folder / f"{key}-{seed:03d}-controls.safetensors"
        draw = RotationDraw(suite, protocol, seed, options.prompts, controls_file)
        names = list(draw.builder.kinds())
        unknown = sorted(set(options.only) - set(names))
        if unknown:
            raise UsageError(f"--only {unknown[0]}: no such pseudo-model; use one of {'; '.join(names)}")
        cells += [
            _stored_cell(folder, f"{key}-{seed:03d}-{names.index(name):02d}", draw, name)
            for name in options.only or names
        ]
    record = {
        "suite": options.suite, "draws": options.draws, "prompts": options.prompts, "folds": options.folds,
        "probe_seeds": options.probe_seeds, "networks": options.networks, "environment": describe_environment(),
        "cells": cells,
    }  # fmt: skip
    return _report(record, folder)


def _redecide_record(path: Path, out: Path) -> int:
    """Decide the cells of a stored record again; returns the exit code."""
    try:
        record = json.loads(path.read_text())
        record["cells"] = [redecide(cell, ROTATION_STANDARD) for cell in record["cells"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--redecide {path}: {error}; expected the record of a calibration of protocol 4") from error
    make_folder(out, "--output-dir")
    return _report(record, out)


def _report(record: dict[str, Any], out: Path) -> int:
    """Write a record and print its table; returns the exit code."""
    path, cells = out / RECORD_FILE, record["cells"]
    write_atomic(path, (json.dumps(record, indent=1) + "\n").encode())
    print(format_table(cells))
    wrong = [cell for cell in cells if not cell["right"]]
    print(f"\nwrong: {len(wrong)} of {len(cells)}. Record: {path}")
    return 0


def _stored_cell(folder: Path, name: str, draw: RotationDraw, pseudo_model: str) -> Cell:
    """The stored cell, or a new one, which is stored."""
    path = folder / f"{name}.json"
    try:
        cell: Cell = load_with_digest(path.read_bytes())["cell"]
    except FileNotFoundError:
        cell = json.loads(json.dumps(draw.measure(pseudo_model), default=float))
        write_atomic(path, dump_with_digest({"cell": cell}))
        print(f"draw {cell['seed']}: {pseudo_model}: {cell['found']} ({cell['seconds']:.0f} s)", file=sys.stderr)
    except (ValueError, KeyError):
        print(f"{path}: corrupt (digest mismatch), recomputing", file=sys.stderr)
        path.unlink()
        return _stored_cell(folder, name, draw, pseudo_model)
    return cell
