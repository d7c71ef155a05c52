"""The fast encoder of training data gives what the tokenizer makes of the canonical text."""

from __future__ import annotations

import numpy as np
import pytest
from worlds import WORLDS_SUITE

from baselines.encoding import IGNORE_INDEX, encode
from baselines.tokenizer import build_tokenizer, cell_pairs
from benchmark.errors import UsageError
from benchmark.tasks.prompts import prompt_text
from benchmark.tasks.suite import load_suite, training_tasks
from benchmark.tasks.suite import test_tasks as tasks_of
from karel_env.world import world_texts


@pytest.mark.parametrize(
    ("name", "pairs", "line_ends"),
    [
        ("smoke", False, False),
        ("laptop", False, False),
        ("icml24", False, False),
        ("laptop", True, False),
        ("icml24", True, False),
        ("icml24", True, True),
        (WORLDS_SUITE, True, False),
        ("control", False, True),
        ("control", True, True),
    ],
)
def test_encoding_is_the_tokenizer_on_the_text(name, pairs, line_ends):
    suite = load_suite(name)
    tokenizer = build_tokenizer(cell_pairs(suite.show_under_robot) if pairs else (), line_ends)
    tasks = training_tasks(suite, np.arange(20), 1)
    tokens, labels = encode(tasks, suite.shown, suite.show_under_robot, pairs=pairs, line_ends=line_ends)
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


def test_pairs_make_grids_half_as_long():
    suite = load_suite("icml24")
    tasks = training_tasks(suite, np.arange(4), 1)
    single, pairs = (encode(tasks, suite.shown, False, pairs=pairs)[0] for pairs in (False, True))
    assert single.shape[1] - pairs.shape[1] == suite.shown * 2 * 36 / 2


def test_targets_are_the_outputs_with_their_line_ends_and_the_program():
    suite = load_suite("control")
    tasks = training_tasks(suite, np.arange(12), 1)
    tokenizer = build_tokenizer(cell_pairs(suite.show_under_robot), line_ends=True)
    texts = {
        loss: [tokenizer.decode([t for t in row if t != IGNORE_INDEX]) for row in labels]
        for loss in ("outputs", "program", "all")
        for labels in [encode(tasks, suite.shown, suite.show_under_robot, loss, pairs=True, line_ends=True)[1]]
    }
    for i, program in enumerate(tasks.programs.texts()):
        shown = slice(0, suite.shown)
        body = f"{' '.join(program.split()[3:])} {tokenizer.eos_token}"
        outputs = [line for output in tasks.outputs[i, shown] for line in world_texts(output.reshape(1))[0].split("\n")]
        assert texts["program"][i].split() == body.split()
        lines = [line.split() for line in texts["outputs"][i].split("\n")]
        assert lines == [*(line.split() for line in outputs), body.split()]
        prompt = prompt_text(tasks.inputs[i, shown], tasks.outputs[i, shown], suite.show_under_robot)
        assert texts["all"][i].split() == f"{prompt} {body}".split()


def test_worlds_of_several_sizes_need_line_ends():
    suite = load_suite("control")
    with pytest.raises(UsageError, match=r"worlds of several sizes.*set line_ends to true"):
        encode(training_tasks(suite, np.arange(4), 1), suite.shown, suite.show_under_robot)


def test_a_row_of_an_odd_number_ends_with_a_single_cell():
    tokenizer = build_tokenizer(cell_pairs(show_under_robot=True))
    text = "input\n. v .\n1 # >2\noutput"
    assert tokenizer.tokenize(text) == ["input", ". v", ".", "1 #", ">2", "output"]
