"""Edits of networks: architectures with sub-word tokenizers, LSTM and state space models, against passes by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from agreement import loaded
from families import FAMILIES, cases, family_params, save

from baselines.lstm import LstmConfig, LstmForCausalLM
from baselines.tokenizer import build_tokenizer
from benchmark.causal.interventions import AT_PROMPT
from benchmark.causal.natural_range import ComponentRange
from benchmark.causal.shams import run_shams
from benchmark.models.steering import open_steerable, transformer
from benchmark.models.steering.words import NEXT_WORDS

ARCHITECTURES = tuple(FAMILIES)
QUICK = ("gpt2", "gpt-neo", "llama", "gemma3", "mamba")
"""One each with positions as embeddings, with a window of attention, rotated, with both, and without attention."""
PREFIXES = ["move(); turn_left(); move();", "turn_right(); put_marker(); move();", "move(); move(); turn_right();"]


@pytest.fixture(scope="module", params=family_params(ARCHITECTURES, QUICK))
def model(request, tmp_path_factory):
    return loaded(save(request.param, tmp_path_factory.mktemp(request.param)))


@pytest.fixture(scope="module")
def rows() -> tuple[list[str], list[str]]:
    """Prompts of two lengths, each with three prefixes: their ends, since some models read token by token."""
    prompts = [prompt[-length:] for prompt, length in zip(cases()[0], (60, 45), strict=False)]
    return [prompt for prompt in prompts for _ in PREFIXES], PREFIXES * 2


def test_words_are_scored_as_in_a_plain_pass(model, rows):
    prompts, prefixes = rows
    scores = open_steerable(model).prepare(prompts, prefixes).score().log_probs
    for row, (prompt, prefix) in enumerate(zip(prompts, prefixes, strict=True)):
        for index, word in enumerate(NEXT_WORDS):
            ((longer, _),) = model.log_likelihoods([prompt], [f"{prefix} {word}"])
            ((shorter, _),) = model.log_likelihoods([prompt], [prefix])
            assert scores[row, index] == pytest.approx(longer - shorter, abs=2e-3)


def test_shams_pass(model, rows):
    """On two prefixes of one prompt and one of another, of another length."""
    assert run_shams(open_steerable(model), *([texts[row] for row in (0, 1, 5)] for texts in rows)) == []


def test_writing_is_that_of_generate(model, rows):
    prompts, prefixes = rows
    written = open_steerable(model).prepare(prompts, prefixes).complete(3)
    expected = model.generate([f"{a} {b}" for a, b in zip(prompts, prefixes, strict=True)], 3)
    assert [text.split() for text in written] == [generation.text.split() for generation in expected]


@pytest.mark.parametrize("position", ["prefix", AT_PROMPT])
def test_an_edit_is_that_of_a_hook_in_a_pass_over_the_full_text(tmp_path, rows, position):
    model = loaded(save("gpt-j", tmp_path))
    prompts, prefixes = rows
    steerable = open_steerable(model)
    prepared = steerable.prepare(prompts, prefixes)
    states = prepared.states(position)[1]
    edited = states + np.random.default_rng(0).normal(size=states.shape).astype(np.float32)
    scores = prepared.score(1, edited, position=position).log_probs
    for row, (prompt, prefix) in enumerate(zip(prompts, prefixes, strict=True)):
        shown = prompt if position == AT_PROMPT else f"{prompt} {prefix}"
        at = len(model.tokenizer(shown)["input_ids"]) - 1
        ids = model.tokenizer(f"{prompt} {prefix} {NEXT_WORDS[0]}", return_tensors="pt")["input_ids"]
        start = len(model.tokenizer(f"{prompt} {prefix}")["input_ids"])

        def set_state(_, args, at=at, row=row):
            hidden = args[0].clone()
            np.testing.assert_allclose(hidden[0, at].numpy(), states[row], atol=1e-4)
            hidden[0, at] = torch.from_numpy(edited[row])
            return (hidden, *args[1:])

        handle = model.blocks[1].register_forward_pre_hook(set_state)
        with torch.inference_mode():
            log_probs = model.model(ids).logits[0].double().log_softmax(-1)
        handle.remove()
        expected = sum(float(log_probs[i - 1, ids[0, i]]) for i in range(start, ids.shape[1]))
        assert scores[row, 0] == pytest.approx(expected, abs=1e-3)


def test_a_clamp_limits_what_comes_after_the_site(tiny_folder, rows):
    prepared = open_steerable(loaded(tiny_folder)).prepare(*rows)
    ranges = [ComponentRange.of(np.concatenate([part, part + 1, part - 1])) for part in prepared.activations()]
    wide = prepared.score(0, prepared.states()[0], ranges=ranges).log_probs
    np.testing.assert_allclose(wide, prepared.score().log_probs, atol=1e-4)
    narrow = [
        ComponentRange(r.basis, 0 * r.low, 0 * r.high, r.variance, np.zeros(len(r.basis), np.float32)) for r in ranges
    ]
    clamped = prepared.score(0, prepared.states()[0], ranges=narrow).log_probs
    np.testing.assert_allclose(clamped, np.repeat(clamped[:1], len(clamped), 0), atol=1e-4)


@pytest.fixture(scope="module")
def lstm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lstm")
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = LstmConfig(len(tokenizer), 16, 3, pad_token_id=0, eos_token_id=tokenizer.eos_token_id)
    LstmForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return loaded(folder)


def test_recurrent_states_of_an_lstm(lstm, rows):
    steerable = open_steerable(lstm)
    assert steerable.sites == ("recurrent state 0", "recurrent state 1", "recurrent state 2", "all recurrent states")
    prepared = steerable.prepare(*rows)
    assert [part.shape[1] for part in prepared.states()] == [32, 32, 32, 96]
    assert run_shams(steerable, *rows) == []
    for row, (prompt, prefix) in enumerate(zip(*rows, strict=True)):
        ((longer, _),) = lstm.log_likelihoods([prompt], [f"{prefix} }}"])
        ((shorter, _),) = lstm.log_likelihoods([prompt], [prefix])
        assert prepared.score().log_probs[row, 5] == pytest.approx(longer - shorter, abs=1e-4)


def test_the_state_of_another_prefix_gives_its_words(lstm, rows):
    """With all recurrent states of another prefix, and the same last word, the model writes what it writes there."""
    prompts = [rows[0][0]] * 2
    prepared = open_steerable(lstm).prepare(prompts, ["move(); turn_left(); move();", "put_marker(); move(); move();"])
    states = prepared.states()[-1]
    swapped = prepared.score(3, states[::-1].copy()).log_probs
    np.testing.assert_allclose(swapped, prepared.score().log_probs[::-1], atol=1e-6)


def test_blocks_before_an_edit_are_skipped_without_any_change(tiny_folder, rows, monkeypatch):
    model = loaded(tiny_folder)
    prompts, _ = rows
    prefixes = ["move(); move();"] * len(prompts)
    steerable = open_steerable(model)
    prepared = steerable.prepare(prompts, prefixes)
    site = len(steerable.sites) - 1
    edited = prepared.states()[site] + np.float32(0.3)
    first, second = (prepared.score(site, edited).log_probs for _ in range(2))
    monkeypatch.setattr(transformer, "is_plain", lambda cache: False)
    slow = open_steerable(model).prepare(prompts, prefixes).score(site, edited).log_probs
    assert np.array_equal(first, slow)
    assert np.array_equal(second, slow)
    assert steerable.is_skippable == {site: True}
