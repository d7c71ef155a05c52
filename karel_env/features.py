"""Features of the robot's state, which the probes predict.

Source: Jin & Rinard 2024, section 4.1 (facing, position relative to the start,
obstacle ahead). Letters: `B` executions, `R` states, `H W` grid with border.
"""

from __future__ import annotations

import numpy as np

FEATURES = (
    "facing",
    "start_x",
    "start_y",
    "end_x",
    "end_y",
    "absolute_x",
    "absolute_y",
    "obstacle",
    "wall_north",
    "wall_east",
    "wall_south",
    "wall_west",
)
PRIMARY = "facing"
PAPER_FEATURES = (("facing",), ("start_x", "start_y"), ("obstacle",))
"""Features as in the paper; one that has several heads counts as correct only if all heads are."""
_STEPS = np.array([[-1, 0], [0, 1], [1, 0], [0, -1]])


def class_counts(height: int, width: int) -> dict[str, int]:
    """Number of classes per feature on a grid of `height` x `width`, border included."""
    free = {"x": width - 2, "y": height - 2}
    counts = dict.fromkeys(FEATURES, 2)
    counts["facing"] = 4
    for axis, cells in free.items():
        counts[f"start_{axis}"] = counts[f"end_{axis}"] = 2 * cells - 1
        counts[f"absolute_{axis}"] = cells
    return counts


def labels(
    cells: np.ndarray, start: np.ndarray, end: np.ndarray, robot: np.ndarray, owner: np.ndarray
) -> dict[str, np.ndarray]:
    """Class of each feature in each of R states, int64 [R] by name.

    Args:
        cells: int [B, H, W], worlds (walls are -1; they do not change).
        start, end: int [B, 3], the robot before and after the execution.
        robot: int [R, 3], row, column and heading of each state.
        owner: int [R], the execution that each state belongs to.
    """
    height, width = cells.shape[1] - 2, cells.shape[2] - 2
    row, column, heading = robot.astype(np.int64).T
    classes = {
        "facing": heading,
        "start_x": column - start[owner, 1] + width - 1,
        "start_y": row - start[owner, 0] + height - 1,
        "end_x": end[owner, 1] - column + width - 1,
        "end_y": end[owner, 0] - row + height - 1,
        "absolute_x": column - 1,
        "absolute_y": row - 1,
    }
    blocked = np.stack([cells[owner, row + dy, column + dx] < 0 for dy, dx in _STEPS], 1).astype(np.int64)
    classes["obstacle"] = blocked[np.arange(len(row)), heading]
    for side, name in enumerate(("north", "east", "south", "west")):
        classes[f"wall_{name}"] = blocked[:, side]
    return {name: np.asarray(classes[name], np.int64) for name in FEATURES}
