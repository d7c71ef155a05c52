"""The checks of the doctor in order; see `doctor.command`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from benchmark.doctor import checks, custom_checks, edit_checks
from benchmark.doctor.context import FAIL, NUM_TASKS, OK, SKIPPED, CheckResult, DoctorContext
from benchmark.doctor.states_check import NAME, check_states_file
from benchmark.errors import BenchmarkError, is_panic
from benchmark.models.tokenizer import suppress_native_stderr

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
    ("random copies", checks.check_random_copies, False),
    ("speed", checks.estimate_speed, False),
)
"""Name, check function, and whether later checks require it to pass."""
CUSTOM_CHECKS: Checks = (
    ("loading", checks.check_loading, True),
    ("causality", custom_checks.check_causality, False),
    ("padding", checks.check_padding, False),
    ("generation", checks.check_generation, False),
    ("batch sizes", checks.check_batches, False),
    ("random copies", checks.check_random_copies, False),
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


def run_states_check(doctor_context: DoctorContext, path: Path) -> Iterator[CheckResult]:
    """Check that the model can be loaded, then the states of a file."""
    loading = _run_check("loading", checks.check_loading, doctor_context)
    yield loading
    if loading.outcome != FAIL:
        yield _run_check(NAME, lambda context: check_states_file(context, path), doctor_context)


def check_generator(doctor_context: DoctorContext) -> CheckResult:
    """Does a model without hidden states generate?"""
    written = doctor_context.worker.writer().generate(doctor_context.prompts[:NUM_TASKS], doctor_context.max_new_words)
    return CheckResult("generation", OK, f"wrote {written[0].text[:60]!r}")


def _run_check(name: str, check: Callable[[DoctorContext], CheckResult], doctor_context: DoctorContext) -> CheckResult:
    try:
        with suppress_native_stderr():
            return check(doctor_context)
    except BenchmarkError as error:
        return CheckResult(name, FAIL, str(error))
    except BaseException as error:  # a model may raise anything; the doctor reports it and continues
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        text = " ".join(str(error).split())[:300]
        return CheckResult(name, FAIL, f"{type(error).__name__}: {text}; the model or its files are at fault")
