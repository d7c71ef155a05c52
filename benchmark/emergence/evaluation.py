"""Measure the checkpoints of series, and write points, table, figure and summary; see `emergence.command`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from benchmark.cli.dtype_note import note_slow_dtype
from benchmark.cli.options import open_backend, resolve_device, resolve_output_dir
from benchmark.cli.progress import RichProgress
from benchmark.cli.suite_note import note_trained_suite
from benchmark.cluster.process_executor import default_processes
from benchmark.command import make_folder
from benchmark.emergence.checkpoint_run import CheckpointRun
from benchmark.emergence.command import EmergenceOptions
from benchmark.emergence.curves import write_figure, write_table
from benchmark.emergence.point import CurvePoint, read_points, write_points
from benchmark.emergence.report import build_report, format_report
from benchmark.emergence.series import SeriesCheckpoint, list_series
from benchmark.errors import BenchmarkError, UsageError
from benchmark.runner.plain_progress import PlainProgress, can_redraw
from benchmark.runner.preflight import check_fits
from benchmark.runner.run_config import RunConfig

RUNS_FOLDER, ALL_SEEDS_FOLDER = "checkpoints", "checkpoints-all-seeds"
"""Folders of the run folders of checkpoints, below that of the results."""


class SingleBarProgress(RichProgress):
    """A single progress bar that all stages of all checkpoints reuse."""

    def start(self, description: str, total: int | None = None, completed: int = 0) -> None:
        """See `runner.stages.Progress`."""
        if self.current is None:
            super().start(description, total, completed)
        else:
            self.bars.reset(
                self.current, total=total, completed=completed, description=description, pace=self._begin_pace()
            )


def _open_progress(console: Console) -> SingleBarProgress | PlainProgress:
    # A checkpoint is announced by its step; a line for each of its stages would be too many.
    return SingleBarProgress(console) if can_redraw(console) else PlainProgress(console, announces_stages=False)


def evaluate_runs(options: EmergenceOptions) -> int:
    """Measure the series, and write the results; returns the exit code."""
    options.backend.check()
    device = resolve_device(options.device, options.backend.address)
    files = {Path(text).stem: Path(text) for text in options.runs if _is_points_file(text)}
    if not all(map(_is_points_file, options.runs)):
        note_slow_dtype(options.dtype, device, options.backend.address)
    points = {name: read_points(path) for name, path in files.items()}
    series = list_series([text for text in options.runs if not _is_points_file(text)], options.loading.load_options())
    if len(files) < sum(map(_is_points_file, options.runs)) or set(files) & set(series):
        raise UsageError("RUN: two series have the same name; rename one, results are stored by name")
    out = resolve_output_dir(options.output_dir or _default_folder(options.runs[0]))
    make_folder(out, "--output-dir")
    problems: list[BenchmarkError] = []
    if series:
        measured, problems = _measure_all(options, series, device, out)
        points |= measured
    points = {name: of_run for name, of_run in points.items() if of_run}
    if not points:
        raise problems[0]
    for path in write_results(out, options.name or common_name(list(points)), points):
        print(f"wrote {path}")
    return problems[0].exit_code if problems else 0


def common_name(names: Sequence[str]) -> str:
    """What series are called together: `gpt` for gpt-1 and gpt-2, else the first and a count."""
    stems = {name.rstrip("-_.0123456789") for name in names}
    if len(names) > 1 and len(stems) == 1 and stems != {""}:
        return stems.pop()
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def write_results(out: Path, name: str, points: Mapping[str, Sequence[CurvePoint]]) -> list[Path]:
    """Write table, summary and figure, and print the report; returns the files."""
    report = build_report(points)
    table, summary = out / "points.csv", out / "summary.json"
    write_table(table, points)
    figures = write_figure(out, name, points, report)
    summary.write_text(json.dumps(report.to_json(points), indent=1) + "\n", encoding="utf-8")
    print(format_report(report))
    return [table, summary, *figures]


def _measure_all(
    options: EmergenceOptions, series: Mapping[str, Sequence[SeriesCheckpoint]], device: str, out: Path
) -> tuple[dict[str, list[CurvePoint]], list[BenchmarkError]]:
    """The points of each series, and the errors of checkpoints that have none; writes `NAME.json` after each point."""
    runs = {name: [_open_run(options, moment, device, out) for moment in part] for name, part in series.items()}
    first = next(iter(runs.values()))[0]
    note_trained_suite(first.checkpoint, first.suite)
    estimate = check_fits(first.job, first.protocol, first.measurements())
    for run in (run for of_series in runs.values() for run in of_series):
        run.estimate = estimate
    single_threaded = options.threads == 1
    processes = default_processes(device, estimate.model_bytes, estimate.available_bytes) if single_threaded else 0
    progress = _open_progress(Console(stderr=True, highlight=False))
    points: dict[str, list[CurvePoint]] = {}
    problems: list[BenchmarkError] = []
    workers = open_backend(options.backend, device, options.threads, estimate.model_bytes, processes)
    with workers as (backend, notice), progress.displayed():
        count = sum(map(len, runs.values()))
        progress.write(
            f"measuring {count} checkpoints of {len(runs)} series on suite {first.suite.name}; results in {out}"
        )
        if notice:
            progress.write(notice)
        for name, of_series in runs.items():
            points[name] = []
            for number, (run, moment) in enumerate(zip(of_series, series[name], strict=True), 1):
                progress.write(f"{name}: step {moment.step} ({number} of {len(of_series)})")
                try:
                    points[name].append(run.point(moment, backend, progress))
                except BenchmarkError as error:
                    problems.append(error)
                    progress.write(f"{name}: step {moment.step}: {error}")
                    continue
                write_points(out / f"{name}.json", points[name])
    return points, problems


def _open_run(options: EmergenceOptions, moment: SeriesCheckpoint, device: str, out: Path) -> CheckpointRun:
    config = RunConfig(
        options.suite,
        test_tasks=options.test_tasks,
        dtype=options.dtype,
        device=device,
        threads=options.threads,
        out=out / (ALL_SEEDS_FOLDER if options.all_seeds else RUNS_FOLDER),
        command="emergence",
        measurements=options.measurements,
        cache=options.cache.cache_settings(),
        preview=True,
    )
    run = CheckpointRun(config, moment.checkpoint)
    run.all_seeds = options.all_seeds
    return run


def _is_points_file(text: str) -> bool:
    return text.endswith(".json")


def _default_folder(first: str) -> Path:
    """Where results go unless told: beside a file of points, in a training folder, or in the folder of series."""
    if _is_points_file(first):
        return Path(first).parent
    folder = Path(first.removeprefix("path:"))
    return folder / "emergence" if folder.is_dir() else Path("runs") / "emergence"
