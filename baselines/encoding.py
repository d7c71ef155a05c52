"""Encode tasks as token ids directly, equal to tokenizing their text but thousands of times faster.

Letters: `N` tasks, `E` shown examples, `H W` rows and columns of a grid without border, `S` tokens of a sequence.
"""

from __future__ import annotations

import numpy as np

from baselines.tokenizer import END, LINE_END, PAD, cell_pairs, vocabulary
from benchmark.errors import UsageError
from benchmark.tasks.prompts import INPUT, OUTPUT, PROGRAM
from karel_env.generation.recipe import Tasks
from karel_env.language import HEADER, WORDS
from karel_env.world import COUNT_GLYPHS, ROBOT_GLYPHS, Worlds

LOSSES = ("outputs", "program", "all")
"""Targets of the loss: output grids and program; program only; every token but the first."""
IGNORE_INDEX = -100
"""Label of a token without loss (`ignore_index` of `torch.nn.functional.cross_entropy`)."""


def encode(
    tasks: Tasks,
    shown: int,
    show_under_robot: bool,
    loss: str = LOSSES[0],
    pairs: bool = False,
    line_ends: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids [N, S] of prompt, program and end-of-sequence token, padded; and labels [N, S] for next-token training.

    Labels are the tokens selected by `loss` (one of `LOSSES`; the end-of-sequence token belongs to the program); all
    others are `IGNORE_INDEX`. Input grids are random and cannot be predicted. With `pairs`, two cells are one token; with
    `line_ends`, every line end is one, and those of an output grid belong to it.

    Raises:
        UsageError: worlds of several sizes without line ends.
    """
    ids = vocabulary(cell_pairs(show_under_robot) if pairs else (), line_ends)
    if not line_ends and (tasks.inputs.size != tasks.inputs.cells.shape[-2:]).any():
        raise UsageError("encode: worlds of several sizes, which only line ends tell apart; set line_ends to true")

    before = _encode_grids(tasks.inputs[:, :shown], show_under_robot, ids, pairs)
    after = _encode_grids(tasks.outputs[:, :shown], show_under_robot, ids, pairs)
    words = [np.tile(_line(word, ids), (len(tasks), shown, 1)) for word in (INPUT, OUTPUT)]
    examples = np.concatenate([words[0], before, words[1], after], -1)
    is_target = np.full(examples.shape, loss == "all")
    if loss == "outputs":
        is_target[..., -after.shape[-1] :] = True
    program, is_program_target = _encode_programs(tasks, loss, ids)
    tokens = np.concatenate([examples.reshape(len(tasks), -1), program], 1)
    is_target = np.concatenate([is_target.reshape(len(tasks), -1), is_program_target], 1)
    if (tokens[:, : -program.shape[1]] == ids[PAD]).any():
        tokens, is_target = _close_gaps(tokens, is_target, ids[PAD])
    return tokens, np.where(is_target & (tokens != ids[PAD]), tokens, IGNORE_INDEX)


def token_weights(words: int, program_weight: float) -> np.ndarray:
    """float32 [words], loss weight per token id: `program_weight` for program and end-of-sequence tokens, else 1."""
    ids = vocabulary()
    weights = np.ones(words, np.float32)
    weights[[ids[END], *(ids[word] for word in WORDS)]] = program_weight
    return weights


def _line(word: str, ids: dict[str, int]) -> list[int]:
    """Token ids of a word on a line of its own."""
    return [ids[word], *([ids[LINE_END]] if LINE_END in ids else [])]


def _encode_programs(tasks: Tasks, loss: str, ids: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids [N, P] of the name line, the programs and the end-of-sequence token, padded; and bool [N, P], the targets.

    The header of a program belongs to the prompt.
    """
    name = _line(PROGRAM, ids)
    lengths, first = tasks.programs.lengths, len(name)
    tokens = np.full((len(tasks), int(lengths.max()) + first + 1), ids[PAD], np.int64)
    tokens[:, :first] = name
    is_program = np.arange(tokens.shape[1] - first - 1) < lengths[:, None]
    tokens[:, first:-1][is_program] = tasks.programs.words.astype(np.int64) + ids[WORDS[0]]
    tokens[np.arange(len(tasks)), lengths + first] = ids[END]
    is_target = np.arange(tokens.shape[1]) >= (0 if loss == "all" else first + len(HEADER))
    return tokens, np.broadcast_to(is_target, tokens.shape)


def _encode_grids(worlds: Worlds, show_under_robot: bool, ids: dict[str, int], pairs: bool) -> np.ndarray:
    """Token ids [N, E, tokens] of the worlds [N, E] in an array for the largest; padding where a world has no cell."""
    table = np.array([ids["#"], ids["."], *(ids[c] for c in COUNT_GLYPHS)])
    grid = table[worlds.cells.astype(np.int64) + 1]
    counts = ("", *COUNT_GLYPHS) if show_under_robot else ("",) * (len(COUNT_GLYPHS) + 1)
    robots = np.array([[ids[glyph + n] for n in counts] for glyph in ROBOT_GLYPHS])
    row, column, heading = (worlds.robot[..., i].astype(np.int64) for i in range(3))
    task, example = np.indices(row.shape)
    grid[task, example, row, column] = robots[heading, worlds.cells[task, example, row, column]]
    grid = grid[..., 1:-1, 1:-1]
    last_row, last_column = np.moveaxis(worlds.size - 2, -1, 0)
    is_row = np.arange(grid.shape[-2]) < last_row[..., None]
    is_column = np.arange(grid.shape[-1]) < last_column[..., None]
    grid = np.where(is_row[..., :, None] & is_column[..., None, :], grid, ids[PAD])
    if pairs:
        grid = _pair_cells(grid, ids)
    if LINE_END in ids:
        grid = np.concatenate([grid, np.where(is_row, ids[LINE_END], ids[PAD])[..., None]], -1)
    return grid.reshape(*worlds.shape, -1)


def _pair_cells(grid: np.ndarray, ids: dict[str, int]) -> np.ndarray:
    """Token ids [..., (W + 1) / 2] of pairs of neighbouring cells, from ids [..., W] of single cells; a last cell stays."""
    table = np.full((len(ids), len(ids)), -1)
    table[:, ids[PAD]] = np.arange(len(ids))
    for word, token_id in ids.items():
        first, space, second = word.partition(" ")
        if space:
            table[ids[first], ids[second]] = token_id
    if grid.shape[-1] % 2:
        grid = np.concatenate([grid, np.full_like(grid[..., :1], ids[PAD])], -1)
    return table[grid[..., ::2], grid[..., 1::2]]


def _close_gaps(tokens: np.ndarray, is_target: np.ndarray, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Move padding [N, S] to the end of each sequence, and the targets likewise; the sequences become as short as they can."""
    is_gap = tokens == pad
    order = np.argsort(is_gap, axis=1, kind="stable")[:, : (~is_gap).sum(1).max()]
    return np.take_along_axis(tokens, order, 1), np.take_along_axis(is_target, order, 1)
