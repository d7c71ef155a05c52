"""Forged records: a submission decides neither what is loaded nor what anybody believes of it."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forged import SMALL, copy_small, edit, put, read_record, read_samples, write_samples
from safetensors.numpy import load_file, save
from same_process import stay_in_process

from benchmark.errors import ModelError, SubmissionError
from benchmark.models.interface import ATTENTIONS
from benchmark.probing.diagnostics import DiagnosticEvidence, compute_diagnostics, count_labels
from benchmark.probing.semantic_content import (
    CONTENT_DEPTHS,
    GeneratedPrograms,
    pack_hits,
    semantic_content_from_hits,
)
from benchmark.probing.state_source import CONTENT_HITS
from benchmark.probing.verdict import load_blind_set
from benchmark.runner.record import read_record as read_typed
from benchmark.submit import screening
from benchmark.submit.check_record import drop_unverified, read_submitted_record
from benchmark.submit.rendered_prompts import read_prompt_template
from benchmark.submit.rerun import ProcessLimits, make_rerun_request, open_screened_checkpoint, rerun
from benchmark.submit.schema import read_submission
from benchmark.submit.verify import verify
from benchmark.tasks.probe_sets import first_inputs
from benchmark.tasks.prompt_template import PromptTemplate, build_prompt_template, describe_language, template_to_bytes
from benchmark.tasks.suite import load_suite, probe_tasks, shot_tasks
from karel_env.features import FEATURES, PAPER_FEATURES
from karel_env.language import HEADER_TEXT

HUB = f"hf:evil/model@{'a' * 40}"
LATER = (datetime.now(UTC) + timedelta(days=3)).isoformat(timespec="seconds")


@pytest.fixture
def folder(tmp_path) -> Path:
    return copy_small(tmp_path)


def entries_of(folder: Path) -> list[str]:
    return [difference.entry for difference in verify(folder).mismatches]


# What is loaded


LOADING: dict[str, tuple[str, Any, str]] = {
    "remote code": ("remote_code", True, "code of its own"),
    "own code": ("own_code", True, "code of its own"),
    "module of the machine": ("spec", "py:os:system", "code of its own"),
    "quantization": ("quantization", "int8", "quantization"),
    "another quantization": ("quantization", "evil/quantizer", "quantization"),
    "kernel": ("attention", "evil/kernel", "attention"),
    "library": ("attention", "flash_attention_2", "attention"),
    "dtype": ("dtype", "float8_e5m2", "dtype"),
    "attribute of torch": ("dtype", "__class__", "dtype"),
    "meta device": ("device", "meta", "device"),
    "device of a backend": ("device", "xla:0", "device"),
    "device behind a line": ("device", "cpu\ncuda", "device"),
    "branch": ("spec", "hf:evil/model@main", "spec"),
    "no revision": ("spec", "hf:evil/model", "spec"),
    "another scheme": ("spec", "https://evil.example/model", "spec"),
}


@pytest.mark.parametrize("name", LOADING)
def test_a_record_does_not_decide_how_a_model_is_loaded(name, folder):
    entry, value, says = LOADING[name]
    edit(f"model.{entry}", value)(folder)
    with pytest.raises(SubmissionError, match=says) as raised:
        verify(folder)
    assert raised.value.exit_code == 3
    assert "\n" not in str(raised.value)
    # What reads the record another way refuses it as well, before any model is opened.
    with pytest.raises(SubmissionError):
        make_rerun_request(
            folder, read_submission(folder), read_typed(folder / "record.json"), load_suite("laptop"), 0.1
        )


def test_an_order_never_carries_a_switch(folder):
    record = read_submitted_record(folder)
    order = make_rerun_request(folder, read_submission(folder), record, load_suite("laptop"), 0.1)
    assert not order.loading.remote_code
    assert not order.loading.own_code
    assert order.loading.quantization == ""


SCREENED: dict[str, tuple[str, Any, str]] = {
    "custom generate": ("generation_config.json", {"custom_generate": "evil/decoding"}, "custom_generate"),
    "quantizer": ("config.json", {"model_type": "x", "quantization_config": {"quant_method": "evil"}}, "quantization_config"),
    "part of a composed model": (
        "config.json", {"model_type": "x", "text_config": {"_attn_implementation": "evil/kernel"}}, "would fetch code"),
    "attention by part": ("config.json", {"model_type": "x", "attn_implementation": {"": "evil/k"}}, "would fetch code"),
    "attention of a library": ("config.json", {"model_type": "x", "_attn_implementation": "flash_attention_2"}, "library"),
    "experts": ("config.json", {"model_type": "x", "_experts_implementation": "evil/kernel"}, "would fetch code"),
    "backbone": ("config.json", {"model_type": "x", "vision": {"use_timm_backbone": True}}, "use_timm_backbone"),
    "tokenizer by path": ("tokenizer_config.json", {"tokenizer_file": "/etc/passwd"}, "lies elsewhere"),
    "tokenizer class": ("tokenizer_config.json", {"tokenizer_class": "os.system"}, "no tokenizer of transformers"),
    "tokenizer of a pipeline": ("tokenizer_config.json", {"tokenizer_class": "pipeline"}, "no tokenizer of transformers"),
    "adapter": ("config.json", {"model_type": "x", "base_model_name_or_path": "evil/base"}, "base_model_name_or_path"),
    "model type by path": ("config.json", {"model_type": "../evil"}, "no model type"),
}  # fmt: skip


@pytest.mark.parametrize("name", SCREENED)
def test_files_of_a_model_ask_for_no_code(name, folder, tmp_path):
    file, content, says = SCREENED[name]
    put(folder, file, json.dumps(content).encode())
    with pytest.raises(SubmissionError, match=says):
        verify(folder)
    # A hub model's files are links into a cache; they are screened in the same way.
    hub = tmp_path / "hub"
    (hub / "snapshot").mkdir(parents=True)
    (hub / "blob").write_text(json.dumps(content))
    (hub / "snapshot" / file).symlink_to("../blob")
    with pytest.raises(SubmissionError, match=says):
        screening.screen_model_folder(hub / "snapshot", is_hub=True)


def test_a_hub_model_with_an_adapter_or_a_foreign_shard_is_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(SubmissionError, match="adapter"):
        screening.screen_model_folder(tmp_path, is_hub=True)
    (tmp_path / "adapter_config.json").unlink()
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../secret.safetensors"}}')
    with pytest.raises(SubmissionError, match="no weight file"):
        screening.screen_model_folder(tmp_path, is_hub=True)


def test_a_model_is_screened_again_where_it_is_loaded(folder):
    """Whatever was seen at verification: the process that loads looks itself, before it opens anything."""
    order = make_rerun_request(
        folder, read_submission(folder), read_submitted_record(folder), load_suite("laptop"), 0.1
    )
    assert open_screened_checkpoint(order).digest == read_submitted_record(folder).model.digest
    put(folder, "tokenizer_config.json", b'{"auto_map": {"AutoTokenizer": ["evil.T", null]}}')
    with pytest.raises(SubmissionError, match="auto_map"):
        open_screened_checkpoint(order)


def test_words_of_a_vocabulary_are_no_entries():
    screening.screen_model_file("tokenizer.json", {"model": {"vocab": {"auto_map": 0, "use_kernels": 1}}})


def test_the_lists_are_those_of_the_loader():
    from benchmark.models.huggingface import DTYPES

    assert set(DTYPES) == set(screening.DTYPE_NAMES)
    assert screening.ATTENTIONS == ATTENTIONS


def test_a_rerun_ends_at_its_deadline(folder):
    report = verify(folder)
    with pytest.raises(ModelError, match="deadline") as raised:
        rerun(folder, report, 0.01, ProcessLimits(seconds=0.5))
    assert raised.value.exit_code == 3


# Figures, times and names


GAP = {"value": 0.99, "low": 0.98, "high": 0.995, "n": 100}
REFUSED: dict[str, tuple[str, Any, str]] = {
    "huge": ("content.arithmetic.linear.value", 1e308, "content.arithmetic.linear"),
    "more than all": ("content.arithmetic.mlp1.high", 1.5, "share from 0 to 1"),
    "below nothing": ("content.arithmetic.mlp1.low", -0.5, "share from 0 to 1"),
    "outside of its interval": ("content.arithmetic.mlp2", GAP | {"value": 0.5}, "not in its interval"),
    "rests on less than nothing": ("content.arithmetic.linear.n", -5, "independent units"),
    "rests on nothing": ("meaning.features.facing.delta.n", 0, "independent units"),
    "geometric": ("content.geometric.linear", 58.0, "share from 0 to 1"),
    "accuracy of a probe": ("meaning.diagnostics.facing.accuracy", 1.5, "share from 0 to 1"),
    "F1": ("meaning.diagnostics.facing.macro_f1", -1.0, "share from 0 to 1"),
    "skill on the unseen": ("meaning.diagnostics.facing.skill_unseen", 5.0, "at most 1"),
    "p": ("meaning.features.facing.p", 2.0, "share from 0 to 1"),
    "negative seconds": ("provenance.seconds.test", -1.0, "seconds from 0"),
    "absurd seconds": ("provenance.seconds.test", 1e12, "so large"),
    "negative cores": ("provenance.cores", -1, "cores"),
    "negative parameters": ("model.parameters", -1, "parameters"),
    "retries": ("provenance.retries", {"x": -3}, "retries"),
    "version 99": ("schema_version", 99, r"schema_version: received 99; expected a whole number from 1 to \d+, .*; write the"),
    "version 0": ("schema_version", 0, "schema_version: received 0; expected"),
    "version below 0": ("schema_version", -5, "schema_version: received -5; expected"),
    "version by a text": ("schema_version", "4", "schema_version: received 4; expected"),
    "version by a truth": ("schema_version", True, "schema_version: received True; expected"),
    "version of several lines": ("schema_version", "4\n5", r"schema_version: received 4\\n5; expected"),
    "yesterday": ("provenance.finished", "yesterday", "expected a time"),
    "no month": ("provenance.finished", "2026-13-01T00:00:00+00:00", "expected a time"),
    "another zone": ("provenance.finished", "2026-11-26T02:35:07+99:00", "expected a time"),
    "to come": ("provenance.finished", LATER, "yet to come"),
    "before it began": ("provenance.finished", "2026-11-01T00:00:00+00:00", "one after the other"),
    "long ago": ("provenance.started", "1970-01-01T00:00:00+00:00", "one after the other"),
    "digest": ("model.digest", "not a digest", "SHA-256"),
    "draws": ("sampled", {"samples": 10**9, "temperature": 0.8, "shown": {}, "held_out": {}}, "draws per task"),
    "negative draws": ("sampled", {"samples": -5, "temperature": 0.8, "shown": {}, "held_out": {}}, "count|draws"),
    "cold draws": ("sampled", {"samples": 5, "temperature": -1.0, "shown": {}, "held_out": {}}, "temperature"),
    "track": ("track", "expert", "track 'expert'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(name, folder):
    field, value, says = REFUSED[name]
    edit(field, value)(folder)
    with pytest.raises(SubmissionError, match=says) as raised:
        read_submitted_record(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "name", ["2099-01-01_mine", "mine", "2026-02-30_mine", "1999-01-01_mine", "26-11-01_mine", LATER[:10] + "_mine"]
)
def test_a_folder_is_named_with_the_day_of_its_run(name, tmp_path):
    with pytest.raises(SubmissionError, match=r"no date|yet to come"):
        verify(copy_small(tmp_path, name))


def test_a_folder_is_not_antedated(tmp_path):
    with pytest.raises(SubmissionError, match="before its run started"):
        verify(copy_small(tmp_path, "2026-09-01_mine"))


@pytest.mark.parametrize(
    ("field", "value", "entry"),
    [("content.arithmetic.deep", GAP, "content.depths"), ("content.arithmetic.linear.n", 99, "content.linear.n"),
     ("content.test_states", 7, "content.test_states"),
     ("meaning.diagnostics.magic", "facing", "meaning.diagnostics: features")],
)  # fmt: skip
def test_what_the_samples_decide_is_compared(field, value, entry, folder):
    value = read_record(folder)["meaning"]["diagnostics"][value] if value == "facing" else value
    edit(field, value)(folder)
    assert entry in entries_of(folder)


def test_figures_without_evidence_are_in_the_record_and_not_on_the_board(folder):
    record = read_submitted_record(folder)
    assert record.content is not None
    assert record.meaning is not None
    shown = drop_unverified(folder, record)
    assert shown.content is None
    assert shown.grid is None
    assert shown.meaning is not None
    assert shown.meaning.diagnostics == {}
    assert shown.meaning.features == record.meaning.features
    assert any("content: its figures not recomputed" in line for line in verify(folder).checks)


def with_evidence(folder: Path) -> None:
    """Evidence as a run stores it, of probes of one's own, and the figures that it gives."""
    record = read_typed(folder / "record.json")
    suite, protocol = load_suite("laptop"), record.protocol
    texts = [row["text"] for row in read_samples(folder) if row["stage"] == "generated"]
    programs = GeneratedPrograms.from_texts(texts, first_inputs(probe_tasks(suite)), protocol)
    assert programs is not None
    random = np.random.default_rng(0)
    hits = random.random((len(CONTENT_DEPTHS), len(PAPER_FEATURES), programs.num_test_states)) < 0.6
    content = semantic_content_from_hits(programs, protocol, hits)
    probe_set, tested = load_blind_set(suite, protocol)
    labels = count_labels(probe_set, protocol)
    confusion = np.stack([np.diag(row) for row in labels])
    evidence = DiagnosticEvidence(confusion, labels.sum(1) // 3, np.full(len(FEATURES), 100.0))
    arrays = load_file(folder / "probes.data") | {CONTENT_HITS: pack_hits(hits)}
    arrays |= {f"diagnostics.{name}": array for name, array in vars(evidence).items()}
    put(folder, "probes.data", save(arrays))
    meaning = record.meaning
    assert meaning is not None
    meaning.diagnostics.clear()
    meaning.diagnostics.update(compute_diagnostics(evidence, probe_set, tested, protocol))
    put(folder, "record.json", record.model_copy(update={"content": content}).to_json().encode())


def test_content_and_diagnostics_are_computed_from_their_evidence(folder):
    with_evidence(folder)
    report = verify(folder)
    assert report.mismatches == []
    assert any("content: every figure" in line for line in report.checks)
    assert any("diagnostics: every figure" in line for line in report.checks)
    shown = drop_unverified(folder, report.record)
    assert shown.content == report.record.content
    assert shown.meaning == report.record.meaning
    record = read_record(folder)
    figure = record["content"]["arithmetic"]["linear"]
    edit("content.arithmetic.linear", figure | {"value": figure["value"] + 0.001})(folder)
    edit("meaning.diagnostics.facing.selectivity", 0.99)(folder)
    edit("meaning.diagnostics.start_x.skill_unseen", 0.5)(folder)
    assert {"content.arithmetic.linear.value", "meaning.diagnostics.facing.selectivity",
            "meaning.diagnostics.start_x.skill_unseen"} <= set(entries_of(folder))  # fmt: skip


def test_evidence_of_other_labels_is_found(folder):
    with_evidence(folder)
    arrays = load_file(folder / "probes.data")
    arrays["diagnostics.confusion"][0, 0, 0] += 1
    put(folder, "probes.data", save(arrays))
    assert any("has the labels of the blind set" in entry for entry in entries_of(folder))


@pytest.mark.parametrize("part", ["probe", "totals"])
def test_halved_sums_are_not_those_of_the_readings(part, folder):
    arrays = load_file(folder / "probes.data")
    for name in ("model.probe", "model.totals") if part == "totals" else ("model.probe",):
        arrays[name] = arrays[name] * np.float32(0.5)
    put(folder, "probes.data", save(arrays))
    entries = entries_of(folder)
    if part == "probe":
        assert "probes.data: model.probe and .totals give one sum" in entries
    else:
        assert any(entry.startswith("readings.") and "nats" in entry for entry in entries)


def test_a_row_without_its_readings_or_with_views_of_others_is_found(folder):
    import gzip

    readings = json.loads(gzip.decompress((folder / "readings.json.gz").read_bytes()))
    first = readings["by_semantics"][0]
    first["view"] = "last" if first["view"] == "mean" else "mean"
    put(folder, "readings.json.gz", gzip.compress(json.dumps(readings).encode()))
    assert f"readings.{first['semantics']}.view" in entries_of(folder)
    (folder / "readings.json.gz").unlink()
    assert "readings.json.gz is there" in entries_of(folder)


# The track


def moved(chat: bool) -> dict[str, Any]:
    digest = build_prompt_template(load_suite("laptop"), "fewshot").digest
    return {"sha256": digest, "shots": 4, "chat_template": chat}


@pytest.mark.parametrize("chat", [False, True])
def test_a_row_is_not_moved_to_another_track(chat, folder):
    edit("track", "fewshot")(folder)
    edit("frame", moved(chat))(folder)
    entries = entries_of(folder)
    assert "constrained is there" in entries
    assert ("frame.chat_template" if chat else "samples.test.0.prompt") in entries


def test_a_row_with_a_template_of_its_own_is_compared_with_what_it_renders(folder):
    """Constrained answers that are the plain ones, and a template in the tokenizer that drops what it is given."""
    rows = read_samples(folder)
    rows += [{key: row[key] for key in ("task", "prompt", "text", "tokens", "finished")} | {"stage": "constrained"}
             for row in rows if row["stage"] == "test"]  # fmt: skip
    write_samples(folder, rows)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<assistant>"
    put(folder, "tokenizer_config.json", json.dumps(config | {"chat_template": template}).encode())
    edit("track", "fewshot")(folder)
    edit("frame", moved(True))(folder)
    edit("constrained", {"accuracy": read_record(folder)["accuracy"], "finished": GAP, "valid": None})(folder)
    assert "frame.sha256, rendered again" in entries_of(folder)
    put(
        folder,
        "tokenizer_config.json",
        json.dumps(
            config | {"chat_template": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"}
        ).encode(),
    )
    import benchmark.submit.rendered_prompts
    import benchmark.tasks.chat_template

    with pytest.MonkeyPatch.context() as patch:
        # The sandbox that renders it has a process of its own within this one.
        stay_in_process(patch.setattr, benchmark.submit.rendered_prompts, benchmark.tasks.chat_template)
        patch.setattr(benchmark.tasks.chat_template, "MAX_STEPS", 10_000)
        with pytest.raises(SubmissionError, match="chat template: takes more than 10,000 steps"):
            verify(folder)


def laid_out(before: str, after: str = f"<end>{HEADER_TEXT}") -> bytes:
    return template_to_bytes(PromptTemplate(before, after, 4, chat=True))


def test_a_stored_prompt_shows_the_suites_examples_and_no_others(tmp_path):
    suite = load_suite("laptop")
    plain = build_prompt_template(suite, "fewshot").before
    shown = describe_language(suite)
    assert plain.startswith(shown)
    put(tmp_path, "frame.json", laid_out(f"<system>{plain}"))
    frame = read_prompt_template(tmp_path, suite, shot_tasks(suite))
    assert frame is not None
    assert frame.digest == hashlib.sha256(f"<system>{plain}\0<end>{HEADER_TEXT}".encode()).hexdigest()
    cases = {
        "description": plain.removeprefix(shown),
        "examples": plain[: len(plain) // 2],
        "other programs": plain + "def run() { move(); }",
        "characters": plain + "x" * 30_000,
    }
    for says, before in cases.items():
        put(tmp_path, "frame.json", laid_out(before))
        with pytest.raises(SubmissionError, match=says):
            read_prompt_template(tmp_path, suite, shot_tasks(suite))
    put(tmp_path, "frame.json", laid_out(plain, "<end>"))
    with pytest.raises(SubmissionError, match="other programs"):
        read_prompt_template(tmp_path, suite, shot_tasks(suite))
    for content in (b"[]", b'{"before": 1, "after": ""}', b'{"before": ""}'):
        put(tmp_path, "frame.json", content)
        with pytest.raises(SubmissionError, match="expected"):
            read_prompt_template(tmp_path, suite, shot_tasks(suite))


# Whoever ran it


@pytest.mark.parametrize("field", ["model.spec", "provenance.command"])
def test_folders_of_a_machine_are_refused_from_outside(field, folder):
    edit(field, "path:/home/somebody/secret/model")(folder)
    with pytest.raises(SubmissionError, match="names a folder of a machine"):
        verify(folder, is_proposed=True)
    assert verify(folder).submission.name == SMALL.partition("_")[2]
