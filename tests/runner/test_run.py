"""The whole path on the small suite: what is printed and stored, resume, exit codes."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal

import numpy as np
import pytest
import torch
from whole_runs import call, only, same

from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.huggingface import HuggingFaceModel
from benchmark.models.interface import ModelSpec
from benchmark.runner.folder import RunFolder
from benchmark.runner.plan import Job, plan
from benchmark.runner.record import read_record
from benchmark.runner.worker import Worker
from benchmark.tasks.prompt_template import render_prompts
from benchmark.tasks.scoring import score_programs, summarize
from benchmark.tasks.suite import load_suite
from benchmark.tasks.suite import test_tasks as tasks_of
from karel_env.language import HEADER_TEXT


@pytest.mark.usefixtures("quick")
def test_a_run_prints_its_row_and_is_done_once(words, tmp_path, undisturbed, capsys):
    assert call(*words, "--out", tmp_path / "a", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    one = only(tmp_path / "a")
    same(one, undisturbed)
    record = read_record(one / "record.json")
    assert hashlib.sha256((one / "samples.jsonl.gz").read_bytes()).hexdigest() == record.samples_sha256
    assert not record.official
    assert printed["row"]["verdict"] == record.meaning.verdict != "REPRESENTS"
    assert record.accuracy.shown.n == 8
    assert sum(record.accuracy.failures.values()) == 8
    before = (one / "record.json").read_bytes()
    assert call(*words, "--out", tmp_path / "a") == 0
    assert (one / "record.json").read_bytes() == before


@pytest.mark.usefixtures("quick")
def test_an_interrupted_run_goes_on(words, tmp_path, monkeypatch, capsys):
    words = [*words, "--out", tmp_path]
    computed: list[str] = []
    real = Worker.evaluate

    def evaluate(self, shard, share=1.0):
        if len(computed) == 5:
            signal.raise_signal(signal.SIGINT)
        computed.append(shard.name)
        return real(self, shard, share)

    monkeypatch.setattr(Worker, "evaluate", evaluate)
    assert call(*words) == 1
    assert "run the same command again" in capsys.readouterr().err
    first = list(computed)
    computed.clear()
    computed.extend([""] * 6)
    assert call(*words) == 0
    assert not set(first) & set(computed)


def test_a_torn_shard_is_computed_again(tiny_folder, tmp_path):
    job = Job(load_suite("smoke"), open_checkpoint(ModelSpec("path", str(tiny_folder))), "float32", "cpu", 1)
    folder, shard = RunFolder(tmp_path), plan(job)[0]
    folder.commit(shard, Worker(job).evaluate(shard))
    assert folder.is_committed(shard)
    (tmp_path / "shards" / f"{shard.name}.safetensors").write_bytes(b"torn")
    assert not folder.is_committed(shard)


def test_hidden_states_are_those_of_a_plain_pass(tiny_folder):
    model = HuggingFaceModel(open_checkpoint(ModelSpec("path", str(tiny_folder))))
    suite = load_suite("smoke")
    tasks = tasks_of(suite).take(np.arange(8))
    prompts = render_prompts(suite, tasks)
    programs = [text.removeprefix(HEADER_TEXT).strip() for text in tasks.programs.texts()]
    model.generate(prompts, 6)
    states = model.hidden_states(prompts, programs)
    for i, (prompt, program) in enumerate(zip(prompts, programs, strict=True)):
        ids = model.tokenizer(f"{prompt} {program}", return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            plain = torch.stack(model.model(ids, output_hidden_states=True).hidden_states, 2)[0].numpy()
        words = len(program.split())
        a, b = states.offsets[i : i + 2]
        assert b - a == words
        np.testing.assert_allclose(states.values[states.read[a:b]], plain[-words:], atol=2e-5)
        np.testing.assert_allclose(states.values[states.emit[a:b]], plain[-words - 1 : -1], atol=2e-5)


def test_generation_is_that_of_transformers(tiny_folder):
    model = HuggingFaceModel(open_checkpoint(ModelSpec("path", str(tiny_folder))))
    suite = load_suite("smoke")
    prompts = render_prompts(suite, tasks_of(suite).take(np.arange(4)))
    for prompt, ours in zip(prompts, model.generate(prompts, 6), strict=True):
        ids = model.tokenizer(prompt, return_tensors="pt")
        plain = model.model.generate(**ids, max_new_tokens=7, do_sample=False)
        text = model.tokenizer.decode(plain[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        assert text.startswith(ours.text)


def test_references_solve_and_failures_are_counted():
    suite = load_suite("smoke")
    tasks = tasks_of(suite).take(np.arange(5))
    right = [text.removeprefix(HEADER_TEXT) for text in tasks.programs.texts()]
    assert summarize(score_programs(suite, tasks, right)).both.value == 1
    endless = "while (not markers_present()) { turn_left(); }; while (markers_present()) { turn_left(); }; }"
    found = summarize(score_programs(suite, tasks, [right[0], "", "fly(); }", endless, right[4] + " move();"]))
    assert found.failures == {"solved": 1, "empty": 1, "unparsable": 2, "step limit": 1, "wrong output": 0}
    assert found.shown.value == 0.2


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--suite", "nonsense"], 2, "use one of"),
        (["--model", "tiny"], 2, "expected path:FOLDER"),
        (["--model", "path:nowhere"], 3, "no folder at"),
        (["--model", "hf:nobody/nothing-like-this"], 3, "hub"),
        (["--limit", "0"], 2, "at least 1"),
    ],
)
def test_bad_input_is_one_line_and_a_code(words, code, says, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert call(*words, "--out", tmp_path) == code
    message = capsys.readouterr().err.strip()
    assert says in message
    assert message.startswith("error:")
    assert "\n" not in message


def test_bad_models_are_refused(tiny_folder, tmp_path, capsys):
    pickled = tmp_path / "pickled"
    shutil.copytree(tiny_folder, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    assert call("--model", f"path:{pickled}", "--suite", "smoke", "--out", tmp_path / "runs") == 3
    assert "safetensors" in capsys.readouterr().err
    assert call("--model", f"path:{tiny_folder}", "--suite", "icml24", "--out", tmp_path / "runs") == 3
    assert "context of 192 tokens" in capsys.readouterr().err


def test_dry_run_computes_nothing(tiny_folder, tmp_path, capsys):
    assert call("--model", f"path:{tiny_folder}", "--suite", "smoke", "--out", tmp_path, "--dry-run") == 0
    assert "memory" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_too_little_memory_is_said_beforehand(tiny_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("benchmark.runner.preflight.available_memory", lambda: 1_000_000)
    assert call("--model", f"path:{tiny_folder}", "--suite", "smoke", "--out", tmp_path) == 3
    assert "GB of memory" in capsys.readouterr().err
    assert call("--model", f"path:{tiny_folder}", "--suite", "smoke", "--out", tmp_path, "--dry-run") == 3
    shown = capsys.readouterr()
    assert "about" in shown.out.partition("\ntime ")[2].splitlines()[0], "the plan is printed all the same"
    assert "GB of memory" in shown.err
