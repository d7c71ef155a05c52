"""Add measurements to a folder whose other files stay as they are: a run, or a submission with its weights.

A measurement is computed as by a run, in a run folder of its own, so that it can be stopped and continued; then its
record and evidence are copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.artifacts import DESCRIPTION, MAX_BYTES, RECORD, SAMPLES
from benchmark.errors import SubmissionError, UsageError, VerificationError
from benchmark.files import read_bytes
from benchmark.models.checkpoint import Checkpoint, open_checkpoint, resolve_digest
from benchmark.models.interface import ModelSpec
from benchmark.runner.folder import RunFolder
from benchmark.runner.measurement_record import MeasurementRecord, ReachRecord, read_measurement
from benchmark.runner.measurements.measurement import Measurement
from benchmark.runner.measurements.registry import MEASUREMENTS
from benchmark.runner.plan import GenerationOptions
from benchmark.runner.record import Record, read_record
from benchmark.runner.store import write_atomic
from benchmark.submit.artifacts.listing import listed_artifacts
from benchmark.submit.check_samples import read_samples
from benchmark.submit.schema import LOCAL_WEIGHTS, WITHHELD, read_submission
from benchmark.tasks.stage import GENERATED

if TYPE_CHECKING:
    from benchmark.runner.run import Run
    from benchmark.runner.stages import Backend, Progress


@dataclass(frozen=True)
class Addition:
    """What is added, and where it is computed.

    Attributes:
        folder: folder of a finished run or of a submission.
        measurements: names of the measurements.
        out: folder in which the run folder of the measurements is made.
        model: spec of the model; empty for the one that the folder names.
        device: device of the forward pass.
        threads: CPU threads per forward pass.
        command: the command line, for the records.
        few_programs: whether *Represents* of the trained track is read from few programs.
    """

    folder: Path
    measurements: tuple[str, ...]
    out: Path
    model: str = ""
    device: str = "cpu"
    threads: int = 1
    command: str = ""
    few_programs: bool = False


def prepare_addition(addition: Addition) -> Run:
    """The run whose measurements are added.

    Raises:
        BenchmarkError: the folder has no record.
        SubmissionError: the record is not of the suite's whole test set.
        UsageError: the model must be named, a measurement does not fit the suite or the track, or its figures could not be
            checked by the samples.
        VerificationError: the model is not that of the record.
    """
    from benchmark.runner.run import Run
    from benchmark.runner.run_config import RunConfig

    folder = addition.folder
    record = read_record(folder / RECORD)
    checkpoint = open_checkpoint(ModelSpec.parse(addition.model or _spec_of(folder, record)), record.model.loading)
    _check_model(record, checkpoint)
    config = RunConfig(
        suite=record.suite.name, dtype=record.model.dtype, device=addition.device, threads=addition.threads,
        out=addition.out, command=addition.command, measurements=addition.measurements,
        generation=GenerationOptions(record.track), few_programs=addition.few_programs, **_recorded_prompts(record),
    )  # fmt: skip
    run = Run(config, checkpoint)
    if run.suite_entry() != record.suite:
        raise SubmissionError(
            f"{folder}: of suite {record.suite.name} v{record.suite.version} with {record.suite.tasks:,} tasks and seed "
            f"{record.suite.seed}; expected the suite as it is shipped"
        )
    for name in addition.measurements:
        reason = MEASUREMENTS[name].skip_reason(run.job)
        if reason is not None:
            raise UsageError(f"{folder}: {name} is not measured: {reason}")
        if MEASUREMENTS[name].record_type is ReachRecord and (folder / DESCRIPTION).is_file():
            _check_probe_programs(folder)
    return run


def _check_probe_programs(folder: Path) -> None:
    """Refuse to measure reach where it could not be verified, which takes minutes and would then be found."""
    if all(sample.stage != GENERATED for sample in read_samples(folder)):
        raise UsageError(
            f"{folder}: reach is not measured: {SAMPLES} has no programs for the probe tasks, from which its figures would be "
            "checked; submit a run without --without protocol-3"
        )


def _recorded_prompts(record: Record) -> dict[str, Any]:
    """Arguments of the configuration for the few-shot prompts of a run."""
    return {} if record.frame is None else {"num_fewshot": record.frame.shots, "dialect": record.frame.dialect}


def _spec_of(folder: Path, record: Record) -> str:
    """Spec of the model that a folder names.

    Raises:
        UsageError: the weights are withheld.
    """
    if (folder / DESCRIPTION).is_file():
        model = read_submission(folder).model
        if model == WITHHELD:
            raise UsageError(f"{folder}: its weights are withheld; name them with --model")
        if model == LOCAL_WEIGHTS and listed_artifacts(folder):
            raise UsageError(
                f"{folder}: its files are not all in the folder; get them by submit fetch NAME --output-dir DIR, and measure there"
            )
        return f"path:{folder}" if model == LOCAL_WEIGHTS else model
    started = [event for event in RunFolder.events_of(folder) if event["event"] == "started" and "model" in event]
    return str(started[-1]["model"]) if started else record.model.spec


def _check_model(record: Record, checkpoint: Checkpoint) -> None:
    digest = resolve_digest(record.model.digest, checkpoint.digest, checkpoint.spec)
    if digest != record.model.digest:
        raise VerificationError(
            f"{checkpoint.spec}: digest {digest}; expected {record.model.digest}, the model of the record"
        )


def add_measurements(addition: Addition, run: Run, backend: Backend, progress: Progress) -> list[MeasurementRecord]:
    """Compute the measurements of `prepare_addition` and write their records and evidence into the folder.

    Raises:
        SubmissionError: the folder is a submission, and a measurement is not eligible for the leaderboard.
        ItemsFailed: items were given up for other reasons than the model.
    """
    from benchmark.runner.measurements.stage import measure_only

    measure_only(run, backend, progress)
    record = read_record(addition.folder / RECORD)
    return [_copy(run, MEASUREMENTS[name], record, addition.folder) for name in addition.measurements]


def _copy(run: Run, measurement: Measurement, record: Record, folder: Path) -> MeasurementRecord:
    kind = measurement.record_type
    computed = read_measurement(kind, run.root())
    assert computed is not None
    if not computed.official and (folder / DESCRIPTION).is_file():
        raise SubmissionError(
            f"{folder}: {measurement.name} is not eligible ({'; '.join(computed.unofficial)}); it stays in {run.root()}"
        )
    # The same model may be loaded from another folder than that of the run.
    model = computed.model.model_copy(
        update={"spec": record.model.spec, "name": record.model.name, "digest": record.model.digest}
    )
    copied = computed.model_copy(update={"model": model})
    if computed.evidence_sha256 is None:
        (folder / kind.EVIDENCE).unlink(missing_ok=True)
    else:
        write_atomic(folder / kind.EVIDENCE, read_bytes(run.root() / kind.EVIDENCE, MAX_BYTES[kind.EVIDENCE]))
    write_atomic(folder / kind.FILE, copied.to_json().encode())
    return copied
