"""What `benchmark.doctor.command` looks at in a class of one's own, of which it knows no tokens."""

from __future__ import annotations

import time

from benchmark.doctor.context import FAIL, OK, NUM_TASKS, CheckResult, DoctorContext, relative_difference
from benchmark.runner.plan import plan
from benchmark.tasks.stage import CONSTRAINED, GENERATED, SAMPLED, TEST

GENERATION_STAGES = (TEST, GENERATED, CONSTRAINED, SAMPLED)
WORD_SUBSTITUTES = {"move();": "turn_left();", "turn_left();": "move();"}
"""What a word is replaced by, to see which states change; any other becomes the first."""


def check_causality(patient: DoctorContext) -> CheckResult:
    """With another word in a program, do the states change from that word on, and not before?"""
    prompt, words = patient.prompts[0], max(patient.programs, key=len).split()
    for place in {0, len(words) - 2}:
        other = words.copy()
        other[place] = WORD_SUBSTITUTES.get(words[place], "move();")
        one, two = (patient.model.hidden_states([prompt], [" ".join(each)]) for each in (words, other))
        before = (("emit", place + 1), ("read", place))
        for position, count in before:
            first, second = (found.values[getattr(found, position)[:count]] for found in (one, two))
            if count and not patient.agree(first, second):
                return CheckResult(
                    "causality", FAIL, f"word {place + 1} of a program changes the {position} states of words before it or its "
                    "own: emit is the row before a word's first token, read that of its last, and no row may look ahead",
                )  # fmt: skip
        for position, row in (("read", place), ("emit", place + 1)):
            first, second = (found.values[getattr(found, position)[row]] for found in (one, two))
            if relative_difference(first, second) == 0:
                return CheckResult(
                    "causality", FAIL, f"word {place + 1} of a program does not change the {position} state that follows it: "
                    "read is the row of a word's last token, and emit of the next word comes after it",
                )  # fmt: skip
    return CheckResult("causality", OK, "states change from a changed word on, and none before it")


def estimate_speed(patient: DoctorContext) -> CheckResult:
    """What will the evaluation of a whole run take, by the time of two tasks?"""
    prompts = patient.prompts[:NUM_TASKS]
    began = time.perf_counter()
    patient.model.generate(prompts, patient.room)
    written = time.perf_counter()
    patient.states(prompts)
    read = time.perf_counter()
    items = {True: 0, False: 0}
    for shard in plan(patient.job):
        items[shard.stage in GENERATION_STAGES] += shard.stop - shard.start
    seconds = (items[True] * (written - began) + items[False] * (read - written)) / NUM_TASKS
    says = (
        f"the evaluation of {patient.job.suite.name} takes about {seconds / 60:.0f} min in one process, by two tasks; "
    )
    return CheckResult("speed", OK, f"{says}probing comes on top")
