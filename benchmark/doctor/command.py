"""Check a model before a run: `python -m benchmark.doctor --model SPEC`.

Every step of a run is done on two tasks of a suite and compared with plain forward passes of the model: token
alignment, hidden states, padding, precision, generation, untrained copies. Time and memory of a complete run are then
estimated. Exit codes: 0 usable, 2 usage, 3 not usable.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence

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


def run_checks(doctor_context: DoctorContext) -> Iterator[CheckResult]:
    """Run the checks in order; stop after a failed check that later ones require."""
    if not doctor_context.job.checkpoint.has_hidden_states:
        yield CheckResult("hidden states", OK, "none: the model is not a network and only writes programs")
        yield _run_check("generation", check_generator, doctor_context)
        return
    for name, check, is_required in CUSTOM_CHECKS if doctor_context.job.checkpoint.is_custom else CHECKS:
        result = _run_check(name, check, doctor_context)
        yield result
        if is_required and result.outcome == FAIL:
            yield CheckResult("the rest", SKIPPED, f"not checked; fix this first: {name}")
            return


def check_generator(doctor_context: DoctorContext) -> CheckResult:
    """Does a model without hidden states generate?"""
    written = doctor_context.worker.writer(TEST).generate(
        doctor_context.prompts[:NUM_TASKS], doctor_context.max_new_words
    )
    return CheckResult("generation", OK, f"wrote {written[0].text[:60]!r}")


def _run_check(name: str, check: Callable[[DoctorContext], CheckResult], doctor_context: DoctorContext) -> CheckResult:
    try:
        with suppress_native_stderr():
            return check(doctor_context)
    except BenchmarkError as problem:
        return CheckResult(name, FAIL, str(problem))
    except BaseException as problem:  # a model may raise anything; the doctor reports it and continues
        if not isinstance(problem, Exception) and not is_panic(problem):
            raise
        text = " ".join(str(problem).split())[:300]
        return CheckResult(name, FAIL, f"{type(problem).__name__}: {text}; the model or its files are at fault")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = CommandParser(prog="python -m benchmark.doctor", description="Check a model before a run.")
    add = parser.add_argument
    add("--model", required=True, help="as for benchmark.run")
    add("--suite", default="smoke", help="name of a suite, or a .yaml file (default: smoke)")
    add("--dtype", choices=sorted(DTYPES), default="float32", help="dtype of the model (default: float32)")
    add("--device", default="cpu", help="auto, cpu or cuda (default: cpu)")
    add_loading_options(parser)
    add_limit_options(parser, LOAD_DEADLINE)
    add("--track", choices=TRACKS, default=TRAINED, help="prompt track (default: trained)")

    def examine_model() -> int:
        options = parser.parse_args(arguments)
        options.device = resolve_device(options.device)
        checkpoint = open_checkpoint(ModelSpec.parse(options.model), load_options(options))
        check_loads(options, checkpoint)
        doctor_context = DoctorContext(
            load_suite(options.suite), checkpoint, options.dtype, options.device, options.track
        )
        print(f"{checkpoint.spec}, suite {doctor_context.job.suite.name}, {options.track} track, {options.dtype}")
        outcomes = []
        for result in run_checks(doctor_context):
            outcomes.append(result.outcome)
            print(f"{result.outcome:<6}{result.name:<18}{result.message}", flush=True)
        if FAIL in outcomes:
            print("not usable")
            return ModelError.exit_code
        print("usable" + (", with warnings" if WARN in outcomes else ""))
        return 0

    return run_command(examine_model)


if __name__ == "__main__":
    sys.exit(main())
