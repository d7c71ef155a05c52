"""A model's states at the labelled words of the blind set of `relative`.

Letters: `R` labelled action words, `C` labelled condition words, `D` width.
"""

from __future__ import annotations

import numpy as np

from benchmark.models.checkpoint import Checkpoint
from benchmark.models.loading import load_model
from benchmark.relative.measure import RelativeSuite
from benchmark.runner.blind_reading import read_blind_states
from benchmark.runner.worker import RANDOM_INIT_SEED
from karel_env.language import FIRST_CONDITION, FIRST_COUNT, HEADER


def read_word_views(
    checkpoint: Checkpoint, suite: RelativeSuite, dtype: str = "float32", device: str = "cpu", copy: int | None = None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Read the states of a model or of a randomly initialised copy.

    Returns:
        float32 [R, D] and [C, D] per view; the second list is empty if the suite has no labelled conditions.
    """
    model = load_model(checkpoint, dtype, device, None if copy is None else RANDOM_INIT_SEED + copy)
    read = read_blind_states(model, suite.suite, suite.blind, word_limit=FIRST_COUNT)
    programs = suite.blind.tasks.programs
    position = np.arange(len(programs.words)) - np.repeat(programs.offsets[:-1], programs.lengths)
    words = programs.words[(position >= len(HEADER)) & (programs.words < FIRST_COUNT)]
    is_action = words < FIRST_CONDITION
    actions = [states[is_action][suite.probe_set.row] for states in read.values()]
    if suite.condition_set is None:
        return actions, []
    return actions, [states[~is_action][suite.condition_set.row] for states in read.values()]
