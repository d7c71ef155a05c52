"""Continuations of several tokens in one row: the tree, its mask, and its scores beside those of a row per continuation.

`pytest --benchmark-enable --benchmark-only` times both; without it each runs once, as a test.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from agreement import loaded
from families import cases, save

from benchmark.causal.interventions import AT_PREFIX, AT_PROMPT
from benchmark.causal.natural_range import ComponentRange
from benchmark.causal.shams import run_shams
from benchmark.errors import ModelError
from benchmark.models.steering import open_steerable
from benchmark.models.steering.continuation_tree import ContinuationTree
from benchmark.models.steering.transformer import PrefixGroup, SteerableTransformer
from benchmark.tasks.prompts import prompt_ids

WORDS = ((7,), (1, 2, 3), (1, 2, 4), (5, 2, 6), (5, 2))
PREFIXES = ["move(); turn_left(); move();", "put_marker();", "move(); move(); pick_marker(); turn_right();"]
SEVERAL = "llama"
WINDOWS = {"gemma3": "sliding_window", "mistral": "sliding_window", "gpt-neo": "window_size"}
NUM_EDITS = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return loaded(save(SEVERAL, tmp_path_factory.mktemp(SEVERAL)))


@pytest.fixture(scope="module")
def rows() -> tuple[list[str], list[str]]:
    prompts = [prompt[-length:] for prompt, length in zip(cases()[0], (60, 45), strict=False)]
    return [prompt for prompt in prompts for _ in PREFIXES], PREFIXES * 2


def open_copies(model) -> SteerableTransformer:
    """The model with a row per continuation."""
    steerable = open_steerable(model)
    steerable.reads_trees = False
    return steerable


def test_common_beginnings_are_read_once():
    tree = ContinuationTree.of(WORDS)
    assert tree.ids.tolist() == [1, 5, 2, 2]
    assert tree.depth.tolist() == [1, 1, 2, 2]
    assert tree.paths == (((0, 7),), ((0, 1), (1, 2), (3, 3)), ((0, 1), (1, 2), (3, 4)), ((0, 5), (2, 2), (4, 6)), ((0, 5), (2, 2)))  # fmt: skip
    assert tree.attends.int().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1]]


def test_single_tokens_need_no_node():
    tree = ContinuationTree.of([(3,), (4,)])
    assert tree.ids.shape == (0,)
    assert tree.attends.shape == (0, 0)
    assert tree.paths == (((0, 3),), ((0, 4),))


def test_nodes_attend_to_the_text_and_to_their_beginning():
    tree = ContinuationTree.of(WORDS)
    mask = torch.tensor([[0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]])
    kwargs = tree.mask_kwargs(mask, 5, torch.float32)
    visible = kwargs["attention_mask"] == 0
    assert visible.shape == (2, 1, 5, 7)
    assert visible[1, 0].int().tolist() == [
        [1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 1, 0, 0], [1, 1, 1, 1, 0, 1, 0], [1, 1, 1, 0, 1, 0, 1],
    ]  # fmt: skip
    assert not visible[0, :, :, 0].any()
    assert torch.equal(visible[0, :, :, 1:], visible[1, :, :, 1:])
    assert kwargs["position_ids"].tolist() == [[1, 2, 2, 3, 3], [2, 3, 3, 4, 4]]


def test_scores_are_sums_of_log_probabilities():
    tree = ContinuationTree.of(WORDS)
    logits = torch.from_numpy(np.random.default_rng(0).normal(0, 3, (2, 5, 9)))
    scores, is_argmax = tree.score(logits)
    log_probs = logits.log_softmax(-1).numpy()
    for row, values in enumerate(log_probs):
        expected = [
            values[0, 7],
            values[0, 1] + values[1, 2] + values[3, 3],
            values[0, 1] + values[1, 2] + values[3, 4],
            values[0, 5] + values[2, 2] + values[4, 6],
            values[0, 5] + values[2, 2],
        ]
        np.testing.assert_allclose(scores[row], expected, atol=1e-5)
        assert is_argmax[row] == (values[0].argmax() == WORDS[int(np.argmax(expected))][0])


@pytest.mark.parametrize("position", [AT_PREFIX, AT_PROMPT])
def test_a_tree_scores_as_a_row_per_continuation(model, rows, position):
    """Unedited, after an edit of every site, and clamped; prefixes of several lengths are in one group."""
    steerable = open_steerable(model)
    tree, copies = steerable.prepare(*rows), open_copies(model).prepare(*rows)
    assert steerable.reads_trees
    assert [len(part) for part, _ in tree.parts] == [6]
    assert len(copies.parts) == 3
    np.testing.assert_allclose(tree.score().log_probs, copies.score().log_probs, atol=1e-4)
    ranges = [ComponentRange.of(np.concatenate([part, 0.9 * part])) for part in tree.activations()]
    states = tree.states(position)
    noise = np.random.default_rng(0).normal(size=states[0].shape).astype(np.float32)
    for site, (values, others) in enumerate(zip(states, copies.states(position), strict=True)):
        np.testing.assert_allclose(values, others, atol=1e-4)
        for limits in (None, ranges) if position == AT_PREFIX else (None,):
            scores, expected = (p.score(site, values + noise, position, limits) for p in (tree, copies))
            np.testing.assert_allclose(scores.log_probs, expected.log_probs, atol=1e-3)
            assert np.array_equal(scores.is_argmax, expected.is_argmax)
            assert np.abs(scores.log_probs - tree.score().log_probs).max() > 0.01


def test_blocks_before_an_edit_are_skipped_without_any_change(model, rows):
    steerable = open_steerable(model)
    prepared = steerable.prepare(*rows)
    site = len(steerable.sites) - 1
    edited = prepared.states()[site] + np.float32(0.3)
    first, second = (prepared.score(site, edited).log_probs for _ in range(2))
    assert steerable.is_skippable == {site: True}
    steerable.is_skippable[site] = False
    assert np.array_equal(first, prepared.score(site, edited).log_probs)
    assert np.array_equal(second, first)


def forget(*names: str):
    """A `forward` that some arguments do not reach."""

    def wrap(forward):
        return lambda *args, **kwargs: forward(*args, **{k: v for k, v in kwargs.items() if k not in names})

    return wrap


@pytest.mark.parametrize("names", [("attention_mask",), ("position_ids",)])
def test_a_model_that_ignores_masks_or_positions_gets_a_row_per_continuation(model, rows, names, monkeypatch):
    steerable = open_steerable(model)
    monkeypatch.setattr(model.model, "forward", forget(*names)(model.model.forward))
    steerable.prepare(*rows)
    assert steerable.reads_trees is False


def test_a_model_that_takes_no_such_mask_gets_a_row_per_continuation(model, rows, monkeypatch):
    forward = model.model.forward

    def refuse(*args, **kwargs):
        if kwargs["attention_mask"].ndim > 2:
            raise ValueError("attention mask of 4 dimensions; expected 2")
        return forward(*args, **kwargs)

    expected = open_steerable(model).prepare(*rows).score().log_probs
    steerable = open_steerable(model)
    monkeypatch.setattr(model.model, "forward", refuse)
    scores = steerable.prepare(*rows).score().log_probs
    assert steerable.reads_trees is False
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def with_window(name: str, window: int, folder: Path) -> SteerableTransformer:
    """A model whose windows of attention have so many tokens."""
    path = save(name, folder) / "config.json"
    config = json.loads(path.read_text())
    config[WINDOWS[name]] = window
    path.write_text(json.dumps(config))
    return open_steerable(loaded(path.parent))


@pytest.mark.parametrize("name", WINDOWS)
def test_a_window_longer_than_the_texts_reads_trees_and_longer_texts_do_not(name, tmp_path, rows):
    """Windows leave tokens out that a mask of every query and key shows."""
    prompts, prefixes = rows
    longest = max(len(prompt_ids(loaded(save(name, tmp_path)).tokenizer, prompt)) for prompt in prompts)
    steerable = with_window(name, longest + 120, tmp_path / "wide")
    copies = open_copies(steerable.model)
    prepared = steerable.prepare(prompts, prefixes)
    assert steerable.reads_trees
    assert [len(part) for part, _ in prepared.parts] == [6]
    states = prepared.states()
    for site in range(len(states)):
        edited = states[site] + np.float32(0.1)
        expected = copies.prepare(prompts, prefixes).score(site, edited).log_probs
        np.testing.assert_allclose(prepared.score(site, edited).log_probs, expected, atol=1e-3)
    assert run_shams(steerable, prompts, prefixes) == []
    longer = [f"{prompt} {prompt} {prompt}" for prompt in prompts]
    assert len(steerable.prepare(longer, prefixes).parts) > 1
    expected = copies.prepare(longer, prefixes).score().log_probs
    np.testing.assert_allclose(steerable.prepare(longer, prefixes).score().log_probs, expected, atol=1e-4)


def test_half_precision_reads_trees_too(tmp_path, rows):
    model = loaded(save(SEVERAL, tmp_path), dtype="bfloat16")
    steerable = open_steerable(model)
    scores = steerable.prepare(*rows).score().log_probs
    assert steerable.reads_trees
    np.testing.assert_allclose(scores, open_copies(model).prepare(*rows).score().log_probs, atol=0.3)


def test_a_subspace_is_not_trained_on_words_of_several_tokens(model, rows):
    with pytest.raises(ModelError, match="a word has several tokens"):
        open_steerable(model).prepare_differentiable(*rows, 1)


def run_edits(prefixes) -> list[np.ndarray]:
    """Scores after edits of the last block's input, the first by zero."""
    states = prefixes.states()
    site = len(states) - 1
    return [prefixes.score(site, states[site] + np.float32(number)).log_probs for number in range(NUM_EDITS)]


