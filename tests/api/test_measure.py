"""`measure` gives what a run gives, takes states from anywhere, and refuses what cannot be measured with one line."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from quick_protocol import QUICK, SMALL_SUITE

import benchmark as kb
from benchmark.probing.control_gap import CONTROLS
from benchmark.probing.state_source import RunEvidence
from benchmark.probing.verdict import verdict_from_evidence
from benchmark.runner.folder import read_probes
from benchmark.runner.record import read_record


@pytest.fixture(scope="module")
def probes() -> kb.BlindProbeSet:
    return kb.blind_probe_set(SMALL_SUITE, protocol=QUICK)


@pytest.fixture(scope="module")
def model(tiny_folder) -> kb.Model:
    return kb.load_model(tiny_folder)


@pytest.fixture(scope="module")
def hidden(model, probes) -> np.ndarray:
    return kb.hidden_states(model, probes)


@pytest.fixture(scope="module")
def controls(model, probes):
    return kb.standard_controls(model, probes)


@pytest.fixture(scope="module")
def result(probes, hidden, controls) -> kb.Measurement:
    return kb.measure(probes, hidden, controls)


def test_the_result_is_that_of_a_run(result, undisturbed):
    stored = read_probes(undisturbed)
    assert set(result.evidence) == {name for name in stored if not name.startswith("content.")}
    for name, array in result.evidence.items():
        np.testing.assert_array_equal(stored[name], array, err_msg=name)
    record = read_record(undisturbed / "record.json")
    assert json.loads(record.model_copy(update={"meaning": result.result}).to_json()) == json.loads(record.to_json())
    assert result.missing_controls == ()
    assert result.verdict == record.meaning.verdict
    assert result.delta == record.meaning.features["facing"].delta


def test_pooled_states_give_the_same_result(model, probes, hidden, result, controls):
    pooled = kb.pooled_states(model, probes)
    np.testing.assert_array_equal(pooled.mean, hidden.mean(1))
    np.testing.assert_array_equal(pooled.last, hidden[:, -1])
    assert kb.measure(probes, pooled, controls).rows() == result.rows()


def test_states_are_those_of_a_plain_pass(model, probes, hidden):
    assert hidden.shape == (probes.num_rows, 3, 32)
    assert hidden.dtype == np.float32
    row = 7
    with model.opened() as loaded, torch.inference_mode():
        text = f"{probes.prompts[probes.row_program[row]]} {probes.programs[probes.row_program[row]]}"
        encoded = loaded.tokenizer(text, return_tensors="pt", return_offsets_mapping=True)
        token = int(np.flatnonzero(encoded.pop("offset_mapping")[0, :, 1] >= probes.row_span[row, 1])[0])
        states = torch.stack(loaded.model(**encoded, output_hidden_states=True).hidden_states, 2)[0]
    np.testing.assert_allclose(hidden[row], states[token].numpy(), atol=2e-5)
    emitted = kb.hidden_states(model, probes, "emit")
    np.testing.assert_allclose(emitted[row], states[token - 1].numpy(), atol=2e-5)


def test_spans_are_the_action_words(probes):
    for row in range(0, probes.num_rows, 13):
        program = probes.programs[probes.row_program[row]]
        start, stop = probes.row_span[row]
        word = f"{probes.prompts[probes.row_program[row]]} {program}"[start:stop]
        assert word == program.split(" ")[probes.row_word[row]]
        assert word.endswith("();")
    np.testing.assert_array_equal(probes.row_program, probes.labels.program)
    np.testing.assert_array_equal(probes.row_word, probes.labels.word)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_and_arrays_of_any_dtype_are_taken(dtype, probes, hidden, controls):
    recorder = {"recorder": controls["recorder"]}
    tensor = torch.from_numpy(hidden).to(dtype).requires_grad_()
    by_tensor = kb.measure(probes, tensor, recorder)
    by_array = kb.measure(probes, tensor.detach().float().numpy(), recorder)
    assert by_tensor.rows() == by_array.rows()
    if dtype is torch.float64:
        assert kb.measure(probes, hidden.astype(np.float64), recorder).rows() == by_array.rows()


def test_own_controls_and_single_layers(probes, hidden):
    noise = np.random.default_rng(0).normal(size=(probes.num_rows, 5))
    counts = np.arange(probes.num_rows)[:, None] % 7
    result = kb.measure(probes, hidden[:, -1], {"noise": [noise, noise[::-1]], "position": counts})
    assert result.controls == ("noise", "position")
    assert result.missing_controls == CONTROLS
    row = result.rows()[0]
    assert row["view"] == "states"
    assert row["delta"] == pytest.approx(row["gap"] - max(row["gap of noise"], row["gap of position"]))
    assert row["delta low"] <= row["delta"] <= row["delta high"]


def test_features_are_selected_without_changing_their_figures(probes, hidden, controls, result):
    recorder = {"recorder": controls["recorder"]}
    whole = kb.measure(probes, hidden, recorder)
    part = kb.measure(probes, hidden, recorder, features=["obstacle", "facing"])
    assert part.features == ("obstacle", "facing")
    assert part.verdict == whole.verdict
    assert part.delta == whole.delta
    for name in part.features:
        assert replace(part.result.features[name], p_holm=0) == replace(whole.result.features[name], p_holm=0)
    alone = kb.measure(probes, hidden, recorder, features=["obstacle"])
    assert alone.skill == alone.result.features["obstacle"].skill
    assert alone.result.features["obstacle"].p_holm == alone.result.features["obstacle"].p
    assert whole.result.features["facing"].gap == result.gap


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda h: h[:-1], "rows; expected 224"),
        (lambda h: np.moveaxis(h, 0, 1), "axis 1 has that size"),
        (lambda h: h[:, 0, 0], "expected [R, L, D] or [R, D]"),
        (lambda h: h[..., None], "expected [R, L, D] or [R, D]"),
        (lambda h: h[:, :0], "expected [R, L, D] or [R, D]"),
        (lambda h: np.where(np.arange(len(h))[:, None, None] == 5, np.nan, h), "in 1 of 224 rows, first in row 5"),
        (lambda h: h.astype(np.float64) * 1e60, "NaN or infinity"),
        (np.zeros_like, "every value is 0"),
        (lambda h: np.broadcast_to(h[0], h.shape), "all 224 rows are equal"),
        (lambda h: np.where(np.arange(len(h))[:, None, None] == 3, 0, h), "1 of 224 rows are all 0, first row 3"),
        (lambda h: h.astype(str), "expected real numbers"),
        (lambda h: h.astype(complex), "expected real numbers"),
        (lambda h: None, "expected real numbers"),
    ],
)  # fmt: skip
def test_states_that_cannot_be_measured_are_one_line(change, says, probes, hidden, controls):
    for arguments in ((change(hidden), controls), (hidden, {"own": change(hidden)})):
        if "rows are all 0" in says and arguments[0] is hidden:
            continue  # a control may well have rows of zeros, such as counts
        with pytest.raises(ValueError, match=r"^(hidden|controls own): ") as caught:
            kb.measure(probes, *arguments)
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, kb.InputError)


@pytest.mark.parametrize(
    ("controls", "says"),
    [
        ({}, "controls: empty"),
        (None, "controls: a NoneType"),
        ([np.ones((224, 2))], "controls: a list"),
        ({"model": np.ones((224, 2))}, "expected a text other than 'model'"),
        ({"a.b": np.ones((224, 2))}, "without a dot"),
        ({3: np.ones((224, 2))}, "expected a text"),
        ({"own": []}, "no copies"),
        ({"own": [np.eye(224), np.eye(224)[:, None]]}, "expected one form"),
    ],
)
def test_controls_that_cannot_be_are_one_line(controls, says, probes, hidden):
    with pytest.raises(kb.InputError) as caught:
        kb.measure(probes, hidden, controls)
    assert says in str(caught.value)


def test_ragged_lists_are_one_line(probes, hidden, controls):
    with pytest.raises(kb.InputError, match=r"^hidden: .*expected an array of real numbers"):
        kb.measure(probes, [*hidden[:-1].tolist(), [1]], controls)


def test_unknown_features_suggest_the_nearest(probes, hidden, controls):
    with pytest.raises(ValueError, match="did you mean facing"):
        kb.measure(probes, hidden, controls, features=["facings"])
    with pytest.raises(ValueError, match="expected a sequence of names"):
        kb.measure(probes, hidden, controls, features="facing")
    with pytest.raises(ValueError, match="features: empty"):
        kb.measure(probes, hidden, controls, features=[])
    with pytest.raises(ValueError, match="expected the result of blind_probe_set"):
        kb.measure(hidden, probes, controls)


def test_the_protocols_verdict_names_the_control_that_it_misses(probes, result):
    from benchmark.probing.control_gap import PriorBaseline

    baseline = PriorBaseline.from_probe_set(probes.labels, QUICK)
    sources = dict(RunEvidence.from_arrays(result.evidence).sources)
    assert verdict_from_evidence(probes.labels, baseline, sources, QUICK).verdict == result.verdict
    del sources["random-init"]
    with pytest.raises(ValueError, match="random-init missing among recorder"):
        verdict_from_evidence(probes.labels, baseline, sources, QUICK)
    all_sources = RunEvidence.from_arrays(result.evidence).sources
    recomputed = verdict_from_evidence(probes.labels, baseline, {**all_sources, "other": all_sources["model"]}, QUICK)
    assert recomputed.features["facing"] == result.result.features["facing"]


def test_probe_sets_that_cannot_be_are_one_line():
    with pytest.raises(ValueError, match="expected at least 3, the number of folds"):
        kb.blind_probe_set(SMALL_SUITE, 2, protocol=QUICK)
    with pytest.raises(ValueError, match="seed: -1"):
        kb.blind_probe_set(SMALL_SUITE, seed=-1)
    with pytest.raises(kb.UsageError, match="no such suite"):
        kb.blind_probe_set("laptops")
    own, other = kb.blind_probe_set("smoke", 40), kb.blind_probe_set("smoke", 40, seed=1)
    assert len(own) == len(other) == 80
    assert own.digest != other.digest
    assert own.digest == kb.blind_probe_set(kb.load_suite("smoke"), 40).digest


def test_the_table_of_a_result_needs_pandas_only_when_asked_for(result, monkeypatch):
    import sys
    from types import SimpleNamespace

    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        result.to_frame()
    tables = []

    class Frame:
        def __init__(self, rows):
            self.rows = rows

        def set_index(self, name):
            tables.append((name, self.rows))
            return self

    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=Frame))
    assert result.to_frame().rows == result.rows()
    assert tables == [("feature", result.rows())]
    assert {"skill", "skill low", "gap", "delta high", "p_holm", "n"} <= set(result.rows()[0])
