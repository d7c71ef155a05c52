"""The token-history baseline (stored as `recorder`): a control whose states record the input and nothing derived from it.

Its state is the one-hot tokens read so far and the one-hot input world. In the blind set every action token is equally
likely in every place, so that the expected gap between semantics of this baseline is zero.
"""

from __future__ import annotations

import numpy as np

from benchmark.probing.labels import ProbeSet
from karel_env.language import HEADER, WORDS, Programs
from karel_env.world import Worlds


def token_history_states(
    programs: Programs, inputs: Worlds, probe_set: ProbeSet, num_ahead: int = 0, outputs: Worlds | None = None
) -> np.ndarray:
    """float32 [R, D], state of the token-history baseline at each labelled token.

    Columns: the one-hot token at each position of the program, zero for positions not read yet; for each inner cell
    whether it is a wall and its number of markers; the robot's one-hot row, column and heading.

    Args:
        programs: B programs.
        inputs: their first input worlds [B].
        probe_set: the labelled tokens.
        num_ahead: number of tokens read beyond the labelled one; 0 at `read`, -1 at `emit`.
        outputs: worlds [B] that the prompt shows as outputs; None if it shows none. Their columns come last.
    """
    num_programs = len(programs)
    max_length = int(programs.lengths.max()) - len(HEADER)
    grid = np.full((num_programs, max_length), -1)
    owner = np.repeat(np.arange(num_programs), programs.lengths)
    position = np.arange(len(programs.words)) - programs.offsets[owner] - len(HEADER)
    grid[owner[position >= 0], position[position >= 0]] = programs.words[position >= 0]
    token_ids = np.unique(programs.words)
    tokens = np.zeros((len(probe_set.program), max_length, len(WORDS)), np.float32)
    row, column = np.nonzero(np.arange(max_length) <= probe_set.word[:, None] + num_ahead)
    token = grid[probe_set.program[row], column]
    tokens[row[token >= 0], column[token >= 0], token[token >= 0]] = 1
    world_columns = [world_features(world)[probe_set.program] for world in (inputs, outputs) if world is not None]
    return np.concatenate([tokens[:, :, token_ids].reshape(len(tokens), -1), *world_columns], 1)


def world_features(worlds: Worlds) -> np.ndarray:
    """float32 [B, columns]: walls and markers of the inner cells, and the robot's one-hot row, column and heading."""
    cells = worlds.cells[:, 1:-1, 1:-1].reshape(len(worlds), -1)
    height, width = worlds.cells.shape[-2:]
    robot = worlds.robot.astype(np.int64)
    parts = [cells < 0, np.maximum(cells, 0)]
    parts += [np.eye(size)[robot[:, i]] for i, size in enumerate((height, width, 4))]
    return np.concatenate(parts, 1).astype(np.float32)
