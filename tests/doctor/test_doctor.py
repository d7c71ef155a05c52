"""The doctor finds a sound model sound, and names what is broken in one that is not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from byte_pairs import byte_pairs
from families import family_params, metaspace_tokenizer, save
from quick_protocol import SHORT_SUITE
from safetensors.torch import load_file, save_file

import benchmark.models.huggingface
from benchmark.doctor import command as doctor
from benchmark.doctor import context, examination

ROOT = Path(__file__).parents[2]


def outcomes(capsys, *words: object, only: str | None = None) -> tuple[int, dict[str, str], str]:
    """Exit code, outcome of each check by its name, and the report.

    With `only`, names of checks that are separated by commas, the checks that no later one requires are left out.
    """
    # Loading once in a process of its own is tested apart; it takes seconds.
    words = (*(str(word) for word in words), "--suite", SHORT_SUITE, "--load-deadline", "0")
    with pytest.MonkeyPatch.context() as patch:
        if only is not None:
            for checks in ("CHECKS", "CUSTOM_CHECKS"):
                selected = tuple(
                    check for check in getattr(examination, checks) if check[2] or check[0] in only.split(",")
                )
                patch.setattr(examination, checks, selected)
        code = doctor.main(words)
    report = capsys.readouterr().out
    lines = report.splitlines()[1:-1]
    return code, {line[6:24].strip(): line[:6].strip() for line in lines}, report


@pytest.mark.parametrize("family", family_params(["llama", "jamba"], ["llama"]))
def test_a_sound_model_is_usable(family, tmp_path, capsys):
    code, found, report = outcomes(capsys, "--model", f"path:{save(family, tmp_path)}")
    assert code == 0, report
    assert list(found) == [name for name, _, _ in examination.CHECKS]
    # Random weights do not close brackets in time; nothing else is to be said of it.
    assert [name for name, outcome in found.items() if outcome != context.OK] in ([], ["generation"]), report
    assert report.splitlines()[-1].startswith("usable")


def test_python_text_is_aligned_with_tokens(tmp_path, capsys):
    """Words, states at them, likelihoods, generation: all of programs as Python text, with one solved example."""
    words = ["--model", f"path:{save('llama', tmp_path, byte_pairs())}", "--track", "fewshot", "--num-fewshot", 1]
    code, found, report = outcomes(
        capsys, *words, "--dialect", "python", only="causality,alignment,padding,generation,argmax"
    )
    assert code == 0, report
    assert {found[name] for name in ("words", "causality", "alignment", "padding", "argmax")} == {context.OK}, report
    assert doctor.main(["--model", str(words[1]), "--dialect", "python"]) == 2
    assert "expected --track fewshot" in capsys.readouterr().err


@pytest.mark.parametrize(("family", "layer"), [pytest.param("mamba", 0, marks=pytest.mark.slow), ("opt-projected", 2)])
def test_a_layer_that_transformers_does_not_give(family, layer, tmp_path, capsys):
    code, found, report = outcomes(capsys, "--model", f"path:{save(family, tmp_path)}", only="alignment")
    assert (code, found["alignment"]) == (0, context.WARN)
    assert f"it returns no layer {layer}," in report


def test_words_without_tokens_of_their_own(tmp_path, capsys):
    folder = save("gpt2", tmp_path, metaspace_tokenizer(split=False))
    code, found, report = outcomes(capsys, "--model", f"path:{folder}")
    assert (code, found["words"]) == (3, context.FAIL)
    assert "one token holds the end of" in report
    assert "loading" not in found
    assert "fix this first: words" in report


def test_weights_that_are_not_numbers(tmp_path, capsys):
    folder = save("gpt2", tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["transformer.h.1.mlp.c_fc.weight"][0, 0] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    code, found, report = outcomes(capsys, "--model", f"path:{folder}")
    assert (code, found["loading"]) == (3, context.FAIL)
    assert "NaN" in report


def test_padding_that_enters_the_states(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(benchmark.models.huggingface, "PADDING_SENSITIVE_TYPES", ())
    code, found, report = outcomes(
        capsys, "--model", f"path:{save('recurrent-gemma', tmp_path)}", only="alignment,padding"
    )
    assert (code, found["padding"]) == (3, context.FAIL)
    assert found["alignment"] == context.OK
    assert "--batch-size 1" in report


def test_states_of_the_wrong_tokens(tmp_path, capsys, monkeypatch):
    real = benchmark.models.huggingface.align_tokens

    def shifted(*given):
        found = real(*given)
        return type(found)(found.ids, found.first, found.last - 1)

    monkeypatch.setattr(benchmark.models.huggingface, "align_tokens", shifted)
    code, found, _ = outcomes(capsys, "--model", f"path:{save('gpt2', tmp_path)}", only="alignment,padding")
    assert (code, found["alignment"], found["padding"]) == (3, context.FAIL, context.OK)


def test_numbers_drawn_in_every_pass(tmp_path, capsys, monkeypatch):
    real = benchmark.models.huggingface.HuggingFaceModel._read_states
    drawn = lambda *given: [rows + 1e-5 * np.random.default_rng().random(rows.shape) for rows in real(*given)]  # noqa: E731
    monkeypatch.setattr(benchmark.models.huggingface.HuggingFaceModel, "_read_states", drawn)
    code, found, _ = outcomes(capsys, "--model", f"path:{save('gpt2', tmp_path)}", only="batch sizes")
    assert (code, found["batch sizes"]) == (3, context.FAIL)


def test_a_context_that_is_too_short(tmp_path, capsys):
    folder = save("llama", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 50}))
    code, found, report = outcomes(capsys, "--model", f"path:{folder}")
    assert (code, found["context"]) == (3, context.FAIL)
    assert "context of 50 tokens" in report


def test_precision_is_compared_with_float32(tmp_path, capsys):
    _, found, report = outcomes(
        capsys, "--model", f"path:{save('llama', tmp_path)}", "--dtype", "bfloat16", only="precision"
    )
    assert found["precision"] in (context.OK, context.WARN)
    assert "of float32" in report


def test_a_baseline_has_no_states(capsys):
    code, found, report = outcomes(capsys, "--model", "baseline:random")
    assert code == 0
    assert list(found) == ["hidden states", "generation"]
    assert "not a network" in report


def test_what_is_no_model(tmp_path, capsys):
    assert doctor.main(["--model", "tiny", "--load-deadline", "0"]) == 2
    assert doctor.main(["--model", f"path:{tmp_path}", "--load-deadline", "0"]) == 3
    assert "no *.safetensors weights" in capsys.readouterr().err


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write the documents' template with some lines exchanged; returns the words that name it."""
    (source,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "models.md").read_text(), re.DOTALL)
    monkeypatch.syspath_prepend(tmp_path)

    def changed(name: str, *exchanges: tuple[str, str]) -> tuple[str, ...]:
        text = source
        for old, new in exchanges:
            assert text.count(old) == 1
            text = text.replace(old, new)
        (tmp_path / f"{name}.py").write_text(text)
        return ("--model", f"py:{name}:load", "--allow-code")

    return changed


