"""The audit flags a writer that has memorised the public test set, and no honest one."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from same_process import stay_in_process
from scipy.stats import binom

from baselines.non_neural.registry import BASELINES
from benchmark.run import main as run_command
from benchmark.runner.record import read_record
from benchmark.submit import audit, rerun
from benchmark.submit.audit import (
    LEVEL,
    compare_accuracy,
    derive_audit_seed,
    is_alarming,
    load_audit_suite,
    newcombe_interval,
)
from benchmark.submit.command import main
from benchmark.submit.schema import read_status
from benchmark.tasks.prompt_template import render_prompts
from benchmark.tasks.scoring import score_programs
from benchmark.tasks.suite import load_suite
from benchmark.tasks.suite import test_tasks as drawn
from karel_env.language import HEADER_TEXT

SUBMISSIONS = Path(__file__).parents[2] / "submissions"
HONEST = "2026-11-25_n-gram"


class Memoriser:
    """Knows the public test set by heart, and gives an honest writer's answer to anything else."""

    def __init__(self, suite: str, honest) -> None:
        tasks = drawn(load_suite(suite))
        programs = [text.removeprefix(HEADER_TEXT).lstrip() for text in tasks.programs.texts()]
        self.known = dict(zip(render_prompts(load_suite(suite), tasks), programs, strict=True))
        self.honest = honest

    def texts(self, prompts: list[str]) -> list[str]:
        answers = [text.text for text in self.honest.generate(prompts, 16)]
        return [self.known.get(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]


class Honest:
    def __init__(self, writer) -> None:
        self.writer = writer

    def texts(self, prompts: list[str]) -> list[str]:
        return [text.text for text in self.writer.generate(prompts, 16)]


def audited(writer, digest: str):
    public = load_suite("laptop")
    hits = score_programs(public, drawn(public), writer.texts(render_prompts(public, drawn(public)))).shown
    suite = load_audit_suite(digest, "laptop")
    return compare_accuracy(suite, hits, writer.texts(render_prompts(suite, drawn(suite))))


def test_who_memorised_the_test_set_is_flagged():
    report = audited(Memoriser("laptop", BASELINES["n-gram"](load_suite("laptop"))), "a" * 64)
    assert report.public == 1.0
    assert report.audit < 0.3
    assert is_alarming(report)


@pytest.mark.parametrize("name", ["n-gram", "random"])
def test_the_honest_are_not_flagged(name):
    report = audited(Honest(BASELINES[name](load_suite("laptop"))), "a" * 64)
    assert report.low <= 0 <= report.high
    assert not is_alarming(report)


def test_a_tenth_memorised_is_enough():
    class Partly(Memoriser):
        def __init__(self) -> None:
            super().__init__("laptop", BASELINES["n-gram"](load_suite("laptop")))
            self.known = dict(list(self.known.items())[::10])

    assert is_alarming(audited(Partly(), "a" * 64))


def test_the_seed_follows_the_weights_and_the_suite():
    seeds = {derive_audit_seed(digest, suite) for digest in ("a" * 64, "b" * 64) for suite in ("laptop", "icml24")}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**62 for seed in seeds)
    assert derive_audit_seed("a" * 64, "laptop") == derive_audit_seed("a" * 64, "laptop")
    public = {key.tobytes() for key in drawn(load_suite("laptop")).key}
    fresh = drawn(load_audit_suite("a" * 64, "laptop")).key
    assert sum(key.tobytes() in public for key in fresh) < 10


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_the_interval_holds_no_difference_as_often_as_it_says(share):
    n = 1000
    random = np.random.default_rng(0)
    draws = random.binomial(n, share, (400, 2))
    alarms = sum(newcombe_interval(int(a), n, int(b), n, LEVEL)[0] > 0 for a, b in draws)
    assert alarms <= binom.ppf(0.999, 400, (1 - LEVEL) / 2)


def test_newcombe_gives_the_published_example():
    # Newcombe 1998, table II (a): 56/70 against 48/80, method 10.
    low, upper = newcombe_interval(56, 70, 48, 80, 0.95)
    assert (round(low, 4), round(upper, 4)) == (0.0524, 0.3339)


def test_the_command_audits_and_flags(tmp_path, monkeypatch, capsys):
    stay_in_process(monkeypatch.setattr, rerun)
    folder = tmp_path / HONEST
    shutil.copytree(SUBMISSIONS / HONEST, folder, ignore=shutil.ignore_patterns("status.json"))
    assert main(["audit", str(folder), "--write-status"]) == 0
    assert "difference" in capsys.readouterr().out
    assert read_status(folder).status == "validated"
    monkeypatch.setattr(audit, "generate_audit_texts", lambda folder, report, suite, limits: ["}"] * suite.tasks)
    assert main(["audit", str(folder), "--write-status"]) == 4
    status = read_status(folder)
    assert status.status == "flagged"
    assert "points better on the public tasks" in status.reason
    assert main(["verify", str(folder), "--write-status"]) == 0
    assert read_status(folder).status == "flagged"


def test_a_run_of_the_audit_is_one_with_that_seed(tmp_path, capsys):
    words = ["--model", "baseline:n-gram", "--suite", "smoke", "--audit", "--out", str(tmp_path)]
    assert run_command(words) == 0
    record = read_record(next(tmp_path.glob("*/record.json")))
    assert record.suite.seed == derive_audit_seed(record.model.digest, "smoke")
    assert not record.official
    assert run_command([*words, "--seed", "3"]) == 2
    assert "--audit" in capsys.readouterr().err
