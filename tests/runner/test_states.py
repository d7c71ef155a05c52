"""Hidden states on their way to the probes: what each stage stores, and that a row is the word it is said to be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from benchmark.errors import BenchmarkError
from benchmark.installation.paths import DEFAULT_MODEL, shipped_path
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import ModelSpec
from benchmark.probing.protocol import FULL_GRID, STANDARD
from benchmark.probing.semantic_content import GeneratedPrograms
from benchmark.probing.verdict import blind_probe_set
from benchmark.runner.folder import RunFolder
from benchmark.runner.jobs import EvaluationWork
from benchmark.runner.plan import Job, Shard
from benchmark.runner.store import MemmapStates, ResultStore, mmap_safetensors
from benchmark.runner.worker import Worker
from benchmark.tasks.probe_sets import CROSSED_ALTERNATIVES, first_inputs
from benchmark.tasks.stage import BLIND, CROSSED, GENERATED, WIDE, Stage
from benchmark.tasks.suite import load_suite, probe_tasks
from karel_env.language import HEADER_TEXT

SUITE = replace(load_suite("smoke"), probe_programs=40, sha256="")
LAYERS = 3
"""Of the tiny model: the embeddings and two blocks."""
CROSSED_STAGE = Stage(CROSSED, alternative=CROSSED_ALTERNATIVES[0])


@pytest.fixture(scope="module")
def worker(tiny_folder):
    texts = tuple(text.removeprefix(HEADER_TEXT) for text in probe_tasks(SUITE).programs.texts())
    checkpoint = open_checkpoint(ModelSpec("path", str(tiny_folder)))
    return Worker(Job(SUITE, checkpoint, "float32", "cpu", 2, FULL_GRID, texts))


@pytest.mark.parametrize("stage", [Stage(BLIND), Stage(WIDE), CROSSED_STAGE, Stage(WIDE, random_init=1)], ids=str)
def test_a_stage_of_given_programs_stores_every_layer_at_both_positions(worker, stage):
    states = worker.evaluate(Shard(stage, 0, 10)).states
    views = ["mean", *(f"layer {i}" for i in range(LAYERS))]
    assert set(states) == {f"{position}.{view}" for position in ("emit", "read") for view in views}
    words = 10 * SUITE.blind_length
    assert all(array.shape == (words, 32) for array in states.values())
    layers = [states[f"read.layer {i}"] for i in range(LAYERS)]
    np.testing.assert_allclose(states["read.mean"], np.mean(layers, 0), atol=1e-6)
    # A word's prediction is made at the word before it.
    np.testing.assert_allclose(states["emit.layer 1"][1], states["read.layer 1"][0], atol=1e-5)


def test_prompts_differ_between_blind_and_crossed_sets_alone(worker):
    blind = worker.evaluate(Shard(Stage(BLIND), 0, 10)).states["read.mean"]
    crossed = worker.evaluate(Shard(CROSSED_STAGE, 0, 10)).states["read.mean"]
    assert blind.shape == crossed.shape
    assert not np.allclose(blind, crossed)
    wide = worker.evaluate(Shard(Stage(WIDE), 0, 10)).states["read.mean"]
    np.testing.assert_allclose(blind, wide, atol=1e-6)
    assert len(worker.task_sets.wide) == 5 * len(worker.task_sets.blind)


def test_untrained_copies_read_what_the_model_wrote(worker):
    first, second = (worker.evaluate(Shard(Stage(GENERATED, random_init=i), 0, 10)).states["emit.mean"] for i in (0, 1))
    acting = sum(text.count("(") for text in worker.job.texts[:10])
    assert first.shape == second.shape == (acting, 32)
    assert not np.allclose(first, second)


def test_states_are_stored_by_shard_and_read_by_view(worker, tmp_path):
    folder, shards = RunFolder(tmp_path), [Shard(Stage(BLIND), 0, 10), Shard(Stage(BLIND), 10, 20)]
    results = [worker.evaluate(shard) for shard in shards]
    for shard, result in zip(shards, results, strict=True):
        folder.commit(shard, result)
        assert folder.is_committed(shard)
    assert folder.views(shards, Stage(BLIND), "read") == ["mean", "layer 0", "layer 1", "layer 2"]
    stored = folder.states(shards, Stage(BLIND), "read.layer 2")
    whole = np.concatenate([result.states["read.layer 2"] for result in results])
    assert stored.shape == whole.shape
    np.testing.assert_array_equal(stored[:], whole)
    rows = np.array([79, 0, 40, 39, 0])
    np.testing.assert_array_equal(stored[rows], whole[rows])
    raw = mmap_safetensors(tmp_path / "shards" / f"{shards[0].name}.safetensors")
    assert all(isinstance(array, np.memmap) for array in raw.values())
    for name, array in load_file(tmp_path / "shards" / f"{shards[0].name}.safetensors").items():
        np.testing.assert_array_equal(raw[name], array)
    with pytest.raises(BenchmarkError, match="none are stored"):
        MemmapStates([])


def test_the_index_names_the_word_of_each_row(worker, tmp_path):
    folder = RunFolder(tmp_path)
    probe_set = blind_probe_set(SUITE, replace(STANDARD, alternatives=3))
    folder.write_index(Stage(BLIND), probe_set)
    index = load_file(tmp_path / "shards" / f"index-{BLIND}.safetensors")
    assert set(index) == {"task", "step", "token", "split"}
    tasks = worker.task_sets.blind
    assert len(index["task"]) == SUITE.blind_length * len(tasks)
    assert np.array_equal(index["task"], np.repeat(np.arange(len(tasks)), SUITE.blind_length))
    assert np.array_equal(index["split"], probe_set.fold[index["task"]])
    inputs = first_inputs(worker.task_sets.probe)
    generated = GeneratedPrograms.from_texts(worker.job.texts, inputs, STANDARD).probe_set
    assert generated.budget is None
    assert len(generated.program) == sum(text.count("(") for text in worker.job.texts)


def test_states_do_not_depend_on_the_threads_of_the_process(tmp_path):
    """Two threads change the last bits of the shipped model's states, so a forward pass has the job's, wherever it is."""
    checkpoint = open_checkpoint(ModelSpec("path", str(shipped_path(DEFAULT_MODEL))))
    suite = replace(load_suite("laptop"), probe_programs=100)
    shards = ResultStore(tmp_path)

    def states(threads: int) -> bytes:
        compute = EvaluationWork(Job(suite, checkpoint, "float32", "cpu", 0), tmp_path).prepare()
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            (attempt,) = compute(Shard(Stage(BLIND), 0, 50), 1.0)
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
        return (shards.root / attempt.file).read_bytes()

    assert states(1) == states(2)
