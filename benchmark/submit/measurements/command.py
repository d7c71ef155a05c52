"""Add measurements to the folder of a run or of a submission: `python -m benchmark.submit.measurements FOLDER`.

The other files of the folder stay as they are. Each measurement is computed as by a run, in a run folder of its own under
`--output-dir`, so that the same command continues after a stop. Exit codes: 0 done, 1 run incomplete, 2 usage, 3 the
model cannot be loaded or the submission would not be eligible, 4 not the model of the folder's record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.cli.declare import argument, group, option, parse_options, program_name
from benchmark.cli.fields import device_option, few_programs_option, model_option, output_dir_option, threads_option
from benchmark.cli.model_spec import read_model
from benchmark.cli.options import BackendOptions, open_backend, resolve_device
from benchmark.command import make_folder, run_command, silence_libraries
from benchmark.run import DETAIL_NAMES, MEASUREMENT_NAMES

if TYPE_CHECKING:
    from benchmark.runner.measurement_record import MeasurementRecord
    from benchmark.runner.run import Run
    from benchmark.submit.measurements.addition import Addition

NAME, MODULE = "measurements", "benchmark.submit.measurements"
STANDARD, FULL = "standard", "full"


@dataclass(frozen=True, kw_only=True)
class AddOptions:
    """Add measurements to the folder of a run or of a submission."""

    folder: Path = argument("folder of a finished run or of a submission")
    only: tuple[str, ...] = option(
        (), "add this measurement; repeatable", choices=(*MEASUREMENT_NAMES, *DETAIL_NAMES), many=True,
        default_text="all of the detail",
    )  # fmt: skip
    detail: str = option(
        STANDARD, f"select the measurements; full: also {', '.join(DETAIL_NAMES)}", choices=(STANDARD, FULL)
    )
    few_programs: bool = few_programs_option()
    model: str = model_option("", "that of the folder")
    device: str = device_option("cpu")
    threads: int = threads_option()
    backend: BackendOptions = group(BackendOptions)
    output_dir: Path = output_dir_option(Path("runs/measurements"), "compute in a run folder in this folder")


def execute(options: AddOptions) -> int:
    """Measure, add, and print the cards; returns the exit code."""
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    from benchmark.runner.measurements.registry import MEASUREMENTS
    from benchmark.runner.record import format_eligibility
    from benchmark.submit.measurements.addition import Addition

    silence_libraries()
    options.backend.check()
    device = resolve_device(options.device, options.backend.address)
    make_folder(options.output_dir, "--output-dir")
    names = selected_measurements(options)
    model = read_model(options.model) if options.model else ""
    command = f"{program_name(NAME, MODULE)} {options.folder.name}"
    addition = Addition(
        options.folder, names, options.output_dir, model, device, options.threads, command, options.few_programs
    )
    _, records = add_on_backend(addition, options.backend)
    for name, record in zip(names, records, strict=True):
        print(f"{name}: suite {record.suite.name}, eligible: {format_eligibility(record.unofficial)}")
        print(MEASUREMENTS[name].format_card(record))
        print(
            f"wrote {options.folder / record.FILE}" + (f" and {record.EVIDENCE}\n" if record.evidence_sha256 else "\n")
        )
    return 0


def selected_measurements(options: AddOptions) -> tuple[str, ...]:
    """Names of the measurements that are added: those of `--only`, else all of the detail."""
    if options.only:
        return tuple(name for name in (*MEASUREMENT_NAMES, *DETAIL_NAMES) if name in options.only)
    return (*MEASUREMENT_NAMES, *(DETAIL_NAMES if options.detail == FULL else ()))


def add_on_backend(addition: Addition, options: BackendOptions) -> tuple[Run, list[MeasurementRecord]]:
    """Add measurements on a backend with a progress display; returns the run they are of, and their records.

    Raises:
        BenchmarkError: as `prepare_addition` and `add_measurements`.
    """
    from benchmark.cli.progress import show_progress
    from benchmark.runner.preflight import check_fits
    from benchmark.submit.measurements.addition import add_measurements, prepare_addition

    run = prepare_addition(addition)
    run.estimate = estimate = check_fits(run.job, run.protocol, run.measurements())
    with (
        open_backend(options, addition.device, addition.threads, estimate.model_bytes) as (backend, line),
        show_progress() as progress,
    ):
        if line:
            progress.write(line)
        return run, add_measurements(addition, run, backend, progress)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(lambda: execute(parse_options(AddOptions, arguments, NAME, module=MODULE)))
