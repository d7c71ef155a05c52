"""Player data of the page: a model's programs and programs of the blind set, with every step precomputed as JSON.

The page interprets nothing: each step comes from the interpreter. A world is `[height, width, cells, robot]`: cells in row
order (-1 a wall, else the number of markers), and row, column and heading of the robot. A step is `[token, robot, changed
cells, value]`: `token` the index of the program token, `changed cells` pairs of cell index and content, `value` the value
of a condition or null. Letters: `E` examples of a task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from benchmark.probing.readout import Readout
from benchmark.tasks.probe_sets import first_inputs
from benchmark.tasks.scoring import OUTCOMES
from benchmark.tasks.suite import Suite, blind_tasks, test_tasks
from karel_env.generation.recipe import Tasks
from karel_env.language import ACTIONS, HEADER, WORDS, Programs
from karel_env.semantics import ADVERSARIAL, FLIP, ORIGINAL, Semantics, mirror_classes
from karel_env.syntax.dialects import HEADERS, append_body, body_dialect, parse_program
from karel_env.syntax.parser import ParseError
from karel_env.world import Worlds

SOLVED, SHOWN_ONLY = "solved", "shown examples only"
TASKS_PER_OUTCOME = {SOLVED: 5, SHOWN_ONLY: 3, **dict.fromkeys(OUTCOMES[1:], 1), "wrong output": 5}
"""Number of tasks shown per outcome: the first ones, in the order of the suite."""
MAX_STEPS = 200
MAX_TEXT_CHARS = 2_000
NUM_BLIND_PROGRAMS = 20
"""Programs of the blind set that are shown."""
SEMANTICS_BY_NAME = {s.name: s for s in (ORIGINAL, *mirror_classes(), FLIP, ADVERSARIAL)}


def build_player_tasks(suite: Suite, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Player entries of test tasks with the model's program: the first tasks of every outcome.

    Args:
        suite: suite of the run.
        samples: the run's samples of the stage `test`, in order.
    """
    remaining, player_tasks, tasks = dict(TASKS_PER_OUTCOME), [], _drawn_tests(suite)
    for sample in samples:
        kind = str(sample["outcome"])
        if kind == OUTCOMES[0]:
            kind = SOLVED if sample["held_out"] else SHOWN_ONLY
        if remaining.get(kind, 0) > 0:
            remaining[kind] -= 1
            player_tasks.append(_player_task(suite, tasks.take(np.array([sample["task"]])), sample, kind))
    return sorted(
        player_tasks, key=lambda player_task: (list(TASKS_PER_OUTCOME).index(player_task["kind"]), player_task["task"])
    )


def _player_task(suite: Suite, task: Any, sample: Mapping[str, Any], kind: str) -> dict[str, Any]:
    from karel_env.execution.interpreter import STATUSES, run

    text = str(sample["text"])
    entry = {
        "task": int(sample["task"]), "kind": kind, "reference": _program_tokens(task.programs.program(0)),
        "text": text[:MAX_TEXT_CHARS], "tokens": None, "examples": [],
    }  # fmt: skip
    try:
        dialect = body_dialect(text)
        tokens = parse_program(append_body(HEADERS[dialect], text), dialect)
    except ParseError as error:
        return entry | {"problem": str(error)[:200]}
    inputs, outputs = task.inputs[0], task.outputs[0]
    execution = run(Programs.of([tokens]), task.inputs)
    is_equal = (
        execution.worlds.same_state(task.outputs)
        if suite.equality == "state"
        else execution.worlds.same_drawing(task.outputs)
    )
    examples = [
        {
            "shown": e < suite.shown,
            "input": world_to_json(inputs[e]),
            "expected": world_to_json(outputs[e]),
            "steps": steps_to_json(tokens, inputs[e]),
            "status": STATUSES[int(execution.status[0, e])],
            "right": bool(is_equal[0, e] and execution.status[0, e] == 0),
        }
        for e in range(len(inputs))
    ]
    return entry | {"tokens": _program_tokens(tokens), "examples": examples}


