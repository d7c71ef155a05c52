"""How the next token is chosen: under the grammar, and at a temperature."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from byte_pairs import byte_pairs
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from benchmark.errors import ModelError
from benchmark.models.decoding import Grammar, GrammarMask, GumbelSampler
from benchmark.models.interface import Decoding
from benchmark.tasks.suite import load_suite
from benchmark.tasks.suite import test_tasks as tasks_of
from karel_env.language import HEADER_TEXT, WORDS
from karel_env.syntax.parser import ParseError, parse

SHIPPED = Path(__file__).parents[2] / "submissions" / "2026-11-25_gpt-laptop"


TOKENIZERS = {"words": lambda: AutoTokenizer.from_pretrained(str(SHIPPED)), "byte pairs": byte_pairs}


@cache
def tokenizer_of(name: str) -> PreTrainedTokenizerBase:
    return TOKENIZERS[name]()


@cache
def grammar_of(name: str) -> Grammar:
    return Grammar(tokenizer_of(name), len(tokenizer_of(name)))


def accepts(name: str, text: str) -> bool:
    matcher, ids = grammar_of(name).matcher(), tokenizer_of(name)(text, add_special_tokens=False)["input_ids"]
    return bool(matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting())


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("suite", ["laptop", "control"])
def test_the_grammar_accepts_every_program_of_a_suite(name: str, suite: str) -> None:
    tasks = tasks_of(replace(load_suite(suite), tasks=60, sha256=""))
    for text in tasks.programs.texts():
        assert accepts(name, text.removeprefix(HEADER_TEXT)), text


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=12))
def test_the_grammar_accepts_what_the_parser_does(words: list[str]) -> None:
    text = " " + " ".join([*words, "}"])
    try:
        parse(HEADER_TEXT + text)
        program = True
    except ParseError:
        program = False
    assert accepts("byte pairs", text) == program


@pytest.mark.parametrize(
    ("text", "program"),
    [
        (" move() }", True),
        ("\n  move();\n  turn_left();\n}", True),
        (" ifelse (not markers_present()) { move(); } else { put_marker(); }; }", True),
        (" repeat (19) { move(); }; }", True),
        (" repeat (20) { move(); }; }", False),
        (" repeat (007) { move(); }; }", False),
        (" while (notfront_is_clear()) { move(); }; }", False),
        (" }", False),
        (" move();; }", False),
        (" move(); } move();", False),
    ],
)
def test_spellings(text: str, program: bool) -> None:
    assert accepts("byte pairs", text) == program
    try:
        parse(HEADER_TEXT + text)
        assert program
    except ParseError:
        assert not program


@pytest.mark.parametrize("name", TOKENIZERS)
def test_whatever_is_chosen_under_the_grammar_is_a_program(name: str) -> None:
    """Tokens drawn at random among the allowed ones, rows done at different times."""
    tokenizer, rows = tokenizer_of(name), 12
    prompt = torch.zeros((rows, 3), dtype=torch.long)
    only = GrammarMask(grammar_of(name), rows, 3)
    generator = torch.Generator().manual_seed(5)
    ids, end = prompt, tokenizer.eos_token_id
    for _ in range(400):
        # Brackets that close are liked, so that programs come to an end.
        liking = torch.tensor(
            [3.0 * text.count("}") for text in tokenizer.batch_decode([[i] for i in range(len(tokenizer))])]
        )
        scores = torch.rand((rows, len(tokenizer)), generator=generator) + liking
        chosen = only(ids, scores).argmax(-1)
        assert torch.isfinite(only(ids, scores).gather(1, chosen[:, None])).all()
        ids = torch.cat([ids, chosen[:, None]], 1)
    finished = 0
    for row in ids[:, 3:].tolist():
        if end in row:
            finished += 1
            parse(f"{HEADER_TEXT} {tokenizer.decode(row[: row.index(end)])}")
            assert set(row[row.index(end) :]) == {end}
    assert finished >= rows // 2


def test_a_tokenizer_without_an_end_mark_is_refused() -> None:
    tokenizer = byte_pairs()
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        Grammar(tokenizer, len(tokenizer))


def test_draws_have_the_frequencies_of_the_softmax() -> None:
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, -torch.inf])
    count, temperature = 20_000, 1.7
    drawn = GumbelSampler(Decoding(temperature=temperature, seeds=tuple(range(count))))
    found = np.bincount(drawn(torch.zeros((count, 1)), logits.expand(count, 5)).argmax(-1).numpy(), minlength=5)
    expected = torch.softmax(logits / temperature, 0).double().numpy() * count
    assert found[4] == 0
    assert stats.chisquare(found[:4], expected[:4] / expected[:4].sum() * count).pvalue > 0.001


def test_a_draw_depends_on_its_seed_alone() -> None:
    logits = torch.randn((3, 50), generator=torch.Generator().manual_seed(0))
    seeds = (2**100 + 1, 7, 9)
    together, alone = (
        GumbelSampler(Decoding(temperature=1.0, seeds=seeds)),
        GumbelSampler(Decoding(temperature=1.0, seeds=seeds[1:2])),
    )
    for _ in range(3):
        ids = torch.zeros((3, 1))
        assert torch.equal(together(ids, logits)[1], alone(ids[:1], logits[1:2])[0])
