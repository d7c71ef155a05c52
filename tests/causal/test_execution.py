"""The edit on the execution task: pseudo-models with known answers, tasks, networks with sub-word tokenizers, the command."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from agreement import loaded
from families import save

from benchmark.calibrate.executors import CHANCE, EXECUTOR, EXECUTOR_KINDS, POINTER, Executor
from benchmark.causal.execution.command import main
from benchmark.causal.execution.heading_tasks import AT_QUESTION, AT_WORD, EDIT_POSITIONS, derive_heading_tasks
from benchmark.causal.execution.measurement import measure_execution
from benchmark.causal.execution.report import format_execution, to_json
from benchmark.causal.execution.verdict import look_up_headings
from benchmark.causal.verdict import NOT_APPLICABLE, NOT_SHOWN, USES
from benchmark.models.steering import open_steerable
from benchmark.tasks.suite import load_suite
from karel_env.single import run

LAPTOP = load_suite("laptop")
TASKS = derive_heading_tasks(LAPTOP, 400)
FEW = derive_heading_tasks(LAPTOP, 20)
AT = {edit_at: replace(FEW, edit_at=edit_at) for edit_at in EDIT_POSITIONS}


@pytest.mark.parametrize("kind", EXECUTOR_KINDS)
def test_every_pseudo_model_gets_its_verdict(kind):
    for seed in range(3):
        result = measure_execution(Executor(kind, seed), TASKS).result
        assert result.verdict == {EXECUTOR: USES, CHANCE: NOT_APPLICABLE}.get(kind, NOT_SHOWN), (
            kind,
            seed,
            result.reason,
        )
        if kind == EXECUTOR:
            assert result.site == 1
            assert result.score.steered.value == 1
            assert result.score.use.value > 0.9


def test_an_executor_that_is_edited_at_the_question_uses_its_state():
    tasks = replace(TASKS, edit_at=AT_QUESTION)
    assert all(text.endswith("; } the robot faces") for text in tasks.texts)
    at_word, at_question = (measure_execution(Executor(EXECUTOR, 0), part).result for part in (TASKS, tasks))
    assert at_word == at_question
    assert at_question.verdict == USES


def test_what_follows_from_the_edit_without_the_world_is_at_chance():
    result = measure_execution(Executor(POINTER, 0), TASKS).result
    assert result.score.steered.value < 0.4
    hits = (look_up_headings(TASKS) == TASKS.targets())[:, TASKS.is_report].mean()
    assert hits < 0.35


def test_headings_are_those_of_the_interpreter():
    for prompt, text, heading in zip(FEW.prompts, FEW.texts, FEW.heading.tolist(), strict=True):
        world = prompt.rpartition("input\n")[2].partition("program")[0].strip("\n")
        assert run(f"def run() {{ {text} }}", world).world.robot[2] == heading


def test_solved_examples_are_right_and_in_every_prompt():
    beginnings = {prompt[: prompt.rindex("input\n")] for prompt in TASKS.prompts}
    assert len(beginnings) == 1
    (beginning,) = beginnings
    assert beginning.count("the robot faces") == 4
    assert np.bincount(TASKS.heading).min() > 50


def test_a_measurement_is_deterministic_and_prints_a_card():
    first, second = (measure_execution(Executor(EXECUTOR, 5), FEW) for _ in range(2))
    assert to_json(first) == to_json(second)
    assert all(np.array_equal(a, second.evidence.to_arrays()[name]) for name, a in first.evidence.to_arrays().items())
    card = format_execution(first)
    assert "look-up" in card
    assert "natural    1.000" in card


@pytest.mark.parametrize("edit_at", EDIT_POSITIONS)
@pytest.mark.parametrize("name", ["llama", "gpt-j", pytest.param("mamba", marks=pytest.mark.slow)])
def test_headings_are_scored_as_in_a_plain_pass(name, edit_at, tmp_path):
    model, tasks = loaded(save(name, tmp_path)), AT[edit_at]
    steerable = open_steerable(model, tasks.answers)
    prompts, texts = tasks.prompts[:2], tasks.texts[:2]
    prepared = steerable.prepare(prompts, texts)
    scores = prepared.score().log_probs
    for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        values = [model.log_likelihoods([prompt], [f"{text} {answer}"])[0][0] for answer in tasks.answers]
        np.testing.assert_allclose(scores[row] - scores[row, 0], np.array(values) - values[0], atol=2e-3)
    states = prepared.states()
    for site in range(len(steerable.sites)):
        assert np.array_equal(prepared.score(site, states[site]).log_probs, scores)
        assert not np.array_equal(prepared.score(site, states[site] + np.float32(1)).log_probs, scores)


def test_a_common_beginning_is_read_for_one_prompt(tiny_folder, monkeypatch):
    model = loaded(tiny_folder)
    lengths = []
    forward = model.model.forward
    monkeypatch.setattr(
        model.model, "forward", lambda **options: lengths.append(options["input_ids"].shape) or forward(**options)
    )
    open_steerable(model, FEW.answers).prepare(FEW.prompts[:4], FEW.texts[:4])
    # A pass over two tokens looks for recurrent states; then prompts of each length are read.
    first, *others = (shape for shape in lengths if shape[1] > 2)
    assert first[0] == 1
    assert first[1] > 200
    assert all(shape[1] < 60 for shape in others if shape[0] > 1)


def test_the_command_on_an_untrained_network(tiny_folder, tmp_path, capsys, recorded_progress):
    words = ["--model", f"path:{tiny_folder}", "--tasks", "20", "--shots", "1", "--output-dir", str(tmp_path)]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "verdict    N/A" in out or "verdict    NOT SHOWN" in out
    result = json.loads(next(tmp_path.glob("*-execution.json")).read_text())
    assert result["verdict"] in (NOT_APPLICABLE, NOT_SHOWN)
    assert recorded_progress.stages
    assert result["natural"]["n"] == 20
    assert (result["settings"]["shots"], result["settings"]["edit_at"]) == (1, AT_WORD)
    assert main([*words, "--edit-at", "question"]) == 0
    assert "edited at the question" in capsys.readouterr().out
    asked = json.loads(next(tmp_path.glob("*-execution-2.json")).read_text())
    assert (asked["settings"]["edit_at"], asked["natural"]) == (AT_QUESTION, result["natural"])


@pytest.mark.parametrize("shots", [0, 1, 4])
def test_a_prompt_has_as_many_solved_examples_as_were_asked_for(shots):
    tasks = derive_heading_tasks(LAPTOP, 20, num_shots=shots)
    assert {prompt.count(" the robot faces ") for prompt in tasks.prompts} == {shots}
    assert len(tasks) == len(tasks.prompts) == 20


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "expected --model SPEC"),
        (["--model", "path:missing"], 3, "no folder at missing"),
        (["--model", "baseline:random"], 3, "no states that can be replaced"),
        (["--model", "path:missing", "--suite", "control"], 2, "control flow"),
    ],
)
def test_errors_are_one_line(arguments, code, message, tmp_path, capsys):
    assert main([*arguments, "--output-dir", str(tmp_path)]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("edit_at", EDIT_POSITIONS)
def test_edits_reach_the_answer_alone(edit_at, tiny_folder):
    """An edit at the last word of the program or of the question is that of a hook in a pass over the full text."""
    model, tasks = loaded(tiny_folder), AT[edit_at]
    prepared = open_steerable(model, tasks.answers).prepare(tasks.prompts[:1], tasks.texts[:1])
    states = prepared.states()[1] + np.float32(0.5)
    scores = prepared.score(1, states).log_probs[0]
    text = f"{tasks.prompts[0]} {tasks.texts[0]}"
    at = len(model.tokenizer(text)["input_ids"]) - 1
    ids = model.tokenizer(f"{text} {tasks.answers[0]}", return_tensors="pt")["input_ids"]

    def set_state(_, args):
        hidden = args[0].clone()
        hidden[0, at] = torch.from_numpy(states[0])
        return (hidden, *args[1:])

    handle = model.blocks[1].register_forward_pre_hook(set_state)
    with torch.inference_mode():
        log_probs = model.model(ids).logits[0, -2].double().log_softmax(-1)
    handle.remove()
    assert scores[0] == pytest.approx(float(log_probs[ids[0, -1]]), abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", EXECUTOR_KINDS)
def test_every_pseudo_model_in_20_draws(kind):
    expected = {EXECUTOR: USES, CHANCE: NOT_APPLICABLE}.get(kind, NOT_SHOWN)
    verdicts = [measure_execution(Executor(kind, seed), TASKS).result.verdict for seed in range(20)]
    assert verdicts.count(expected) >= 19
    assert kind == EXECUTOR or USES not in verdicts
