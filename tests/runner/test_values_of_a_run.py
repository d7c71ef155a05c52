"""What a run builds once and passes on: its labels, its programs, its evidence and its protocol."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from quick_protocol import QUICK, SMALL_SUITE
from safetensors.numpy import load_file
from whole_runs import call, only

import benchmark.probing.semantic_content
import benchmark.probing.verdict
import benchmark.runner.run
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.huggingface import HuggingFaceModel
from benchmark.models.interface import Generation, ModelSpec
from benchmark.probing.protocol import STANDARD
from benchmark.probing.state_source import RunEvidence
from benchmark.runner.record import read_record
from benchmark.runner.run import Run, RunConfig
from benchmark.runner.worker import Worker
from karel_env.language import ACTIONS


def write_programs(model, prompts, max_new_words, decoding=None) -> list[Generation]:
    """Valid programs, of which some 25 are distinct: the tiny model writes none."""
    texts = [f" {ACTIONS[len(prompt) % 5]}(); {ACTIONS[sum(map(ord, prompt)) % 5]}(); }}" for prompt in prompts]
    return [Generation(text, len(text.split()), True) for text in texts]


def test_labels_and_programs_of_a_run_are_built_once(words, tmp_path, quick, monkeypatch):
    built: list[str] = []
    for module, name in (
        (benchmark.probing.verdict, "build_probe_set"),
        (benchmark.probing.semantic_content, "build_probe_set"),
        (benchmark.probing.semantic_content, "parse_programs"),
    ):
        real, label = getattr(module, name), f"{module.__name__}.{name}"

        def counted(*arguments, real=real, label=label, **named):
            built.append(label)
            return real(*arguments, **named)

        monkeypatch.setattr(module, name, counted)
    monkeypatch.setattr(HuggingFaceModel, "generate", write_programs)
    monkeypatch.setattr(Worker, "check", lambda worker: None)
    assert call(*words, "--out", tmp_path) == 0
    assert len(built) == len(set(built)) == 3, built
    assert read_record(only(tmp_path) / "record.json").content is not None


def test_the_protocol_of_a_run_is_that_of_its_configuration(undisturbed, tiny_folder):
    assert read_record(undisturbed / "record.json").protocol == QUICK
    checkpoint = open_checkpoint(ModelSpec("path", str(tiny_folder)))
    config = RunConfig(SMALL_SUITE)
    assert Run(config, checkpoint).protocol == STANDARD
    quick = Run(replace(config, protocol=QUICK), checkpoint)
    assert (quick.protocol, quick.job.random_inits) == (QUICK, QUICK.random_inits)
    assert quick.identity != Run(config, checkpoint).identity


def test_stored_evidence_is_read_as_it_was_written(undisturbed):
    arrays = load_file(undisturbed / "probes.data")
    evidence = RunEvidence.from_arrays(arrays)
    assert list(evidence.sources) == ["model", "random-init", "recorder"]
    assert evidence.diagnostics is not None
    again = evidence.to_arrays()
    assert set(again) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


@pytest.mark.parametrize("missing", ["model.pool", "recorder.totals"])
def test_a_source_without_one_of_its_arrays_is_refused(undisturbed, missing):
    arrays = load_file(undisturbed / "probes.data")
    del arrays[missing]
    with pytest.raises(KeyError, match=missing):
        RunEvidence.from_arrays(arrays)


def test_evidence_of_an_older_run_has_no_diagnostics(undisturbed):
    arrays = load_file(undisturbed / "probes.data")
    older = {name: array for name, array in arrays.items() if not name.startswith(("diagnostics", "content"))}
    evidence = RunEvidence.from_arrays(older)
    assert (evidence.diagnostics, evidence.content_hits) == (None, None)
    assert set(evidence.to_arrays()) == set(older)
