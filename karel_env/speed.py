"""Speed of the interpreter and the generators, compared with other implementations; printed by `python -m karel_env.bench`.

Each class of programs is executed by this package, by `karel-for-synthesis` (its programs parsed beforehand, illegal
actions ignored, at most 9 markers per cell) and by `extras.lockstep`, on the same inputs. The implementations alternate,
a few calls each, for several rounds, and the fastest call counts, so that other load on the machine affects all alike.
Times are wall-clock; nothing here fails on a slow machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numba import njit
from tabulate import tabulate

from karel_env.command import UsageExit
from karel_env.execution.compiler import Code, compile_programs
from karel_env.execution.interpreter import run
from karel_env.extras.lockstep import run_lockstep
from karel_env.extras.state_array import corner_planes
from karel_env.extras.token_syntax import token_text
from karel_env.generation import control_flow, generator
from karel_env.generation.control_flow import ControlRecipe
from karel_env.generation.generator import Recipe, Tasks

ICML24 = Recipe(
    height=(8, 8), width=(8, 8), wall=0.1, marker=0.1, length=(1, 10), weights=(5, 3, 3, 2, 2), examples=10
)  # fmt: skip
"""Recipe of the suite `icml24`; a test checks that the two are equal."""
KINDS = {"if": (5, 3, 3, 0, 0), "loops": (5, 1, 1, 3, 2)}
"""Relative frequencies of the statement kinds (`control_flow.KINDS`), per class with control flow."""
FOREIGN = 100
"""Number of programs that `karel-for-synthesis` executes; all of them would take it a minute."""
CAP = 9
GENERATED = 65_536
CHAIN = 1_000_000
CALLS = 3
"""Consecutive calls of one implementation: the first one finds the processor's caches filled by another."""


@dataclass(frozen=True)
class Load:
    """One class of programs, each with ten worlds."""

    name: str
    tasks: Tasks
    code: Code

    @property
    def pairs(self) -> int:
        return int(np.prod(self.tasks.inputs.shape))


def loads(programs: int) -> list[Load]:
    """Generate the classes, `programs` programs each."""
    indices = np.arange(programs)
    tasks_by_class = {"straight-line": generator.generate(ICML24, 1, "train", indices)}
    for name, kinds in KINDS.items():
        recipe = ControlRecipe(
            **{**vars(ICML24), "length": (3, 10)}, kinds=kinds, depth=2, negate=0.3, repeats=(2, 6), most_markers=1,
            events=500, live=False, shown=5,
        )  # fmt: skip
        tasks_by_class[name] = control_flow.generate(recipe, 1, "train", indices)
    return [Load(name, tasks, compile_programs(tasks.programs)) for name, tasks in tasks_by_class.items()]


