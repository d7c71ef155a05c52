"""The random streams against published values, and the drawn frequencies against the recipe."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmark.tasks.suite import load_suite
from karel_env.generation.draws import bernoulli_mask, draw, stream_key
from karel_env.generation.generator import generate
from karel_env.language import ACTIONS


def test_splitmix64_gives_its_published_values():
    """First outputs for seed 1234567, as the reference implementation of SplitMix64 prints them."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [int(draw(np.uint64(1234567), n)) for n in range(3)] == published


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.25, 0.9])
def test_masks_have_the_stated_probability(probability):
    sixteenths = round(probability * 65536)
    keys = [np.uint64(stream_key(np.uint64(1), 0, np.uint64(i), 0)) for i in range(4000)]
    ones = sum(int(bernoulli_mask(key, 0, sixteenths)[0]).bit_count() for key in keys) / (64 * 4000)
    assert abs(ones - probability) < 4 * (probability * (1 - probability) / (64 * 4000)) ** 0.5


def test_drawn_tasks_follow_the_recipe():
    recipe = load_suite("laptop").recipe
    tasks = generate(recipe, 5, "train", np.arange(20_000))
    tasks.inputs.check()
    tasks.outputs.check()
    words = tasks.programs.words
    share = np.bincount(words[words < len(ACTIONS)], minlength=5) / (words < len(ACTIONS)).sum()
    np.testing.assert_allclose(share, np.array(recipe.weights) / sum(recipe.weights), atol=0.006)
    lengths = np.bincount(tasks.programs.lengths - 4)[1:] / len(tasks)
    np.testing.assert_allclose(lengths, 1 / 6, atol=0.012)
    inner = tasks.inputs.cells[..., 1:-1, 1:-1]
    assert abs((inner < 0).mean() - 0.1 * 15 / 16) < 0.001
    assert abs((inner > 0).mean() - 0.1 * 0.9 * 15 / 16) < 0.001


def test_a_task_does_not_depend_on_what_else_is_drawn():
    recipe = load_suite("laptop").recipe
    whole = generate(recipe, 5, "test", np.arange(50), threads=2)
    picked = generate(recipe, 5, "test", np.array([40, 3]))
    assert picked.key.tolist() == whole.key[[40, 3]].tolist()
    assert np.array_equal(picked.inputs.cells, whole.inputs.cells[[40, 3]])
    assert len(np.unique(np.concatenate([whole.key, generate(recipe, 5, "train", np.arange(50)).key]))) == 100


def test_excluded_tasks_are_drawn_again():
    recipe = replace(load_suite("smoke").recipe)
    first = generate(recipe, 5, "train", np.arange(30))
    again = generate(recipe, 5, "train", np.arange(30), excluded=first.key[:10])
    assert not np.isin(again.key, first.key[:10]).any()
    assert again.key[10:].tolist() == first.key[10:].tolist()
