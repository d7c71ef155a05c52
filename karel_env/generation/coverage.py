"""Dead code: parts of a program that its examples never exercise.

Source: Bunel et al. 2018 (arXiv 1805.04276), whose data set contains only programs with full branch coverage.
Letters: `N` programs, `E` examples per program.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from karel_env.execution.interpreter import Execution
from karel_env.language import FIRST_CONDITION, FIRST_COUNT, Programs
from karel_env.semantics import PICK
from karel_env.world import Worlds


def alive(programs: Programs, inputs: Worlds, execution: Execution) -> np.ndarray:
    """bool [N]: programs without dead code over their examples.

    Every condition takes both values, every action changes something at least once, and the output of some example
    differs from its input.

    Args:
        programs: N programs.
        inputs: input worlds [N, E].
        execution: the traced execution on `inputs` under the original semantics, without a cap on markers.

    Raises:
        ValueError: the execution has no trace.
    """
    if execution.trace is None:
        raise ValueError("alive: the execution has no trace; call run with trace=True")
    pairs = int(np.prod(inputs.shape))
    flags = np.zeros(len(programs.words), np.int8)
    _mark(
        programs.words, programs.offsets, execution.trace.offsets, execution.trace.word, execution.trace.value, execution.trace.position,
        execution.trace.heading, inputs.cells.reshape(pairs, -1).copy(), inputs.robot.reshape(pairs, 3),
        inputs.cells.shape[-1], max(pairs // max(len(programs), 1), 1), flags,
    )  # fmt: skip
    acting = programs.words < FIRST_CONDITION
    testing = (programs.words >= FIRST_CONDITION) & (programs.words < FIRST_COUNT)
    dead = (acting & (flags == 0)) | (testing & (flags != 3))
    changed = ~inputs.same_state(execution.worlds).all(1)
    return np.asarray(changed & (np.add.reduceat(dead, programs.offsets[:-1]) == 0))


@njit(cache=True, nogil=True)
def _mark(  # type: ignore[no-untyped-def]
    words, starts, offsets, word, value, position, heading, cells, robot, width, examples, flags
):
    """Set in `flags` bit 0 of an action that changed something, bits 0 and 1 of a condition's values."""
    for pair in range(len(offsets) - 1):
        first = starts[pair // examples]
        token_index, facing = robot[pair, 0] * width + robot[pair, 1], robot[pair, 2]
        for event in range(offsets[pair], offsets[pair + 1]):
            at = first + word[event]
            if value[event] >= 0:
                flags[at] |= 1 << value[event]
                continue
            if words[at] < PICK:
                changed = position[event] != token_index or heading[event] != facing
            elif words[at] == PICK:
                changed = cells[pair, token_index] > 0
                cells[pair, token_index] -= changed
            else:
                changed = True
                cells[pair, token_index] += 1
            token_index, facing = position[event], heading[event]
            if changed:
                flags[at] |= 1
