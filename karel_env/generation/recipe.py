"""Settings of the random generation of tasks, and the tasks; `generator` and `control_flow` draw them.

A module of their own, so that a suite can be read without importing Numba.

Letters: `N` tasks, `E` examples per task.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from karel_env.language import ACTIONS, MAX_NESTING, MAX_REPEAT, Programs
from karel_env.world import Worlds

KINDS = ("action", "if", "ifelse", "while", "repeat")


@dataclass(frozen=True)
class Recipe:
    """Settings of the random generation of tasks.

    Attributes:
        height, width: (smallest, largest) of the grid, border included; drawn uniformly per task.
        wall, marker: probability of a wall in an inner cell, of one marker in a free inner cell (rounded to 1/65536).
        length: (shortest, longest) program in actions, drawn uniformly.
        weights: relative frequency of each action, in the order of `ACTIONS`.
        examples: number of worlds per task, E.
    """

    height: tuple[int, int]
    width: tuple[int, int]
    wall: float
    marker: float
    length: tuple[int, int]
    weights: tuple[int, ...]
    examples: int

    def __post_init__(self) -> None:
        for name, (low, high), least in (
            ("height", self.height, 3), ("width", self.width, 3), ("length", self.length, 1),
        ):  # fmt: skip
            if not least <= low <= high:
                raise ValueError(f"recipe: {name} {low} to {high}; expected {least} <= first <= second")
        if len(self.weights) != len(ACTIONS) or min(self.weights) < 0 or sum(self.weights) <= 0:
            raise ValueError(f"recipe: weights {self.weights}; expected {len(ACTIONS)} counts, not all 0")
        if not (0 <= self.wall <= 1 and 0 <= self.marker <= 1 and self.examples >= 1):
            raise ValueError("recipe: wall and marker must be probabilities and examples at least 1")


@dataclass(frozen=True)
class Tasks:
    """A batch of tasks.

    Attributes:
        programs: N reference programs.
        inputs, outputs: worlds [N, E].
        key: uint64 [N], hash of (program, inputs), which identifies a task.
    """

    programs: Programs
    inputs: Worlds
    outputs: Worlds
    key: np.ndarray

    def __len__(self) -> int:
        return len(self.programs)

    def take(self, indices: np.ndarray) -> Tasks:
        """The tasks at `indices`, in that order."""
        return Tasks(self.programs.take(indices), self.inputs[indices], self.outputs[indices], self.key[indices])


@dataclass(frozen=True)
class ControlRecipe(Recipe):
    """Settings of the random generation of tasks with control flow; `length` counts all statements.

    Attributes:
        kinds: relative frequency of each statement kind, in the order of `KINDS`; a kind that does not fit
            into the rest of its block or under the depth limit is not drawn there.
        depth: deepest nesting of blocks.
        negate: probability of `not` before a condition (rounded to 1/65536).
        repeats: (fewest, most) passes of a `repeat`, drawn uniformly.
        most_markers: the count of a marked cell is uniform in 1 to this.
        events: longest execution of an example, in events; a longer one is drawn again.
        live: reject dead code: over the shown examples every condition must take both values, every action
            must change something at least once, and some output must differ from its input.
        shown: number of examples, the first ones of the task, by which `live` is judged.
    """

    kinds: tuple[int, ...]
    depth: int
    negate: float
    repeats: tuple[int, int]
    most_markers: int
    events: int
    live: bool
    shown: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.kinds) != len(KINDS) or min(self.kinds) < 0 or self.kinds[0] == 0:
            raise ValueError(f"recipe: kinds {self.kinds}; expected {len(KINDS)} counts, that of actions above 0")
        if not 0 <= self.depth <= MAX_NESTING:
            raise ValueError(f"recipe: depth {self.depth}; expected 0 to {MAX_NESTING}")
        if not 0 <= self.repeats[0] <= self.repeats[1] <= MAX_REPEAT:
            raise ValueError(f"recipe: repeats {self.repeats}; expected 0 <= first <= second <= {MAX_REPEAT}")
        if not (0 <= self.negate <= 1 and self.most_markers >= 1 and self.events >= 1):
            raise ValueError("recipe: negate must be a probability, most_markers and events at least 1")
        if not 1 <= self.shown <= self.examples:
            raise ValueError(f"recipe: shown {self.shown}; expected 1 to {self.examples}")
