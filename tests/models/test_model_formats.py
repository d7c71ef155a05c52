"""Folders that hold no model that can be read, each named for what it is; and files that strangers made to do harm."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_server import Repository, folder_files, serving
from huggingface_hub import constants
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from whole_runs import call

from benchmark.cli.options import resolve_device
from benchmark.doctor import command as doctor
from benchmark.errors import ModelError, UsageError
from benchmark.models.checkpoint import open_checkpoint
from benchmark.models.huggingface import HuggingFaceModel
from benchmark.models.interface import ModelSpec
from benchmark.models.loading import load_bounded
from karel_env.language import WORDS

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of hard links; files are replaced in it, never written to."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model", copy_function=os.link))


def write(path: Path, content: str | bytes) -> None:
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def change_json(path: Path, **fields: Any) -> None:
    write(path, json.dumps(json.loads(path.read_text()) | fields))


def opened(folder: Path):
    return open_checkpoint(ModelSpec("path", str(folder)))


def into(folder: Path, *subfolders: str) -> None:
    for name in subfolders:
        shutil.copytree(folder, folder / name, copy_function=os.link, ignore=shutil.ignore_patterns(*subfolders))
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()


def only_file(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        write(folder / name, b"x")

    return change


def adapter(folder: Path) -> None:
    into(folder)
    write(folder / "adapter_config.json", json.dumps({"peft_type": "LORA", "base_model_name_or_path": "org/base"}))
    write(folder / "adapter_model.safetensors", b"x")


FORMATS: dict[str, tuple[Callable[[Path], object], str]] = {
    "adapter": (adapter, r"an adapter \(PEFT\) of the model 'org/base', no model; .*merge_and_unload"),
    "adapter beside": (
        lambda folder: write(folder / "adapter_config.json", '{"base_model_name_or_path": "org/base"}'),
        "an adapter .* remove adapter_config.json beside whole weights",
    ),
    "gguf": (only_file("model-Q4_K_M.gguf"), r"only as model-Q4_K_M\.gguf \(GGUF, the format of llama\.cpp\)"),
    "onnx": (only_file("model.onnx"), r"only as model\.onnx \(ONNX\)"),
    "flax": (only_file("flax_model.msgpack"), "a Flax format"),
    "tensorflow": (only_file("tf_model.h5"), "a TensorFlow format"),
    "pickle": (only_file("pytorch_model.bin"), r"pytorch_model\.bin, a format that can run code"),
    "sharded pickle": (only_file("pytorch_model.bin.index.json"), "a format that can run code"),
    "other name": (only_file("model.fp16.safetensors"), r"has model\.fp16\.safetensors, but no model\.safetensors"),
    "trainer": (
        lambda folder: into(folder, "checkpoint-20", "checkpoint-100", "runs"),
        r"Trainer output folder, with its checkpoints checkpoint-20, checkpoint-100; .* path:\S+/model/checkpoint-100$",
    ),
    "subfolder": (lambda folder: into(folder, "text"), r"weights lie in the subfolder text; give path:\S+/model/text$"),
    "empty": (lambda folder: into(folder), r"no \*\.safetensors weights"),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), r"has no config\.json"),
    "broken": (lambda folder: write(folder / "config.json", '{"model_type": '), r"config\.json: not JSON \(Expecting value"),
    "not text": (lambda folder: write(folder / "config.json", b"\xff\xfe\x00"), r"config\.json: not JSON"),
    "a list": (lambda folder: write(folder / "config.json", "[]"), r"config\.json: holds a list; expected an object"),
    "no type": (lambda folder: write(folder / "config.json", "{}"), "names no model_type"),
    "deep": (lambda folder: write(folder / "config.json", '{"a":' * 90_000 + "1" + "}" * 90_000), "nested too deep"),
    "fairly deep": (lambda folder: write(folder / "config.json", '{"a":' * 300 + "1" + "}" * 300), "more than 100 deep"),
    "huge": (lambda folder: write(folder / "config.json", " " * 3_000_000), "3,000,000 bytes; expected at most"),
    "labels": (lambda folder: change_json(folder / "config.json", num_labels=1_000_000), "num_labels is 1,000,000"),
    "blocks": (lambda folder: change_json(folder / "config.json", num_hidden_layers=10**6), "num_hidden_layers is 1,000,000"),
    "vocabulary": (lambda folder: change_json(folder / "config.json", vocab_size=10**15), "vocab_size is 1000000000000000"),
    "elsewhere": (
        lambda folder: change_json(folder / "config.json", transformers_weights="other.safetensors"),
        "names its weights by transformers_weights",
    ),
    "cut": (
        lambda folder: write(folder / WEIGHTS, (folder / WEIGHTS).read_bytes()[:-9]),
        r"model\.safetensors: ends after .* bytes, before",
    ),
    "deep header": (
        lambda folder: write(folder / WEIGHTS, struct.pack("<Q", 200_000) + b"[" * 200_000),
        "not a safetensors file",
    ),
    "shard elsewhere": (
        lambda folder: (
            (folder / WEIGHTS).rename(folder / "a.safetensors"),
            write(folder / f"{WEIGHTS}.index.json", '{"weight_map": {"a": "../a.safetensors"}}'),
        ),
        r"names the shard '\.\./a\.safetensors'; expected files beside it",
    ),
    "numbers for shards": (
        lambda folder: ((folder / WEIGHTS).unlink(), write(folder / f"{WEIGHTS}.index.json", '{"weight_map": {"a": 1}}')),
        "not an index of shards",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_folder_holds_instead_is_named(name, folder):
    change, message = FORMATS[name]
    change(folder)
    with pytest.raises(ModelError, match=message) as caught:
        opened(folder)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


def test_a_file_is_no_folder(folder):
    with pytest.raises(ModelError, match="is a file; give a folder"):
        opened(folder / WEIGHTS)


def test_weights_in_a_subfolder_of_the_hub(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        repository = server.repositories["org/nested"] = Repository()
        files = {f"text/{name}": content for name, content in folder_files(tiny_folder).items()}
        repository.commit({"README.md": b"#", **files}, "main")
        with pytest.raises(ModelError, match=r"subfolder text; .*`hf download org/nested --include 'text/\*'"):
            open_checkpoint(ModelSpec.parse("hf:org/nested"))


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CPU", "mps", "cuda:-1", ""])
def test_devices_that_are_none(device, tmp_path, capsys):
    with pytest.raises(UsageError, match="expected auto, cpu, cuda or cuda:N"):
        resolve_device(device)
    if device == "gpu":
        assert call("--device", "gpu", "--suite", "smoke", "--out", tmp_path) == 2
        assert "a GPU is cuda" in capsys.readouterr().err
        assert doctor.main(["--model", "baseline:random", "--device", "gpu", "--load-deadline", "0"]) == 2


def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a run says, before any work."""
    out = folder.parent / "runs"
    assert call("--model", f"path:{folder}", "--suite", "smoke", "--limit", 4, "--no-states", "--out", out) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert not out.exists()
    return error


