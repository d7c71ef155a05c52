"""Evaluate the checkpoints of training runs, and write points, table, figure and summary; see `emergence.command`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from tabulate import tabulate

from benchmark.cli.options import open_backend, resolve_device, resolve_output_dir
from benchmark.cli.progress import RichProgress
from benchmark.command import make_folder
from benchmark.emergence.command import EmergenceOptions
from benchmark.emergence.curves import write_figure, write_table
from benchmark.emergence.phases import (
    PAPER_R2,
    PAPER_SHARES,
    BetweenRuns,
    Phases,
    Relation,
    find_phases,
    relate,
    relate_runs,
)
from benchmark.emergence.trajectory import (
    REDUCED_PROTOCOL,
    CurvePoint,
    TrainingCheckpoint,
    Trajectory,
    read_points,
    write_points,
)
from benchmark.errors import UsageError
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.probing.full_grid import FUTURE
from benchmark.probing.protocol import Protocol
from benchmark.probing.semantic_content import CONTENT_DEPTHS
from benchmark.runner.plain_progress import PlainProgress, can_redraw
from benchmark.tasks.suite import load_suite

TRAINING_FILE = "training.json"


class SingleBarProgress(RichProgress):
    """A single progress bar that all stages of all checkpoints reuse."""

    def start(self, description: str, total: int | None, completed: int = 0) -> None:
        """See `runner.stages.Progress`."""
        if self.current is None:
            super().start(description, total, completed)
        else:
            self.bars.reset(self.current, total=total, completed=completed, description=description)


def _open_progress(console: Console) -> SingleBarProgress | PlainProgress:
    # A checkpoint is announced by its step; a line for each of its stages would be too many.
    return SingleBarProgress(console) if can_redraw(console) else PlainProgress(console, announces_stages=False)


def list_checkpoints(run: Path) -> list[TrainingCheckpoint]:
    """List the checkpoints of a training run, in order of step.

    Raises:
        UsageError: The run has no checkpoints, or one lacks a valid `training.json`.
    """
    checkpoints = []
    for folder in sorted((run / "checkpoints").glob("step-*")):
        if folder.name.endswith(".new"):
            continue
        try:
            metadata = json.loads((folder / TRAINING_FILE).read_bytes())
            step, tasks, tokens = (int(metadata[name]) for name in ("step", "tasks_seen", "tokens_seen"))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsageError(f"{folder / TRAINING_FILE}: {error}; expected step, tasks_seen and tokens_seen") from error
        checkpoints.append(TrainingCheckpoint(open_checkpoint(ModelSpec("path", str(folder))), step, tasks, tokens))
    if not checkpoints:
        raise UsageError(f"{run}: no checkpoints/step-N in it; expected a folder of python -m baselines.train")
    return checkpoints


def semantics_curves(points: Sequence[CurvePoint]) -> dict[str, list[float | None]]:
    """Curves of a run that are related to accuracy: semantic content per probe depth, and delta."""
    curves: dict[str, list[float | None]] = {
        f"sc_{depth}": [p.content[depth].value if p.content else None for p in points] for depth in CONTENT_DEPTHS
    }
    return curves | {"delta": [p.delta.value for p in points]}


def shown_accuracy(points: Sequence[CurvePoint]) -> list[float]:
    """Accuracy on shown examples per checkpoint."""
    return [p.accuracy.shown.value for p in points]


def relate_to_accuracy(points: Sequence[CurvePoint]) -> dict[str, Relation | None]:
    """Relation of each of the `semantics_curves` of a run to its accuracy."""
    tokens = [float(p.tokens) for p in points]
    return {name: relate(tokens, curve, shown_accuracy(points)) for name, curve in semantics_curves(points).items()}


def relate_between_runs(runs: Mapping[str, Sequence[CurvePoint]]) -> dict[str, BetweenRuns | None]:
    """Relation between runs, at the steps that all runs have."""
    common = set.intersection(*({p.step for p in points} for points in runs.values()))
    common_points = [[p for p in points if p.step in common] for points in runs.values()]
    curves = [semantics_curves(points) for points in common_points]
    accuracy = [shown_accuracy(points) for points in common_points]
    return {name: relate_runs([run_curves[name] for run_curves in curves], accuracy) for name in curves[0]}


def find_run_phases(points: Sequence[CurvePoint]) -> Phases:
    """Find the phases of one run."""
    return find_phases(
        np.array([p.tokens for p in points], float),
        np.array([p.distinct for p in points]),
        np.array([p.accuracy.shown.value for p in points]),
    )


def summarize_seeds(runs: Mapping[str, Sequence[CurvePoint]]) -> dict[str, Any]:
    """Mean, minimum and maximum over runs of the last checkpoint's metrics."""
    last = [points[-1] for points in runs.values()]
    figures: dict[str, list[float]] = {
        "shown": [p.accuracy.shown.value for p in last],
        "held_out": [p.accuracy.held_out.value for p in last],
        "delta": [p.delta.value for p in last],
        "mdl_delta": [p.mdl_delta.value for p in last],
        **{f"delta ahead {k}": [p.future[k].value for p in last if k in p.future] for k in FUTURE},
        **{f"sc_{d}": [p.content[d].value for p in last if p.content] for d in CONTENT_DEPTHS},
    }
    return {
        name: {"mean": float(np.mean(values)), "low": min(values), "high": max(values), "runs": len(values)}
        for name, values in figures.items()
        if values
    }


