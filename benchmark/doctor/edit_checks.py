"""Check of `benchmark.doctor` on replaced states, which the causal measurement needs."""

from __future__ import annotations

from benchmark.causal.shams import SHAMS, run_shams
from benchmark.doctor.context import NUM_TASKS, OK, WARN, CheckResult, DoctorContext
from benchmark.models.huggingface import HuggingFaceModel
from benchmark.models.steering import open_steerable

PREFIXES = ("move(); turn_left(); move();", "turn_right(); put_marker(); move();")


def check_edits(doctor_context: DoctorContext) -> CheckResult:
    """Do sham edits of the states change nothing, and real ones only what comes after them?"""
    assert isinstance(doctor_context.model, HuggingFaceModel)
    model = open_steerable(doctor_context.model)
    prompts = [prompt for prompt in doctor_context.prompts[:NUM_TASKS] for _ in PREFIXES]
    failures = run_shams(model, prompts, PREFIXES * (len(prompts) // len(PREFIXES)))
    if failures:
        return CheckResult("edits", WARN, f"{failures[0]}; trust no causal measurement of this model")
    return CheckResult(
        "edits", OK, f"{len(SHAMS)} sham checks pass at {len(model.sites)} sites, {', '.join(model.sites)}"
    )
