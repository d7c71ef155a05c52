"""`measure_use` of classes of one's own: their method `steerable`, and merges of what has no states."""

from __future__ import annotations

import pytest

import benchmark as kb
from benchmark.calibrate.planners import NEXT_WORD, PLANNER, Planner, PlannerWorld
from benchmark.causal.measurement import measure_use as measure_steerable

SUITE = kb.load_suite("laptop")


class Own:
    """A language model of its own that lets its states be edited."""

    def __init__(self, kind: str = PLANNER) -> None:
        self.planner = Planner(PlannerWorld(SUITE, kb.TRIAL_PAIRS), kind, 1)

    def generate(self, prompts, max_new_words, decoding=None):
        raise AssertionError("not a part of the measurement of use")

    def hidden_states(self, prompts, programs):
        raise AssertionError("not a part of the measurement of use")

    def steerable(self):
        return self.planner


def own(random_seed=None):
    return Own(PLANNER if random_seed is None else NEXT_WORD)


def test_an_object_is_measured_through_its_method():
    expected = measure_steerable(Own().planner, SUITE, settings=kb.TRIAL_PAIRS)
    plain = kb.measure_use(kb.wrap(Own()), SUITE, settings=kb.TRIAL_PAIRS)
    assert (plain.use, plain.site, plain.margin) == (expected.use.use, "layer 1", expected.use.strict.margin)
    assert "untrained" not in {row["condition"] for row in plain.rows()}
    copied = kb.measure_use(kb.wrap(Own(), random_init=own), SUITE, settings=kb.TRIAL_PAIRS)
    assert "untrained" in {row["condition"] for row in copied.rows()}


def test_a_spec_of_own_code_is_measured_with_its_untrained_copy():
    result = kb.measure_use(f"py:{__name__}:own", SUITE, settings=kb.TRIAL_PAIRS, allow_code=True)
    assert result.site == "layer 1"
    assert "untrained" in {row["condition"] for row in result.rows()}


def test_without_the_method_the_reason_names_it():
    class Plain:
        generate, hidden_states = Own.generate, Own.hidden_states

    result = kb.measure_use(kb.wrap(Plain()), SUITE, settings=kb.TRIAL_PAIRS)
    assert result.verdict == "N/A"
    assert "has no method steerable" in result.reason


@pytest.mark.parametrize("name", ["random", "n-gram"])
def test_a_baseline_without_states_has_merges(name):
    result = kb.measure_use(f"baseline:{name}", SUITE, settings=kb.TRIAL_PAIRS)
    assert result.verdict == "N/A"
    assert "has no states that can be replaced" in result.reason
    assert result.measurement.merges is not None
