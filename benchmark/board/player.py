"""What the page plays: programs that a model wrote and programs of the blind set, every step computed beforehand.

A page interprets nothing: each step is that of the interpreter, as JSON. A world is `[height, width, cells, robot]`, cells
row by row (-1 a wall, else markers), robot its row, column and heading; a step is `[word, robot, changed cells, value]`,
`changed cells` pairs of place and content, `value` that of a condition or null. Letters: `E` examples of a task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmark.probing.readout import Readings
from benchmark.tasks.probe_sets import first_inputs
from benchmark.tasks.scoring import OUTCOMES
from benchmark.tasks.suite import Suite, blind_tasks, test_tasks
from karel_env.compiler import compile_programs
from karel_env.interpreter import STATUSES, run
from karel_env.language import ACTIONS, HEADER, HEADER_TEXT, WORDS, Programs
from karel_env.parser import ParseError, parse
from karel_env.semantics import ADVERSARIAL, FLIP, ORIGINAL, Semantics, mirror_classes
from karel_env.stepping import snapshots
from karel_env.world import Worlds

WHOLE, SHOWN_ONLY = "solved", "shown examples only"
WANTED = {WHOLE: 5, SHOWN_ONLY: 3, **dict.fromkeys(OUTCOMES[1:], 1), "wrong output": 5}
"""Tasks of each outcome that are played: the first ones, in the order of the suite."""
MOST_STEPS = 200
MOST_TEXT = 2_000
PLAYED = 20
"""Programs of the blind set."""
MEANINGS = {s.name: s for s in (ORIGINAL, *mirror_classes(), FLIP, ADVERSARIAL)}


def played_tasks(suite: Suite, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Test tasks with the program that was written for each: the first of every outcome.

    Args:
        suite: of the run.
        samples: its rows of the stage `test`, in order.
    """
    left, found, tasks = dict(WANTED), [], test_tasks(suite)
    for sample in samples:
        kind = str(sample["outcome"])
        if kind == OUTCOMES[0]:
            kind = WHOLE if sample["held_out"] else SHOWN_ONLY
        if left.get(kind, 0) > 0:
            left[kind] -= 1
            found.append(_task(suite, tasks.take(np.array([sample["task"]])), sample, kind))
    return sorted(found, key=lambda one: (list(WANTED).index(one["kind"]), one["task"]))


def _task(suite: Suite, task: Any, sample: Mapping[str, Any], kind: str) -> dict[str, Any]:
    text = str(sample["text"])
    entry = {
        "task": int(sample["task"]), "kind": kind, "reference": _words(task.programs.program(0)),
        "text": text[:MOST_TEXT], "words": None, "examples": [],
    }  # fmt: skip
    try:
        words = parse(f"{HEADER_TEXT} {text}")
    except ParseError as problem:
        return entry | {"problem": str(problem)[:200]}
    inputs, outputs = task.inputs[0], task.outputs[0]
    done = run(Programs.of([words]), task.inputs)
    same = done.worlds.same_state(task.outputs) if suite.equality == "state" else done.worlds.same_drawing(task.outputs)
    examples = [
        {
            "shown": e < suite.shown,
            "input": world_of(inputs[e]),
            "wanted": world_of(outputs[e]),
            "steps": steps_of(words, inputs[e]),
            "status": STATUSES[int(done.status[0, e])],
            "right": bool(same[0, e] and done.status[0, e] == 0),
        }
        for e in range(len(inputs))
    ]
    return entry | {"words": _words(words), "examples": examples}


def played_readings(suite: Suite, readings: Readings) -> dict[str, Any]:
    """The first programs of a row's readings: where each leads under every semantics, and what was read on the way."""
    tasks = blind_tasks(suite)
    worlds = first_inputs(tasks)
    programs = []
    for place, number in enumerate(readings.task[:PLAYED]):
        words, world = tasks.programs.program(number), worlds[number]
        under = {
            one.semantics: {
                "steps": steps_of(words, world, MEANINGS[one.semantics]),
                "true": one.true[place], "read": one.read[place], "probability": one.probability[place],
            }
            for one in readings.by_semantics
        }  # fmt: skip
        programs.append({"task": number, "words": _words(words), "input": world_of(world), "under": under})
    return {
        "feature": readings.feature,
        "seed": readings.seed,
        "semantics": [{"name": one.semantics, "view": one.view, "prior": one.prior} for one in readings.by_semantics],
        "programs": programs,
    }


def meaning_of(semantics: Semantics) -> str:
    """What each action word that means another does, such as `move turns left`."""
    does = ("moves", "turns left", "turns right", "picks a marker", "puts a marker")
    other = [
        f"{word} {does[effect]}"
        for i, (word, effect) in enumerate(zip(ACTIONS, semantics.actions, strict=True))
        if i != effect
    ]
    return ", ".join(other) or "every word means what it says"


def world_of(world: Worlds) -> list[Any]:
    """One world, see above."""
    high, wide = (int(n) for n in world.size)
    return [high, wide, world.cells[:high, :wide].ravel().tolist(), world.robot.tolist()]


def steps_of(words: np.ndarray, world: Worlds, semantics: Semantics = ORIGINAL) -> list[list[Any]]:
    """The steps of one program in one world, at most `MOST_STEPS`; `word` counts from behind the header."""
    trace = run(
        compile_programs(Programs.of([words])),
        Worlds(*(part[None] for part in vars(world).values())),
        semantics,
        trace=True,
    ).trace
    assert trace is not None
    seen, place, steps = snapshots(words, world, semantics), 0, []
    for word, value in zip(trace.word[:MOST_STEPS].tolist(), trace.value[:MOST_STEPS].tolist(), strict=True):
        changed: list[list[int]] = []
        if value < 0:
            before, after = seen.cells[place].ravel(), seen.cells[place + 1].ravel()
            changed = [[int(i), int(after[i])] for i in np.flatnonzero(before != after)]
            place += 1
        steps.append([word - len(HEADER), seen.robot[place].tolist(), changed, None if value < 0 else bool(value)])
    return steps


def _words(program: np.ndarray) -> list[str]:
    """The words behind the header."""
    return [WORDS[word] for word in program[len(HEADER) :]]
