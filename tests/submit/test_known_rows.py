"""Rows of samples and sums of evidence by hand: which rows are complete, and which figures a feature gets."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from benchmark.probing.control_gap import Evidence, PriorBaseline, analyze_features
from benchmark.probing.labels import ProbeSet
from benchmark.probing.protocol import STANDARD
from benchmark.submit.check_samples import check_stage
from benchmark.submit.report import Sample, VerificationReport
from benchmark.tasks.suite import load_suite
from karel_env.features import FEATURES, PRIMARY

SUITE = load_suite("smoke")


def row(task: int, sample: int | None = None, text: str = " }", raw: str | None = None) -> Sample:
    return Sample(
        stage="test" if sample is None else "sampled", task=task, prompt="0" * 64, text=text, tokens=1, finished=True,
        raw=raw, sample=sample,
    )  # fmt: skip


def mismatches_of(rows: list[Sample], draws: int, track: str = "trained") -> list[str]:
    """Entries that differ where 2 tasks are asked for."""
    verified = VerificationReport(None, SimpleNamespace(track=track, frame=None), rows)
    check_stage(verified, SUITE, rows, "sampled" if draws else "test", 2, draws)
    return [difference.entry for difference in verified.mismatches]


@pytest.mark.parametrize(
    ("pairs", "complete"),
    [
        ([(0, 0), (0, 1), (1, 0), (1, 1)], True),
        ([(1, 1), (0, 0), (1, 0), (0, 1)], True),
        ([(0, 0), (0, 0), (1, 0), (1, 1)], False),
        ([(0, 0), (0, 1), (0, 2), (1, 1)], False),
        ([(0, 0), (0, 1), (1, 0), (2, 1)], False),
        ([(0, 0), (0, None), (1, 0), (1, 1)], False),
        ([(0, 0), (0, 1), (1, 0)], False),
    ],
)
def test_each_draw_of_each_task_is_there_once(pairs, complete):
    rows = [row(task, sample) for task, sample in pairs]
    assert mismatches_of(rows, 2) == ([] if complete else ["samples.sampled: tasks"])


@pytest.mark.parametrize(
    ("tasks", "complete"), [([0, 1], True), ([1, 0], False), ([0, 0], False), ([0], False), ([0, 2], False)]
)
def test_each_task_is_there_once_and_in_order(tasks, complete):
    assert mismatches_of([row(task) for task in tasks], 0) == ([] if complete else ["samples.test: tasks"])
    assert mismatches_of([row(0), row(1, 0)], 0) == ["samples.test: tasks"], "a draw is no answer"


def test_the_program_is_the_one_that_the_rule_reads_in_the_answer():
    output = [row(0, text=" move(); }", raw=" move(); } def run() { turn_left(); }"), row(1)]
    assert mismatches_of(output, 0, "fewshot") == []
    output[0] = output[0].model_copy(update={"text": " turn_left(); }"})
    assert mismatches_of(output, 0, "fewshot") == ["samples.test.0.text"]
    output[0] = output[0].model_copy(update={"text": " move(); }"})
    assert mismatches_of(output, 0) == ["samples.test.0.text"], "of the other track the answer is the program"


def test_the_figures_of_a_feature_are_those_of_its_sums():
    """4 units, 2 seeds, the original and three alternatives; sums that are exact in binary."""
    units, seeds, names = 4, 2, ("original", "worse", "equal", "better")
    probe_set = ProbeSet(
        program=np.arange(units), word=np.zeros(units, int), step=np.zeros(units, int),
        classes_by_offset=np.broadcast_to(np.arange(units, dtype=np.int16) % 2, (1, 4, len(FEATURES), units)), offsets=(0,),
        counts=np.full(len(FEATURES), 2), fold=np.arange(units) % 2, folds=2, is_seen=np.zeros(units, bool), semantics=names,
    )  # fmt: skip
    shape, by_seed = (4, len(FEATURES), units), (seeds, 4, len(FEATURES))
    tested = PriorBaseline(np.arange(units), np.full(shape, 4.0), np.full(by_seed, 8.0), [])

    def evidence(*skills: float) -> Evidence:
        lost = 1 - np.array(skills)
        probe = np.broadcast_to(4 * lost[:, None, None], shape).astype(np.float32)
        totals = np.broadcast_to(8 * lost[:, None], by_seed).astype(np.float32)
        return Evidence(probe, totals, np.zeros(by_seed, np.int64))

    sources = {
        "model": evidence(0.5, 0.25, 0.5, 0.75),
        "random-init": evidence(0.25, 0.0, 0.0, 0.0),
        "recorder": evidence(0.125, 0.25, 0.25, 0.25),
    }
    alternatives = dict.fromkeys(FEATURES, ()) | {PRIMARY: names[1:]}
    protocol = replace(STANDARD, resamples=20, seeds=(0, 1), folds=2)
    results = analyze_features(sources, probe_set, tested, alternatives, protocol, ["mean"], 1)
    assert set(results) == {PRIMARY}
    result = results[PRIMARY]
    assert (result.skill.value, result.skill_alternatives, result.gap.value) == (0.5, 0.5, 0.0)
    assert {name: gap.value for name, gap in result.control_gaps.items()} == {"random-init": 0.25, "recorder": -0.125}
    assert result.delta.value == -0.25, "less the larger of both"
    assert result.delta.n == units
    assert result.p_rand == 3 / 4, "an equal alternative is at least as skilled"
    assert not result.degenerate
