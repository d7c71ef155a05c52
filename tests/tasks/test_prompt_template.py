"""Prompt templates of the tracks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmark.errors import ModelError
from benchmark.tasks.prompt_template import (
    FEWSHOT,
    PLAIN,
    TRAINED,
    build_prompt_template,
    describe_language,
    render_prompts,
    sampling_seeds,
)
from benchmark.tasks.prompts import prompt_text
from benchmark.tasks.suite import blind_tasks, load_suite, probe_tasks, shot_tasks
from benchmark.tasks.suite import test_tasks as tasks_of
from karel_env.execution.interpreter import run
from karel_env.syntax.parser import parse

SUITE = replace(load_suite("smoke"), tasks=20, probe_programs=50, sha256="")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Chatty:
    """A tokenizer as far as frames ask: its template, and what it puts before a text."""

    bos_token, bos_token_id = "<s>", 1

    def __init__(self, template: str, adds_bos: bool = False) -> None:
        self.chat_template, self.adds_bos = template, adds_bos

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        return {"input_ids": [1] * self.adds_bos + [2], "special_tokens_mask": [1] * self.adds_bos + [0]}

    def get_chat_template(self) -> str:
        return self.chat_template

    @property
    def special_tokens_map(self) -> dict[str, str]:
        return {"bos_token": self.bos_token}


def test_the_trained_track_shows_the_task_alone() -> None:
    tasks, frame = tasks_of(SUITE), build_prompt_template(SUITE, TRAINED, Chatty(CHATML))
    assert frame == PLAIN
    shown = slice(0, SUITE.shown)
    expected = prompt_text(tasks.inputs[3, shown], tasks.outputs[3, shown], SUITE.show_under_robot)
    assert render_prompts(SUITE, tasks, template=frame)[3] == expected


def test_solved_examples_are_correct_and_disjoint_from_all_tasks() -> None:
    shots = shot_tasks(SUITE)
    assert len(shots) == SUITE.shots
    assert run(shots.programs, shots.inputs).worlds.same_state(shots.outputs).all()
    test_keys = np.concatenate([tasks_of(SUITE).key, probe_tasks(SUITE).key, blind_tasks(SUITE).key])
    assert not np.isin(shots.key, test_keys).any()


@pytest.mark.parametrize("template", [None, CHATML])
def test_a_few_shot_prompt_holds_description_examples_and_task(template: str | None) -> None:
    frame = build_prompt_template(SUITE, FEWSHOT, Chatty(template) if template else None)
    assert (frame.chat, frame.shots) == (template is not None, SUITE.shots)
    tasks = tasks_of(SUITE)
    for bare, prompt in zip(render_prompts(SUITE, tasks), render_prompts(SUITE, tasks, template=frame), strict=True):
        worlds = bare.removesuffix(PLAIN.after)
        assert prompt.startswith(frame.before)
        assert describe_language(SUITE) in frame.before
        assert worlds in prompt.removeprefix(frame.before)
        assert prompt.endswith("def run() {")
    for text in shot_tasks(SUITE).programs.texts():
        assert text in frame.before


def test_a_duplicate_bos_token_is_removed() -> None:
    template = "<s>" + CHATML
    assert not build_prompt_template(SUITE, FEWSHOT, Chatty(template, adds_bos=True)).before.startswith("<s>")
    assert build_prompt_template(SUITE, FEWSHOT, Chatty(template)).before.startswith("<s>")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages[0]['content'] }}", "omits messages"),
        ("{{ messages[-1]['content'] }}", "omits messages"),
        ("{{ messages[0].content.none.none }}", "chat template: "),
    ],
)
def test_a_template_that_omits_messages_is_refused(template: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build_prompt_template(SUITE, FEWSHOT, Chatty(template))


def test_control_flow_suites_describe_control_flow() -> None:
    control = replace(load_suite("control"), tasks=5, probe_programs=5, sha256="")
    assert "while (C)" in describe_language(control)
    assert "while" not in describe_language(SUITE)
    assert "3" not in describe_language(load_suite("icml24")), "drawn worlds print no number under the robot"


def test_sampling_seeds_are_distinct() -> None:
    tasks = np.arange(30)
    seeds = [seed for draw in range(4) for seed in sampling_seeds(SUITE, tasks, draw)]
    assert len(set(seeds)) == len(seeds) == 120
    assert sampling_seeds(SUITE, tasks[7:9], 2) == sampling_seeds(SUITE, tasks, 2)[7:9]
    assert sampling_seeds(replace(SUITE, seed=SUITE.seed + 1), tasks, 0) != sampling_seeds(SUITE, tasks, 0)


def test_the_examples_in_a_template_parse() -> None:
    frame = build_prompt_template(SUITE, FEWSHOT)
    programs = [line for line in frame.before.splitlines() if line.startswith("def run() { ")]
    assert len([parse(line) for line in programs]) == SUITE.shots