def test_the_template_of_the_documents_is_sound(own, capsys):
    code, found, report = outcomes(capsys, *own("own_sound"))
    assert code == 0, report
    assert list(found) == [name for name, _, _ in examination.CUSTOM_CHECKS]
    assert [name for name, outcome in found.items() if outcome != context.OK] in ([], ["generation"]), report


@pytest.mark.parametrize(
    ("name", "old", "new", "check", "said"),
    [
        ("own_ahead", "emit.append(rows + np.arange(words))", "emit.append(rows + np.arange(words) + 1)",
         "causality", "word 1 of a program changes the emit states"),
        ("own_behind", "read.append(rows + np.arange(words) + 1)", "read.append(rows + np.arange(words))",
         "causality", "word 1 of a program does not change the read state"),
        ("own_backward", "batch_first=True)", "batch_first=True, bidirectional=True)", "loading", "size"),
        ("own_offsets", "offsets.append(offsets[-1] + words)", "offsets.append(offsets[-1] + words + 1)",
         "loading", "expected offsets"),
        ("own_seed", "Recurrent(0 if random_seed is None else random_seed)", "Recurrent(0)",
         "random copies", "initialised from the seed"),
        ("own_nan", "[-words - 1 :].numpy()", "[-words - 1 :].numpy() * np.float32(np.nan)", "loading", "NaN"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_class_of_ones_own(own, capsys, name, old, new, check, said):
    code, found, report = outcomes(capsys, *own(name, (old, new)), only=check)
    assert (code, found[check]) == (3, context.FAIL), report
    assert said in report


def test_a_class_that_only_writes(capsys):
    code, found, report = outcomes(capsys, "--model", "py:own_writer:load", "--allow-code")
    assert (code, list(found)) == (0, ["hidden states", "generation"]), report
    assert doctor.main(["--model", "py:own_writer:load", "--load-deadline", "0"]) == 2
    assert "--allow-code" in capsys.readouterr().err
