"""Scores that are differentiable by a state are those of a plain edit, and their gradient is that of finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from agreement import loaded
from families import cases, save

from baselines.lstm import LstmConfig, LstmForCausalLM
from baselines.tokenizer import build_tokenizer
from benchmark.errors import ModelError
from benchmark.models.steering import open_steerable

PREFIXES = ["move(); turn_left(); move();", "turn_right(); put_marker(); move();"]


@pytest.fixture(scope="module")
def rows() -> tuple[list[str], list[str]]:
    """Prompts of two lengths, each with two prefixes."""
    prompts, _ = cases()
    return [prompt for prompt in prompts[:2] for _ in PREFIXES], PREFIXES * 2


@pytest.fixture
def lstm(tmp_path):
    tokenizer = build_tokenizer()
    config = LstmConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, eos_token_id=tokenizer.eos_token_id
    )
    torch.manual_seed(0)
    LstmForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return loaded(tmp_path)


def check(model, rows, site: int) -> None:
    steerable = open_steerable(model)
    random = np.random.default_rng(1)
    prepared = steerable.prepare(*rows)
    edited = prepared.states()[site]
    edited = (edited + random.normal(size=edited.shape) * 0.3 * edited.std()).astype(np.float32)
    expected = prepared.score(site, edited).log_probs
    before = prepared.states()
    differentiable, states = steerable.prepare_differentiable(*rows, site)
    assert np.array_equal(states, before[site])
    values = torch.from_numpy(edited).requires_grad_(True)
    scores = differentiable.word_scores(values)
    np.testing.assert_allclose(scores.detach().numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(differentiable.word_scores(values).detach().numpy(), expected, atol=1e-4)
    weights = torch.from_numpy(random.normal(size=expected.shape).astype(np.float32))
    (gradient,) = torch.autograd.grad((scores * weights).sum(), [values])
    direction = random.normal(size=edited.shape).astype(np.float32)
    size = 1e-2 * float(edited.std())
    step = np.float32(size) * direction
    up, down = (prepared.score(site, edited + sign * step).log_probs for sign in (1, -1))
    slope = float(((up - down) * weights.numpy()).sum() / (2 * size))
    assert float((gradient.numpy() * direction).sum()) == pytest.approx(slope, rel=0.05, abs=0.02)


@pytest.mark.parametrize("family", ["llama", "gpt-neox", "gpt-j"])
@pytest.mark.parametrize("site", [0, 1])
def test_blocks(family, site, rows, tmp_path):
    model = loaded(save(family, tmp_path))
    if len(model.tokenizer.tokenize("turn_left();")) > 1:
        with pytest.raises(ModelError, match="a word has several tokens"):
            open_steerable(model).prepare_differentiable(*rows, site)
        return
    check(model, rows, site)


@pytest.mark.parametrize("site", [0, 1])
def test_blocks_of_a_word_level_model(site, rows, tiny_folder):
    check(loaded(tiny_folder), rows, site)


@pytest.mark.parametrize("site", [0, 2])
def test_recurrent_states(site, rows, lstm):
    check(lstm, rows, site)
