"""Tasks in worlds without obstacles, and a tokenizer that gives each as a few tokens, for networks that train in a minute.

Without walls and markers, what a program does is told by the robot's displacement, its rotation and the markers that it
leaves, all in the frame of its start. The tokenizer writes these in place of the drawings, so that a small network learns
to plan, and not to see.

Letters: `N` tasks, `S` summary tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmark.causal.pairs import PairSettings, derive_pairs
from benchmark.causal.targets import NEXT_WORDS, TURNS
from benchmark.tasks.prompt_template import render_prompts
from benchmark.tasks.prompts import PROMPT_END
from benchmark.tasks.suite import Suite
from karel_env.generation.recipe import Tasks

TRAINED_UNREAD, TRAINED_READER, TRAINED_RECURRENT = TRAINED_KINDS = (
    "trained unread", "trained reader", "trained recurrent reader",
)  # fmt: skip
"""Networks that are trained on these tasks, see `planner_network`."""
SIDE = 14
"""Height and width of an open world, border included."""
REACH = 6
"""Largest displacement that has a token of its own; more are cut."""
MAX_MARKERS = 3
NO_MARKER = 2 * REACH + 1
SLOT_SIZES = (2 * REACH + 1, 2 * REACH + 1, TURNS, NO_MARKER + 1, NO_MARKER + 1, MAX_MARKERS + 1)
"""Values of each summary token: two of the displacement, rotation, two of the first marker's cell, number of markers."""
PAD, FIRST_WORD = 0, 1
HEADER = FIRST_WORD + len(NEXT_WORDS)
"""Id of the last token of a prompt."""
FIRST_SUMMARY = HEADER + 1
VOCABULARY = FIRST_SUMMARY + sum(SLOT_SIZES)


def open_suite(suite: Suite) -> Suite:
    """The suite with larger worlds, no walls or markers, and one shown example; a suite of its own, not official."""
    recipe = replace(suite.recipe, height=(SIDE, SIDE), width=(SIDE, SIDE), wall=0.0, marker=0.0, examples=2)
    return replace(suite, name=f"{suite.name}-open", recipe=recipe, shown=1, held_out=1, sha256="", official=False)


def summarize(tasks: Tasks) -> np.ndarray:
    """int64 [N, S], ids of the tokens that stand for the first example of each task."""
    start, end = (worlds.robot[:, 0].astype(np.int64) for worlds in (tasks.inputs, tasks.outputs))
    left = tasks.outputs.cells[:, 0].clip(min=0)
    counts = left.sum((1, 2))
    first = left.reshape(len(left), -1).argmax(1)
    cell = np.stack([first // left.shape[2], first % left.shape[2]], 1)
    marker = np.where(counts[:, None] > 0, _in_frame(cell, start), REACH + 1) + REACH
    slots = [
        *(_in_frame(end[:, :2], start) + REACH).T,
        (end[:, 2] - start[:, 2]) % TURNS,
        *marker.T,
        counts.clip(max=MAX_MARKERS),
    ]
    offsets = FIRST_SUMMARY + np.cumsum([0, *SLOT_SIZES[:-1]])
    ids: np.ndarray = np.stack(slots, 1) + offsets
    return ids


def _in_frame(cell: np.ndarray, start: np.ndarray) -> np.ndarray:
    """int64 [N, 2], cells ahead of and to the right of the start, cut to `REACH`."""
    down, right = (cell - start[:, :2]).T
    ahead = np.stack([-down, right, down, -right])
    sideways = np.stack([right, down, -right, -down])
    rows = np.arange(len(cell))
    return np.stack([ahead[start[:, 2], rows], sideways[start[:, 2], rows]], 1).clip(-REACH, REACH)


class SummaryTokenizer:
    """The part of a fast tokenizer's interface that edits and generation use.

    Args:
        suite: an open suite.
        settings: number of pairs, whose prompts are known.
    """

    pad_token_id, bos_token_id, eos_token_id = PAD, None, None
    padding_side = "left"

    def __init__(self, suite: Suite, settings: PairSettings) -> None:
        tasks = derive_pairs(suite, settings).tasks
        rows = np.concatenate([summarize(tasks), np.full((len(tasks), 1), HEADER)], 1).tolist()
        self.prompts = dict(zip(render_prompts(suite, tasks), rows, strict=True))
        self.ids = {word: FIRST_WORD + i for i, word in enumerate(NEXT_WORDS)}
        self.words = {number: word for word, number in self.ids.items()}

    def __call__(self, text: str, **_: Any) -> dict[str, list[Any]]:
        """Ids, offsets and mask of special tokens; all tokens of a prompt end where it ends."""
        stop = text.find(PROMPT_END) + len(PROMPT_END) if PROMPT_END in text else 0
        ids = list(self.prompts[text[:stop]]) if stop else []
        offsets = [(0, stop)] * len(ids)
        for match in re.finditer(r"\S+", text[stop:]):
            ids.append(self.ids.get(match.group(), PAD))
            offsets.append((stop + match.start(), stop + match.end()))
        return {"input_ids": ids, "offset_mapping": offsets, "special_tokens_mask": [0] * len(ids)}

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        """Words joined by spaces; tokens of a prompt have no text."""
        return " ".join(self.words[i] for i in ids if i in self.words)

    def batch_decode(self, rows: Sequence[Sequence[int]], **_: Any) -> list[str]:
        """See `decode`."""
        return [self.decode(row) for row in rows]
