"""Models whose files are not what they seem: refused in one line before any work, or evaluated as if they were sound."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from whole_runs import call

from benchmark.errors import ModelError
from benchmark.models import architecture
from benchmark.models.architecture import check_architecture
from benchmark.models.checkpoint import Checkpoint, check_unchanged, open_checkpoint
from benchmark.models.huggingface import HuggingFaceModel
from benchmark.models.interface import Decoding, ModelSpec
from karel_env.language import HEADER_TEXT

WEIGHTS = "model.safetensors"
PROMPT = f"input\n. > .\noutput\n. . >\nprogram\n{HEADER_TEXT}"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def sharp_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with weights so large that what it writes varies."""
    folder = linked(tiny_folder, tmp_path_factory.mktemp("sharp") / "model")
    torch.manual_seed(3)
    weights = load_file(tiny_folder / WEIGHTS)
    for values in weights.values():
        if values.ndim > 1:
            values.normal_(std=0.5)
    write_weights(folder, weights)
    return folder


def linked(source: Path, target: Path) -> Path:
    """A copy of hard links; files are replaced in it, never written to."""
    shutil.copytree(source, target, copy_function=os.link)
    return target


def write_weights(folder: Path, weights: Tensors, name: str = WEIGHTS) -> None:
    (folder / name).unlink(missing_ok=True)
    save_file({key: value.contiguous() for key, value in weights.items()}, folder / name, {"format": "pt"})


