"""`measure_use`: the figures of the measurement itself, for files, objects in memory and networks of other libraries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import benchmark as kb
from benchmark.calibrate.planners import PLANNER, Planner, PlannerWorld
from benchmark.causal.measurement import measure_use as measure_steerable
from benchmark.installation.paths import SOURCE_ROOT

SHIPPED = SOURCE_ROOT / "submissions" / "2026-11-25_gpt-laptop"
SUITE = kb.load_suite("laptop")


@pytest.fixture(scope="module")
def shipped():
    return kb.measure_use(SHIPPED, SUITE, settings=kb.TRIAL_PAIRS)


def test_a_network_that_plans_from_its_state_is_found(shipped):
    assert shipped.verdict in ("USES", "NOT SHOWN")
    assert shipped.site.startswith("block ")
    strict = {row["condition"]: row for row in shipped.rows() if row["pairs"] == "strict"}
    assert strict["steered"]["target"] > strict["random vector"]["target"] + 0.3
    assert strict["untrained"]["n pairs"] == strict["steered"]["n pairs"] == shipped.measurement.use.strict.pairs
    for row in shipped.rows():
        assert 0 <= row["target low"] <= row["target"] <= row["target high"] <= 1
    assert shipped.margin == shipped.measurement.use.strict.margin
    assert shipped.margin.low <= shipped.margin.value <= shipped.margin.high
    assert 0.5 < shipped.merges.value <= 1
    card = str(shipped)
    assert card.startswith(f"verdict    {shipped.verdict}")
    assert "merges" in card


def trained(rows: list[dict]) -> list[dict]:
    """The rows without those of the untrained copy, which files draw in the dtype of the stored weights."""
    return [row for row in rows if row["condition"] != "untrained"]


def test_files_and_objects_in_memory_give_the_same(shipped):
    network = AutoModelForCausalLM.from_pretrained(SHIPPED, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED)
    network.train()
    steps: list[str] = []
    held = kb.measure_use(network, "laptop", tokenizer=tokenizer, settings=kb.TRIAL_PAIRS, on_step=steps.append)
    assert network.training
    assert len(steps) == len(set(steps)) > 2
    assert trained(held.rows()) == trained(shipped.rows())
    evidence = held.measurement.evidence.to_arrays()
    for name, array in shipped.measurement.evidence.to_arrays().items():
        if not name.startswith("untrained"):
            np.testing.assert_array_equal(evidence[name], array, err_msg=name)


def test_a_network_of_another_library_is_an_object_that_replaces_states():
    planner = Planner(PlannerWorld(SUITE, kb.TRIAL_PAIRS), PLANNER, 1)
    own = kb.measure_use(planner, SUITE, settings=kb.TRIAL_PAIRS)
    expected = measure_steerable(planner, SUITE, settings=kb.TRIAL_PAIRS)
    assert own.use == expected.use.use
    assert own.site == "layer 1"
    assert {row["condition"] for row in own.rows()} >= {"steered", "no edit", "look-up"}
    assert "untrained" not in {row["condition"] for row in own.rows()}


def test_what_has_no_states_is_not_applicable():
    result = kb.measure_use("baseline:search", settings=kb.TRIAL_PAIRS)
    assert result.verdict == "N/A"
    assert "baseline:search has no states that can be replaced" in result.reason
    assert (result.use, result.margin, result.merges, result.site, result.rows()) == (None, None, None, None, [])
    assert "N/A" in str(result)


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        ((SHIPPED, "labtop"), {}, "did you mean laptop?"),
        ((SHIPPED, "control"), {"settings": kb.TRIAL_PAIRS}, "control"),
        (("path:nowhere",), {}, "nowhere"),
        ((SHIPPED,), {"untrained": object()}, "untrained: a object"),
        ((SHIPPED,), {"dtype": "int7"}, "dtype"),
        ((object(),), {}, "a object without a tokenizer"),
    ],
)
def test_what_cannot_be_measured_is_one_line(arguments, options, says):
    with pytest.raises(kb.BenchmarkError) as caught:
        kb.measure_use(*arguments, **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
