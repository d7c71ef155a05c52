"""Check a model before a run: `karel-bench doctor --model SPEC`.

Every step of a run is done on two tasks of a suite and compared with plain forward passes of the model: token
alignment, hidden states, padding, precision, generation, randomly initialised copies. Time and memory of a complete run are then
estimated. Exit codes: 0 usable, 2 usage, 3 not usable.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

<<<<<<< HEAD
from benchmark.cli.declare import group, parse_options
from benchmark.cli.fields import device_option, dtype_option, model_option, suite_option, track_option
from benchmark.cli.model_spec import read_model
from benchmark.cli.options import LOAD_DEADLINE, LimitOptions, LoadingOptions, resolve_device
from benchmark.command import run_command, silence_libraries
from benchmark.errors import ModelError
from benchmark.models.interface import ModelSpec
=======
from benchmark.cli.options import (
    LOAD_DEADLINE,
    add_limit_options,
    add_loading_options,
    check_loads,
    load_options,
    resolve_device,
)
from benchmark.command import run_command
from benchmark.doctor import checks, custom_checks, edit_checks
from benchmark.doctor.context import FAIL, NUM_TASKS, OK, SKIPPED, WARN, CheckResult, DoctorContext
from benchmark.errors import BenchmarkError, ModelError, is_panic
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.huggingface import DTYPES
from benchmark.models.interface import ModelSpec
from benchmark.models.tokenizer import suppress_native_stderr
from benchmark.tasks.prompt_template import TRACKS, TRAINED
from benchmark.tasks.stage import TEST
from benchmark.tasks.suite import load_suite
from karel_env.command import CommandParser

Checks = tuple[tuple[str, Callable[[DoctorContext], CheckResult], bool], ...]
CHECKS: Checks = (
    ("tokenizer", checks.check_tokenizer, True),
    ("words", checks.check_words, True),
    ("weights", checks.check_weights, True),
    ("context", checks.check_context, True),
    ("loading", checks.check_loading, True),
    ("causality", checks.causality, False),
    ("alignment", checks.check_alignment, False),
    ("padding", checks.check_padding, False),
    ("precision", checks.check_precision, False),
    ("generation", checks.check_generation, False),
    ("argmax", checks.check_argmax, False),
    ("batch sizes", checks.check_batches, False),
    ("edits", edit_checks.check_edits, False),
    ("untrained copies", checks.check_untrained_copies, False),
    ("speed", checks.estimate_speed, False),
)
"""Name, check function, and whether later checks require it to pass."""
CUSTOM_CHECKS: Checks = (
    ("loading", checks.check_loading, True),
    ("causality", custom_checks.check_causality, False),
    ("padding", checks.check_padding, False),
    ("generation", checks.check_generation, False),
    ("batch sizes", checks.check_batches, False),
    ("untrained copies", checks.check_untrained_copies, False),
    ("speed", custom_checks.estimate_speed, False),
)
"""The same for a custom model."""
>>>>>>> causal


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Check a model before a run."""

    model: str = model_option()
    suite: str = suite_option("smoke")
    dtype: str = dtype_option()
    device: str = device_option("cpu")
    track: str = track_option()
    loading: LoadingOptions = group(LoadingOptions)
    limits: LimitOptions = group(LimitOptions, load_deadline=LOAD_DEADLINE)


def examine(options: DoctorOptions) -> int:
    """Check the model and print a line per check; returns the exit code."""
    spec, device = ModelSpec.parse(read_model(options.model)), resolve_device(options.device)
    # What computes is imported here, after the options are known to be right: it takes 5 s.
    from benchmark.doctor.context import FAIL, WARN, DoctorContext
    from benchmark.doctor.examination import run_checks
    from benchmark.models.checkpoint import open_checkpoint
    from benchmark.tasks.suite import load_suite

    silence_libraries()
    checkpoint = open_checkpoint(spec, options.loading.load_options())
    options.limits.check_loads(checkpoint, options.dtype, device)
    context = DoctorContext(load_suite(options.suite), checkpoint, options.dtype, device, options.track)
    print(f"{checkpoint.spec}, suite {context.job.suite.name}, {options.track} track, {options.dtype}")
    outcomes = []
    for result in run_checks(context):
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
