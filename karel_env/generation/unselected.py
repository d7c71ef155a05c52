"""Programs with control flow as they are drawn, without a selection by what they do.

The tasks of a suite are selected: their programs end, and over the shown examples every action changes something. Such a
selection makes some words more frequent than others in some contexts (`move` in a `while`), so that a record of the words
holds a part of the meaning. Programs that are drawn once and taken as they are have no such words.
"""

from __future__ import annotations

import numpy as np

from karel_env.generation.control_flow import _draw, _tasks_of
from karel_env.generation.recipe import ControlRecipe, Tasks


def draw_unselected(recipe: ControlRecipe, seed: int, purpose: str, indices: np.ndarray) -> Tasks:
    """Draw the first attempt of each task of the stream (seed, purpose), whatever it does; outputs are the inputs.

    Args:
        recipe: sizes, kinds of statements, weights of the actions; `events` and `live` select nothing here.
        seed, purpose, indices: as in `control_flow.generate`.
    """
    indices = np.asarray(indices, np.uint64)
    return _tasks_of(recipe, _draw(recipe, seed, purpose, indices, np.zeros(len(indices), np.int64), 1))
