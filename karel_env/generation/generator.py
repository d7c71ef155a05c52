"""Random tasks: a straight-line program, input worlds, and the program's outputs.

Letters: `N` tasks, `E` examples per task, `A` longest program in actions.
Source: docs/karel_env.md; Jin & Rinard 2024, section 3.1.
"""

from __future__ import annotations

import numpy as np
from numba import int64, njit, uint64

from karel_env.execution.interpreter import in_parts, run
from karel_env.generation.draws import PURPOSES, below, bernoulli_mask, draw, mix, stream_key
from karel_env.generation.recipe import Recipe as Recipe
from karel_env.generation.recipe import Tasks as Tasks
from karel_env.language import ACTIONS, Programs
from karel_env.world import Worlds

_CHUNK = 1024
"""Tasks per block of a thread: few enough that their worlds are still in the processor's cache when they are executed."""


def generate(
    recipe: Recipe,
    seed: int,
    purpose: str,
    indices: np.ndarray,
    *,
    excluded: np.ndarray | None = None,
    threads: int = 1,
) -> Tasks:
    """Generate the tasks numbered `indices` of the stream (seed, purpose); each is independent of all others.

    Args:
        recipe: settings.
        seed: seed of the suite.
        purpose: one of `draws.PURPOSES`.
        indices: int [N].
        excluded: uint64, keys of tasks to reject (a test set); a rejected task is drawn again.
        threads: number of threads; the result does not depend on it.
    """
    indices = np.asarray(indices, np.uint64)
    count, examples = len(indices), recipe.examples
    cells = np.empty((count, examples, recipe.height[1], recipe.width[1]), np.int16)
    robot, size = np.empty((count, examples, 3), np.int16), np.empty((count, examples, 2), np.int16)
    inputs, outputs = Worlds(cells, robot, size), Worlds(np.empty_like(cells), np.empty_like(robot), size)
    actions, lengths = np.zeros((count, recipe.length[1]), np.int8), np.empty(count, np.int64)
    key = np.empty(count, np.uint64)
    action_of = np.repeat(np.arange(len(ACTIONS), dtype=np.int8), recipe.weights)
    numbers = np.array([*recipe.height, *recipe.width, round(recipe.wall * 65536), round(recipe.marker * 65536),
                        *recipe.length], np.int64)  # fmt: skip
    avoided = np.sort(np.zeros(0, np.uint64) if excluded is None else excluded)
    batches: list[np.ndarray] = [cells, robot, size, actions, lengths, key]

    def draw_into(indices: np.ndarray, attempts: np.ndarray, into: list[np.ndarray]) -> None:
        _draw_tasks(np.uint64(seed), PURPOSES.index(purpose), indices, attempts, numbers, action_of, *into)

    def part(start: int, stop: int) -> None:
        for first in range(start, stop, _CHUNK):
            at = slice(first, min(first + _CHUNK, stop))
            attempts = np.zeros(at.stop - first, np.int64)
            draw_into(indices[at], attempts, [field[at] for field in batches])
            while (retry := first + np.flatnonzero(_among(key[at], avoided))).size:
                attempts[retry - first] += 1
                redone = [field[retry] for field in batches]
                draw_into(indices[retry], attempts[retry - first], redone)
                for field, new in zip(batches, redone, strict=True):
                    field[retry] = new
            run(Programs.straight_line(actions[at], lengths[at]), inputs[at], out=outputs[at])

    in_parts(part, count, threads)
    return Tasks(Programs.straight_line(actions, lengths), inputs, outputs, key)


def _among(key: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """bool [N], whether each key is among the sorted ones."""
    if not len(ordered):
        return np.zeros(len(key), bool)
    position = np.searchsorted(ordered, key)
    return np.asarray(ordered[np.minimum(position, len(ordered) - 1)] == key)


@njit(cache=True, nogil=True, _nrt=False)
def _draw_tasks(  # type: ignore[no-untyped-def]
    seed, purpose, indices, attempts, numbers, action_of, cells, robot, size, actions, lengths, keys
):
    """Fill the arrays of `generate`; compiled without reference counts (`_nrt=False`), as in `machine`."""
    h_low, h_high, w_low, w_high, wall16, marker16 = numbers[:6]
    l_low, l_high = numbers[6], numbers[7]
    examples, across = cells.shape[1], cells.shape[3]
    grid = cells.shape[2] * across
    flat = cells.reshape(-1)
    for i in range(len(indices)):
        stream = stream_key(seed, purpose, indices[i], attempts[i])
        height = h_low + int64(below(draw(stream, 0), h_high - h_low + 1))
        width = w_low + int64(below(draw(stream, 1), w_high - w_low + 1))
        length = l_low + int64(below(draw(stream, 2), l_high - l_low + 1))
        counter = 3
        key = mix(uint64(height * 65536 + width))
        for j in range(length):
            actions[i, j] = action_of[below(draw(stream, counter), len(action_of))]
            key = mix(key ^ uint64(actions[i, j] + 1))
            counter += 1
        lengths[i] = length
        inner = width - 2
        free = (height - 2) * inner
        for e in range(examples):
            size[i, e, 0], size[i, e, 1] = height, width
            position = draw(stream, counter)
            counter += 1
            start, heading = int64(below(position, free)), int64(position & uint64(3))
            row = start // inner
            robot[i, e, 0], robot[i, e, 1], robot[i, e, 2] = 1 + row, 1 + start - row * inner, heading
            key = mix(key ^ uint64(start * 4 + heading))
            first = (i * examples + e) * grid
            for k in range(first, first + grid):
                flat[uint64(k)] = -1
            cell, column = first + across + 1, 0
            for chunk in range(0, free, 64):
                walls, counter = bernoulli_mask(stream, counter, wall16)
                markers, counter = bernoulli_mask(stream, counter, marker16)
                if chunk <= start < chunk + 64:
                    mask = ~(uint64(1) << uint64(start - chunk))
                    walls &= mask
                    markers &= mask
                used = min(64, free - chunk)
                if used < 64:
                    walls &= (uint64(1) << uint64(used)) - uint64(1)
                    markers &= (uint64(1) << uint64(used)) - uint64(1)
                markers &= ~walls
                key = mix(mix(key ^ walls) ^ markers)
                for _ in range(used):
                    flat[uint64(cell)] = int64(markers & uint64(1)) - int64(walls & uint64(1))
                    walls >>= uint64(1)
                    markers >>= uint64(1)
                    cell += 1
                    column += 1
                    if column == inner:
                        cell, column = cell + across - inner, 0
        keys[i] = key
