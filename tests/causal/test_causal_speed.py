"""What an edit costs beside a plain forward pass over the same tokens: `pytest --benchmark-enable --benchmark-only`.

Without that option each runs once, as a test. No test looks at absolute time.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from agreement import loaded

from benchmark.causal.pairs import PairSettings, derive_pairs, prefix_texts
from benchmark.models.steering import open_steerable
from benchmark.tasks.prompt_template import render_prompts
from benchmark.tasks.suite import load_suite

LAPTOP = load_suite("laptop")
NUM_EDITS = 8


@pytest.fixture(scope="module")
def prepared(tiny_folder):
    pairs = derive_pairs(LAPTOP, PairSettings(tasks=30))
    prompts = render_prompts(LAPTOP, pairs.tasks)
    model = loaded(tiny_folder)
    texts = [prompts[i] for i in pairs.task[:32]], prefix_texts(pairs.prefix[:32])
    return model, texts, open_steerable(model).prepare(*texts)


def run_edits(prefixes) -> list[np.ndarray]:
    """Scores after edits of the last block's input."""
    states = prefixes.states()[-1]
    return [prefixes.score(1, states + np.float32(number)).log_probs for number in range(NUM_EDITS)]


def run_plain_passes(model, prompts, prefixes) -> list[torch.Tensor]:
    """Logits of as many unedited passes over the full texts."""
    ids = [model.tokenizer(f"{a} {b}")["input_ids"] for a, b in zip(prompts, prefixes, strict=True)]
    rows = torch.tensor(ids)
    with torch.inference_mode():
        return [model.model(rows, logits_to_keep=1).logits for _ in range(NUM_EDITS)]


@pytest.mark.benchmark(group="edits")
def test_edits(benchmark, prepared):
    _, _, prefixes = prepared
    scores = benchmark(run_edits, prefixes)
    assert not np.array_equal(scores[0], scores[-1])
    np.testing.assert_array_equal(scores[0], prefixes.score().log_probs)


@pytest.mark.benchmark(group="edits")
def test_plain_passes_over_the_same_texts(benchmark, prepared):
    model, texts, prefixes = prepared
    logits = benchmark(run_plain_passes, model, *texts)
    words = [word[0] for word in prefixes.parts[0][1].tokens[0].words]
    scores = logits[0][:, -1].double().log_softmax(-1)[:, words].numpy()
    np.testing.assert_allclose(scores, prefixes.score().log_probs, atol=1e-3)


def test_an_edit_reads_one_token_per_prefix(prepared, monkeypatch):
    """The count that the cost comes from: no prompt is read again, and no block before the edit."""
    model, _, prefixes = prepared
    run_edits(prefixes)
    tokens, blocks = [], []
    forward = model.model.forward
    monkeypatch.setattr(
        model.model, "forward", lambda **options: tokens.append(options["input_ids"].numel()) or forward(**options)
    )
    handle = model.blocks[0].mlp.register_forward_hook(lambda *_: blocks.append(1))
    try:
        run_edits(prefixes)
    finally:
        handle.remove()
    assert tokens == [32] * NUM_EDITS
    assert blocks == []
