"""Known answers of a preview: how often it stops early, and whether it then says what all probe seeds say.

A preview should call at most 1% of the pseudo-models without a state REPRESENTS, and differ from all seeds in at most 5%.
Every finished cell is stored, so that a calibration continues where it stopped; the record has all stored cells.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from tabulate import tabulate

from benchmark.calibrate.preview.command import PreviewCalibrateOptions
from benchmark.calibrate.preview.preview_cell import measure_preview_cell
from benchmark.calibrate.rotation_calibration import (
    KEY_DIGITS,
    CellStore,
    cell_key,
    pseudo_model_names,
    select_pseudo_models,
)
from benchmark.calibrate.rotation_draw import RotationDraw
from benchmark.calibrate.rotation_kinds import RECORD_KIND
from benchmark.command import make_folder, note_results_kept
from benchmark.environment import describe_environment
from benchmark.installation.imported_source import imported_source_digest
from benchmark.probing.control_gap import REPRESENTS
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.probing.version4.sequential_verdict import list_looks
from benchmark.runner.store import write_atomic
from benchmark.statistics import format_outcomes, wilson
from benchmark.tasks.suite import load_suite

RECORD_FILE = "calibration_preview.json"
CELL_CODE = "benchmark.calibrate.preview.preview_cell"
Cell = dict[str, Any]


def summarize(cells: Sequence[Cell]) -> dict[str, Any]:
    """Numbers of cells: all; stopped before the last look; of another verdict than all seeds; REPRESENTS without a state."""
    without_state = [cell for cell in cells if cell["kind"] == RECORD_KIND]
    return {
        "cells": len(cells),
        "by_seeds": {str(n): sum(cell["preview_seeds"] == n for cell in cells) for n in sorted({cell["preview_seeds"] for cell in cells})},
        "disagree": sum(not cell["agrees"] for cell in cells),
        "without_state": len(without_state),
        "false_represents": sum(cell["preview"] == REPRESENTS for cell in without_state),
        "false_represents_all_seeds": sum(cell["all_seeds"] == REPRESENTS for cell in without_state),
    }  # fmt: skip


def format_summary(summary: dict[str, Any]) -> str:
    """The summary as two lines of text, each share with its 95% interval."""

    def share(count: int, total: int) -> str:
        interval = wilson(count, total)
        bounds = "" if interval is None else f" ({interval.value:.1%} [{interval.low:.1%}, {interval.high:.1%}])"
        return f"{count} of {total}{bounds}"

    stops = ", ".join(f"{count} after {seeds}" for seeds, count in summary["by_seeds"].items())
    return (
        f"seeds: {stops}; another verdict than all seeds: {share(summary['disagree'], summary['cells'])}\n"
        f"false REPRESENTS among {summary['without_state']} without a state: "
        f"{share(summary['false_represents'], summary['without_state'])}; with all seeds "
        f"{summary['false_represents_all_seeds']}"
    )


def format_table(cells: Sequence[Cell]) -> str:
    """One row per pseudo-model."""
    rows = []
    for name in dict.fromkeys(cell["pseudo-model"] for cell in cells):
        own = [cell for cell in cells if cell["pseudo-model"] == name]
        counts = {key: format_outcomes(cell[key] for cell in own) for key in ("preview", "preview_seeds", "all_seeds")}
        rows.append({
            "pseudo-model": name, "kind": own[0]["kind"], "preview": counts["preview"], "seeds": counts["preview_seeds"],
            "all seeds": counts["all_seeds"], "agree": f"{sum(cell['agrees'] for cell in own)}/{len(own)}",
        })  # fmt: skip
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def run(options: PreviewCalibrateOptions) -> int:
    """Measure what is not stored yet, write the record and print the table; returns the exit code."""
    suite = load_suite(options.suite)
    protocol = ROTATION_STANDARD if options.prompts is None else replace(ROTATION_STANDARD, prompts=options.prompts)
    names = pseudo_model_names()
    chosen = select_pseudo_models(options.only, pseudo_model_names())
    make_folder(options.output_dir, "--output-dir")
    code = f"{cell_key(suite, protocol, protocol.prompts)} {imported_source_digest(CELL_CODE)}"
    store = CellStore(options.output_dir, hashlib.sha256(code.encode()).hexdigest()[:KEY_DIGITS])
    note_results_kept()
    for seed in range(options.first_draw, options.first_draw + options.draws):
        draw = RotationDraw(suite, protocol, seed, protocol.prompts)
        for name in chosen:
            path = store.path(seed, names.index(name))
            if store.read(path) is None:
                cell = measure_preview_cell(draw, name, store.controls(draw))
                store.write(path, json.loads(json.dumps(cell, default=float)))
                outcome = f"{cell['preview']} after {cell['preview_seeds']} seeds, {cell['all_seeds']} after all"
                print(f"draw {seed}: {name}: {outcome} ({cell['seconds']:.0f} s)", file=sys.stderr, flush=True)
    cells = store.cells()
    summary = summarize(cells)
    record = {
        "suite": options.suite, "prompts": protocol.prompts, "looks": [asdict(look) for look in list_looks(protocol)],
        "environment": describe_environment(), "summary": summary, "cells": cells,
    }  # fmt: skip
    path = options.output_dir / RECORD_FILE
    write_atomic(path, (json.dumps(record, indent=1) + "\n").encode())
    print(f"{format_table(cells)}\n\n{format_summary(summary)}\nRecord: {path}")
    return 0
