"""The recorder: what a model knows that merely keeps the tokens it has read. A control, not a model.

Its state is the one-hot tokens so far and the one-hot input world. Under the exchangeable programs of the blind
set its gap between semantics is zero in expectation (PROBING.md, Two probe sets).
"""

from __future__ import annotations

import numpy as np

from benchmark.probing.labels import ProbeSet
from karel_env.language import HEADER, WORDS, Programs
from karel_env.world import Worlds


def token_history_states(
    programs: Programs, inputs: Worlds, probe_set: ProbeSet, ahead: int = 0, outputs: Worlds | None = None
) -> np.ndarray:
    """float32 [R, D], the recorder's state at each labelled word.

    Columns: for each place in the program the one-hot word there, if it is read by then; for each inner cell
    whether it is a wall and its number of markers; the robot's one-hot row, column and heading.

    Args:
        programs, inputs, probe_set: B programs, their worlds [B], the labelled words.
        ahead: words read beyond the labelled one; 0 at `read`, -1 at `emit`.
        outputs: worlds [B] that the prompt shows as outputs, if it shows any; their columns come last.
    """
    num_programs = len(programs)
    longest = int(programs.lengths.max()) - len(HEADER)
    grid = np.full((num_programs, longest), -1)
    owner = np.repeat(np.arange(num_programs), programs.lengths)
    position = np.arange(len(programs.words)) - programs.offsets[owner] - len(HEADER)
    grid[owner[position >= 0], position[position >= 0]] = programs.words[position >= 0]
    used = np.unique(programs.words)
    tokens = np.zeros((len(probe_set.program), longest, len(WORDS)), np.float32)
    row, column = np.nonzero(np.arange(longest) <= probe_set.word[:, None] + ahead)
    word = grid[probe_set.program[row], column]
    tokens[row[word >= 0], column[word >= 0], word[word >= 0]] = 1
    world_columns = [encode_worlds(world)[probe_set.program] for world in (inputs, outputs) if world is not None]
    return np.concatenate([tokens[:, :, used].reshape(len(tokens), -1), *world_columns], 1)


def encode_worlds(worlds: Worlds) -> np.ndarray:
    """float32 [B, columns]: where walls are, markers, and the robot's row, column and heading."""
    cells = worlds.cells[:, 1:-1, 1:-1].reshape(len(worlds), -1)
    height, width = worlds.cells.shape[-2:]
    robot = worlds.robot.astype(np.int64)
    parts = [cells < 0, np.maximum(cells, 0)]
    parts += [np.eye(size)[robot[:, i]] for i, size in enumerate((height, width, 4))]
    return np.concatenate(parts, 1).astype(np.float32)
