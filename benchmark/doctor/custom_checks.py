"""Checks of `benchmark.doctor` for custom models, whose tokens are not known."""

from __future__ import annotations

import time

from benchmark.doctor.context import FAIL, NUM_TASKS, OK, CheckResult, DoctorContext, relative_difference
from benchmark.runner.plan import plan

WORD_SUBSTITUTES = {"move();": "turn_left();", "turn_left();": "move();"}
"""Replacement per item; other items are replaced by `move();`."""


def check_causality(doctor_context: DoctorContext) -> CheckResult:
    """Does replacing an item of a program change the states from that item on, and none before?"""
    prompt, words = doctor_context.prompts[0], max(doctor_context.programs, key=len).split()
    for index in {0, len(words) - 2}:
        changed_words = words.copy()
        changed_words[index] = WORD_SUBSTITUTES.get(words[index], "move();")
        original, changed = (
            doctor_context.model.hidden_states([prompt], [" ".join(program_words)])
            for program_words in (words, changed_words)
        )
        before = (("emit", index + 1), ("read", index))
        for position, count in before:
            first, second = (hidden.values[getattr(hidden, position)[:count]] for hidden in (original, changed))
            if count and not doctor_context.are_close(first, second):
                return CheckResult(
                    "causality", FAIL, f"word {index + 1} of a program changes the {position} states of words before it or its "
                    "own: emit is the row before a word's first token, read that of its last, and no row may look ahead",
                )  # fmt: skip
        for position, row in (("read", index), ("emit", index + 1)):
            first, second = (hidden.values[getattr(hidden, position)[row]] for hidden in (original, changed))
            if relative_difference(first, second) == 0:
                return CheckResult(
                    "causality", FAIL, f"word {index + 1} of a program does not change the {position} state that follows it: "
                    "read is the row of a word's last token, and emit of the next word comes after it",
                )  # fmt: skip
    return CheckResult("causality", OK, "states change from a changed word on, and none before it")


def estimate_speed(doctor_context: DoctorContext) -> CheckResult:
    """How long does the evaluation of a complete run take, by the time of two tasks?"""
    prompts = doctor_context.prompts[:NUM_TASKS]
    started = time.perf_counter()
    doctor_context.model.generate(prompts, doctor_context.max_new_words)
    generated = time.perf_counter()
    doctor_context.states(prompts)
    finished = time.perf_counter()
    items = {True: 0, False: 0}
    for shard in plan(doctor_context.job):
        items[shard.stage.is_generating] += shard.stop - shard.start
    seconds = (items[True] * (generated - started) + items[False] * (finished - generated)) / NUM_TASKS
    message = f"the evaluation of {doctor_context.job.suite.name} takes about {seconds / 60:.0f} min in one process, by two tasks; "
    return CheckResult("speed", OK, f"{message}probing is not included")
