"""Words and their tokens behind a prompt, under tokenizers of several kinds."""

from __future__ import annotations

import re

import pytest
from families import byte_pair_tokenizer, cases, metaspace_tokenizer
from tokenizers import processors

from baselines.tokenizer import build_tokenizer
from benchmark.errors import ModelError
from benchmark.models.token_alignment import align_tokens
from benchmark.tasks.prompts import prompt_ids

TOKENIZERS = {"byte pairs": byte_pair_tokenizer, "signs for spaces": metaspace_tokenizer, "words": build_tokenizer}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_pieces_spell_the_words(kind):
    tokenizer = TOKENIZERS[kind]()
    for prompt, program in zip(*cases(), strict=True):
        found = align_tokens(tokenizer, prompt, program)
        assert prompt_ids(tokenizer, prompt) + found.ids == tokenizer(f"{prompt} {program}")["input_ids"]
        assert list(found.first) == [1, *(found.last[:-1] + 1)]
        for word, first, last in zip(program.split(), found.first - 1, found.last, strict=True):
            assert tokenizer.decode(found.ids[first:last]).strip() == word


def test_an_end_mark_does_not_close_a_prompt():
    tokenizer = byte_pair_tokenizer(begin=True)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<begin> $A <end>", pair="<begin> $A $B <end>", special_tokens=[("<begin>", 1), ("<end>", 0)]
    )
    prompt, program = (texts[0] for texts in cases())
    bare = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    assert tokenizer(prompt)["input_ids"] == [1, *bare, 0]
    assert prompt_ids(tokenizer, prompt) == [1, *bare]
    assert 0 not in align_tokens(tokenizer, prompt, program).ids
    # A mark that a chat template wrote is part of the text.
    assert prompt_ids(tokenizer, f"{prompt}<end>") == [1, *bare, 0]


def test_tokens_that_span_words_are_refused():
    prompts, programs = cases()
    first_word = re.escape(programs[0].split()[0])
    with pytest.raises(ModelError, match=f"one token holds the end of {first_word} and what follows"):
        align_tokens(metaspace_tokenizer(split=False), prompts[0], programs[0])


def test_a_prompt_whose_tokens_change_is_refused():
    tokenizer = byte_pair_tokenizer()
    prompts, programs = cases()
    tokenizer.add_tokens([f"{{ {programs[0][:3]}"])
    with pytest.raises(ModelError, match="tokens of a prompt change"):
        align_tokens(tokenizer, prompts[0], programs[0])
