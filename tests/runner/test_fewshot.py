"""Whole runs of a model with a sub-word tokenizer: few-shot prompts, the grammar, draws, programs without states."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from byte_pairs import byte_pairs
from quick_protocol import SHORT_SUITE, SMALL_SUITE
from same_process import stay_in_process
from transformers import LlamaConfig, LlamaForCausalLM
from whole_runs import call, only

from benchmark.installation.cache_settings import CacheSettings
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.huggingface import HuggingFaceModel
from benchmark.models.interface import Decoding, Generation, ModelSpec
from benchmark.models.token_alignment import align_tokens
from benchmark.probing.version4 import suite_controls, track_protocol
from benchmark.probing.version4.measure_rotation import judge_suite
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.runner.blind_reading import blind_template, read_blind_states
from benchmark.runner.evidence_cache import untrained_copy_key
from benchmark.runner.measurements.represents import RepresentsMeasurement, read_views, rotation_suite
from benchmark.runner.plan import GenerationOptions, Job
from benchmark.runner.record import read_record
from benchmark.runner.worker import Worker
from benchmark.tasks import chat_template
from benchmark.tasks.prompt_template import FEWSHOT, build_prompt_template, render_prompts
from benchmark.tasks.prompts import examples_text, prompt_ids
from benchmark.tasks.shared_prompts import shared_prompts
from benchmark.tasks.suite import load_suite, set_prompts, shot_tasks
from benchmark.tasks.suite import test_tasks as tasks_of
from karel_env.language import ACTIONS, HEADER_TEXT, Programs
from karel_env.syntax.dialects import PYTHON, program_bodies, word_spans
from karel_env.syntax.parser import parse

SUITE = load_suite("smoke")
FEWSHOT_OPTIONS = GenerationOptions(track=FEWSHOT)
CHAT = (
    "{% for m in messages %}[{{ m['role'] }}]\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained Llama with a byte-level tokenizer and a chat template."""
    path, tokenizer = tmp_path_factory.mktemp("models") / "subword", byte_pairs()
    tokenizer.chat_template = CHAT
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=4096, pad_token_id=0, eos_token_id=0, bos_token_id=None, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def rendered_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates are rendered in this process; in one of their own, as ever, in the first whole run below."""
    stay_in_process(monkeypatch.setattr, chat_template)


def stages(run: Path) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    for line in gzip.decompress((run / "samples.jsonl.gz").read_bytes()).decode().splitlines():
        row = json.loads(line)
        found.setdefault(row["stage"], []).append(row)
    return found


@pytest.mark.usefixtures("quick")
def test_a_whole_few_shot_run(folder: Path, tmp_path: Path) -> None:
    words = ["--model", f"path:{folder}", "--suite", SHORT_SUITE, "--track", "fewshot", "--samples", 2]
    assert call(*words, "--out", tmp_path) == 0
    run = only(tmp_path)
    record, kept = read_record(run / "record.json"), stages(run)
    assert record.track == FEWSHOT
    assert record.frame is not None
    assert (record.frame.shots, record.frame.chat_template) == (load_suite(SHORT_SUITE).shots, True)
    assert record.constrained is not None
    assert record.constrained.valid is None or record.constrained.valid.value == 1
    assert record.constrained.accuracy.valid.value == record.constrained.finished.value
    assert record.accuracy.valid.value < 1, "an untrained model writes no programs of its own accord"
    assert record.sampled is not None
    assert (record.sampled.samples, record.sampled.temperature, set(record.sampled.shown)) == (2, 0.8, {1, 2})
    assert [len(kept[name]) for name in ("test", "constrained", "sampled")] == [8, 8, 16]
    assert len({str(row["text"]) for row in kept["sampled"]}) > 8
    # Protocol 3 is of models that were trained on the suite.
    assert record.meaning is None


@pytest.mark.usefixtures("rendered_here")
def test_states_are_read_behind_examples_with_hidden_outputs(folder: Path) -> None:
    job = Job(
        SUITE, open_checkpoint(ModelSpec.parse(f"path:{folder}")), "float32", "cpu", 1, generation=FEWSHOT_OPTIONS
    )
    template, shots = blind_template(job), shot_tasks(SUITE)
    assert (template.chat, template.shots) == (True, SUITE.shots)
    shown = slice(0, SUITE.shown)
    for i, program in enumerate(shots.programs.texts()):
        hidden, told = (
            examples_text(shots.inputs[i, shown], worlds[i, shown], SUITE.show_under_robot)
            for worlds in (shots.inputs, shots.outputs)
        )
        assert hidden in template.before
        assert program in template.before
        assert told not in template.before


@pytest.mark.usefixtures("rendered_here")
def test_represents_is_measured_with_fewer_programs_and_at_single_layers(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(track_protocol, "FEW_PROMPTS", 20)
    monkeypatch.setattr(suite_controls, "SCREEN_SAMPLE", 500)
    suite = replace(SUITE, shots=1, shown=1)
    job = Job(
        suite, open_checkpoint(ModelSpec.parse(f"path:{folder}")), "float32", "cpu", 1, generation=FEWSHOT_OPTIONS,
        cache=CacheSettings(str(tmp_path)),
    )  # fmt: skip
    small = replace(ROTATION_STANDARD, folds=3, seeds=(0, 1), random_inits=1, steps=2, checks=1, hidden=4, resamples=20)
    measurement = RepresentsMeasurement(small)
    protocol = measurement.protocol_of(job)
    assert (protocol.prompts, protocol.units, small.prompts) == (20, 20, ROTATION_STANDARD.prompts)
    assert measurement.skip_reason(job) is None
    collector = measurement.open(job)
    judged = judge_suite(rotation_suite(suite), protocol)
    views = read_views(job, judged, None)
    # Two layers and the embeddings: mean, last, and the layers at a quarter, a half and three quarters.
    assert [view.shape for view in views] == [(len(judged.probe_set.program), 32)] * len(views)
    assert len(views) == 2 + len({round(depth * 2) for depth in track_protocol.FEWSHOT_DEPTHS})
    (items,) = measurement.phases(job)
    arrays = {item: collector.collect(item, lambda name: {}, 1.0) for item in items}
    result = measurement.conclude(job, arrays.__getitem__).entries["rotation"]
    assert result.unseen_rows == judged.judged_rows.num_unseen
    # A copy read behind few-shot prompts is another one than that of a model of the trained track.
    trained = replace(job, generation=GenerationOptions())
    assert len({untrained_copy_key(part, protocol, 1) for part in (job, trained)}) == 2


@pytest.mark.usefixtures("quick", "rendered_here")
def test_a_whole_run_in_python_with_one_example(folder: Path, tmp_path: Path) -> None:
    """Constrained answers are Python text and stored as the program that it is; states are read at its words."""
    words = ["--model", f"path:{folder}", "--suite", SHORT_SUITE, "--track", "fewshot", "--out", tmp_path]
    assert call(*words, "--dialect", "python", "--num-fewshot", 1) == 0
    run = only(tmp_path)
    record, kept = read_record(run / "record.json"), stages(run)
    assert record.frame is not None
    assert (record.frame.shots, record.frame.dialect) == (1, "python")
    assert '"dialect": "python"' in record.to_json()
    assert record.constrained is not None
    assert record.constrained.accuracy.valid.value == record.constrained.finished.value > 0
    for row in kept["constrained"]:
        if row["finished"]:
            (body,) = program_bodies(Programs.of([parse(f"{HEADER_TEXT} {row['text']}")]), PYTHON)
            assert str(row["raw"]).rstrip("\n") == body


@pytest.mark.usefixtures("rendered_here")
def test_states_are_read_at_the_words_of_python_text(folder: Path) -> None:
    suite = set_prompts(load_suite(SHORT_SUITE), 1, PYTHON)
    job = Job(suite, open_checkpoint(ModelSpec("path", str(folder))), "float32", "cpu", 1, generation=FEWSHOT_OPTIONS)
    template, blind = blind_template(job), shared_prompts(suite).take_prompts(2)
    assert template.after.endswith("def run():")
    model = Worker(job).model()
    (mean, _), programs = read_blind_states(model, suite, blind, template).values(), blind.tasks.programs
    assert len(mean) == sum(len(programs.program(i)) - 4 for i in range(len(programs))), "one per action"
    prompt = render_prompts(suite, blind.tasks, blind.tasks.inputs, template)[0]
    (body,) = program_bodies(programs.take([0]), PYTHON)
    alignment = align_tokens(model.tokenizer, prompt, body)
    ids = [*prompt_ids(model.tokenizer, prompt), *alignment.ids]
    token = len(ids) - len(alignment.ids) + int(alignment.last[0]) - 1
    expected = model.plain_pass(ids)[0][:-1, token].mean(0).numpy()
    layers = model.hidden_states([prompt], [body])
    np.testing.assert_allclose(layers.values[layers.read[0]][:-1].mean(0), expected, atol=1e-4)
    assert body[word_spans(body)[0][0] :].startswith(tuple(ACTIONS))


@pytest.mark.usefixtures("quick")
def test_programs_without_states(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--model", f"path:{folder}", "--suite", SMALL_SUITE, "--no-states", "--out", tmp_path) == 0
    record = read_record(only(tmp_path) / "record.json")
    assert (record.meaning, record.content, record.constrained, record.track) == (None, None, None, "trained")
    assert set(stages(only(tmp_path))) == {"test"}
    out = capsys.readouterr().out
    assert "represents  not measured" in out.splitlines()
    assert "verdict" not in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "baseline:search", "--track", "fewshot"], "no network"),
        (["--model", "baseline:search", "--samples", "3"], "no network"),
        (["--num-fewshot", "2"], "expected --track fewshot"),
        (["--dialect", "python"], "expected --track fewshot"),
        (["--samples", "-1"], "at least 0"),
        (["--samples", "2", "--temperature", "0"], "more than 0"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*options, "--suite", "smoke", "--out", tmp_path) == 2
    assert said in capsys.readouterr().err


def test_a_context_that_examples_do_not_fit_in_is_said_beforehand(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = tmp_path / "short"
    model = LlamaForCausalLM.from_pretrained(folder)
    model.config.max_position_embeddings = 400
    model.save_pretrained(short)
    byte_pairs().save_pretrained(short)
    words = ["--model", f"path:{short}", "--suite", "smoke", "--out", tmp_path / "runs"]
    assert call(*words, "--dry-run") == 0
    assert call(*words, "--track", "fewshot") == 3
    error = capsys.readouterr().err
    assert f"({SUITE.shots} solved examples)" in error
    assert "--num-fewshot" not in error, "not even the description fits"
    model.config.max_position_embeddings = 1500
    model.save_pretrained(short)
    few = [*words, "--track", "fewshot", "--dry-run"]
    assert call(*few) == 3
    assert "run it with --num-fewshot 2, choose a suite" in capsys.readouterr().err
    assert call(*few, "--num-fewshot", 2) == 0
    assert call(*few, "--num-fewshot", 3) == 3


@pytest.mark.usefixtures("rendered_here")
def test_a_shared_preamble_changes_nothing_but_time(folder: Path) -> None:
    checkpoint, tasks = open_checkpoint(ModelSpec("path", str(folder))), tasks_of(SUITE).take(np.arange(4))
    frame = build_prompt_template(SUITE, FEWSHOT, HuggingFaceModel.load_tokenizer(checkpoint))
    prompts = render_prompts(SUITE, tasks, template=frame)
    prompts[::2] = [frame.before + prompt[prompt.rindex("output") :] for prompt in prompts[::2]]
    texts = [text.removeprefix(HEADER_TEXT).strip() for text in tasks.programs.texts()]
    shared = HuggingFaceModel(checkpoint, "float64", preamble=frame.before)
    plain = HuggingFaceModel(checkpoint, "float64")
    assert 100 < len(shared.preamble.ids) < len(shared.tokenizer(prompts[0])["input_ids"])
    for decoding in (Decoding(), Decoding(constrained=True), Decoding(temperature=1.0, seeds=(1, 2, 3, 4))):
        assert shared.generate(prompts, 6, decoding) == plain.generate(prompts, 6, decoding)
    one, two = shared.hidden_states(prompts, texts), plain.hidden_states(prompts, texts)
    assert np.abs(one.values - two.values).max() < 1e-5
    for (a, n), (b, m) in zip(
        shared.log_likelihoods(prompts, texts), plain.log_likelihoods(prompts, texts), strict=True
    ):
        assert (a, n) == (pytest.approx(b, abs=1e-6), m)
    assert shared.prefilled
    other = shared.generate([prompt[5:] for prompt in prompts], 3)
    assert other == plain.generate([prompt[5:] for prompt in prompts], 3), "prompts that do not begin so"


def test_raw_answers_are_kept_where_a_program_was_found_in_them() -> None:
    checkpoint = open_checkpoint(ModelSpec("baseline", "random"))
    worker = Worker(Job(SUITE, checkpoint, "float32", "cpu", 1, generation=GenerationOptions(track=FEWSHOT)))
    chatty = Generation("```def run() { move(); }```", 9, False)
    assert worker._sample(chatty) == {"text": " move(); }", "raw": chatty.text, "tokens": 9, "finished": False}
    assert "raw" not in worker._sample(Generation(" move(); }", 4, True))
    trained = Worker(replace(worker.job, generation=GenerationOptions()))
    assert trained._sample(chatty)["text"] == chatty.text
