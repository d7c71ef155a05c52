"""The fast encoder of training data gives what the tokenizer makes of the canonical text."""

from __future__ import annotations

import numpy as np
import pytest
from worlds import WORLDS_SUITE

from baselines.encoding import IGNORE_INDEX, encode
from baselines.tokenizer import build_tokenizer, cell_pairs
from benchmark.tasks.prompts import prompt_text
from benchmark.tasks.suite import load_suite, training_tasks
from benchmark.tasks.suite import test_tasks as tasks_of


@pytest.mark.parametrize(
    ("name", "pairs"), [("smoke", False), ("laptop", False), ("icml24", False), ("laptop", True), ("icml24", True)]
)
def test_encoding_is_the_tokenizer_on_the_text(name, pairs):
    suite = load_suite(name)
    tokenizer = build_tokenizer(cell_pairs(suite.show_under_robot) if pairs else ())
    tasks = training_tasks(suite, np.arange(20), 1)
    tokens, labels = encode(tasks, suite.shown, suite.show_under_robot, pairs=pairs)
    for i, program in enumerate(tasks.programs.texts()):
        shown = slice(0, suite.shown)
        prompt = prompt_text(tasks.inputs[i, shown], tasks.outputs[i, shown], suite.show_under_robot)
        body = " ".join(program.split()[3:])
        expected = [*tokenizer(f"{prompt} {body}")["input_ids"], tokenizer.eos_token_id]
        assert tokens[i, : len(expected)].tolist() == expected
        assert (tokens[i, len(expected) :] == tokenizer.pad_token_id).all()
        learnt = [t for t in labels[i] if t != IGNORE_INDEX]
        assert tokenizer.decode(learnt).endswith(f"{body} {tokenizer.eos_token}")
        assert tokenizer.decode(tokenizer(program)["input_ids"]) == program
        assert tokenizer.decode(expected[:-1]).split() == f"{prompt} {body}".split()
        assert tokenizer.unk_token_id not in expected


def test_training_never_shows_a_test_task():
    suite = load_suite("smoke")
    tasks = training_tasks(suite, np.arange(3000), suite.seed)
    assert not np.isin(tasks.key, tasks_of(suite).key).any()


def test_pairs_make_grids_half_as_long_and_need_even_rows():
    suite = load_suite("icml24")
    tasks = training_tasks(suite, np.arange(4), 1)
    single, pairs = (encode(tasks, suite.shown, False, pairs=pairs)[0] for pairs in (False, True))
    assert single.shape[1] - pairs.shape[1] == suite.shown * 2 * 36 / 2
    odd = load_suite(WORLDS_SUITE)
    with pytest.raises(ValueError, match="rows of an even number"):
        encode(training_tasks(odd, np.arange(4), 1), odd.shown, True, pairs=True)


def test_a_row_of_an_odd_number_ends_with_a_single_cell():
    tokenizer = build_tokenizer(cell_pairs(show_under_robot=True))
    text = "input\n. v .\n1 # >2\noutput"
    assert tokenizer.tokenize(text) == ["input", ". v", ".", "1 #", ">2", "output"]