def format_report(
    phases: Mapping[str, Phases],
    related: Mapping[str, Mapping[str, Relation | None]],
    between: Mapping[str, BetweenRuns | None],
) -> str:
    """Format phases and relations as tables for a terminal."""
    shares = [
        [
            name,
            *(f"{100 * share:.1f}" for share in phase_result.shares),
            *(f"{100 * a:.1f}" for a in phase_result.accuracy),
        ]
        for name, phase_result in phases.items()
    ]
    shares.append(["the paper", *(f"{100 * share:.0f}" for share in PAPER_SHARES), "", "", "92.4"])
    share_headers = ["run", "babbling %", "syntax %", "semantics %", "shown % after", "after", "at the end"]
    relation_rows = []
    for name, run_relations in related.items():
        for curve, phase_result in run_relations.items():
            if phase_result is not None:
                second_half = "" if phase_result.r2_second_half is None else f"{phase_result.r2_second_half:.3f}"
                relation_rows.append([
                    name, curve, phase_result.n, f"{phase_result.r2:.3f}", second_half,
                    *(f"{value:+.2f} (p {p:.2g})" for value, p in (phase_result.changes, phase_result.rank_changes)),
                ])  # fmt: skip
    relation_rows.append(["the paper", "semantic content", "", f"{PAPER_R2}", "", "", ""])
    relation_headers = ["run", "with shown accuracy", "n", "R^2", "second half", "changes, r", "changes, rank"]
    tables: list[tuple[list[list[Any]], list[str]]] = [(shares, share_headers), (relation_rows, relation_headers)]
    between_rows = [
        [curve, phase_result.n, f"{phase_result.r:+.2f} (p {phase_result.p:.2g})"]
        for curve, phase_result in between.items()
        if phase_result is not None
    ]
    if between_rows:
        tables.append((between_rows, ["between runs, at the same checkpoint", "n", "with shown accuracy, r"]))
    return "\n\n".join(tabulate(rows, headers, disable_numparse=True) for rows, headers in tables)


def _is_points_file(run: Path) -> bool:
    return run.suffix == ".json"


def evaluate_runs(options: EmergenceOptions, reduced_protocol: Protocol = REDUCED_PROTOCOL) -> int:
    """Evaluate the runs, without --full under `reduced_protocol`, and write the results; returns the exit code."""
    first: Path = options.runs[0]
    options.backend.check()
    device = resolve_device(options.device, options.backend.address)
    out = resolve_output_dir(options.output_dir or (first.parent if _is_points_file(first) else first / "emergence"))
    suite, progress = load_suite(options.suite), _open_progress(Console(stderr=True, highlight=False))
    if len({path.stem for path in options.runs}) < len(options.runs):
        raise UsageError("RUN: two runs have the same name; rename one, results are stored by run name")
    runs = {path.stem: read_points(path) for path in options.runs if _is_points_file(path)}
    checkpoints = {path.stem: list_checkpoints(path) for path in options.runs if not _is_points_file(path)}
    make_folder(out, "--output-dir")
    with open_backend(options.backend, device, options.threads) as (backend, notice), progress.displayed():
        count = sum(map(len, checkpoints.values()))
        progress.write(
            f"evaluating {count} checkpoints of {len(checkpoints)} runs on suite {suite.name}; results in {out}"
        )
        if notice:
            progress.write(notice)
        trajectory = Trajectory(
            suite,
            out / "points",
            backend,
            progress,
            options.full,
            device,
            options.threads,
            options.dtype,
            reduced_protocol,
            options.cache.cache_settings(),
        )
        for name, run_checkpoints in checkpoints.items():
            runs[name] = []
            for number, checkpoint in enumerate(run_checkpoints, 1):
                progress.write(f"{name}: step {checkpoint.step} ({number} of {len(run_checkpoints)})")
                runs[name].append(trajectory.measure(checkpoint))
            write_points(out / f"{name}.json", runs[name])
    runs = {path.stem: runs[path.stem] for path in options.runs}
    phases = {name: find_run_phases(points) for name, points in runs.items()}
    related = {name: relate_to_accuracy(points) for name, points in runs.items()}
    between = relate_between_runs(runs)
    write_table(out / "points.csv", runs)
    figures = write_figure(out, options.name or first.stem, runs, phases)
    summary = {
        "phases": {name: asdict(result) for name, result in phases.items()},
        "relations": {
            name: {curve: asdict(result) if result else None for curve, result in run_relations.items()}
            for name, run_relations in related.items()
        },
        "between runs": {curve: asdict(result) if result else None for curve, result in between.items()},
        "last checkpoint, over runs": summarize_seeds(runs),
        "paper": {"shares": PAPER_SHARES, "r2": PAPER_R2},
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(format_report(phases, related, between))
    print("\n".join(f"wrote {path}" for path in (out / "points.csv", out / "summary.json", *figures)))
    return 0
