"""Known answers of protocol 4: `karel-bench calibrate --protocol 4`.

Each draw has its own programs, pseudo-models and controls. Every finished cell is stored under the settings and the digest
of the code that computed it, so that a calibration continues where it stopped, runs in slices of draws and of
pseudo-models, and survives edits of other modules.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save
from tabulate import tabulate

from benchmark.calibrate.rotation_command import RotationCalibrateOptions
from benchmark.calibrate.rotation_coverage import (
    JUDGED_FIGURES,
    coverage_by_pseudo_model,
    pooled_coverage,
    simulate_tied_controls,
)
from benchmark.calibrate.rotation_draw import Cell, Controls, RotationDraw, is_right
from benchmark.calibrate.rotation_kinds import RotationKinds
from benchmark.calibrate.trained.rotation_network import TRAINED_KINDS
from benchmark.calibrate.trained.rotation_trainings import TrainedRotationDraw
from benchmark.command import make_folder, note_results_kept
from benchmark.environment import describe_environment
from benchmark.errors import UsageError
from benchmark.installation.imported_source import imported_source_digest
from benchmark.probing.control_gap import RANDOM_INIT, RECORD_ONLY
from benchmark.probing.probes import select_matmul_dtype
from benchmark.probing.version4.rotation_evidence import RotationEvidence
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD, RotationProtocol
from benchmark.probing.version4.rotation_verdict import (
    NOTHING_READ,
    TOKEN_HISTORY,
    RotationResult,
    decide_rotation,
)
from benchmark.probing.version4.suite_controls import write_suite_controls
from benchmark.probing.version4.track_protocol import rotation_protocol
from benchmark.runner.plain_progress import format_duration
from benchmark.runner.store import dump_with_digest, load_with_digest, write_atomic
from benchmark.statistics import Estimate, format_outcomes
from benchmark.tasks.prompt_template import TRACKS
from benchmark.tasks.suite import Suite, identify_suite, load_suite

RECORD_FILE = "calibration_protocol4.json"
BUILT_CODE, TRAINED_CODE = "benchmark.calibrate.rotation_draw", "benchmark.calibrate.trained.rotation_trainings"
"""Modules whose imports determine a cell of a pseudo-model that is built, and of one that is trained."""
KEY_DIGITS = 12
TIED_CONTROLS, SIMULATED_CASES = (2, 3, 4), 1000
"""Numbers of controls with equal gaps whose coverage is simulated, and cases of each."""


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
        bounds = [min(cell[name][1] for name in ("delta", "pose_delta", "arithmetic")) for cell in of_model]
        record = np.mean([max(v for n, v in cell["controls"].items() if n.startswith("record")) for cell in of_model])
        rows.append(
            {
                "pseudo-model": name,
                "kind": of_model[0]["kind"],
                "found": format_outcomes(cell["found"] for cell in of_model),
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


def format_coverage(coverage: dict[str, Any]) -> str:
    """Coverage over pseudo-models, and with tied controls, as text."""
    pooled = coverage["pooled"]
    lines = [
        f"95% intervals of {name.replace('_', ' ')} that hold the mean over draws: {pooled[name]['covered']} of "
        f"{pooled[name]['intervals']} ({pooled[name]['share']:.1%})"
        for name in JUDGED_FIGURES
        if name in pooled
    ]
    lines += [
        f"{number} controls with equal gaps, {coverage['simulated_cases']:,} simulated cases: {shares['covered']:.1%} "
        f"covered; lower end above the truth {shares['low_above']:.1%}, upper end below it {shares['high_below']:.1%}"
        for number, shares in coverage["tied_controls"].items()
    ]
    return "\n".join(lines)


@dataclass(frozen=True)
class CellStore:
    """The finished cells of a folder that were computed with some settings.

    Attributes:
        folder: the folder.
        key: digest of settings and code, see `cell_key`.
    """

    folder: Path
    key: str

    def path(self, seed: int, index: int) -> Path:
        """File of the cell of a draw and of the pseudo-model at an index."""
        return self.folder / f"{self.key}-{seed:03d}-{index:02d}.json"

    def cells(self) -> list[Cell]:
        """All finished cells, by draw and pseudo-model, each with its key as `source`."""
        read = (self.read(path) for path in self.paths())
        return [cell for cell in read if cell is not None]

    def paths(self) -> list[Path]:
        """Files of all finished cells."""
        return sorted(self.folder.glob(f"{self.key}-*-??.json"))

    def read(self, path: Path) -> Cell | None:
        """A finished cell; None if it is not there. A torn or altered file is deleted."""
        try:
            cell: Cell = load_with_digest(path.read_bytes())["cell"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError):
            print(f"{path}: corrupt (digest mismatch), recomputing", file=sys.stderr)
            path.unlink()
            return None
        return {**cell, "source": self.key}

    def write(self, path: Path, cell: Cell) -> None:
        """Store a cell."""
        write_atomic(path, dump_with_digest({"cell": cell}))

    def controls(self, draw: RotationDraw) -> Controls:
        """The controls of a draw, probed once."""
        path = self.folder / f"{self.key}-{draw.seed:03d}-controls.safetensors"
        if not path.is_file():
            arrays = [evidence.arrays(name) for name, evidence in draw.probe_controls().items()]
            write_atomic(path, save({name: array for part in arrays for name, array in part.items()}))
        stored = load_file(path)
        return {name: RotationEvidence.from_arrays(stored, name) for name in (TOKEN_HISTORY, RANDOM_INIT)}


def cell_key(suite: Suite, protocol: RotationProtocol, prompts: int, code: str = BUILT_CODE) -> str:
    """Digest of all that a cell depends on besides draw and pseudo-model: suite, settings, code, dtype of the products."""
    settings = [
        identify_suite(suite), prompts, protocol.digest(), str(select_matmul_dtype()), imported_source_digest(code)
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:KEY_DIGITS]


def run(options: RotationCalibrateOptions) -> int:
    """Measure what is not stored yet, write the record and print the table; returns the exit code."""
    suite = load_suite(options.suite)
    if options.suite_controls is not None:
        make_folder(options.suite_controls, "--suite-controls")
        for protocol in dict.fromkeys(map(rotation_protocol, TRACKS)):
            path = write_suite_controls(suite, protocol, options.suite_controls)
            print(f"{path.name}: {hashlib.sha256(path.read_bytes()).hexdigest()}")
        return 0
    if options.redecide is not None:
        return _redecide_record(options.redecide, options.output_dir)
    seeds = tuple(range(options.probe_seeds))
    protocol = replace(
        ROTATION_STANDARD, folds=options.folds, seeds=seeds, copies=options.networks, prompts=options.prompts
    )
    make_folder(options.output_dir, "--output-dir")
    code = TRAINED_CODE if options.trained else BUILT_CODE
    store = CellStore(options.output_dir, cell_key(suite, protocol, options.prompts, code))
    record = {
        "suite": options.suite, "draws": options.draws, "prompts": options.prompts, "folds": options.folds,
        "probe_seeds": options.probe_seeds, "networks": options.networks,
    }  # fmt: skip
    if options.combine is not None:
        return _combine(options.combine, store, record)
    cells = list(_slice_cells(suite, protocol, options, store))
    return _report({**record, "environment": describe_environment(), "cells": cells}, options.output_dir / RECORD_FILE)


def pseudo_model_names() -> list[str]:
    """Names of all pseudo-models that are built, in the order of their numbers in file names."""
    # Their states are built on demand, so that the names need no programs, which take 13 s to draw and label.
    without_data: Any = None
    return list(RotationKinds(without_data, without_data, 0).kinds())


def select_pseudo_models(only: Sequence[str], names: Sequence[str]) -> Sequence[str]:
    """Those of `names` that `--only` names, or all.

    Raises:
        UsageError: there is no such pseudo-model.
    """
    unknown = sorted(set(only) - set(names))
    if unknown:
        raise UsageError(f"--only {unknown[0]}: no such pseudo-model; use one of {'; '.join(names)}")
    return only or names


def _slice_cells(
    suite: Suite, protocol: RotationProtocol, options: RotationCalibrateOptions, store: CellStore
) -> Iterator[Cell]:
    """The cells of a slice of draws: stored ones, and new ones, which are stored. Progress goes to standard error."""
    draws = range(options.first_draw, options.first_draw + options.draws)
    names = list(TRAINED_KINDS) if options.trained else pseudo_model_names()
    make_draw = TrainedRotationDraw if options.trained else RotationDraw
    chosen = select_pseudo_models(options.only, names)
    paths = [store.path(seed, names.index(name)) for seed in draws for name in chosen]
    progress = _Progress(len(paths), sum(path.is_file() for path in paths), options.planned_draws * len(names))
    note_results_kept()
    for seed in draws:
        draw = make_draw(suite, protocol, seed, options.prompts)
        for name in chosen:
            path = store.path(seed, names.index(name))
            cell = store.read(path)
            if cell is None:
                cell = json.loads(json.dumps(draw.measure(name, store.controls(draw)), default=float))
                store.write(path, cell)
                cell = {**cell, "source": store.key}
                print(progress.line(cell, len(store.paths())), file=sys.stderr, flush=True)
            yield cell


class _Progress:
    """What is done of a slice and of the whole calibration, and an estimate of the time left in one process."""

    def __init__(self, planned: int, stored: int, planned_in_all: int) -> None:
        self.planned, self.done, self.planned_in_all = planned, stored, planned_in_all
        self.measured, self.began = 0, time.monotonic()

    def line(self, cell: Cell, stored: int) -> str:
        """Text after a measured cell; `stored` is the number of finished cells of all draws."""
        self.done, self.measured = self.done + 1, self.measured + 1
        per_cell = (time.monotonic() - self.began) / self.measured
        left, left_in_all = (max(0, n) for n in (self.planned - self.done, self.planned_in_all - stored))
        return (
            f"draw {cell['seed']}: {cell['pseudo-model']}: {cell['found']} ({cell['seconds']:.0f} s); "
            f"slice {self.done} of {self.planned}, about {format_duration(left * per_cell)} left; "
            f"all {stored} of {self.planned_in_all}, about {format_duration(left_in_all * per_cell)} left"
        )


def _combine(path: Path, store: CellStore, settings: dict[str, Any]) -> int:
    """Put the finished cells of a folder into a record, in place of older cells of the same draw and pseudo-model.

    Raises:
        UsageError: the record has other settings, or there is no finished cell.
    """
    cells = store.cells()
    if not cells:
        raise UsageError(
            f"--combine: no finished cell of these settings and this code in {store.folder} (key {store.key}); "
            "calibrate first, with the same options"
        )
    record: dict[str, Any] = {**settings, "cells": []}
    if path.is_file():
        record = _read_record(path, "--combine")
        differing = [name for name, value in settings.items() if name != "draws" and record.get(name, value) != value]
        if differing:
            raise UsageError(
                f"--combine {path}: has {differing[0]} {record[differing[0]]}, the cells have "
                f"{settings[differing[0]]}; "
                "set the same or name another file"
            )
    by_cell = {(cell["pseudo-model"], cell["seed"]): cell for cell in [*record["cells"], *cells]}
    order = {name: i for i, name in enumerate(dict.fromkeys(name for name, _ in by_cell))}
    ordered = sorted(by_cell.items(), key=lambda item: (order[item[0][0]], item[0][1]))
    record["cells"] = [redecide(cell, ROTATION_STANDARD) for _, cell in ordered]
    record["draws"] = len({cell["seed"] for cell in record["cells"]})
    if "pseudo_models" in record:
        record["pseudo_models"] = len(order)
    return _report(record, path)


def _read_record(path: Path, option: str) -> dict[str, Any]:
    """A stored record with its cells decided again; `option` named it."""
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        record["cells"] = [redecide(cell, ROTATION_STANDARD) for cell in record["cells"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{option} {path}: {error}; expected the record of a calibration of protocol 4") from error
    return record


def _redecide_record(path: Path, out: Path) -> int:
    """Decide the cells of a stored record again; returns the exit code."""
    record = _read_record(path, "--redecide")
    make_folder(out, "--output-dir")
    return _report(record, out / RECORD_FILE)


def dump_record(record: dict[str, Any]) -> str:
    """A record as JSON with one line per entry, and one per cell; figures have six decimals, more than their draws vary by."""
    lines = [f" {json.dumps(name)}: {_compact(value)}" for name, value in record.items() if name != "cells"]
    cells = ",\n".join(f"  {_compact(cell)}" for cell in record["cells"])
    return "{\n" + ",\n".join([*lines, f' "cells": [\n{cells}\n ]']) + "\n}\n"


def _compact(value: Any) -> str:
    return json.dumps(
        json.loads(json.dumps(value), parse_float=lambda text: round(float(text), 6)), separators=(",", ":")
    )


def _report(record: dict[str, Any], path: Path) -> int:
    """Write a record with the coverage of its intervals and print its tables; returns the exit code."""
    cells = record["cells"]
    by_model = coverage_by_pseudo_model(cells)
    tied = {str(number): simulate_tied_controls(number, SIMULATED_CASES) for number in TIED_CONTROLS}
    record["coverage"] = {
        "pooled": pooled_coverage(by_model), "by_pseudo_model": by_model, "tied_controls": tied,
        "simulated_cases": SIMULATED_CASES,
    }  # fmt: skip
    write_atomic(path, dump_record(record).encode())
    print(format_table(cells))
    print(f"\n{format_coverage(record['coverage'])}")
    wrong = [cell for cell in cells if not cell["right"]]
    print(f"\nwrong: {len(wrong)} of {len(cells)}. Record: {path}")
    return 0