def change_json(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / name
    content = json.loads(path.read_text()) if path.is_file() else {}
    change(content)
    path.unlink(missing_ok=True)
    path.write_text(json.dumps(content))


def opened(folder: Path) -> Checkpoint:
    return open_checkpoint(ModelSpec("path", str(folder)))


def changed_weights(source: Path, target: Path, change: Callable[[Tensors], object]) -> Path:
    """A copy with other weights; `change` returns new ones, or edits those it is given."""
    folder = linked(source, target)
    weights = load_file(source / WEIGHTS)
    result = change(weights)
    write_weights(folder, result if isinstance(result, dict) else weights)
    return folder


def prefixed(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda weights: {prefix + name: values for name, values in weights.items()}


def without(part: str) -> Callable[[Tensors], Tensors]:
    return lambda weights: {name: values for name, values in weights.items() if part not in name}


def beside(**more: tuple[int, ...]) -> Callable[[Tensors], None]:
    return lambda weights: weights.update({name.replace("__", "."): torch.ones(shape) for name, shape in more.items()})


FAULTS: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "head": (without("lm_head"), r"lack weights: lm_head\.weight, the first of 1 missing; they would be drawn at random"),
    "block": (without("layers.1."), r"lack weights: model\.layers\.1\.\S+, the first of 9 missing"),
    "norm": (without("model.norm"), r"model\.norm\.weight, the first of 1 missing"),
    "embedding": (without("embed_tokens"), r"model\.embed_tokens\.weight, the first of 1 missing"),
    "compiled": (prefixed("_orig_mod."), r"missing, while 21 stored weights are unused.*'_orig_mod\.'.*torch\.compile"),
    "parallel": (prefixed("module."), r"'module\.'.*DataParallel"),
    "adapter": (prefixed("base_model.model."), "PEFT"),
    "extra block": (
        lambda w: w.update({k.replace("layers.1", "layers.2"): v.clone() for k, v in w.items() if "layers.1." in k}),
        r"stored weight model\.layers\.2\.\S+, the first of 9, has no place in LlamaForCausalLM",
    ),
    "head bias": (beside(lm_head__bias=(108,)), r"stored weight lm_head\.bias, the first of 1"),
    "query bias": (beside(model__layers__0__self_attn__q_proj__bias=(32,)), r"q_proj\.bias, the first of 1, has no place"),
    "attention bias": (beside(model__layers__0__self_attn__bias=(32,)), r"self_attn\.bias, the first of 1, has no place"),
    "other head": (beside(output__weight=(108, 32)), r"output\.weight, the first of 1, has no place"),
    "shape": (
        lambda w: w.update({"lm_head.weight": torch.ones(100, 32)}),
        r"lm_head\.weight is \[100, 32\] in its files, \[108, 32\] by config\.json, the first of 1",
    ),
    "twice": (beside(layers__0__mlp__up_proj__weight=(64, 32)), r"layers\.0\.mlp\.up_proj\.weight is stored twice"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_that_the_files_lack_or_leave_unused(fault, sharp_folder, tmp_path):
    change, message = FAULTS[fault]
    checkpoint = opened(changed_weights(sharp_folder, tmp_path / "model", change))
    for look in (check_architecture, HuggingFaceModel):
        with pytest.raises(ModelError, match=message) as caught:
            look(checkpoint)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layers", [4, 1])
def test_a_configuration_with_other_blocks_than_are_stored(layers, sharp_folder, tmp_path):
    folder = linked(sharp_folder, tmp_path / "model")
    change_json(folder, "config.json", lambda config: config.update(num_hidden_layers=layers))
    with pytest.raises(
        ModelError, match=r"model\.layers\.2\.\S+, the first of 18 missing|layers\.1\.\S+, the first of 9,"
    ):
        check_architecture(opened(folder))


def test_a_run_of_it_ends_before_any_work(sharp_folder, tmp_path, capsys):
    folder = changed_weights(sharp_folder, tmp_path / "model", without("lm_head"))
    words = ("--model", f"path:{folder}", "--suite", "smoke", "--limit", 4, "--no-states", "--out", tmp_path / "runs")
    for more in ((), ("--dry-run",)):
        assert call(*words, *more) == 3
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert "lm_head.weight" in error
    assert not (tmp_path / "runs").exists()


ALLOWED: dict[str, Callable[[Tensors], object]] = {
    "value head": beside(v_head__summary__weight=(1, 32), v_head__summary__bias=(1,)),
    "classifier": beside(score__weight=(2, 32)),
    "mask buffers": beside(model__layers__0__self_attn__bias=(1, 1, 8, 8), model__layers__0__self_attn__masked_bias=()),
    "frequencies": beside(model__layers__0__self_attn__rotary_emb__inv_freq=(8,)),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_may_lie_beside_is_no_fault_and_no_parameter(case, sharp_folder, tmp_path):
    folder = changed_weights(sharp_folder, tmp_path / "model", ALLOWED[case])
    checkpoint = opened(folder)
    check_architecture(checkpoint)
    model = HuggingFaceModel(checkpoint)
    assert checkpoint.parameters == sum(values.numel() for values in model.model.parameters())
    assert checkpoint.parameters == opened(sharp_folder).parameters
    assert model.generate([PROMPT], 4) == HuggingFaceModel(opened(sharp_folder)).generate([PROMPT], 4)


@pytest.mark.parametrize("stored", ["once", "twice", "as head"])
def test_a_tied_head_is_counted_once(stored, sharp_folder, tmp_path):
    def tie(weights: Tensors) -> None:
        embedding, head = "model.embed_tokens.weight", "lm_head.weight"
        weights[head] = weights[embedding].clone()
        if stored != "twice":
            del weights[head if stored == "once" else embedding]

    folder = changed_weights(sharp_folder, tmp_path / "model", tie)
    change_json(folder, "config.json", lambda config: config.update(tie_word_embeddings=True))
    checkpoint = opened(folder)
    model = HuggingFaceModel(checkpoint).model
    assert checkpoint.parameters == sum(values.numel() for values in model.parameters())
    assert checkpoint.parameters == opened(sharp_folder).parameters - 108 * 32


def test_shards_beside_the_same_weights_in_one_file(sharp_folder, tmp_path):
    folder = linked(sharp_folder, tmp_path / "model")
    HuggingFaceModel(opened(folder)).model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    for path in (tmp_path / "shards").glob("model*"):
        os.link(path, folder / path.name)
    assert len(list(folder.glob("*.safetensors"))) > 2
    assert opened(folder).parameters == opened(sharp_folder).parameters
    (folder / WEIGHTS).unlink()
    assert opened(folder).parameters == opened(sharp_folder).parameters
    check_architecture(opened(folder))


GENERATION_SETTINGS: dict[str, dict[str, Any]] = {
    "penalties": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_length": 30, "length_penalty": 2.0},
    "returns": {"return_dict_in_generate": True, "output_scores": True, "output_hidden_states": True},
    "static cache": {"cache_implementation": "static"},
    "no cache": {"use_cache": False},
    "words": {"suppress_tokens": [40, 41, 42, 43, 44], "begin_suppress_tokens": [45], "bad_words_ids": [[46], [47]]},
    "forced": {"forced_bos_token_id": 50, "forced_eos_token_id": 51, "exponential_decay_length_penalty": [2, 1.5]},
    "watermark": {"watermarking_config": {"greenlist_ratio": 0.25, "bias": 9.0, "seeding_scheme": "lefthash"}},
    "search": {"num_beams": 4, "do_sample": True, "temperature": 5.0, "top_k": 3, "num_return_sequences": 2, "penalty_alpha": 0.6},
    "strings": {"stop_strings": ["move"], "max_length": 3, "max_new_tokens": 1, "max_time": 0.0},
    "nonsense": {"temperature": -1, "num_beams": "many", "guidance_scale": 3.0, "sequence_bias": [[[5], 40.0]]},
    "speculation": {"prompt_lookup_num_tokens": 3, "assistant_early_exit": 1, "is_assistant": True},
}  # fmt: skip


def answers(folder: Path) -> list[object]:
    model = HuggingFaceModel(opened(folder))
    decodings = (Decoding(), Decoding(constrained=True), Decoding(temperature=0.8, seeds=(7, 8)))
    return [model.generate([PROMPT, PROMPT[6:]], 8, decoding) for decoding in decodings]


@pytest.fixture(scope="module")
def sound_answers(sharp_folder: Path) -> list[object]:
    return answers(sharp_folder)


@pytest.mark.parametrize("settings", GENERATION_SETTINGS)
@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
def test_settings_of_generation_change_no_answer(name, settings, sharp_folder, sound_answers, tmp_path):
    folder = linked(sharp_folder, tmp_path / "model")
    if name == "config.json":
        (folder / "generation_config.json").unlink()
        if settings in ("returns", "nonsense"):
            pytest.skip("as fields of a configuration they are other settings, or none")
    change_json(folder, name, lambda content: content.update(GENERATION_SETTINGS[settings]))
    assert answers(folder) == sound_answers


def test_only_end_marks_are_taken(sharp_folder, tmp_path):
    (sound,) = HuggingFaceModel(opened(sharp_folder)).generate([PROMPT], 8)
    first = HuggingFaceModel(opened(sharp_folder)).new_tokens([PROMPT], 3)[0]
    folder = linked(sharp_folder, tmp_path / "model")
    change_json(folder, "generation_config.json", lambda content: content.update(eos_token_id=[1, first[2], 10**6]))
    model = HuggingFaceModel(opened(folder))
    (ended,) = model.generate([PROMPT], 8)
    assert ended.finished
    assert ended.tokens == 2
    assert sound.text.startswith(ended.text)
    change_json(folder, "generation_config.json", lambda content: content.update(eos_token_id="end"))
    with pytest.raises(ModelError, match='eos_token_id is "end"; expected a token\'s number'):
        HuggingFaceModel(opened(folder))


def test_words_marked_special_stay_in_answers(sharp_folder, sound_answers, tmp_path):
    folder = linked(sharp_folder, tmp_path / "model")

    def mark(content: dict[str, Any]) -> None:
        for word in ("move();", "turn_left();", "}", "{", "(", "repeat"):
            if word in content["model"]["vocab"]:
                entry = {"id": content["model"]["vocab"][word], "content": word, "special": True}
                content["added_tokens"].append(
                    entry | {"single_word": True, "lstrip": False, "rstrip": False, "normalized": False}
                )
        content["added_tokens"].sort(key=lambda token: token["id"])

    change_json(folder, "tokenizer.json", mark)
    model = HuggingFaceModel(opened(folder))
    assert "move();" in model.tokenizer.all_special_tokens or "move();" in str(model.tokenizer.added_tokens_decoder)
    assert answers(folder) == sound_answers


def test_a_word_as_pad_token_stays_in_answers(sharp_folder, sound_answers, tmp_path):
    folder = linked(sharp_folder, tmp_path / "model")
    change_json(folder, "tokenizer_config.json", lambda content: content.update(pad_token="move();"))
    assert answers(folder)[0] == sound_answers[0]


def test_weights_written_to_while_a_model_is_loaded_do_not_reach_it(sharp_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(sharp_folder, folder)
    checkpoint = opened(folder)
    model = HuggingFaceModel(checkpoint)
    before = model.generate([PROMPT], 8)
    content = (folder / WEIGHTS).read_bytes()
    with (folder / WEIGHTS).open("r+b") as file:
        file.seek(len(content) // 2)
        file.write(bytes(len(content) // 2))
    model.prefilled.clear()
    assert model.generate([PROMPT], 8) == before
    with pytest.raises(ModelError, match="its files have changed since the run began"):
        check_unchanged(checkpoint)
    with pytest.raises(ModelError, match="its files have changed since the run began"):
        HuggingFaceModel(checkpoint)


def test_weights_replaced_while_a_run_goes_on_end_it_without_a_record(sharp_folder, tmp_path, monkeypatch, capsys):
    folder = linked(sharp_folder, tmp_path / "model")
    generate = HuggingFaceModel.generate

    def replaced(self, *given):
        write_weights(folder, {name: values * 1.5 for name, values in load_file(sharp_folder / WEIGHTS).items()})
        return generate(self, *given)

    monkeypatch.setattr(HuggingFaceModel, "generate", replaced)
    words = ("--model", f"path:{folder}", "--suite", "smoke", "--limit", 4, "--no-states", "--out", tmp_path / "runs")
    assert call(*words) == 3
    assert "have changed since the run began" in capsys.readouterr().err
    assert not list((tmp_path / "runs").glob("*/record.json"))


def test_threads_make_models_one_after_the_other(tiny_folder, monkeypatch):
    """transformers replaces `tie_weights` of all its classes while it makes a model; two threads would leave it replaced."""
    checkpoint = open_checkpoint(ModelSpec("path", str(tiny_folder)))
    real, inside, most, entered = architecture.AutoModelForCausalLM.from_pretrained, [], [], Event()

    def load(*arguments, **options):
        inside.append(1)
        most.append(len(inside))
        # The first waits until the second has come as far as it can.
        entered.wait(0.2)
        model = real(*arguments, **options)
        inside.pop()
        return model

    monkeypatch.setattr(architecture.AutoModelForCausalLM, "from_pretrained", load)
    tie = transformers.PreTrainedModel.tie_weights
    threads = [Thread(target=architecture.check_architecture, args=(checkpoint,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]
    assert transformers.PreTrainedModel.tie_weights is tie
