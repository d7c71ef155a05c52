"""Reading several programs per prompt gives the states of reading each of them alone."""

from __future__ import annotations

import numpy as np
import pytest

from benchmark.errors import ModelError
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import HiddenStates, ModelSpec
from benchmark.models.loading import load_model
from benchmark.runner.blind_reading import read_blind_states
from benchmark.tasks.prompt_template import render_prompts
from benchmark.tasks.shared_prompts import shared_prompts
from benchmark.tasks.suite import load_suite
from karel_env.language import HEADER_TEXT


@pytest.fixture(scope="module")
def blind():
    return shared_prompts(load_suite("smoke")).take_prompts(3)


def test_shared_reading_agrees_with_one_program_at_a_time(tiny_folder, blind) -> None:
    suite = load_suite("smoke")
    model = load_model(open_checkpoint(ModelSpec.parse(f"path:{tiny_folder}")), "float32", "cpu")
    counts: list[int] = []
    views = read_blind_states(model, suite, blind, on_programs=counts.append)
    assert sum(counts) == len(blind.tasks)
    assert counts == [3, 3, 3, 3]
    prompts = render_prompts(suite, blind.tasks, blind.tasks.inputs)
    texts = [text.removeprefix(HEADER_TEXT).lstrip() for text in blind.tasks.programs.texts()]
    rows = 0
    for prompt, text in zip(prompts, texts, strict=True):
        states = model.hidden_states([prompt], [text])
        values = states.values[states.read[:-1]]
        part = slice(rows, rows + len(values))
        assert views["mean"][part] == pytest.approx(values.mean(1), abs=1e-4)
        assert views["last"][part] == pytest.approx(values[:, -1], abs=1e-4)
        rows += len(values)
    assert len(views["mean"]) == rows == len(blind.tasks) * suite.blind_length


def test_a_state_that_is_not_finite_is_refused(blind) -> None:
    class Broken:
        def hidden_states(self, prompts, programs) -> HiddenStates:
            items = [len(text.split()) for text in programs]
            read = np.arange(sum(items))
            return HiddenStates(np.full((sum(items), 2, 3), np.nan), read, read, np.cumsum([0, *items]))

    with pytest.raises(ModelError, match="NaN"):
        read_blind_states(Broken(), load_suite("smoke"), blind)
