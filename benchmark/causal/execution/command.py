"""Measure whether a model that executes programs uses its state: `python -m benchmark.causal.execution --model SPEC`.

The model gets solved examples, a world and a program, and names the robot's heading. No training on Karel is needed. Prints
a card and writes `NAME-SUITE-execution.json` and `NAME-SUITE-execution.causal.data` (the headings named, safetensors). What
these files have is not measured again. Exit codes: 0 done (N/A included), 2 usage, 3 the model cannot be loaded.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.causal.execution.heading_tasks import AT_WORD, EDIT_POSITIONS
from benchmark.cli.declare import option, parse_options
from benchmark.cli.fields import (
    device_option,
    dtype_option,
    model_option,
    output_dir_option,
    suite_option,
    threads_option,
)
from benchmark.cli.measured_model import check_model_options, open_measured_model
from benchmark.command import note_results_kept, run_command
from benchmark.errors import ModelError
from karel_env.command import integer

if TYPE_CHECKING:
    from benchmark.causal.execution.heading_tasks import HeadingTasks
    from benchmark.causal.execution.measurement import ExecutionMeasurement
    from benchmark.causal.interventions import SteerableModel
    from benchmark.cli.result_file import ResultFile
    from benchmark.models.checkpoint import Checkpoint
    from benchmark.probing.version4.rotation_verdict import RotationResult
    from benchmark.tasks.suite import Suite

UNTRAINED_SEED = 0
REPRESENTS = "represents"
NUM_TASKS, MIN_TASKS = 400, 20


@dataclass(frozen=True, kw_only=True)
class ExecutionOptions:
    """Measure whether a model that executes programs uses its state, by edits with controls."""

    model: str = model_option("", "none, it must be named")
    suite: str = suite_option(purpose=" of straight-line programs that gives worlds and actions")
    tasks: int = option(
        NUM_TASKS, "set the number of tasks; two fifths choose the site", read_with=integer(MIN_TASKS, 100_000),
        metavar="N",
    )  # fmt: skip
    shots: int = option(4, "set the number of solved examples", read_with=integer(0, 100), metavar="N")
    edit_at: str = option(
        AT_WORD, "edit the last token of the program's last action, or of the question", choices=EDIT_POSITIONS
    )
    represents: bool = option(
        False, "also probe the states behind these prompts, without solved examples: Represents, by protocol 4"
    )
    dtype: str = dtype_option()
    device: str = device_option("cpu")
    threads: int = threads_option()
    output_dir: Path = output_dir_option(Path("runs/causal"), "write result and evidence into this folder")


def execute(options: ExecutionOptions) -> int:
    """Measure and print a card; returns the exit code."""
    spec, device = check_model_options(options.model, options.dtype, options.device, options.output_dir)
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    from benchmark.causal.execution.heading_tasks import derive_heading_tasks
    from benchmark.causal.execution.report import format_execution
    from benchmark.cli.result_file import choose_result_file
    from benchmark.runner.measurements.represents import format_rotation
    from benchmark.tasks.suite import load_suite

    suite = load_suite(options.suite)
    tasks = derive_heading_tasks(suite, options.tasks, num_shots=options.shots, edit_at=options.edit_at)
    checkpoint = open_measured_model(spec, options.threads)
    file = choose_result_file(
        options.output_dir, f"{checkpoint.name}-{suite.name}-execution", "benchmark.causal.execution.command", suite,
        digest=checkpoint.digest, dtype=options.dtype, tasks=options.tasks, shots=options.shots, edit_at=options.edit_at,
    )  # fmt: skip
    measurement = _measure_uses(options, tasks, checkpoint, device, file)
    print(
        f"{checkpoint.spec}, suite {suite.name}, execution, {options.tasks} tasks, {options.shots} shots, edited at the {options.edit_at}"
    )
    print(format_execution(measurement))
    if options.represents:
        result = _measure_represents(options, suite, checkpoint, device, file)
        print(f"\nRepresents, behind the same prompts without solved examples\n{format_rotation(result)}")
    print(f"\nwrote {file.path}")
    return 0


def _measure_uses(
    options: ExecutionOptions, tasks: HeadingTasks, checkpoint: Checkpoint, device: str, file: ResultFile
) -> ExecutionMeasurement:
    """Measure *Uses* and write it with its evidence, unless the file has it."""
    from benchmark.causal.execution.measurement import measure_execution
    from benchmark.causal.execution.report import from_json, to_json
    from benchmark.cli.progress import show_progress
    from benchmark.runner.store import to_safetensors

    content = file.read()
    if content:
        print(f"Uses is that of {file.path}", file=sys.stderr)
        return from_json(content)
    model, untrained = (
        open_executing(checkpoint, options.dtype, device, tasks.answers, seed) for seed in (None, UNTRAINED_SEED)
    )
    start = time.process_time()
    with show_progress() as progress:
        measurement = measure_execution(model, tasks, untrained, progress.start)
    print(f"Uses took {time.process_time() - start:.0f} processor seconds", file=sys.stderr)
    if measurement.evidence is not None:
        file.write_beside(".causal.data", to_safetensors(measurement.evidence.to_arrays()))
    file.write({"model": checkpoint.spec, **to_json(measurement)})
    return measurement


def open_executing(
    checkpoint: Checkpoint, dtype: str, device: str, answers: Sequence[str], seed: int | None = None
) -> SteerableModel:
    """Load a network, or with `seed` its untrained copy, that scores answers in place of words.

    Raises:
        ModelError: it cannot be loaded, or is no network of transformers.
    """
    from benchmark.models.huggingface import HuggingFaceModel
    from benchmark.models.loading import load_model
    from benchmark.models.steering import open_steerable

    if checkpoint.is_custom or not checkpoint.has_hidden_states:
        raise ModelError(f"{checkpoint.spec}: no states that can be replaced; expected a network of transformers")
    model = load_model(checkpoint, dtype, device, seed)
    if not isinstance(model, HuggingFaceModel):
        raise ModelError(f"{checkpoint.spec}: no states that can be replaced; expected a network of transformers")
    return open_steerable(model, answers)


def _measure_represents(
    options: ExecutionOptions, suite: Suite, checkpoint: Checkpoint, device: str, file: ResultFile
) -> RotationResult:
    """Measure *Represents* and add it to the file, unless the file has it."""
    from pydantic import TypeAdapter

    from benchmark.cli.progress import show_progress
    from benchmark.probing.version4.rotation_verdict import RotationResult
    from benchmark.runner.measurements.represents_executing import measure_represents_executing
    from benchmark.runner.plan import GenerationOptions, Job
    from benchmark.tasks.prompt_template import FEWSHOT

    content = file.read()
    if REPRESENTS in content:
        print(f"Represents is that of {file.path}", file=sys.stderr)
        stored: RotationResult = TypeAdapter(RotationResult).validate_python(content[REPRESENTS])
        return stored
    note_results_kept()
    job = Job(
        suite, checkpoint, options.dtype, device, 1, threads=options.threads,
        generation=GenerationOptions(track=FEWSHOT),
    )  # fmt: skip
    with show_progress() as progress:
        result = measure_represents_executing(job, on_step=progress.start)
    file.write(content | {REPRESENTS: asdict(result)})
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(
        lambda: execute(parse_options(ExecutionOptions, arguments, "execution", module="benchmark.causal.execution"))
    )


if __name__ == "__main__":
    sys.exit(main())