def build_player_readings(suite: Suite, readings: Readout) -> dict[str, Any]:
    """Player entries of the first probed programs: trace and probe readings under every semantics."""
    tasks, worlds = _drawn_blind_set(suite)
    programs = []
    for program_index, task_number in enumerate(readings.task[:NUM_BLIND_PROGRAMS]):
        tokens, world = tasks.programs.program(task_number), worlds[task_number]
        by_semantics = {
            reading.semantics: {
                "steps": _blind_steps(suite, task_number, reading.semantics),
                "labels": reading.true[program_index], "predictions": reading.read[program_index], "probability": reading.probability[program_index],
            }
            for reading in readings.by_semantics
        }  # fmt: skip
        programs.append(
            {
                "task": task_number,
                "tokens": _program_tokens(tokens),
                "input": world_to_json(world),
                "under": by_semantics,
            }
        )
    return {
        "feature": readings.feature,
        "seed": readings.seed,
        "semantics": [
            {"name": reading.semantics, "view": reading.view, "prior": reading.prior}
            for reading in readings.by_semantics
        ],
        "programs": programs,
    }


@lru_cache(maxsize=2)
def _drawn_tests(suite: Suite) -> Tasks:
    """The test set, one draw for all rows of a suite."""
    return test_tasks(suite)


@lru_cache(maxsize=2)
def _drawn_blind_set(suite: Suite) -> tuple[Tasks, Worlds]:
    """The blind set and its worlds, one draw for all rows of a suite."""
    tasks = blind_tasks(suite)
    return tasks, first_inputs(tasks)


@lru_cache(maxsize=2 * NUM_BLIND_PROGRAMS * len(SEMANTICS_BY_NAME))
def _blind_steps(suite: Suite, task_number: int, semantics: str) -> list[list[Any]]:
    """Steps of a program of the blind set, which rows of a suite have in common."""
    tasks, worlds = _drawn_blind_set(suite)
    return steps_to_json(tasks.programs.program(task_number), worlds[task_number], SEMANTICS_BY_NAME[semantics])


def describe_semantics(semantics: Semantics) -> str:
    """Describe the action words whose effect differs from the original, such as `move turns left`."""
    effects = ("moves", "turns left", "turns right", "picks a marker", "puts a marker")
    changed = [
        f"{word} {effects[effect]}"
        for i, (word, effect) in enumerate(zip(ACTIONS, semantics.actions, strict=True))
        if i != effect
    ]
    return ", ".join(changed) or "original meaning of every word"


def world_to_json(world: Worlds) -> list[Any]:
    """Convert one world to JSON, see the module docstring."""
    height, width = (int(n) for n in world.size)
    return [height, width, world.cells[:height, :width].ravel().tolist(), world.robot.tolist()]


def steps_to_json(tokens: np.ndarray, world: Worlds, semantics: Semantics = ORIGINAL) -> list[list[Any]]:
    """Steps of one program in one world, at most `MAX_STEPS`; token indices start after the header."""
    from karel_env.execution.compiler import compile_programs
    from karel_env.execution.interpreter import run
    from karel_env.execution.stepping import snapshots

    trace = run(
        compile_programs(Programs.of([tokens])),
        Worlds(*(part[None] for part in vars(world).values())),
        semantics,
        trace=True,
    ).trace
    assert trace is not None
    states, state_index, steps = snapshots(tokens, world, semantics), 0, []
    for token_index, value in zip(trace.word[:MAX_STEPS].tolist(), trace.value[:MAX_STEPS].tolist(), strict=True):
        changed: list[list[int]] = []
        if value < 0:
            before, after = states.cells[state_index].ravel(), states.cells[state_index + 1].ravel()
            changed = [[int(i), int(after[i])] for i in np.flatnonzero(before != after)]
            state_index += 1
        steps.append(
            [token_index - len(HEADER), states.robot[state_index].tolist(), changed, None if value < 0 else bool(value)]
        )
    return steps


def _program_tokens(program: np.ndarray) -> list[str]:
    """Program tokens after the header."""
    return [WORDS[token] for token in program[len(HEADER) :]]
