"""Measure whether a model uses its state: `python -m benchmark.causal --model SPEC`.

Prints a card and writes `NAME-SUITE.json` and `NAME-SUITE.causal.data` (the words written, safetensors). With
`--add-to FOLDER` the model is that of a finished run or of a submission, whose folder gets `uses.json` and `causal.data`
as a run writes them. Exit codes: 0 done (N/A included), 1 stopped (call again to continue), 2 usage, 3 the model cannot be
loaded or the submission would not be eligible, 4 not the model of the folder's record.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.cli.declare import group, option, parse_options, program_name
from benchmark.cli.dtype_note import note_slow_dtype
from benchmark.cli.fields import (
    device_option,
    dtype_option,
    model_option,
    output_dir_option,
    suite_option,
    threads_option,
)
from benchmark.cli.model_spec import read_model
from benchmark.cli.options import BackendOptions, resolve_device
from benchmark.cli.suite_note import note_trained_suite
from benchmark.command import make_folder, run_command, silence_libraries
from benchmark.errors import ModelError, UsageError

if TYPE_CHECKING:
    from benchmark.causal.interventions import SteerableModel
    from benchmark.causal.measurement import CausalMeasurement
    from benchmark.models.checkpoint import Checkpoint
    from benchmark.tasks.suite import Suite

UNTRAINED_SEED = 0
STANDARD, FULL = "standard", "full"


@dataclass(frozen=True, kw_only=True)
class CausalOptions:
    """Measure whether a model uses its state, by edits with controls."""

    model: str = model_option("", "that of --add-to")
    add_to: Path | None = option(
        None, "write uses.json and causal.data into the folder of a run or submission, whose suite and dtype are used",
        metavar="FOLDER",
    )  # fmt: skip
    suite: str = suite_option(purpose=" of straight-line programs")
    dtype: str = dtype_option()
    device: str = device_option("cpu")
    threads: int = threads_option()
    backend: BackendOptions = group(BackendOptions)
    detail: str = option(
        STANDARD,
        "select the edits; full: also other edits at every site, doses, whole programs, displacement",
        choices=(STANDARD, FULL),
    )
    output_dir: Path = output_dir_option(Path("runs/causal"), "write result and evidence into this folder")


@dataclass(frozen=True)
class Measured:
    """A measurement with the model, None if its states cannot be replaced."""

    model: SteerableModel | None
    measurement: CausalMeasurement


def execute(options: CausalOptions) -> int:
    """Measure and print a card; returns the exit code."""
    if not options.model and options.add_to is None:
        raise UsageError("expected --model SPEC, or --add-to FOLDER")
    device = resolve_device(options.device, options.backend.address)
    make_folder(options.output_dir, "--output-dir")
    if options.add_to is not None:
        return _add(options, options.add_to, device)
    spec = read_model(options.model)
    note_slow_dtype(options.dtype, device, options.backend.address)
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    from benchmark.causal.pairs import derive_pairs
    from benchmark.causal.report import format_card, to_json
    from benchmark.cli.progress import show_progress
    from benchmark.cli.result_file import choose_result_file
    from benchmark.models.checkpoint import open_checkpoint
    from benchmark.models.interface import ModelSpec
    from benchmark.runner.store import to_safetensors
    from benchmark.tasks.suite import load_suite

    silence_libraries()
    suite = load_suite(options.suite)
    derive_pairs(suite)
    checkpoint = open_checkpoint(ModelSpec.parse(spec))
    note_trained_suite(checkpoint, suite)
    start = time.process_time()
    with show_progress() as progress:
        measured = measure_model(checkpoint, suite, options, device, progress.start)
    model, measurement = measured.model, measured.measurement
    print(f"{checkpoint.spec}, suite {suite.name} ({time.process_time() - start:.0f} processor seconds)")
    print(format_card(measurement))
    detail = None
    if options.detail == FULL and model is not None and measurement.evidence is not None:
        from benchmark.causal.detail.detail_report import format_detail
        from benchmark.causal.detail.measure_detail import measure_detail

        with show_progress() as progress:
            detail = measure_detail(model, suite, on_step=progress.start)
        print(f"\n{format_detail(detail.sites, detail.result)}")
    file = choose_result_file(
        options.output_dir, f"{checkpoint.name}-{suite.name}", "benchmark.causal.command", suite,
        digest=checkpoint.digest, dtype=options.dtype, edits=options.detail,
    )  # fmt: skip
    if measurement.evidence is not None:
        file.write_beside(".causal.data", to_safetensors(measurement.evidence.to_arrays()))
    figures = {"model": checkpoint.spec, **to_json(measurement)}
    file.write(figures | ({"detail": {"sites": list(detail.sites), **asdict(detail.result)}} if detail else {}))
    print(f"\nwrote {file.path}")
    return 0


def _add(options: CausalOptions, folder: Path, device: str) -> int:
    """Add the measurement to a folder and print its card; returns the exit code."""
    from benchmark.causal.report import format_result
    from benchmark.runner.measurement_record import UsesRecord
    from benchmark.runner.measurements.registry import MEASUREMENTS
    from benchmark.runner.record import format_eligibility
    from benchmark.submit.measurements.addition import Addition
    from benchmark.submit.measurements.command import add_on_backend

    silence_libraries()
    options.backend.check()
    addition = Addition(
        folder, ("uses", *(("uses-detail",) if options.detail == FULL else ())), options.output_dir, read_model(options.model) if options.model else "", device,
        options.threads, f"{program_name('causal')} --add-to {folder.name}",
    )  # fmt: skip
    run, (record, *details) = add_on_backend(addition, options.backend)
    assert isinstance(record, UsesRecord)
    print(f"{run.checkpoint.spec}, suite {record.suite.name}, eligible: {format_eligibility(record.unofficial)}")
    print(format_result(record.sites, record.use, record.merges))
    for detail in details:
        print(f"\n{MEASUREMENTS['uses-detail'].format_card(detail)}")
    for item in (record, *details):
        print(f"\nwrote {folder / item.FILE}" + (f" and {item.EVIDENCE}" if item.evidence_sha256 else ""))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(lambda: execute(parse_options(CausalOptions, arguments, "causal")))


def measure_model(
    checkpoint: Checkpoint, suite: Suite, options: CausalOptions, device: str, on_step: Callable[[str], None]
) -> Measured:
    """Load a model and its untrained copy and measure; N/A where its states cannot be replaced, merges if it scores words.

    Raises:
        ModelError: the model cannot be loaded.
    """
    import torch

    from benchmark.causal.measurement import CausalMeasurement, measure_merges, measure_use
    from benchmark.causal.verdict import not_applicable
    from benchmark.runner.measurements.word_scorers import load_steerable, load_word_scorer
    from benchmark.runner.plan import Job

    torch.set_num_threads(options.threads)
    job = Job(suite, checkpoint, options.dtype, device, 0, threads=options.threads)
    if checkpoint.has_hidden_states and not checkpoint.is_custom:
        model, untrained = load_steerable(job), load_steerable(job, UNTRAINED_SEED)
        return Measured(model, measure_use(model, suite, untrained, on_step=on_step))
    try:
        model, untrained = load_steerable(job), load_steerable(job, UNTRAINED_SEED)
        return Measured(model, measure_use(model, suite, untrained, on_step=on_step))
    except ModelError as error:
        reason = str(error)
    try:
        merges = measure_merges(load_word_scorer(job), suite)
    except ModelError:
        merges = None
    return Measured(None, CausalMeasurement(suite.name, (), not_applicable(reason), merges, None))


if __name__ == "__main__":
    sys.exit(main())
