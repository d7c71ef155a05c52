"""Alignment of the items of a program with the tokens of a tokenizer. Letters: `W` items, `L` layers + 1, `D` hidden width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark.errors import ModelError
from benchmark.models.interface import HiddenStates
from benchmark.tasks.prompts import prompt_ids
from karel_env.syntax.dialects import PYTHON, body_dialect, word_spans

ADVICE = "word positions are not defined; the tokenizer must split texts at spaces"


@dataclass(frozen=True)
class TokenAlignment:
    """The tokens of one program. Index 0 is the last token of its prompt.

    Attributes:
        ids: token ids of the program, including the space before it.
        first, last: int64 [W], index of the first and last subword of each item, with the space before it.
    """

    ids: list[int]
    first: np.ndarray
    last: np.ndarray


def align_tokens(tokenizer: Any, prompt: str, program: str) -> TokenAlignment:
    """Align a program (its body, see `karel_env.syntax.dialects`) after its prompt with its tokens.

    Raises:
        ModelError: the tokens of the prompt change when the program follows, or a token spans two items.
    """
    if body_dialect(program) == PYTHON:
        return _align_python(tokenizer, prompt, program)
    encoded = tokenizer(f"{prompt} {program}", return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], np.array(encoded["offset_mapping"])
    inside = np.flatnonzero(offsets[:, 1] > len(prompt))
    alone = prompt_ids(tokenizer, prompt)
    if len(inside) == 0 or ids[: inside[0]] != alone:
        raise ModelError(f"tokenizer: the tokens of a prompt change when a program follows; {ADVICE}")
    words = program.split(" ")
    ends = np.cumsum([len(word) + 1 for word in words]) + len(prompt)
    starts = np.concatenate([[len(prompt)], ends[:-1]])
    stop = offsets[inside, 1]
    first = np.searchsorted(stop, starts, side="right")
    last = np.searchsorted(stop, ends, side="left")
    across = np.flatnonzero(stop[last] != ends)
    if len(across):
        raise ModelError(f"tokenizer: one token holds the end of {words[across[0]]} and what follows; {ADVICE}")
    return TokenAlignment([ids[i] for i in inside], first + 1, last + 1)


def _align_python(tokenizer: Any, prompt: str, body: str) -> TokenAlignment:
    """Align the body of a Python function with its tokens; a token may hold an item and the layout around it.

    Where a tokenizer would merge the line break after the header with the end of the prompt, the body is tokenized apart
    from it, as a model generates it.
    """
    encoded = tokenizer(prompt + body, return_offsets_mapping=True)
    ids, stops = encoded["input_ids"], np.array(encoded["offset_mapping"])[:, 1] - len(prompt)
    inside = np.flatnonzero(stops > 0)
    if len(inside) == 0 or ids[: inside[0]] != prompt_ids(tokenizer, prompt):
        encoded = tokenizer(body, return_offsets_mapping=True, add_special_tokens=False)
        ids, stops = encoded["input_ids"], np.array(encoded["offset_mapping"])[:, 1]
        inside = np.arange(len(ids))
    starts, ends = word_spans(body).T
    stop = stops[inside]
    # The space before an item is part of it, as in the canonical text: some tokens hold both.
    follows_space = np.array([body[start - 1 : start] == " " for start in starts])
    first = np.searchsorted(stop, starts - follows_space, side="right")
    last = np.searchsorted(stop, ends, side="left")
    if stop[-1] != len(body):
        raise ModelError(f"tokenizer: its offsets do not cover a program; {ADVICE}")
    visible = np.flatnonzero(ends > starts)
    across = np.flatnonzero(stop[last[visible[:-1]]] > starts[visible[1:]])
    if len(across):
        start, end = starts[visible[across[0]]], ends[visible[across[0]]]
        raise ModelError(f"tokenizer: one token holds the end of {body[start:end]} and what follows; {ADVICE}")
    return TokenAlignment([ids[i] for i in inside], first + 1, last + 1)


def select_word_states(states: Sequence[np.ndarray], alignments: Sequence[TokenAlignment]) -> HiddenStates:
    """Select the hidden states at items.

    Args:
        states: per program float32 [tokens, L, D], starting at the last token of its prompt.
        alignments: token alignment per program.
    """
    values, emits, reads, counts = [], [], [], [0]
    start = 0
    for row, alignment in zip(states, alignments, strict=True):
        token_indices, inverse = np.unique(np.concatenate([alignment.first - 1, alignment.last]), return_inverse=True)
        values.append(row[token_indices])
        emits.append(start + inverse[: len(alignment.first)])
        reads.append(start + inverse[len(alignment.first) :])
        start += len(token_indices)
        counts.append(counts[-1] + len(alignment.first))
    return HiddenStates(np.concatenate(values), np.concatenate(emits), np.concatenate(reads), np.array(counts))
