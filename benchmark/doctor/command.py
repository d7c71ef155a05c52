"""Check a model before a run: `karel-bench doctor --model SPEC`.

Every step of a run is done on two tasks of a suite and compared with plain forward passes of the model: token
alignment, hidden states, padding, precision, generation, randomly initialised copies. Time and memory of a complete run are then
estimated. With `--states FILE`, states that another engine wrote are compared with those of transformers instead. Exit codes: 0 usable, 2 usage, 3 not usable.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.cli.declare import group, option, parse_options
from benchmark.cli.dtype_note import note_slow_dtype
from benchmark.cli.fields import (
    device_option,
    dialect_option,
    dtype_option,
    model_option,
    num_fewshot_option,
    suite_option,
    track_option,
)
from benchmark.cli.model_spec import read_model
from benchmark.cli.options import LOAD_DEADLINE, LimitOptions, LoadingOptions, check_prompt_options, resolve_device
from benchmark.command import run_command, silence_libraries
from benchmark.errors import ModelError
from benchmark.models.interface import ModelSpec


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Check a model before a run."""

    model: str = model_option()
    suite: str = suite_option("smoke")
    dtype: str = dtype_option()
    device: str = device_option("cpu")
    track: str = track_option()
    num_fewshot: int | None = num_fewshot_option()
    dialect: str = dialect_option(" in few-shot prompts and answers")
    states: Path | None = option(
        None, "only compare the states of this file, which another engine wrote, with those of transformers on a few prompts",
        metavar="FILE.safetensors",
    )  # fmt: skip
    loading: LoadingOptions = group(LoadingOptions)
    limits: LimitOptions = group(LimitOptions, load_deadline=LOAD_DEADLINE)


def examine(options: DoctorOptions) -> int:
    """Check the model and print a line per check; returns the exit code."""
    check_prompt_options(options.track, options.num_fewshot, options.dialect)
    spec, device = ModelSpec.parse(read_model(options.model)), resolve_device(options.device)
    note_slow_dtype(options.dtype, device)
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    from benchmark.doctor.context import FAIL, WARN, DoctorContext
    from benchmark.doctor.examination import run_checks, run_states_check
    from benchmark.models.checkpoint import open_checkpoint
    from benchmark.tasks.suite import load_suite, set_prompts

    silence_libraries()
    checkpoint = open_checkpoint(spec, options.loading.load_options(), options.loading.read_device_map(device))
    options.limits.check_loads(checkpoint, options.dtype, device)
    suite = set_prompts(load_suite(options.suite), options.num_fewshot, options.dialect)
    context = DoctorContext(suite, checkpoint, options.dtype, device, options.track)
    print(f"{checkpoint.spec}, suite {context.job.suite.name}, {options.track} track, {options.dtype}")
    outcomes = []
    for result in run_checks(context) if options.states is None else run_states_check(context, options.states):
        outcomes.append(result.outcome)
        print(f"{result.outcome:<6}{result.name:<18}{result.message}", flush=True)
    if FAIL in outcomes:
        print("not usable")
        return ModelError.exit_code
    print("usable" + (", with warnings" if WARN in outcomes else ""))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(lambda: examine(parse_options(DoctorOptions, arguments, "doctor")))


if __name__ == "__main__":
    sys.exit(main())
