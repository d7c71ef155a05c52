"""Word-level tokenizer of the canonical text: one token per cell or pair of cells, and per item of the program.

It splits at white space. Line ends are dropped, which worlds of a single size do not need, or are tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from benchmark.tasks.prompts import INPUT, OUTPUT, PROGRAM
from karel_env.language import WORDS
from karel_env.world import ROBOT_GLYPHS, glyph_words

PAD, END, UNKNOWN, LINE_END = "<pad>", "<end>", "<unknown>", "\n"


def vocabulary(pairs: Sequence[str] = (), line_ends: bool = False) -> dict[str, int]:
    """Token ids by token; equal for all suites except the line end and the pairs, which come last."""
    line_end = [LINE_END] if line_ends else []
    words = [PAD, END, UNKNOWN, INPUT, OUTPUT, PROGRAM, *glyph_words(), *WORDS, *line_end, *pairs]
    return {word: i for i, word in enumerate(words)}


def cell_pairs(show_under_robot: bool) -> list[str]:
    """All pairs of neighbouring cells in a row, such as `. #`; at most one of them holds the robot."""
    cells = glyph_words(show_under_robot)
    robots = {cell for cell in cells if cell[0] in ROBOT_GLYPHS}
    return [f"{first} {second}" for first in cells for second in cells if not {first, second} <= robots]


def build_tokenizer(pairs: Sequence[str] = (), line_ends: bool = False) -> PreTrainedTokenizerFast:
    """Build a Hugging Face tokenizer; `decode` joins tokens by one space, which gives the canonical text of a program.

    With `pairs` (all `cell_pairs` of a suite), two cells are one token, from the left of each row; a row of odd length
    ends with a single cell. With `line_ends`, every line end is a token.
    """
    inner = Tokenizer(models.WordLevel(vocabulary(pairs, line_ends), unk_token=UNKNOWN))
    cell = rf"(?:[{re.escape(''.join(ROBOT_GLYPHS))}]\d?|[.#]|\d)(?!\S)"
    patterns = [*([LINE_END] if line_ends else []), *([f"{cell} {cell}"] if pairs else []), r"\S+"]
    inner.pre_tokenizer = (
        pre_tokenizers.Split(Regex("|".join(patterns)), "removed", invert=True)
        if len(patterns) > 1
        else pre_tokenizers.WhitespaceSplit()
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, clean_up_tokenization_spaces=False
    )
