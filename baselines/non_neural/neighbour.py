"""Nearest neighbour: the program of the training task whose examples are most similar to those of the prompt.

Tasks are compared by the effects of their programs, not by their worlds: per shown example the robot's displacement
and turn, and the change in markers, in coordinates relative to the robot's initial position and heading.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from baselines.non_neural.prompt_reading import read_prompt
from benchmark.models.interface import Generation
from benchmark.tasks.suite import Suite, training_tasks
from karel_env.language import HEADER_TEXT
from karel_env.world import Worlds

SEED, NUM_TASKS = 90_003, 50_000
"""Seed and number of the stored training tasks."""
WINDOW_RADIUS = 3
"""Cells to each side of the robot's initial position in which markers are compared."""


class NearestNeighbour:
    """Answer each prompt with the program of the nearest training task; ties go to the shortest program."""

    def __init__(self, suite: Suite) -> None:
        tasks = training_tasks(suite, np.arange(NUM_TASKS), SEED)
        shown = slice(0, suite.shown)
        # Stable order by length: argmin then selects the shortest of equally near tasks.
        order = np.argsort(tasks.programs.lengths, kind="stable")
        self.effects = compute_effects(tasks.inputs[:, shown], tasks.outputs[:, shown])[order]
        self.programs = tasks.programs.take(order)
        self.squared_norms = (self.effects**2).sum(1)

    def generate(self, prompts: Sequence[str], max_new_words: int) -> list[Generation]:
        """See `ProgramGenerator.generate`."""
        generations = []
        for prompt in prompts:
            before, after = read_prompt(prompt)
            prompt_effects = compute_effects(before[None], after[None])[0]
            nearest = int((self.squared_norms - 2 * self.effects @ prompt_effects).argmin())
            text = self.programs.take([nearest]).texts()[0].removeprefix(HEADER_TEXT)
            generations.append(Generation(text, len(text.split()), True))
        return generations


def compute_effects(before: Worlds, after: Worlds) -> np.ndarray:
    """Effects of programs on worlds [N, E] in coordinates relative to the robot's start; float32 [N, E * K].

    The K numbers of an example: steps ahead and to the right, the turn (one-hot of four), and the change of the number of
    markers in the (2 * `WINDOW_RADIUS` + 1) squared cells around the start.
    """
    row, column, heading = np.moveaxis(before.robot.astype(np.int64), -1, 0)
    end_row, end_column, end_heading = np.moveaxis(after.robot.astype(np.int64), -1, 0)
    north, east = row - end_row, end_column - column
    sine, cosine = np.array([0, 1, 0, -1])[heading], np.array([1, 0, -1, 0])[heading]
    moved = np.stack([north * cosine + east * sine, east * cosine - north * sine], -1)
    turned = np.eye(4)[(end_heading - heading) % 4]
    width = before.cells.shape[-1]
    change = np.clip(after.cells, 0, None) - np.clip(before.cells, 0, None)
    change = np.pad(change, [(0, 0)] * (change.ndim - 2) + [(WINDOW_RADIUS, WINDOW_RADIUS)] * 2).reshape(*row.shape, -1)
    ahead, right = (
        part.reshape(-1) for part in np.mgrid[-WINDOW_RADIUS : WINDOW_RADIUS + 1, -WINDOW_RADIUS : WINDOW_RADIUS + 1]
    )
    rows = row[..., None] - (ahead * cosine[..., None] - right * sine[..., None]) + WINDOW_RADIUS
    columns = column[..., None] + ahead * sine[..., None] + right * cosine[..., None] + WINDOW_RADIUS
    marker_changes = np.take_along_axis(change, rows * (width + 2 * WINDOW_RADIUS) + columns, -1)
    return np.concatenate([moved, turned, marker_changes], -1).reshape(len(row), -1).astype(np.float32)
