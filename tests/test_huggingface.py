"""Models of other families, sub-word tokenizers, left padding, and the hub's cache layout."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedTokenizerFast,
)

from benchmark.checkpoint import open_checkpoint
from benchmark.errors import ModelError, UsageError
from benchmark.evaluation import prompts_of
from benchmark.huggingface import HuggingFaceModel
from benchmark.models import ModelSpec
from benchmark.suites import load_suite
from benchmark.suites import test_tasks as tasks_of
from karel_env.language import HEADER_TEXT

SUITE = load_suite("smoke")
SIZE = 400
FAMILIES = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=SIZE, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)),
    "neox": lambda: GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=SIZE, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2,
            bos_token_id=0, eos_token_id=0,
        )
    ),
    "mamba": lambda: MambaForCausalLM(
        MambaConfig(vocab_size=SIZE, hidden_size=32, num_hidden_layers=2, state_size=4, bos_token_id=0, eos_token_id=0, pad_token_id=0)
    ),
}  # fmt: skip


def cases():
    """Prompts of different lengths (one, then two examples' worth of text), and programs."""
    tasks = tasks_of(SUITE).take(np.arange(6))
    prompts = prompts_of(SUITE, tasks)
    prompts[::2] = [p[p.index("output") :] for p in prompts[::2]]
    return prompts, [t.removeprefix(HEADER_TEXT).strip() for t in tasks.programs.texts()]


def byte_pair_tokenizer() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    prompts, programs = cases()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, special_tokens=["<end>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    inner.train_from_iterator([*prompts[:2], *programs[:2]], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>")


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def model(request, tmp_path_factory) -> HuggingFaceModel:
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(1)
    FAMILIES[request.param]().save_pretrained(folder)
    byte_pair_tokenizer().save_pretrained(folder)
    return HuggingFaceModel(open_checkpoint(ModelSpec("path", str(folder))))


def plain_pass(model, prompt, program):
    """Hidden states [tokens, L, D] of an unpadded pass over the whole text, and the end of each token in it."""
    encoded = model.tokenizer(f"{prompt} {program}", return_tensors="pt", return_offsets_mapping=True)
    with torch.inference_mode():
        states = model.base(encoded["input_ids"], output_hidden_states=True).hidden_states
        if (
            model.model.config.model_type == "mamba"
        ):  # it leaves out the embeddings and gives the last block unnormed too
            states = (model.base.get_input_embeddings()(encoded["input_ids"]), *states[:-2], states[-1])
    return torch.stack(states, 2)[0].float().numpy(), encoded["offset_mapping"][0, :, 1].numpy()


def test_states_sit_at_the_right_pieces_in_a_padded_batch(model):
    prompts, programs = cases()
    states = model.hidden_states(prompts, programs)
    pieces = 0
    for i, (prompt, program) in enumerate(zip(prompts, programs, strict=True)):
        plain, ends = plain_pass(model, prompt, program)
        pieces += len(ends) - len(program.split())
        end = len(prompt)
        for place, word in enumerate(program.split(), states.offsets[i]):
            before = int(np.searchsorted(ends, end, side="right")) - 1
            end += 1 + len(word)
            last = int(np.searchsorted(ends, end))
            assert ends[last] == end
            np.testing.assert_allclose(states.values[states.emit[place]], plain[before], atol=5e-5)
            np.testing.assert_allclose(states.values[states.read[place]], plain[last], atol=5e-5)
    assert pieces > 0, "the tokenizer splits no word, so the test says nothing"


def test_reading_after_generating_changes_nothing(model):
    prompts, programs = cases()
    fresh = model.hidden_states(prompts, programs).values
    model.prefilled = None
    model.generate(prompts, 6)
    again = model.hidden_states(prompts, programs).values
    np.testing.assert_allclose(again, fresh, atol=5e-5)


def test_generation_in_a_padded_batch_is_that_of_each_prompt_alone(model):
    prompts, _ = cases()
    together = model.generate(prompts, 6)
    alone = [model.generate([prompt], 6)[0] for prompt in prompts]
    assert [g.text for g in together] == [g.text for g in alone]


def test_random_copies_differ_by_seed_only(model):
    prompts, programs = cases()
    checkpoint = open_checkpoint(ModelSpec("path", model.tokenizer.name_or_path))
    one, same, other = (
        HuggingFaceModel(checkpoint, random_seed=s).hidden_states(prompts, programs).values for s in (5, 5, 6)
    )
    assert np.array_equal(one, same)
    assert not np.allclose(one, other)
    assert not np.allclose(one, model.hidden_states(prompts, programs).values)


def test_a_hub_model_is_found_in_the_cache_and_named_by_its_commit(tiny_folder, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--org--tiny"
    shutil.copytree(tiny_folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = open_checkpoint(ModelSpec.parse("hf:org/tiny"))
    assert found.spec == f"hf:org/tiny@{commit}"
    assert found.digest == open_checkpoint(ModelSpec("path", str(tiny_folder))).digest
    assert open_checkpoint(ModelSpec.parse(f"hf:org/tiny@{commit}")).spec == found.spec
    with pytest.raises(ModelError, match="hub"):
        open_checkpoint(ModelSpec.parse("hf:org/absent"))


@pytest.mark.parametrize("text", ["llama", "path:", "http:x/y", "hf:alone", "hf:a/b/c"])
def test_names_that_are_none(text):
    with pytest.raises(UsageError, match="expected"):
        ModelSpec.parse(text)
