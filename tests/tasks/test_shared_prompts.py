"""The blind set with several programs per prompt."""

from __future__ import annotations

import numpy as np
import pytest

from benchmark.tasks.shared_prompts import MIN_PAIRS, PROGRAMS_PER_PROMPT, shared_prompts
from benchmark.tasks.suite import blind_tasks, load_suite
from karel_env.execution.interpreter import run


@pytest.fixture(scope="module")
def smoke():
    return load_suite("smoke")


def test_a_suite_with_enough_programs_reads_each_of_them_once() -> None:
    suite = load_suite("laptop")
    blind, tasks = shared_prompts(suite, 1200), blind_tasks(suite, 1200)
    assert len(blind.tasks) == 1200
    assert blind.num_prompts == 300
    assert (blind.tasks.programs.words == tasks.programs.words).all()
    assert (blind.prompt == blind.group).all()
    assert (np.bincount(blind.prompt) == PROGRAMS_PER_PROMPT).all()


def test_programs_of_a_prompt_have_its_worlds_and_outputs_of_their_own(smoke) -> None:
    blind = shared_prompts(smoke)
    cells, robot = blind.tasks.inputs.cells, blind.tasks.inputs.robot
    first = np.searchsorted(blind.prompt, blind.prompt)
    assert (cells == cells[first]).all()
    assert (robot == robot[first]).all()
    outputs = run(blind.tasks.programs, blind.tasks.inputs).worlds
    assert (blind.tasks.outputs.robot == outputs.robot).all()
    assert (outputs.robot != outputs.robot[first]).any()


def test_a_small_suite_repeats_groups_in_other_worlds(smoke) -> None:
    blind = shared_prompts(smoke)
    num_programs = 2 * smoke.probe_programs
    assert MIN_PAIRS <= len(blind.tasks) < MIN_PAIRS + num_programs
    texts = np.array(blind.tasks.programs.texts())
    for group in (0, 7):
        members = np.flatnonzero(blind.group == group)
        assert len(set(texts[members])) == PROGRAMS_PER_PROMPT
        assert len({blind.tasks.inputs.cells[i].tobytes() for i in members}) > 1
    groups_of_text = {text: set(blind.group[texts == text].tolist()) for text in set(texts)}
    assert {len(groups) for groups in groups_of_text.values()} == {1}


def test_take_prompts(smoke) -> None:
    part = shared_prompts(smoke).take_prompts(5)
    assert part.num_prompts == 5
    assert len(part.tasks) == len(part.prompt) == 5 * PROGRAMS_PER_PROMPT
