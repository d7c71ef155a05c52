"""Known answers of `reach`: `karel-bench calibrate reach`.

Pseudo-models on the reference programs of a suite, whose states hold rotations that are known: none, the present one, or
one or two words ahead. Each must get its own reach, and what holds words and worlds only must get 0.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmark.calibrate.draws import suite_of_draw
from benchmark.calibrate.pseudo_models import NOISE, WIDTH
from benchmark.command import make_folder
from benchmark.environment import describe_environment
from benchmark.probing.labels import MISSING
from benchmark.probing.protocol import STANDARD, Protocol
from benchmark.probing.written.ahead import ahead_figures, probe_ahead, reach_of
from benchmark.probing.written.content import HISTORY, OFFSETS, source_states
from benchmark.probing.written.content_labels import HEADS, ContentLabels, WrittenPrograms, label_content
from benchmark.runner.store import write_atomic
from benchmark.tasks.suite import Suite, load_suite, probe_tasks
from karel_env.language import HEADER_TEXT

RECORD_FILE = "calibration_reach.json"
Cell = dict[str, Any]
_STATES = 90_021


@dataclass(frozen=True)
class ReachKinds:
    """Builder of the pseudo-models of one draw.

    Attributes:
        written: reference programs and the worlds that are shown.
        labels: their labels at the offsets 0, 1 and 2.
        seed: seed of all draws.
    """

    written: WrittenPrograms
    labels: ContentLabels
    seed: int

    @classmethod
    def of_draw(cls, suite: Suite, seed: int, protocol: Protocol) -> ReachKinds:
        """The pseudo-models on the probe tasks of a draw."""
        tasks = probe_tasks(suite_of_draw(suite, seed))
        texts = [text.removeprefix(HEADER_TEXT).lstrip() for text in tasks.programs.texts()]
        written = WrittenPrograms.from_texts(texts, tasks)
        assert written is not None
        return cls(written, label_content(written, protocol, OFFSETS), seed)

    def kinds(self) -> Mapping[str, tuple[int, np.ndarray]]:
        """Expected reach and states (float32 [R, WIDTH]) of every pseudo-model, by name."""
        present, first, second = (self._rotation(offset) for offset in OFFSETS)
        history = np.asarray(source_states(self.written, self.labels, None)[HISTORY][:])
        random = np.random.default_rng([_STATES, self.seed])
        is_half = random.random(len(self.written.programs)) < 0.5
        partial = first * is_half[self.labels.probe_set.program][:, None]
        parts: dict[str, tuple[int, Sequence[np.ndarray]]] = {
            "noise": (0, [random.normal(size=(len(present), WIDTH))]),
            "token history and outputs": (0, [history]),
            "complete state now": (0, [self.labels.state(0)]),
            "rotation now and token history": (0, [present, history]),
            "rotation one ahead": (1, [first]),
            "rotation one ahead in half of the programs": (1, [partial]),
            "rotation one ahead and token history": (1, [first, history]),
            "rotations one and two ahead": (2, [first, second]),
        }
        return {name: (reach, self._mix(columns, random)) for name, (reach, columns) in parts.items()}

    def _rotation(self, offset: int) -> np.ndarray:
        """float64 [R, 4], one-hot rotation at an offset; zeros where there is no such state."""
        rotation = self.labels.classes[self.labels.offsets.index(offset), HEADS.index("rotation")]
        return np.asarray(np.eye(4)[rotation.clip(0)] * (rotation != MISSING)[:, None])

    def _mix(self, parts: Sequence[np.ndarray], random: np.random.Generator) -> np.ndarray:
        columns = np.concatenate(parts, 1).astype(np.float64)
        mixing = random.normal(size=(columns.shape[1], WIDTH)) / np.sqrt(columns.shape[1])
        return (columns @ mixing + NOISE * random.normal(size=(len(columns), WIDTH))).astype(np.float32)


def measure_reach(suite: Suite, seed: int, protocol: Protocol = STANDARD) -> list[Cell]:
    """Measure every pseudo-model of a draw with the code that measures a model."""
    builder = ReachKinds.of_draw(suite, seed, protocol)
    kinds = builder.kinds()
    losses = probe_ahead(builder.written, builder.labels, [states for _, states in kinds.values()], protocol)
    cells = []
    for i, (name, (expected, _)) in enumerate(kinds.items()):
        figures = ahead_figures(builder.written, builder.labels, losses.of_model(i), protocol)
        measured = reach_of(figures)
        ahead = [
            {
                "offset": part.offset, "skill": part.skill.value, "history": part.history,
                "delta": [part.delta.value, part.delta.low, part.delta.high],
            }
            for part in figures
        ]  # fmt: skip
        cells.append(
            {"pseudo-model": name, "seed": seed, "expected": expected, "reach": measured, "right": measured == expected,
             "ahead": ahead}
        )  # fmt: skip
    return cells


def format_reach_table(cells: Sequence[Cell]) -> str:
    """One row per pseudo-model, means over draws."""
    rows = []
    for name in dict.fromkeys(cell["pseudo-model"] for cell in cells):
        of_model = [cell for cell in cells if cell["pseudo-model"] == name]
        row = {
            "pseudo-model": name,
            "reach": of_model[0]["expected"],
            "right": f"{sum(cell['right'] for cell in of_model)}/{len(of_model)}",
        }
        for i, part in enumerate(of_model[0]["ahead"]):
            values = np.mean([cell["ahead"][i]["delta"] for cell in of_model], 0)
            row[f"delta +{part['offset']}"] = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*values)
        rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def run(suite_name: str, draws: int, programs: int | None, folder: Path) -> int:
    """Measure, write the record and print the table; returns the exit code."""
    make_folder(folder, "--output-dir")
    suite = load_suite(suite_name)
    suite = replace(suite, probe_programs=programs or suite.probe_programs)
    cells: list[Cell] = []
    for seed in range(draws):
        cells += measure_reach(suite, seed)
        print(f"draw {seed}: {sum(cell['right'] for cell in cells)} of {len(cells)} right", file=sys.stderr, flush=True)
    record = {
        "suite": suite_name,
        "draws": draws,
        "programs": suite.probe_programs,
        "environment": describe_environment(),
        "cells": cells,
    }
    path = folder / RECORD_FILE
    write_atomic(path, (json.dumps(record, indent=1, default=float) + "\n").encode())
    print(format_reach_table(cells))
    print(f"\nwrong: {sum(not cell['right'] for cell in cells)} of {len(cells)}. Record: {path}")
    return 0
