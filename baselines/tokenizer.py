"""The word-level tokenizer of the canonical text: one token a cell, one a word of the program.

It splits at white space, so line ends cost nothing; worlds of a suite that draws one size need none.
"""

from __future__ import annotations

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from benchmark.prompts import INPUT, OUTPUT, PROGRAM
from karel_env.language import WORDS
from karel_env.world import glyph_words

PAD, END, UNKNOWN = "<pad>", "<end>", "<unknown>"


def vocabulary() -> dict[str, int]:
    """Every token and its id; the same for all suites."""
    words = [PAD, END, UNKNOWN, INPUT, OUTPUT, PROGRAM, *glyph_words(), *WORDS]
    return {word: i for i, word in enumerate(words)}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A normal Hugging Face tokenizer; `decode` joins words by one space, which is the canonical text."""
    inner = Tokenizer(models.WordLevel(vocabulary(), unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, clean_up_tokenization_spaces=False
    )
