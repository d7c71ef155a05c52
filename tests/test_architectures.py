"""Families of transformers with sub-word tokenizers: what is written and read is what the model alone gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from families import FAMILIES, cases, metaspace_tokenizer, save
from whole_runs import call, only

from benchmark.checkpoint import open_checkpoint
from benchmark.huggingface import HuggingFaceModel
from benchmark.models import ModelSpec
from benchmark.record import read_record

WORDS = 4
UNEMBEDDED = ("mamba", "mamba2")
"""Their `output_hidden_states` leave out the embeddings, and give the last block before and after the final norm."""
PROJECTED = "opt-projected"
WHOLE_RUNS = ("gemma3", "lfm2")
TOLERANCE = 1e-4


def loaded(folder, **options) -> HuggingFaceModel:
    return HuggingFaceModel(open_checkpoint(ModelSpec("path", str(folder))), **options)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(family, tmp_path_factory) -> HuggingFaceModel:
    return loaded(save(family, tmp_path_factory.mktemp(family)))


def alone(model, prompt, program):
    """Hidden states [tokens, D] of each layer and log-probabilities [tokens, V] of an unpadded pass over the whole
    text, its tokens, and where each ends in it."""
    encoded = model.tokenizer(f"{prompt} {program}", return_tensors="pt", return_offsets_mapping=True)
    ids = encoded["input_ids"]
    with torch.inference_mode():
        output = model.model(ids, output_hidden_states=True, use_cache=False)
        states = output.hidden_states
        if model.model.config.model_type in UNEMBEDDED:
            states = (model.base.get_input_embeddings()(ids), *states[:-2], states[-1])
    log_prob = output.logits[0].double().log_softmax(-1)
    return [layer[0].numpy() for layer in states], log_prob, ids[0], encoded["offset_mapping"][0, :, 1].numpy()


def check_states(model, prompts, programs):
    """Layers and places of the states of a padded batch are those of each text alone; returns how many words split."""
    states, split = model.hidden_states(prompts, programs), 0
    assert states.values.shape[1] == model.model.config.num_hidden_layers + 1
    for i, (prompt, program) in enumerate(zip(prompts, programs, strict=True)):
        layers, _, _, ends = alone(model, prompt, program)
        end = len(prompt)
        for place, word in enumerate(program.split(), states.offsets[i]):
            before = int(np.flatnonzero(ends <= end)[-1])
            end += 1 + len(word)
            last = int(np.flatnonzero(ends == end)[-1])
            split += last - before > 1
            for row, token in ((states.emit[place], before), (states.read[place], last)):
                for depth, layer in enumerate(layers):
                    ours = states.values[row, depth]
                    if len(ours) != layer.shape[1]:
                        with torch.inference_mode():
                            ours = model.base.decoder.project_out(torch.from_numpy(ours)).numpy()
                    np.testing.assert_allclose(ours, layer[token], atol=TOLERANCE)
    return split


def check_writing(model, prompts):
    """What a padded batch writes is what `generate` of transformers writes behind each prompt alone."""
    found = model.generate(prompts, WORDS)
    for prompt, ours in zip(prompts, found, strict=True):
        ids = model.tokenizer(prompt, return_tensors="pt")["input_ids"]
        room = model.room(model.tokenizer, WORDS)
        plain = model.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=room, do_sample=False, pad_token_id=0
        )
        text = model.tokenizer.decode(plain[0, ids.shape[1] :], skip_special_tokens=True)
        assert text.startswith(ours.text) if ours.finished else text == ours.text
        assert ours.tokens == room or ours.finished
    return len({one.text for one in found})


def test_states_sit_at_the_right_pieces_in_a_padded_batch(family, model):
    prompts, programs = cases()
    assert len({len(ids) for ids in model.tokenizer(prompts)["input_ids"]}) > 1, "nothing is padded"
    assert check_states(model, prompts, programs) > len(programs), "hardly a word is split, so the test says little"


def test_what_is_written_is_what_each_prompt_alone_gives(family, model):
    prompts, programs = cases()
    assert check_writing(model, prompts) > 1 or family == "recurrent-gemma"
    # The states read next use the cache that generation has used.
    check_states(model, prompts[:2], programs[:2])


def test_likelihoods_are_those_of_a_plain_pass(family, model):
    prompts, programs = cases()
    for i, (value, count) in enumerate(model.log_likelihoods(prompts, programs)):
        _, log_prob, ids, _ = alone(model, prompts[i], programs[i])
        expected = log_prob[:-1].gather(-1, ids[1:, None])[-count:].sum().item()
        assert value == pytest.approx(expected, abs=TOLERANCE * count)
        assert model.tokenizer.decode(ids[-count:]).strip() == programs[i]


def test_untrained_copies_differ_by_seed_only(family, model):
    prompts, programs = (both[:1] for both in cases())
    folder = model.tokenizer.name_or_path
    one, same, other = (loaded(folder, random_seed=s).hidden_states(prompts, programs).values for s in (5, 5, 6))
    assert np.array_equal(one, same)
    assert not np.allclose(one, other)
    assert not np.allclose(one, model.hidden_states(prompts, programs).values)


@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_a_mark_of_the_beginning_and_signs_for_spaces(name, tmp_path):
    model = loaded(save(name, tmp_path, metaspace_tokenizer()))
    prompts, programs = cases()
    assert model.tokenizer(prompts[0])["input_ids"][0] == model.tokenizer.bos_token_id
    assert check_states(model, prompts, programs) > len(programs)
    check_writing(model, prompts)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "name", [n if n in WHOLE_RUNS else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES]
)
def test_a_whole_run(name, tmp_path):
    folder = save(name, tmp_path / name)
    assert call("--model", f"path:{folder}", "--suite", "smoke", "--limit", 5, "--out", tmp_path / "runs") == 0
    record = read_record(only(tmp_path / "runs") / "record.json")
    assert record.accuracy.shown.n == 5
    assert math.isfinite(record.meaning.features["facing"].delta.value)
    assert record.meaning.verdict != "REPRESENTS"
