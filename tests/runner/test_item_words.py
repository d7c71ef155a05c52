"""Progress in words: every item of every measurement and every stage has its own, none is the name of a file."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.runner.measurements.item_words import (
    ITEM_WORDS,
    MEASUREMENT_WORDS,
    describe_items,
    describe_stage,
)
from benchmark.runner.measurements.registry import MEASUREMENTS
from benchmark.runner.plan import Job, plan
from benchmark.runner.stages import RunStages
from benchmark.tasks.stage import STAGE_WORDS
from benchmark.tasks.suite import load_suite


@pytest.fixture
def job(tiny_folder) -> Job:
    checkpoint = open_checkpoint(ModelSpec.parse(f"path:{tiny_folder}"))
    return Job(load_suite("smoke"), checkpoint, "float32", "cpu", 3, grid="full")


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_every_item_has_words_of_its_own(job, name):
    phases = MEASUREMENTS[name].phases(job)
    words = describe_items(name, phases)
    assert list(words) == [item for phase in phases for item in phase]
    assert len(set(words.values())) == len(words)
    kinds = {re.sub(r"-\d+$", "", item) for item in words}
    assert kinds == ITEM_WORDS[name].keys()
    assert MEASUREMENT_WORDS.keys() == ITEM_WORDS.keys() == MEASUREMENTS.keys()


def test_items_are_counted_over_all_phases():
    words = describe_items("preview", [["random-0", "states-0", "states-1"], ["random-2", "probe-4"]])
    assert words == {
        "random-0": "untrained copy 1 of 2", "states-0": "hidden states, part 1 of 2", "states-1": "hidden states, part 2 of 2",
        "random-2": "untrained copy 2 of 2", "probe-4": "probes of the hidden states, seed 1",
    }  # fmt: skip


def test_every_stage_has_words(job):
    stages = {shard.stage for shard in plan(job)}
    assert {stage.kind for stage in stages} <= STAGE_WORDS.keys()
    words = {stage.describe(job.random_inits) for stage in stages}
    assert len(words) == len(stages)
    assert "states at given programs, untrained copy 3 of 3" in words


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("test", "programs for the test tasks"),
        ("random-0-blind", "states at given programs, untrained copy 1"),
        ("crossed-mlrpu", "states after prompts of other semantics, mlrpu"),
        ("preview-states", "Represents (preview): hidden states"),
        ("uses-choose", "Uses and Merges: edits to choose a layer"),
        ("uses-detail-choose", "Uses in detail: rotation edits to choose a layer"),
        ("of another version", ""),
    ],
)
def test_stages_of_a_status_have_words(stage, words):
    assert describe_stage(stage) == words


def test_what_is_displayed_while_an_item_is_computed_is_that_item(job, tmp_path):
    """A shard of a large model takes minutes, so that words of the item before it would mislead."""
    shown, seen = [""], {}
    store = SimpleNamespace(status=lambda name, **expected: "missing", root=tmp_path, arrays_path=tmp_path.joinpath)

    def drain(items):
        for item in items:
            seen[item.name] = shown[-1]
            item.commit([])

    progress = SimpleNamespace(
        start=lambda words, total, completed=0: shown.append(words),
        advance=lambda steps, words=None: shown.append(words or shown[-1]),
        write=lambda text: None,
    )
    backend = SimpleNamespace(pool=SimpleNamespace(drain=drain))
    stages = RunStages(job, "identity", SimpleNamespace(store=store, log=lambda *a, **k: None), backend, progress)
    shards = plan(job)
    stages.evaluate(job, shards)
    assert len({shard.stage for shard in shards}) > 3
    expected = {shard.name: f"evaluating: {shard.stage.describe(job.random_inits)}" for shard in shards}
    assert seen == {"check": "checking the model", **expected}
