"""Represents behind the prompts of the execution task: which states are read, a known answer, the command."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from benchmark.causal.execution import command
from benchmark.causal.execution.heading_tasks import derive_heading_tasks
from benchmark.errors import ModelError
from benchmark.installation.cache_settings import CacheSettings
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.models.token_alignment import align_tokens
from benchmark.probing.version4 import suite_controls, track_protocol
from benchmark.probing.version4.measure_rotation import judge_suite
from benchmark.probing.version4.relative_labels import RELATIVE_FEATURES, ROTATION
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.probing.version4.track_protocol import rotation_protocol
from benchmark.runner.evidence_cache import untrained_copy_key
from benchmark.runner.measurements import represents_executing
from benchmark.runner.measurements.represents import rotation_suite
from benchmark.runner.measurements.represents_executing import (
    execution_prompts,
    measure_represents_executing,
    read_executing_views,
)
from benchmark.runner.plan import GenerationOptions, Job
from benchmark.runner.worker import Worker
from benchmark.tasks.prompt_template import FEWSHOT
from benchmark.tasks.prompts import prompt_ids
from benchmark.tasks.suite import load_suite
from karel_env.syntax.dialects import program_bodies

LAPTOP = load_suite("laptop")
SMALL = replace(ROTATION_STANDARD, folds=3, seeds=(0, 1), random_inits=2, steps=2, checks=1, hidden=4, resamples=20)


def job_of(spec: str, cache: str = "none") -> Job:
    return Job(
        LAPTOP, open_checkpoint(ModelSpec.parse(spec)), "float32", "cpu", 1,
        generation=GenerationOptions(track=FEWSHOT), cache=CacheSettings(cache),
    )  # fmt: skip


@pytest.fixture
def few_programs(monkeypatch):
    monkeypatch.setattr(track_protocol, "FEW_PROMPTS", 20)
    monkeypatch.setattr(suite_controls, "SCREEN_SAMPLE", 500)


@pytest.mark.usefixtures("few_programs")
def test_states_are_those_of_the_text_that_is_asked_about(tiny_folder):
    job = job_of(f"path:{tiny_folder}")
    judged = judge_suite(rotation_suite(LAPTOP), rotation_protocol(FEWSHOT))
    _, _, _, block, _ = read_executing_views(job, judged, None)
    tasks, model = judged.blind.tasks, Worker(job).model()
    prompts, bodies = execution_prompts(LAPTOP, tasks), program_bodies(tasks.programs)
    # The same text as the task's, whose world and program are others.
    asked = derive_heading_tasks(LAPTOP, 20, num_shots=0).prompts[0]
    assert [line for line in prompts[0].split("\n") if "robot" in line] == [
        line for line in asked.split("\n") if "robot" in line
    ]
    row = 0
    for program in (0, 1, 4):
        row = int(np.searchsorted(judged.probe_set.program, program))
        ids = prompt_ids(model.tokenizer, prompts[program])
        alignment = align_tokens(model.tokenizer, prompts[program], bodies[program])
        states = model.plain_pass([*ids, *alignment.ids])[0]
        token = len(ids) + int(alignment.last[2]) - 1
        np.testing.assert_allclose(block[row + 2], states[1, token].numpy(), atol=1e-4)
    assert row > 0


@pytest.mark.usefixtures("few_programs")
def test_states_that_hold_the_rotation_are_told_from_those_that_do_not(tiny_folder, monkeypatch):
    monkeypatch.setattr(track_protocol, "FEW_PROMPTS", 160)
    protocol = replace(SMALL, steps=150, hidden=16, resamples=50)

    def views(job, judged, copy):
        labels = judged.probe_set.classes[0, RELATIVE_FEATURES.index(ROTATION)]
        noise = np.random.default_rng(0 if copy is None else copy + 1).normal(size=(len(labels), 4))
        return [(np.eye(4)[labels] + 0.01 * noise if copy is None else noise).astype(np.float32)]

    monkeypatch.setattr(represents_executing, "read_executing_views", views)
    held = measure_represents_executing(job_of(f"path:{tiny_folder}"), protocol)
    assert held.skill.value > 0.95
    assert held.verdict == "REPRESENTS"
    assert set(held.control_gaps) >= {"random-init", "token-history"}
    monkeypatch.setattr(represents_executing, "read_executing_views", lambda job, judged, copy: views(job, judged, 3))
    assert measure_represents_executing(job_of(f"path:{tiny_folder}"), protocol).skill.value < 0.1


@pytest.mark.usefixtures("few_programs")
def test_a_second_model_of_an_architecture_takes_the_copies_from_the_cache(tiny_folder, tmp_path, monkeypatch):
    read = []

    def views(job, judged, copy):
        read.append(copy)
        return read_executing_views(job, judged, copy)

    monkeypatch.setattr(represents_executing, "read_executing_views", views)
    job = job_of(f"path:{tiny_folder}", str(tmp_path))
    first, second = (measure_represents_executing(job, SMALL) for _ in range(2))
    assert read == [None, 0, 1, None]
    assert first == second
    # Behind few-shot prompts the copies give other states.
    protocol = rotation_protocol(FEWSHOT, SMALL)
    assert untrained_copy_key(job, protocol, 1) != untrained_copy_key(job, protocol, 1, "executing")


@pytest.mark.usefixtures("few_programs")
def test_the_command_adds_the_figures(tiny_folder, tmp_path, monkeypatch, capsys):
    small = partial(measure_represents_executing, protocol=SMALL)
    monkeypatch.setattr(represents_executing, "measure_represents_executing", small)
    words = ["--model", f"path:{tiny_folder}", "--tasks", "20", "--shots", "0", "--output-dir", str(tmp_path)]
    assert command.main([*words, "--represents"]) == 0
    printed = capsys.readouterr()
    assert "Represents, behind the same prompts" in printed.out
    assert "untrained copy 2 of 2" in printed.err
    result = json.loads(next(tmp_path.glob("*-execution.json")).read_text())
    assert result["represents"]["unseen_rows"] > 0
    assert result["settings"]["shots"] == 0
    monkeypatch.setattr(command, "open_executing", None)
    monkeypatch.setattr(represents_executing, "measure_represents_executing", None)
    assert command.main([*words, "--represents"]) == 0
    again = capsys.readouterr()
    assert again.out == printed.out, "what the file has is printed as it was when it was measured"
    assert again.err.count(" is that of ") == 2


@pytest.mark.usefixtures("few_programs")
def test_a_command_that_was_stopped_in_represents_keeps_uses(tiny_folder, tmp_path, monkeypatch, capsys):
    def stop(job, **options):
        raise KeyboardInterrupt

    words = ["--model", f"path:{tiny_folder}", "--tasks", "20", "--shots", "0", "--output-dir", str(tmp_path)]
    words.append("--represents")
    monkeypatch.setattr(represents_executing, "measure_represents_executing", stop)
    assert command.main(words) == 1
    assert "run the same command again to continue" in capsys.readouterr().err
    monkeypatch.setattr(command, "open_executing", None)
    monkeypatch.setattr(
        represents_executing, "measure_represents_executing", partial(measure_represents_executing, protocol=SMALL)
    )
    assert command.main(words) == 0
    assert json.loads(next(tmp_path.glob("*-execution.json")).read_text())["represents"]["unseen_rows"] > 0


def test_a_model_without_states_is_refused():
    with pytest.raises(ModelError, match="no hidden states"):
        measure_represents_executing(job_of("baseline:random"))
