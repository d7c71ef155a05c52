"""Families of transformers with sub-word tokenizers: what is written and read is what the model alone gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
from agreement import TOLERANCE, WORDS, alone, check_states, check_writing, loaded
from families import FAMILIES, WINDOW, cases, family_params, metaspace_tokenizer, save
from quick_protocol import SHORT_SUITE
from whole_runs import call, only

from benchmark.models.huggingface import HuggingFaceModel
from benchmark.runner.record import read_record

WHOLE_RUNS = ("gpt2",)
SHARING = dict.fromkeys(
    ("gpt-neo", "mistral", "gemma2", "gemma3", "bloom", "mpt"), "prompts of equal length"
) | dict.fromkeys(("lfm2", "mamba", "mamba2", "jamba", "falcon-h1", "qwen3-next", "recurrent-gemma"), "none")
"""Which prompts can share a preamble; of the other families, all."""


@pytest.fixture(scope="module", params=family_params(FAMILIES))
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(family, tmp_path_factory) -> HuggingFaceModel:
    return loaded(save(family, tmp_path_factory.mktemp(family)))


def test_states_sit_at_the_right_pieces_in_a_padded_batch(family, model):
    prompts, programs = cases()
    assert len({len(ids) for ids in model.tokenizer(prompts)["input_ids"]}) > 1, "nothing is padded"
    assert check_states(model, prompts, programs) > len(programs), "hardly a word is split, so the test says little"


def test_what_is_written_is_what_each_prompt_alone_gives(family, model):
    prompts, programs = cases()
    assert model.max_new_tokens(model.tokenizer, WORDS) > WINDOW, "an answer must leave the sliding windows behind"
    # Prompts that end alike may be continued alike.
    differs = check_writing(model, prompts) > 1 or check_writing(model, programs) > 1
    assert differs or family == "recurrent-gemma"
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


@pytest.mark.parametrize("lengths", ["mixed", "equal"])
def test_a_shared_preamble_changes_nothing(family, model, lengths):
    prompts, programs = cases()
    head = prompts[0][: prompts[0].index("output")]
    prompts, programs = ([prompts[0], prompts[0 if lengths == "equal" else 1]], programs[:2])
    prompts = [f"{head}{prompt}" for prompt in prompts]
    shared = loaded(model.tokenizer.name_or_path, preamble=head)
    assert len(shared.preamble.ids) > WINDOW
    assert shared.preamble.sharing == SHARING.get(family, "all prompts")
    assert [one.text for one in shared.generate(prompts, WORDS)] == [one.text for one in model.generate(prompts, WORDS)]
    ours, plain = (one.hidden_states(prompts, programs).values for one in (shared, model))
    np.testing.assert_allclose(ours, plain, atol=TOLERANCE)


def test_prompts_of_several_lengths_are_prefilled_once(tmp_path, monkeypatch):
    prompts, programs = cases()
    head = prompts[0][: prompts[0].index("output")]
    prompts = [f"{head}{prompt}" for prompt in prompts]
    model = loaded(save("gemma3", tmp_path), preamble=head)
    widths = []
    forward = model.model.forward
    monkeypatch.setattr(
        model.model,
        "forward",
        lambda *args, **kwargs: widths.append(kwargs["input_ids"].shape[1]) or forward(*args, **kwargs),
    )
    model.log_likelihoods(prompts, programs)
    lengths = {len(ids) for ids in model.tokenizer(prompts)["input_ids"]}
    num_shared = len(model.preamble.ids)
    expected = {num_shared, *(length - 1 - num_shared for length in lengths)}
    assert len(lengths) > 1
    assert expected <= set(widths)
    widths.clear()
    model.generate(prompts, WORDS)
    assert not expected & set(widths), "the prompts were read again"


@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_a_mark_of_the_beginning_and_signs_for_spaces(name, tmp_path):
    model = loaded(save(name, tmp_path, metaspace_tokenizer()))
    prompts, programs = cases()
    assert model.tokenizer(prompts[0])["input_ids"][0] == model.tokenizer.bos_token_id
    assert check_states(model, prompts, programs) > len(programs)
    check_writing(model, prompts)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", family_params(FAMILIES, WHOLE_RUNS))
def test_a_whole_run(name, tmp_path):
    folder = save(name, tmp_path / name)
    assert (
        call(
            "--model", f"path:{folder}", "--suite", SHORT_SUITE, "--limit", 5, "--batch", 50, "--out", tmp_path / "runs"
        )
        == 0
    )
    record = read_record(only(tmp_path / "runs") / "record.json")
    assert record.accuracy.shown.n == 5
    assert math.isfinite(record.meaning.features["facing"].delta.value)
    assert record.meaning.verdict != "REPRESENTS"
