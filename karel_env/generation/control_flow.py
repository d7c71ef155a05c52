"""Random tasks with conditionals and loops, within limits of size and depth.

A program of n statements (actions and control statements alike) is drawn from the outside in: each control
statement takes a uniform share of the statements that are left in its block for its own body. Random numbers depend
only on (seed, purpose, index, attempt), so the tasks are the same on every platform, at any batch size and for any
number of threads. A rejected draw is repeated under the next attempt number; sizes do not change with the
attempt, so rejection does not make programs shorter or worlds smaller.

Letters: `N` tasks, `E` examples per task, `W` longest program in words.
Source: Bunel et al. 2018 (arXiv 1805.04276), section 5.1: a grammar with limits, programs whose branches the
examples cover; Trivedi et al. 2021 (LEAPS, arXiv 2108.13643), appendix, for the coverage of all branches.
"""

from __future__ import annotations

import numpy as np
from numba import njit, uint64

from karel_env.execution.compiler import compile_programs
from karel_env.execution.interpreter import OK, in_parts, run
from karel_env.generation.coverage import alive
from karel_env.generation.draws import PURPOSES, below, bernoulli_mask, draw, mix, stream_key
from karel_env.generation.recipe import KINDS as KINDS
from karel_env.generation.recipe import ControlRecipe as ControlRecipe
from karel_env.generation.recipe import Tasks
from karel_env.language import (
    ACTIONS,
    CLOSE,
    CLOSE_NEXT,
    CONDITIONS,
    DEF,
    ELSE,
    FIRST_CONDITION,
    FIRST_COUNT,
    FIRST_NEGATED,
    IF,
    IFELSE,
    NOT,
    OPEN,
    REPEAT,
    RUN,
    WHILE,
    Programs,
)
from karel_env.world import MAX_PRINTED_MARKERS, Worlds

WORLDS_PER_PROGRAM = 4
"""Attempts with new worlds before the program is drawn again as well."""
MAX_ATTEMPTS = 40_000
_ROUND = 4096
"""Attempts per call, divided among the tasks that are still missing."""
_WORDS_PER_STATEMENT = 8
_HEADER_AND_END = 4
_PROGRAM, _THEN, _BODY = range(3)