def fastest(actions: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of the fastest call of each action; actions alternate, `CALLS` calls each, for `rounds` rounds."""
    best = dict.fromkeys(actions, float("inf"))
    for _ in range(rounds):
        for name, action in actions.items():
            for _ in range(CALLS):
                started = time.perf_counter()
                action()
                best[name] = min(best[name], time.perf_counter() - started)
    return best


def foreign(load: Load, trace: bool) -> Callable[[], list[list[np.ndarray]]]:
    """Return a function that executes the first `FOREIGN` programs with `karel-for-synthesis` and returns the final grids.

    Raises:
        ImportError: the package is not installed (the extra `test` has it).
    """
    from karel_for_synthesis.executor import KarelExecutor

    executor = KarelExecutor()
    programs = load.tasks.programs.take(range(min(FOREIGN, len(load.tasks))))
    tokens = [tuple(token_text(programs.program(i)).split()) for i in range(len(programs))]
    grids = [list(planes) for planes in corner_planes(load.tasks.inputs[: len(tokens)])[..., :15, :, :]]

    def execute() -> list[list[np.ndarray]]:
        return [
            [executor.execute(program, grid, record_trace=trace, strict=False).result for grid in worlds]
            for program, worlds in zip(tokens, grids, strict=True)
        ]

    return execute


def execution_rows(load: Load, trace: bool, rounds: int) -> dict[str, Any]:
    """Executions per second of one class by every implementation, and ratios to this package on one thread."""
    inputs = (load.code, load.tasks.inputs)
    actions: dict[str, Callable[[], Any]] = {
        "ours": partial(run, *inputs, max_markers=CAP, trace=trace),
        "all cores": partial(run, *inputs, max_markers=CAP, trace=trace, threads=0),
        "lockstep": partial(run_lockstep, *inputs, max_markers=CAP, trace=trace),
        "foreign": foreign(load, trace),
    }
    seconds = fastest(actions, rounds)
    timing = {name: total / load.pairs for name, total in seconds.items()}
    timing["foreign"] = seconds["foreign"] / (min(FOREIGN, len(load.tasks)) * load.tasks.inputs.shape[1])
    events = float(run(*inputs).events.mean())
    return {
        "programs": load.name,
        "traces": "yes" if trace else "no",
        "executions/s": round(1 / timing["ours"]),
        "all cores": round(1 / timing["all cores"]),
        "ns": timing["ours"] * 1e9,
        "events": events,
        "ns/event": timing["ours"] * 1e9 / events,
        "karel-for-synthesis/s": round(1 / timing["foreign"]),
        "ours / karel-for-synthesis": timing["foreign"] / timing["ours"],
        "lock-step NumPy/s": round(1 / timing["lockstep"]),
        "ours / lock-step": timing["lockstep"] / timing["ours"],
    }


def generation_rows(rounds: int, count: int) -> list[dict[str, Any]]:
    """Generated tasks of `icml24` per second, each with ten input and ten output worlds."""
    indices = np.arange(count)
    actions = {
        threads: partial(generator.generate, ICML24, 1, "train", indices, threads=number)
        for threads, number in (("1 thread", 1), (f"{os.cpu_count()} threads", 0))
    }
    return [
        {"tasks": "icml24", "on": threads, "tasks/s": round(count / seconds), "ns/task": seconds / count * 1e9}
        for threads, seconds in fastest(actions, rounds).items()
    ]


@njit(cache=True)
def _chase(table, num_steps, count, branches):  # type: ignore[no-untyped-def]
    """Run a chain of dependent loads; with `branches`, each is followed by an unpredictable branch."""
    at = 0
    for i in range(len(num_steps)):
        at = table[at]
        if branches and num_steps[i]:
            count[at] += 1
    return at


def floor_rows(rounds: int) -> list[dict[str, Any]]:
    """Latency of dependent loads from the first-level cache, without and with an unpredictable branch."""
    rng = np.random.default_rng(0)
    order = rng.permutation(1024)
    table = np.empty(1024, np.int64)
    table[order] = np.roll(order, -1)
    num_steps, count = rng.random(CHAIN) < 0.5, np.zeros(1024, np.int64)
    actions = {
        "dependent load": partial(_chase, table, num_steps, count, False),
        "dependent load and branch": partial(_chase, table, num_steps, count, True),
    }
    return [{"loop of": n, "ns/iteration": s / CHAIN * 1e9} for n, s in fastest(actions, rounds).items()]


_START = """
import time; started = time.perf_counter()
import karel_env.execution.interpreter as i
imported = time.perf_counter() - started
from karel_env.language import Programs; from karel_env.syntax.parser import parse; from karel_env.world import parse_world
programs, worlds = Programs.of([parse("def run() { move() }")] * 2), parse_world("> .")[None, None][[0, 0]][:, [0] * 4]
started = time.perf_counter()
for mode in ("noop", "crash"):
    for trace in (False, True):
        i.run(programs, worlds, mode=mode, trace=trace)
print(imported, time.perf_counter() - started)
"""


def start_rows() -> list[dict[str, Any]]:
    """Seconds to import the interpreter and to call every function that it compiles, in new processes."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("without cache", "with cache"):
            environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
            out = subprocess.run(
                [sys.executable, "-c", _START], env=environment, capture_output=True, text=True, check=True
            )
            imported, called = map(float, out.stdout.split())
            rows.append({"new process": name, "import, s": imported, "first calls, s": called})
    return rows


def print_speeds(programs: int, rounds: int) -> int:
    """Measure and print the tables; returns the exit code.

    Args:
        programs: programs per class.
        rounds: rounds of calls; the fastest call counts.

    Raises:
        UsageExit: `karel-for-synthesis` is not installed.
    """
    try:
        rows = [execution_rows(load, trace, rounds) for load in loads(programs) for trace in (False, True)]
    except ImportError as error:
        raise UsageExit("karel-for-synthesis is missing; install it: pip install -e '.[test]'") from error
    generated, floor, started = generation_rows(rounds, GENERATED), floor_rows(rounds), start_rows()
    for table, digits in ((rows, ".1f"), (generated, ".0f"), (floor, ".2f"), (started, ".2f")):
        print(tabulate(table, headers="keys", floatfmt=digits, intfmt=",", tablefmt="github"), end="\n\n")
    return 0
