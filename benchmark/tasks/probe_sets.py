"""Sizes and worlds of the probe sets (wide, crossed), and the programs that a model wrote for the probe tasks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmark.tasks.suite import Suite, num_blind_programs
from karel_env.generation.recipe import Tasks
from karel_env.language import HEADER_TEXT, Programs
from karel_env.semantics import mirror_class
from karel_env.world import Worlds

CROSSED_ALTERNATIVES = ("lmpru", "pulmr")
"""Alternatives of the crossed prompts: `move` becomes a turn in one, a marker action in the other."""
WIDE_BUDGET = 25_000
"""Label budget of the wide set, in program-world pairs."""


def num_wide_programs(suite: Suite) -> int:
    """Size of the wide set: the blind set of the largest label budget, in proportion to the suite's own budget."""
    return 2 * suite.probe_programs * WIDE_BUDGET // 5_000


def num_crossed_programs(suite: Suite) -> int:
    """Size of the crossed set, a fifth of the blind set."""
    return num_blind_programs(suite) // 5


def crossed_outputs(tasks: Tasks, name: str, first_task: int = 0) -> Worlds:
    """Worlds [N, E], outputs under the original for even tasks and under the alternative `name` for odd tasks.

    `first_task` is the index of the first task of `tasks` in the set.
    """
    from karel_env.execution.interpreter import run

    alternative_outputs = run(tasks.programs, tasks.inputs, mirror_class(name)).worlds
    cells, robot = tasks.outputs.cells.copy(), tasks.outputs.robot.copy()
    odd = slice(1 - first_task % 2, None, 2)
    cells[odd], robot[odd] = alternative_outputs.cells[odd], alternative_outputs.robot[odd]
    return Worlds(cells, robot, tasks.outputs.size)


def parse_programs(texts: Sequence[str]) -> tuple[Programs, np.ndarray]:
    """Parse generated texts (after the header); returns the valid programs and int64 their indices in `texts`."""
    from karel_env.syntax.batch_parser import parse_batch

    return parse_batch([f"{HEADER_TEXT} {text}" for text in texts])


def first_inputs(tasks: Tasks) -> Worlds:
    """Worlds [N], the first shown input of each task, in which programs are executed for labels."""
    return tasks.inputs[:, 0]
