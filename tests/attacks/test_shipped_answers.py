"""Answers shipped with the tests.

Wang, Mang, Cheung, Sen and Song (UC Berkeley RDI), "How We Broke Top AI Agent Benchmarks: And What Comes Next", April 2026:
WebArena's reference answers lay in a file that its browser could open, GAIA's in a public data set.

Here the answers are public on purpose: whoever has the seed draws them. So a prompt must not hold them, training on drawn
tasks must not meet them, and a submission that copies them must not be taken for its model.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hostile import entry, lines
from proposals import RANDOM, SHIPPED, copy_row
from same_process import stay_in_process

import benchmark.submit.measurements.repeat
import benchmark.submit.rerun
from benchmark.runner.record import read_record
from benchmark.submit.audit import load_audit_suite
from benchmark.submit.command import main
from benchmark.submit.schema import read_status
from benchmark.tasks.prompt_template import render_prompts
from benchmark.tasks.scoring import score_programs, summarize
from benchmark.tasks.suite import load_suite, training_tasks
from benchmark.tasks.suite import test_tasks as drawn_tasks
from karel_env.language import HEADER_TEXT


def test_no_prompt_holds_its_answer():
    suite = load_suite("laptop")
    tasks = drawn_tasks(suite)
    prompts = render_prompts(suite, tasks)
    for prompt, program in zip(prompts, tasks.programs.texts(), strict=True):
        assert program.removeprefix(HEADER_TEXT).strip() not in prompt
    assert all(prompt.count("output") == suite.shown for prompt in prompts), "held-out examples are not asked about"


def test_training_tasks_are_no_test_tasks():
    suite = load_suite("smoke")
    known_prompts = set(render_prompts(suite, drawn_tasks(suite)))
    assert not known_prompts & set(render_prompts(suite, training_tasks(suite, np.arange(2000), seed=0)))


def test_the_tasks_of_an_audit_are_others():
    suite = load_suite("smoke")
    known_prompts = set(render_prompts(suite, drawn_tasks(suite)))
    assert not known_prompts & set(render_prompts(suite, drawn_tasks(load_audit_suite("a" * 64, "smoke"))))


def test_copied_answers_are_not_taken_for_the_models(tmp_path, capsys, monkeypatch):
    """Every figure fits; the weights, asked again, write something else."""
    stay_in_process(monkeypatch.setattr, benchmark.submit.rerun, benchmark.submit.measurements.repeat)
    folder = copy_row(RANDOM, tmp_path / RANDOM)
    suite = load_suite("laptop")
    tasks = drawn_tasks(suite)
    answers = [text.removeprefix(HEADER_TEXT).strip() for text in tasks.programs.texts()]
    scores = score_programs(suite, tasks, answers)
    assert scores.shown.all()
    prompts = [hashlib.sha256(prompt.encode()).hexdigest() for prompt in render_prompts(suite, tasks)]
    rows = [
        {"stage": "test", "task": i, "prompt": prompts[i], "text": answers[i], "tokens": 9, "finished": True,
         "outcome": "solved", "shown": True, "held_out": True, "exact": bool(scores.exact[i])}
        for i in range(len(tasks))
    ]  # fmt: skip
    lines("".join(json.dumps(row) + "\n" for row in rows))(folder)
    record = json.loads((folder / "record.json").read_text())
    summary = read_record(SHIPPED / RANDOM / "record.json").model_copy(update={"accuracy": summarize(scores)})
    record["accuracy"] = json.loads(summary.model_dump_json())["accuracy"]
    record["samples_sha256"] = hashlib.sha256((folder / "samples.jsonl.gz").read_bytes()).hexdigest()
    (folder / "record.json").write_text(json.dumps(record))
    entry("claimed", {"shown": 1.0})(folder)
    assert main(["verify", str(folder), "--rerun", "0.1", "--write-status"]) == 4
    assert "rerun.test." in capsys.readouterr().out
    status = read_status(folder)
    assert status is not None
    assert status.status == "flagged"


@pytest.mark.parametrize("field", ["audit", "public"])
def test_the_seed_of_an_audit_is_no_choice_of_the_submitter(field):
    seeds = {load_audit_suite(digest * 64, "smoke").seed for digest in "abc"}
    assert len(seeds) == 3
    assert load_suite("smoke").seed not in seeds
