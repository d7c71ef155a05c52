"""The word-level tokenizer of the canonical text: one token a cell or a pair of cells, one a word of the program.

It splits at white space, so line ends cost nothing; worlds of a suite that draws one size need none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from benchmark.tasks.prompts import INPUT, OUTPUT, PROGRAM
from karel_env.language import WORDS
from karel_env.world import ROBOT_GLYPHS, glyph_words

PAD, END, UNKNOWN = "<pad>", "<end>", "<unknown>"


def vocabulary(pairs: Sequence[str] = ()) -> dict[str, int]:
    """Every token and its id; the same for all suites but for the pairs, which come last."""
    words = [PAD, END, UNKNOWN, INPUT, OUTPUT, PROGRAM, *glyph_words(), *WORDS, *pairs]
    return {word: i for i, word in enumerate(words)}


def cell_pairs(show_under_robot: bool) -> list[str]:
    """Every two neighbours of a row, such as `. #`: of a world's cells, one holds the robot."""
    cells = glyph_words(show_under_robot)
    robots = {cell for cell in cells if cell[0] in ROBOT_GLYPHS}
    return [f"{first} {second}" for first in cells for second in cells if not {first, second} <= robots]


def build_tokenizer(pairs: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """A normal Hugging Face tokenizer; `decode` joins words by one space, which is the canonical text.

    With `pairs` (all `cell_pairs` of a suite) two cells are one token, from the left of each row; rows of an odd number
    end with a single one.
    """
    inner = Tokenizer(models.WordLevel(vocabulary(pairs), unk_token=UNKNOWN))
    cell = rf"(?:[{re.escape(''.join(ROBOT_GLYPHS))}]\d?|[.#]|\d)(?!\S)"
    inner.pre_tokenizer = (
        pre_tokenizers.Split(Regex(rf"{cell} {cell}|\S+"), "removed", invert=True)
        if pairs
        else pre_tokenizers.WhitespaceSplit()
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, clean_up_tokenization_spaces=False
    )
