"""Parse the worlds of a prompt from its text, for baselines without a network."""

from __future__ import annotations

import numpy as np

from benchmark.tasks.prompts import INPUT, OUTPUT, PROGRAM
from karel_env.world import Worlds, parse_world


def read_prompt(prompt: str) -> tuple[Worlds, Worlds]:
    """Inputs and outputs, worlds [E] each, of the examples in a prompt.

    If the suite does not print markers under the robot, the parsed worlds have none there.

    Raises:
        ValueError: no examples, or different numbers of inputs and outputs.
        WorldError: a grid is invalid.
    """
    grids: dict[str, list[Worlds]] = {INPUT: [], OUTPUT: []}
    lines, kind = [], ""
    for line in prompt.splitlines():
        if line not in (INPUT, OUTPUT, PROGRAM):
            lines.append(line)
            continue
        if kind:
            grids[kind].append(parse_world("\n".join(lines)))
        lines, kind = [], line
    if kind != PROGRAM or not grids[INPUT] or len(grids[INPUT]) != len(grids[OUTPUT]):
        raise ValueError(f"prompt: {len(grids[INPUT])} inputs and {len(grids[OUTPUT])} outputs; expected pairs")
    before, after = (_stack_worlds(grids[name]) for name in (INPUT, OUTPUT))
    return before, after


def _stack_worlds(worlds: list[Worlds]) -> Worlds:
    """Stack worlds to [E]; smaller ones are padded with walls."""
    height, width = (max(world.cells.shape[axis] for world in worlds) for axis in (0, 1))
    cells = np.full((len(worlds), height, width), -1, np.int16)
    for cell, world in zip(cells, worlds, strict=True):
        cell[: world.cells.shape[0], : world.cells.shape[1]] = world.cells
    return Worlds.of(cells, np.stack([w.robot for w in worlds]), np.stack([w.size for w in worlds]))