def generate(
    recipe: ControlRecipe,
    seed: int,
    purpose: str,
    indices: np.ndarray,
    *,
    excluded: np.ndarray | None = None,
    threads: int = 1,
) -> Tasks:
    """Generate the tasks numbered `indices` of the stream (seed, purpose); arguments as in `generator.generate`.

    Raises:
        ValueError: `MAX_ATTEMPTS` attempts gave no acceptable task; the recipe is too restrictive.
    """
    indices = np.asarray(indices, np.uint64)
    pending, tried = np.arange(len(indices)), 0
    accepted: list[Tasks] = []
    task_indices: list[np.ndarray] = []
    while pending.size:
        if tried >= MAX_ATTEMPTS:
            raise ValueError(
                f"recipe: no task number {indices[pending[0]]} in {tried} attempts; allow longer executions, more "
                "markers or walls, or fewer statements"
            )
        remaining = []
        batches = int(np.clip(_ROUND // pending.size, 1, 256))
        for part in np.array_split(pending, max(1, pending.size // _ROUND)):
            tasks, index = _attempt(recipe, seed, purpose, indices[part], tried, batches, excluded, threads)
            accepted.append(tasks)
            task_indices.append(part[index])
            remaining.append(np.delete(part, index))
        pending, tried = np.concatenate(remaining), tried + batches
    return _join(accepted, recipe).take(np.argsort(np.concatenate([np.zeros(0, int), *task_indices]), kind="stable"))


def distinct(
    recipe: ControlRecipe,
    seed: int,
    purpose: str,
    count: int,
    *,
    excluded: np.ndarray | None = None,
    threads: int = 1,
) -> Tasks:
    """Generate the first `count` tasks of a stream whose program no earlier task has.

    The first n of them do not depend on `count`.
    """
    selected: dict[bytes, int] = {}
    parts: list[Tasks] = []
    batch = 0
    while len(selected) < count:
        size = max(count - len(selected), 64)
        part = generate(recipe, seed, purpose, np.arange(batch, batch + size), excluded=excluded, threads=threads)
        for i in range(size):
            selected.setdefault(part.programs.program(i).tobytes(), batch + i)
        parts.append(part)
        batch += size
    return _join(parts, recipe).take(np.array(list(selected.values())[:count], np.int64))


def _join(parts: list[Tasks], recipe: ControlRecipe) -> Tasks:
    """Concatenate batches of tasks."""
    if not parts:
        return _tasks_of(recipe, _draw(recipe, 0, "test", np.zeros(0, np.uint64), np.zeros(0, np.int64), 1))
    words = np.concatenate([p.programs.words for p in parts])
    offsets = np.concatenate([[0], np.cumsum(np.concatenate([p.programs.lengths for p in parts]))])
    inputs, outputs = _stack([p.inputs for p in parts]), _stack([p.outputs for p in parts])
    return Tasks(Programs(words, offsets.astype(np.int64)), inputs, outputs, np.concatenate([p.key for p in parts]))


def _stack(parts: list[Worlds]) -> Worlds:
    fields = [(p.cells, p.robot, p.size) for p in parts]
    return Worlds(*(np.concatenate(arrays) for arrays in zip(*fields, strict=True)))


def _attempt(
    recipe: ControlRecipe,
    seed: int,
    purpose: str,
    indices: np.ndarray,
    tried: int,
    num_attempts: int,
    excluded: np.ndarray | None,
    threads: int,
) -> tuple[Tasks, np.ndarray]:
    """Run attempts `tried` to `tried + num_attempts` per index; return the first accepted task of each, and its index."""
    owner = np.repeat(np.arange(len(indices)), num_attempts)
    attempts = np.tile(np.arange(tried, tried + num_attempts), len(indices))
    arrays = _draw(recipe, seed, purpose, indices[owner], attempts, threads)
    tasks = _tasks_of(recipe, arrays)
    code = compile_programs(tasks.programs)
    execution = run(code, tasks.inputs, max_events=recipe.events, threads=threads)
    is_accepted = (execution.status == OK).all(1) & (execution.worlds.cells.max((1, 2, 3)) <= MAX_PRINTED_MARKERS)
    if excluded is not None:
        is_accepted &= ~np.isin(tasks.key, excluded)
    rows = np.flatnonzero(is_accepted)
    if recipe.live:
        candidates = tasks.take(rows)
        shown_inputs = candidates.inputs[:, : recipe.shown]
        traced = run(candidates.programs, shown_inputs, max_events=recipe.events, trace=True, threads=threads)
        rows = rows[alive(candidates.programs, shown_inputs, traced)]
    index, first = np.unique(owner[rows], return_index=True)
    rows = rows[first]
    outputs = execution.worlds[rows]
    accepted = tasks.take(rows)
    return Tasks(accepted.programs, accepted.inputs, outputs, accepted.key), index


def _draw(
    recipe: ControlRecipe, seed: int, purpose: str, indices: np.ndarray, attempts: np.ndarray, threads: int
) -> tuple[np.ndarray, ...]:
    """Draw programs and worlds: words [N, W], lengths [N], cells, robot and size of the worlds, keys [N]."""
    count, examples = len(indices), recipe.examples
    words = np.empty((count, _HEADER_AND_END + _WORDS_PER_STATEMENT * recipe.length[1]), np.int16)
    lengths = np.empty(count, np.int64)
    cells = np.full((count, examples, recipe.height[1], recipe.width[1]), -1, np.int16)
    robot = np.empty((count, examples, 3), np.int16)
    size = np.empty((count, examples, 2), np.int16)
    key = np.empty(count, np.uint64)
    kinds = np.array(recipe.kinds, np.int64)
    action_of = np.repeat(np.arange(len(ACTIONS), dtype=np.int16), recipe.weights)
    numbers = np.array(
        [*recipe.height, *recipe.width, *recipe.length, *recipe.repeats, recipe.depth, round(recipe.negate * 65536),
         round(recipe.wall * 65536), round(recipe.marker * 65536), recipe.most_markers], np.int64
    )  # fmt: skip

    def part(start: int, stop: int) -> None:
        at = slice(start, stop)
        _draw_tasks(np.uint64(seed), PURPOSES.index(purpose), indices[at], attempts[at], numbers, kinds, action_of,
                    words[at], lengths[at], cells[at], robot[at], size[at], key[at])  # fmt: skip

    in_parts(part, count, threads)
    return words, lengths, cells, robot, size, key


def _tasks_of(recipe: ControlRecipe, arrays: tuple[np.ndarray, ...]) -> Tasks:
    """Tasks from the arrays of `_draw`; the outputs are the inputs until the programs are executed."""
    words, lengths, cells, robot, size, key = arrays
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    programs = Programs(words[np.arange(words.shape[1]) < lengths[:, None]], offsets)
    inputs = Worlds(cells, robot, size)
    return Tasks(programs, inputs, inputs, key)


@njit(cache=True, nogil=True)
def _draw_tasks(  # type: ignore[no-untyped-def]
    seed, purpose, indices, attempts, numbers, kinds, action_of, words, lengths, cells, robot, size, keys
):
    h_low, h_high, w_low, w_high, n_low, n_high = numbers[:6]
    for i in range(len(indices)):
        sizes = stream_key(seed, purpose, indices[i], 0)
        height = h_low + np.int64(below(draw(sizes, 0), h_high - h_low + 1))
        width = w_low + np.int64(below(draw(sizes, 1), w_high - w_low + 1))
        statements = n_low + np.int64(below(draw(sizes, 2), n_high - n_low + 1))
        stream = mix(stream_key(seed, purpose, indices[i], attempts[i] // WORLDS_PER_PROGRAM) ^ uint64(1))
        lengths[i] = _draw_program(stream, statements, numbers, kinds, action_of, words[i])
        key = mix(uint64(height * 65536 + width))
        for j in range(lengths[i]):
            key = mix(key ^ uint64(words[i, j] + 1))
        stream = mix(stream_key(seed, purpose, indices[i], attempts[i]) ^ uint64(2))
        for e in range(cells.shape[1]):
            size[i, e, 0], size[i, e, 1] = height, width
            stream = mix(stream)
            key = _draw_world(stream, height, width, numbers, cells[i, e], robot[i, e], key)
        keys[i] = key


@njit(cache=True, nogil=True)
def _draw_program(stream, statements, numbers, kinds, action_of, words):  # type: ignore[no-untyped-def]
    """Fill `words` with a program of the given number of statements; returns its number of words."""
    r_low, r_high, deepest, negate16 = numbers[6], numbers[7], numbers[8], numbers[9]
    left = np.empty(deepest + 1, np.int64)
    alternative = np.empty(deepest + 1, np.int64)
    block = np.empty(deepest + 1, np.int64)
    words[0], words[1], words[2] = DEF, RUN, OPEN
    left[0], block[0] = statements, _PROGRAM
    n, depth, counter = 3, 0, 0
    while True:
        if left[depth] == 0:
            if block[depth] == _THEN:
                words[n], words[n + 1], words[n + 2] = CLOSE, ELSE, OPEN
                block[depth], left[depth] = _BODY, alternative[depth]
                n += 3
                continue
            words[n] = CLOSE if depth == 0 else CLOSE_NEXT
            n += 1
            if depth == 0:
                return n
            depth -= 1
            continue
        inside = left[depth] - 1
        nests = inside > 0 and depth < deepest
        total = kinds[0]
        if nests:
            total += kinds[1] + kinds[3] + kinds[4] + (kinds[2] if inside > 1 else 0)
        pick = np.int64(below(draw(stream, counter), total))
        kind = 0
        while pick >= kinds[kind] or (kind == 2 and inside < 2):
            pick -= 0 if kind == 2 and inside < 2 else kinds[kind]
            kind += 1
        bits = draw(stream, counter + 1)
        counter += 2
        if kind == 0:
            words[n] = action_of[below(bits, len(action_of))]
            n += 1
            left[depth] -= 1
            continue
        words[n] = IF if kind == 1 else IFELSE if kind == 2 else WHILE if kind == 3 else REPEAT
        n += 1
        if kind == 4:
            words[n] = FIRST_COUNT + r_low + np.int64(below(bits, r_high - r_low + 1))
        else:
            condition = np.int64(below(bits, len(CONDITIONS)))
            words[n] = FIRST_CONDITION + condition
            if np.int64(bits & uint64(65535)) < negate16:
                words[n], words[n + 1] = NOT, FIRST_NEGATED + condition
                n += 1
        words[n + 1] = OPEN
        n += 2
        least = 2 if kind == 2 else 1
        used = least + np.int64(below(draw(stream, counter), inside - least + 1))
        first = 1 + np.int64(below(draw(stream, counter + 1), used - 1)) if kind == 2 else used
        counter += 2
        left[depth] -= 1 + used
        depth += 1
        left[depth], alternative[depth], block[depth] = first, used - first, _THEN if kind == 2 else _BODY


@njit(cache=True, nogil=True)
def _draw_world(stream, height, width, numbers, cells, robot, key):  # type: ignore[no-untyped-def]
    """Fill one world of the given size; returns the task's key, updated with the world."""
    wall16, marker16, most = numbers[10], numbers[11], numbers[12]
    inner = width - 2
    free = (height - 2) * inner
    position = draw(stream, 0)
    start = np.int64(below(position, free))
    robot[0], robot[1], robot[2] = 1 + start // inner, 1 + start % inner, np.int64(position & uint64(3))
    key = mix(key ^ uint64(start * 4 + robot[2]))
    counter, row, column = 1, 1, 1
    for chunk in range(0, free, 64):
        walls, counter = bernoulli_mask(stream, counter, wall16)
        markers, counter = bernoulli_mask(stream, counter, marker16)
        used = min(64, free - chunk)
        if chunk <= start < chunk + 64:
            mask = ~(uint64(1) << uint64(start - chunk))
            walls &= mask
            markers &= mask
        if used < 64:
            walls &= (uint64(1) << uint64(used)) - uint64(1)
            markers &= (uint64(1) << uint64(used)) - uint64(1)
        markers &= ~walls
        key = mix(mix(key ^ walls) ^ markers)
        for bit in range(used):
            content = -np.int64((walls >> uint64(bit)) & uint64(1))
            if (markers >> uint64(bit)) & uint64(1):
                content = 1 + np.int64(below(draw(stream, counter), most))
                key = mix(key ^ uint64(content))
                counter += 1
            cells[row, column] = content
            column += 1
            if column > inner:
                row, column = row + 1, 1
    return key
