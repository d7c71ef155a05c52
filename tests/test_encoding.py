"""The fast encoder of training data gives what the tokenizer makes of the canonical text."""

from __future__ import annotations

import numpy as np
import pytest

from baselines.encoding import IGNORED, encode
from baselines.tokenizer import build_tokenizer
from benchmark.prompts import prompt_text
from benchmark.suites import load_suite, training_tasks
from benchmark.suites import test_tasks as tasks_of


@pytest.mark.parametrize("name", ["smoke", "laptop", "icml24"])
def test_encoding_is_the_tokenizer_on_the_text(name):
    suite, tokenizer = load_suite(name), build_tokenizer()
    tasks = training_tasks(suite, np.arange(20), 1)
    tokens, labels = encode(tasks, suite.shown, suite.show_under_robot)
    for i, program in enumerate(tasks.programs.texts()):
        shown = slice(0, suite.shown)
        prompt = prompt_text(tasks.inputs[i, shown], tasks.outputs[i, shown], suite.show_under_robot)
        body = " ".join(program.split()[3:])
        expected = [*tokenizer(f"{prompt} {body}")["input_ids"], tokenizer.eos_token_id]
        assert tokens[i, : len(expected)].tolist() == expected
        assert (tokens[i, len(expected) :] == tokenizer.pad_token_id).all()
        learnt = [t for t in labels[i] if t != IGNORED]
        assert tokenizer.decode(learnt).endswith(f"{body} {tokenizer.eos_token}")
        assert tokenizer.decode(tokenizer(program)["input_ids"]) == program


def test_training_never_shows_a_test_task():
    suite = load_suite("smoke")
    tasks = training_tasks(suite, np.arange(3000), suite.seed)
    assert not np.isin(tasks.key, tasks_of(suite).key).any()
