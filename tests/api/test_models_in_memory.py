"""Models held in memory: the same figures as from files, an identity of their own, and nothing of the object changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from quick_protocol import QUICK, SMALL_SUITE, make_runs_quick
from transformers import AutoModelForCausalLM, AutoTokenizer

import benchmark as kb
from benchmark.api import evaluation
from benchmark.runner.folder import read_probes
from benchmark.runner.record import read_record


@pytest.fixture
def pair(tiny_folder):
    return AutoModelForCausalLM.from_pretrained(tiny_folder), AutoTokenizer.from_pretrained(tiny_folder)


@pytest.fixture(scope="module")
def report(tiny_folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        make_runs_quick(patch.setattr)
        model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_folder), AutoTokenizer.from_pretrained(tiny_folder)
        return kb.evaluate(
            model, tokenizer, suite=SMALL_SUITE, protocol=QUICK, output_dir=tmp_path_factory.mktemp("runs")
        )


def test_a_run_in_memory_gives_the_figures_of_the_files(report, undisturbed):
    record, own = read_record(undisturbed / "record.json"), report.record
    assert own.accuracy == record.accuracy
    assert own.meaning == record.meaning
    assert own.content == record.content
    stored = read_probes(undisturbed)
    for name, array in read_probes(report.folder).items():
        np.testing.assert_array_equal(stored[name], array, err_msg=name)
    assert (report.folder / "samples.jsonl.gz").read_bytes() == (undisturbed / "samples.jsonl.gz").read_bytes()
    assert report.verdict == record.meaning.verdict
    assert report.row["verdict"] == report.verdict
    assert report.verdict in str(report)
    assert len(report.sample_rows()) == 8 + 28
    assert {"stage", "task", "text", "outcome"} <= set(report.sample_rows()[0])


def test_it_is_named_as_what_it_is(report, undisturbed):
    assert report.record.model.spec == "memory:LlamaForCausalLM"
    assert not report.record.official
    assert any("in memory" in reason for reason in report.record.unofficial)
    assert report.record.model.parameters == read_record(undisturbed / "record.json").model.parameters


def test_the_digest_is_of_weights_configuration_and_tokenizer(pair):
    model, tokenizer = pair
    digest = kb.wrap(model, tokenizer).digest
    assert kb.wrap(model, tokenizer, name="another").digest == digest
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    changed = kb.wrap(model, tokenizer).digest
    model.config.rms_norm_eps *= 2
    configured = kb.wrap(model, tokenizer).digest
    tokenizer.add_tokens(["new"])
    assert len({digest, changed, configured, kb.wrap(model, tokenizer).digest}) == 4


@pytest.mark.usefixtures("quick")
def test_a_model_that_changes_while_it_is_evaluated_is_refused(pair, tmp_path):
    model, tokenizer = pair

    class Training:
        def start(self, description, total, completed=0):
            with torch.no_grad():
                model.lm_head.weight[0, 0] += 1

        def advance(self, steps, description=None):
            pass

        def write(self, message):
            pass

    with pytest.raises(kb.ModelError, match="have changed since the run began"):
        kb.evaluate(model, tokenizer, suite=SMALL_SUITE, protocol=QUICK, output_dir=tmp_path, progress=Training())


@pytest.mark.usefixtures("quick")
def test_the_object_is_left_as_it_was(pair, capsys):
    model, tokenizer = pair
    model.train()
    model.model.layers[0].eval()
    flags = [module.training for module in model.modules()]
    model.generation_config.repetition_penalty = 3.0
    settings, side = model.generation_config.to_dict(), tokenizer.padding_side
    threads = torch.get_num_threads()
    report = kb.evaluate(kb.wrap(model, tokenizer), suite=SMALL_SUITE, accuracy_only=True, progress=True)
    assert "evaluating" in capsys.readouterr().err
    kb.hidden_states(kb.wrap(model, tokenizer), kb.blind_probe_set(SMALL_SUITE, 10, protocol=QUICK))
    assert [module.training for module in model.modules()] == flags
    assert model.generation_config.to_dict() == settings
    assert tokenizer.padding_side == side
    assert torch.get_num_threads() == threads
    assert report.verdict is None
    folder = report.folder
    assert (folder / "record.json").is_file()
    del report
    assert not folder.exists()


@pytest.mark.usefixtures("quick")
def test_specs_folders_and_loaded_models_are_evaluated(tiny_folder, undisturbed, tmp_path):
    options = {"suite": kb.load_suite("smoke"), "limit": 2, "accuracy_only": True, "output_dir": tmp_path}
    reports = [
        kb.evaluate(model, **options) for model in (tiny_folder, f"path:{tiny_folder}", kb.load_model(tiny_folder))
    ]
    assert len({report.folder for report in reports}) == 1
    assert reports[0].record == reports[2].record
    assert kb.evaluate("baseline:random", suite="smoke", limit=2).verdict is None
    complete = kb.evaluate(tiny_folder, suite=SMALL_SUITE, protocol=QUICK, output_dir=undisturbed.parent)
    assert complete.folder == undisturbed


class OwnModel:
    """Counts characters; a model that transformers knows nothing of."""

    def __init__(self, scale=1.0):
        self.scale = scale

    def generate(self, prompts, max_new_words):
        from benchmark.models.interface import Generation

        return [Generation("move(); }", 2, True) for _ in prompts]

    def hidden_states(self, prompts, programs):
        from benchmark.models.interface import HiddenStates

        counts = [len(program.split()) for program in programs]
        codes = [[hash_code(word), index] for program in programs for index, word in enumerate(program.split())]
        rows = np.arange(sum(counts))
        values = self.scale * np.array(codes, np.float32)[:, None]
        return HiddenStates(values, rows, rows, np.concatenate([[0], np.cumsum(counts)]))


def hash_code(word: str) -> int:
    return sum(map(ord, word))


def test_objects_with_methods_of_ones_own(tmp_path):
    probes = kb.blind_probe_set(SMALL_SUITE, 20, protocol=QUICK)
    model = kb.wrap(OwnModel(), random_init=lambda seed: OwnModel(seed))
    hidden = kb.hidden_states(model, probes)
    assert hidden.shape == (probes.num_rows, 1, 2)
    controls = kb.standard_controls(model, probes)
    assert len(controls["random-init"]) == QUICK.random_inits
    np.testing.assert_array_equal(controls["random-init"][0].last, 52_711 * hidden[:, 0])
    assert kb.measure(probes, hidden, controls).verdict in ("RECORD-ONLY", "INCONCLUSIVE")
    assert kb.generate_programs(model, SMALL_SUITE, kb.load_tasks(SMALL_SUITE, 3)) == ["move(); }"] * 3
    with pytest.raises(kb.ModelError, match="no untrained copies"):
        kb.standard_controls(kb.wrap(OwnModel()), probes)
    with pytest.raises(kb.ModelError, match="has no identity"):
        kb.evaluate(model, suite=SMALL_SUITE)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda model, tokenizer: kb.wrap(model), "needs its tokenizer"),
        (lambda model, tokenizer: kb.wrap(object()), "without a tokenizer"),
        (lambda model, tokenizer: kb.wrap(object(), tokenizer), "no transformers model"),
        (lambda model, tokenizer: kb.wrap(model, object()), "no fast tokenizer"),
        (lambda model, tokenizer: kb.load_model("nothing of the kind"), "expected a folder, path:"),
        (lambda model, tokenizer: kb.load_model("./nowhere"), "no folder at nowhere"),
        (lambda model, tokenizer: kb.load_model("path:nowhere", dtype="int4"), "dtype: 'int4'"),
        (lambda model, tokenizer: kb.load_model("path:nowhere/x", device="tpu"), "device: 'tpu'"),
        (lambda model, tokenizer: kb.evaluate(model, tokenizer, dtype="float16"), "evaluated as it is"),
        (lambda model, tokenizer: kb.evaluate(kb.wrap(model, tokenizer), tokenizer), "loaded already"),
        (lambda model, tokenizer: kb.evaluate(model, tokenizer, detail="layer"), "did you mean layers"),
        (lambda model, tokenizer: kb.evaluate(model, tokenizer, limit=0), "expected at least 1"),
        (lambda model, tokenizer: kb.evaluate(model, tokenizer, n_samples=1, temperature=0), "expected more than 0"),
        (lambda model, tokenizer: kb.hidden_states("baseline:random", kb.blind_probe_set("smoke")), "no hidden states"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(call, says, pair):
    with pytest.raises(kb.BenchmarkError) as caught:
        call(*pair)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_suite_that_was_changed_in_memory_is_refused(pair):
    from dataclasses import replace

    with pytest.raises(kb.InputError, match="or differs from it"):
        kb.evaluate(*pair, suite=replace(kb.load_suite("smoke"), shown=1))
    with pytest.raises(kb.InputError, match="small is no shipped suite"):
        kb.evaluate(*pair, suite=kb.load_suite(SMALL_SUITE))


@pytest.mark.usefixtures("quick")
def test_the_few_shot_track_and_samples_of_a_model_in_memory(pair):
    model, tokenizer = pair
    model.config.max_position_embeddings = 1024
    report = kb.evaluate(model, tokenizer, suite=SMALL_SUITE, limit=2, track="fewshot", n_samples=2, accuracy_only=True)
    assert report.record.track == "fewshot"
    assert report.record.frame.shots == 4
    assert report.record.sampled is not None
    assert [row["stage"] for row in report.sample_rows()].count("sampled") == 2 * 2


def test_weights_on_several_devices_are_refused(pair):
    model, tokenizer = pair
    model.lm_head.to("meta")
    with pytest.raises(kb.ModelError, match="weights on cpu, meta"):
        kb.wrap(model, tokenizer)


def test_programs_are_scored_with_and_without_their_header():
    tasks = kb.load_tasks("smoke", 4)
    references = tasks.programs.texts()
    prompts = kb.task_prompts("smoke", tasks)
    assert all(prompt.endswith("program\ndef run() {") for prompt in prompts)
    scores = kb.score_programs("smoke", tasks, references)
    assert kb.summarize(scores).both.value == 1
    bare = [text.removeprefix("def run() {") for text in references[:2]]
    scores = kb.score_programs("smoke", tasks, [*bare, "", "fly(); }"])
    assert scores.shown.tolist() == [True, True, False, False]
    assert kb.summarize(scores).failures["empty"] == 1
    for programs, says in (("move(); }", "one text"), (references[:3], "3 texts"), ([1, 2, 3, 4], "no text")):
        with pytest.raises(ValueError, match=says):
            kb.score_programs("smoke", tasks, programs)
    with pytest.raises(ValueError, match="limit: 0"):
        kb.load_tasks("smoke", 0)


def test_few_programs_are_an_option_of_the_run(tiny_folder, monkeypatch):
    runs = []

    def stop(run, *_):
        runs.append(run)
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "_execute", stop)
    for few_programs in (False, True):
        with pytest.raises(KeyboardInterrupt):
            kb.evaluate(tiny_folder, suite="smoke", few_programs=few_programs)
    assert [run.config.has_few_programs for run in runs] == [False, True]
