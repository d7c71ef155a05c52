"""The identity of a run: whatever can change a result changes it, and verification computes the same one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from benchmark.environment import SOURCE_ROOT, source_digest
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.interface import LoadOptions, ModelSpec
from benchmark.runner.plan import GenerationOptions
from benchmark.runner.record import FrameEntry, read_record
from benchmark.runner.run import Run, RunConfig
from benchmark.submit.report import VerificationReport
from benchmark.submit.schema import read_submission
from benchmark.submit.verify import check_provenance
from benchmark.tasks.prompt_template import PromptTemplate

FOLDER = SOURCE_ROOT / "submissions" / "2026-11-23_llama-laptop"
IDENTITY = "provenance.identity"


def run_of(**request: Any) -> Run:
    """The run of a shipped model on its suite, which is not carried out."""
    return Run(RunConfig("laptop", **request), open_checkpoint(ModelSpec("path", str(FOLDER))))


@pytest.fixture(scope="module")
def run() -> Run:
    return run_of()


INPUTS: dict[str, Callable[[Run], dict[str, Any]]] = {
    "model": lambda run: {"checkpoint": replace(run.checkpoint, digest="0" * 64)},
    "loading": lambda run: {"checkpoint": replace(run.checkpoint, loading=LoadOptions(attention="eager"))},
    "dtype": lambda run: {"job": replace(run.job, dtype="bfloat16")},
    "device": lambda run: {"job": replace(run.job, device="cuda:0")},
    "threads": lambda run: {"job": replace(run.job, threads=2)},
    "grid": lambda run: {"job": replace(run.job, grid="full")},
    "draws": lambda run: {"job": replace(run.job, generation=replace(run.job.generation, samples=3))},
    "frame": lambda run: {"job": replace(run.job, prompt_template=PromptTemplate("before", "after"))},
    "preview": lambda run: {"job": replace(run.job, probes=False)},
    "probes": lambda run: {"job": replace(run.job, probes=False), "config": replace(run.config, probes=False)},
    "few programs": lambda run: {"config": replace(run.config, few_programs=True)},
    "suite": lambda run: {"suite": replace(run.suite, batch=run.suite.batch + 1)},
    "tasks": lambda run: {"tasks_digest": "0" * 64},
    "protocol": lambda run: {"protocol": replace(run.protocol, steps=run.protocol.steps + 1)},
    "source": lambda run: {"environment": run.environment | {"source": "0" * 64}},
}  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
def test_the_identity_depends_on_every_input(name, run):
    other = SimpleNamespace(**{**vars(run), **INPUTS[name](run)})
    assert Run.identity.fget(other) != run.identity


def test_the_identity_does_not_depend_on_where_and_when(run, tmp_path):
    other = run_of(out=tmp_path, keep_states=True, command="another", device="cpu")
    other.started = "2020-01-01T00:00:00+00:00"
    assert other.identity == run.identity


def verified(run: Run, **changed: Any) -> VerificationReport:
    """What verification reads of a row of that model, as if this code had measured it; entries by dotted name."""
    record = read_record(FOLDER / "record.json")
    entries = {"provenance.source": source_digest(), "provenance.identity": run.identity} | changed
    for name, value in entries.items():
        *outer, last = name.split(".")
        inner = getattr(record, outer[0]).model_copy(update={last: value}) if outer else value
        record = record.model_copy(update={outer[0] if outer else last: inner})
    return VerificationReport(read_submission(FOLDER), record, [])


def differences(found: VerificationReport, run: Run) -> list[str]:
    check_provenance(found, run.suite)
    return [difference.entry for difference in found.mismatches]


@pytest.mark.parametrize(
    "request_of",
    [{}, {"threads": 7}, {"grid": "full"}, {"grid": "layers", "threads": 2}, {"few_programs": True}],
    ids=str,
)
def test_verification_finds_the_identity_that_the_run_had(request_of, run):
    identity = run_of(**request_of).identity
    assert (identity == run.identity) == (not request_of)
    found = verified(run, **{IDENTITY: identity})
    assert differences(found, run) == []
    assert "identity of the run" in found.checks


@pytest.mark.parametrize(
    "request_of",
    [
        {"probes": False},
        {"preview": True},
        {"generation": GenerationOptions(states=False)},
        {"probes": False, "few_programs": True},
    ],
    ids=str,
)
def test_verification_finds_the_identity_of_a_run_without_probes(request_of, run):
    identity = run_of(**request_of).identity
    found = verified(run, **{IDENTITY: identity, "meaning": None})
    assert differences(found, run) == []
    assert "identity of the run" in found.checks
    assert differences(verified(run, **{IDENTITY: identity}), run) == [IDENTITY]


def test_verification_finds_the_identity_of_a_few_shot_run(run):
    """Its record has no probes, and its hidden states are read by other measurements."""
    other = run_of(generation=GenerationOptions("fewshot"))
    assert run_of(generation=GenerationOptions("fewshot"), few_programs=True).identity == other.identity
    frame = other.job.prompt_template
    entry = FrameEntry(sha256=frame.digest, shots=frame.shots, chat_template=frame.chat)
    found = verified(run, **{IDENTITY: other.identity, "meaning": None, "track": "fewshot", "frame": entry})
    assert differences(found, run) == []
    assert "identity of the run" in found.checks


def test_verification_finds_the_identity_of_a_run_with_a_frame(run):
    frame = PromptTemplate("before", "after", shots=3)
    asked = replace(run.job.generation, track="fewshot")
    changes = {"job": replace(run.job, generation=asked, prompt_template=frame), "suite": replace(run.suite, shots=3)}
    other = SimpleNamespace(**{**vars(run), **changes})
    said = FrameEntry(sha256=frame.digest, shots=3, chat_template=False)
    changed = {"track": "fewshot", "frame": said, IDENTITY: Run.identity.fget(other)}
    found = verified(run, **changed)
    assert differences(found, run) == []
    assert "identity of the run" in found.checks
    moved = said.model_copy(update={"sha256": "0" * 64})
    assert differences(verified(run, **{**changed, "frame": moved}), run) == [IDENTITY]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (IDENTITY, "0" * 64),
        ("model.digest", "0" * 64),
        ("model.dtype", "bfloat16"),
        ("model.device", "cuda:0"),
        ("model.attention", "eager"),
        ("suite.name", "laptop-2"),
        ("track", "fewshot"),
        ("meaning", None),
    ],
)
def test_an_identity_of_another_run_is_found(name, value, run):
    suite = replace(run.suite, name=value) if name == "suite.name" else run.suite
    found = verified(run, **{name: value})
    check_provenance(found, suite)
    assert [difference.entry for difference in found.mismatches] == [IDENTITY]
    assert found.checks == []


def test_the_identity_of_another_source_is_not_computed(run):
    found = verified(run, **{"provenance.source": "0" * 64, IDENTITY: "0" * 64})
    assert differences(found, run) == []
    assert found.checks == []


def test_a_source_that_was_not_committed_is_found(run):
    assert differences(verified(run, **{"provenance.dirty": True}), run) == ["provenance.dirty"]
