"""Encode tasks as token ids directly, equal to tokenizing their text but thousands of times faster.

Letters: `N` tasks, `E` shown examples, `S` tokens of a sequence.
"""

from __future__ import annotations

import numpy as np

from baselines.tokenizer import END, PAD, cell_pairs, vocabulary
from benchmark.tasks.prompts import INPUT, OUTPUT, PROGRAM
from karel_env.language import WORDS
from karel_env.recipe import Tasks
from karel_env.world import COUNT_GLYPHS, ROBOT_GLYPHS, Worlds

LOSSES = ("outputs", "program", "all")
"""Targets of the loss: output grids and program; program only; every token but the first."""
IGNORE_INDEX = -100
"""Label of a token without loss (`ignore_index` of `torch.nn.functional.cross_entropy`)."""


def encode(
    tasks: Tasks, shown: int, show_under_robot: bool, loss: str = LOSSES[0], pairs: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids [N, S] of prompt, program and end-of-sequence token, padded; and labels [N, S] for next-token training.

    Labels are the tokens selected by `loss` (one of `LOSSES`; the end-of-sequence token belongs to the program); all
    others are `IGNORE_INDEX`. Input grids are random and cannot be predicted. With `pairs`, two cells are one token.

    Raises:
        ValueError: worlds of several sizes (the word-level tokenizer drops line ends), or pairs in rows of an odd number.
    """
    ids = vocabulary(cell_pairs(show_under_robot) if pairs else ())
    if (tasks.inputs.size != tasks.inputs.cells.shape[-2:]).any():
        raise ValueError("encode: worlds of several sizes; the word-level tokenizer needs one size per suite")
    num_tasks = len(tasks)

    def column(word: str) -> np.ndarray:
        return np.full((num_tasks, shown, 1), ids[word], np.int64)

    before = _encode_grids(tasks.inputs[:, :shown], show_under_robot, ids)
    after = _encode_grids(tasks.outputs[:, :shown], show_under_robot, ids)
    if pairs:
        if tasks.inputs.cells.shape[-1] % 2:
            raise ValueError("encode: pairs of cells need rows of an even number; set pairs to false")
        before, after = _pair_cells(before, ids), _pair_cells(after, ids)
    grids = np.concatenate([column(INPUT), before, column(OUTPUT), after], -1)
    is_target = np.full(grids.shape[1:], loss == "all")
    if loss == "outputs":
        is_target[:, -after.shape[-1] :] = True
    lengths = tasks.programs.lengths
    program_tokens = np.full((num_tasks, int(lengths.max()) + 2), ids[PAD], np.int64)
    program_tokens[:, 0] = ids[PROGRAM]
    first_word = ids[WORDS[0]]
    is_program = np.arange(program_tokens.shape[1] - 2) < lengths[:, None]
    program_tokens[:, 1:-1][is_program] = tasks.programs.words.astype(np.int64) + first_word
    program_tokens[np.arange(num_tasks), lengths + 1] = ids[END]
    tokens = np.concatenate([grids.reshape(num_tasks, -1), program_tokens], 1)
    positions = np.arange(program_tokens.shape[1])
    is_target_tail = (positions >= (0 if loss == "all" else 4)) & (positions <= lengths[:, None] + 1)
    mask = np.concatenate([np.broadcast_to(is_target.reshape(-1), (num_tasks, is_target.size)), is_target_tail], 1)
    return tokens, np.where(mask, tokens, IGNORE_INDEX)


def token_weights(words: int, program_weight: float) -> np.ndarray:
    """float32 [words], loss weight per token id: `program_weight` for program and end-of-sequence tokens, else 1."""
    ids = vocabulary()
    weights = np.ones(words, np.float32)
    weights[[ids[END], *(ids[word] for word in WORDS)]] = program_weight
    return weights


def _encode_grids(worlds: Worlds, show_under_robot: bool, ids: dict[str, int]) -> np.ndarray:
    """Token ids [N, E, inner cells] of the worlds [N, E]."""
    table = np.array([ids["#"], ids["."], *(ids[c] for c in COUNT_GLYPHS)])
    grid = table[worlds.cells.astype(np.int64) + 1]
    counts = ("", *COUNT_GLYPHS) if show_under_robot else ("",) * (len(COUNT_GLYPHS) + 1)
    robots = np.array([[ids[glyph + n] for n in counts] for glyph in ROBOT_GLYPHS])
    row, column, heading = (worlds.robot[..., i].astype(np.int64) for i in range(3))
    task, example = np.indices(row.shape)
    grid[task, example, row, column] = robots[heading, worlds.cells[task, example, row, column]]
    return grid[..., 1:-1, 1:-1].reshape(*worlds.shape, -1)


def _pair_cells(grid: np.ndarray, ids: dict[str, int]) -> np.ndarray:
    """Token ids [..., cells / 2] of pairs of neighbouring cells, from token ids [..., cells] of single cells."""
    table = np.full((len(ids), len(ids)), -1)
    for word, token_id in ids.items():
        first, space, second = word.partition(" ")
        if space:
            table[ids[first], ids[second]] = token_id
    return table[grid[..., ::2], grid[..., 1::2]]
