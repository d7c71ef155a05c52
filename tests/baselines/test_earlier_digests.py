"""Digests of earlier sources of a baseline stand for the same answers: what the shipped rows hold is generated again."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from baselines.non_neural.registry import BASELINES, EARLIER_DIGESTS
from benchmark.models.checkpoint import open_checkpoint, resolve_digest
from benchmark.models.interface import ModelSpec
from benchmark.runner.record import read_record
from benchmark.tasks.prompt_template import render_prompts
from benchmark.tasks.suite import load_suite
from benchmark.tasks.suite import test_tasks as load_test_tasks

SUBMISSIONS = Path(__file__).parents[2] / "submissions"
ROWS = {
    row.name: read_record(row / "record.json")
    for row in sorted(SUBMISSIONS.iterdir())
    if (row / "record.json").is_file() and '"spec": "baseline:' in (row / "record.json").read_text()
}
# Without compiled code, the baselines of `control` take a minute each to train.
REGENERATED = [
    pytest.param(name, marks=[] if record.suite.name == "laptop" else pytest.mark.slow)
    for name, record in ROWS.items()
    if record.suite.name in ("laptop", "control")
]
NUM_TASKS = 24


@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_shipped_row_names_a_digest_that_is_known(name: str) -> None:
    model = ROWS[name].model
    checkpoint = open_checkpoint(ModelSpec.parse(model.spec))
    assert resolve_digest(model.digest, checkpoint.digest, model.spec) == model.digest


@pytest.mark.parametrize("name", REGENERATED)
def test_a_baseline_answers_as_its_earlier_source_did(name: str) -> None:
    suite = load_suite(ROWS[name].suite.name)
    tasks = load_test_tasks(suite).take(np.arange(NUM_TASKS))
    baseline = BASELINES[ROWS[name].model.spec.removeprefix("baseline:")](suite)
    generated = baseline.generate(render_prompts(suite, tasks), suite.max_new_words)
    lines = gzip.decompress((SUBMISSIONS / name / "samples.jsonl.gz").read_bytes()).decode().splitlines()
    samples = [json.loads(line) for line in lines[:NUM_TASKS]]
    assert [generation.text for generation in generated] == [sample["text"] for sample in samples]


def test_no_other_digest_is_taken_for_a_baselines() -> None:
    assert sorted(EARLIER_DIGESTS) == sorted(BASELINES)
    for name, digests in EARLIER_DIGESTS.items():
        for other in set(EARLIER_DIGESTS) - {name}:
            assert resolve_digest(digests[0], "now", f"baseline:{other}") == "now"
    assert resolve_digest(EARLIER_DIGESTS["search"][0], "now", "path:model") == "now"