@pytest.mark.parametrize("left", [(), ("tokenizer_config.json",)])
def test_a_folder_without_a_tokenizer(left, folder, capsys):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if name not in left:
            (folder / name).unlink()
    assert "tokenizer" in refused(folder, capsys)


def test_a_tokenizer_of_another_model(folder, capsys):
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["move();"] = 5000
    write(folder / "tokenizer.json", json.dumps(content))
    assert "gives token 5000, the model has 108 embeddings (0 to 107)" in refused(folder, capsys)


@pytest.mark.parametrize("unknown", [True, False])
def test_signs_that_share_a_token(unknown, folder, capsys):
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<end>", "<unk>", *WORDS])}
    signs = ["input", "output", "program", ".", "#", "^", ">", "v", "<", *(g + n for g in "^>v<" for n in "123456789")]
    if not unknown:
        vocabulary |= {sign: len(vocabulary) + i for i, sign in enumerate([*signs, *"123456789"])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if not unknown:
        inner.normalizer = normalizers.Replace("<", ">")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="<end>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    tokenizer.save_pretrained(folder)
    error = refused(folder, capsys)
    assert ("the unknown token <unk>" if unknown else "'>' the tokens of '<'") in error
    assert doctor.main(["--model", f"path:{folder}", "--load-deadline", "0"]) == 3
    assert "fail  words" in capsys.readouterr().out


PANICS: dict[str, dict[str, Any]] = {
    "normalizer": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    "pieces of no length": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "mark": {
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x", "type_id": 0}}], "pair": [],
                           "special_tokens": {}}
    },
    "no words": {"model": {"type": "Unigram", "unk_id": 0, "vocab": []}},
    "no model": {"model": None},
}  # fmt: skip


@pytest.mark.parametrize("name", PANICS)
def test_tokenizer_files_that_make_the_loader_panic(name, folder, capfd):
    change_json(folder / "tokenizer.json", **PANICS[name])
    with pytest.raises(ModelError, match="no usable tokenizer: ") as caught:
        HuggingFaceModel.load_tokenizer(opened(folder))
    assert "\n" not in str(caught.value)
    assert "panicked" not in capfd.readouterr().err


def test_limits_of_loading(folder, tmp_path, capsys):
    checkpoint = opened(folder)
    load_bounded(checkpoint, "float32", "cpu", seconds=1200.0, memory=3_000_000_000)
    with pytest.raises(ModelError, match=r"took more than 0\.1 GB of memory"):
        load_bounded(checkpoint, "float32", "cpu", seconds=1200.0, memory=100_000_000)
    words = ("--model", f"path:{folder}", "--suite", "smoke", "--limit", 4, "--no-states", "--out", tmp_path / "runs")
    assert call(*words, "--load-deadline", 0.05) == 3
    error = capsys.readouterr().err
    assert "took more than 0.05 s (the deadline)" in error
    assert error.count("\n") == 1
    assert doctor.main(["--model", f"path:{folder}", "--load-deadline", "0.05"]) == 3
    for wrong in ("nan", "-1", "inf"):
        assert call(*words, "--load-deadline", wrong) == 2
        assert call(*words, "--memory-limit", wrong) == 2


OTHER_KINDS = {
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 10\n",
    "a web page": b"<!DOCTYPE html><html><body>401</body></html>",
    "an archive, as torch.save writes": b"PK\x03\x04" + bytes(90),
    "a GGUF file": b"GGUF" + bytes(90),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "generation_config.json"])
def test_a_file_that_is_of_another_kind_than_its_name(name, kind, folder, capsys):
    # Unlinked first: it shares its bytes with the model of other tests.
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_bytes(OTHER_KINDS[kind])
    assert f"{name}: {kind}" in refused(folder, capsys)