@pytest.mark.benchmark(group="edits before words of several tokens")
@pytest.mark.parametrize("opened", [open_steerable, open_copies], ids=["tree", "row per word"])
def test_edits(benchmark, model, rows, opened):
    prepared = opened(model).prepare(*rows)
    scores = benchmark(run_edits, prepared)
    assert not np.array_equal(scores[0], scores[-1])
    assert np.array_equal(scores[0], prepared.score().log_probs)


def test_an_edit_reads_each_beginning_once(model, rows, monkeypatch):
    """The count that the cost comes from: no prompt is read again, and no block before the edit."""
    prepared = open_steerable(model).prepare(*rows)
    run_edits(prepared)
    ((_, group),) = prepared.parts
    assert isinstance(group, PrefixGroup)
    shapes, blocks = [], []
    forward = model.model.forward
    monkeypatch.setattr(
        model.model, "forward", lambda **options: shapes.append(tuple(options["input_ids"].shape)) or forward(**options)
    )
    handle = model.blocks[0].mlp.register_forward_hook(lambda *_: blocks.append(1))
    try:
        run_edits(prepared)
    finally:
        handle.remove()
    beginnings = {word[:stop] for word in group.tokens[0].words for stop in range(1, len(word))}
    assert shapes == [(6, 1 + len(beginnings))] * NUM_EDITS
    assert blocks == []
