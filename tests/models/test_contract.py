"""What a class of the user's returns is believed only where it can be so."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from benchmark.errors import ModelError
from benchmark.models.interface import Decoding, Generation, HiddenStates
from benchmark.models.validated import ValidatedModel

PROGRAMS = ["move(); }", "turn_left(); move(); }"]
GOOD = HiddenStates(
    np.arange(28, dtype=np.float32).reshape(7, 2, 2),
    np.array([0, 1, 3, 4, 5]),
    np.array([1, 2, 4, 5, 6]),
    np.array([0, 2, 5]),
)


def returning(**given) -> ValidatedModel:
    return ValidatedModel(
        SimpleNamespace(**{name: lambda *_, found=found: found for name, found in given.items()}), "py:a:b"
    )


def test_what_is_right_passes_through():
    model = returning(
        generate=[Generation("move(); }", 2, np.True_)],
        hidden_states=GOOD,
        log_likelihoods=[(-1.0, 2), (np.float32(-2), 3)],
    )
    assert model.generate(["p"], 4) == [Generation("move(); }", 2, True)]
    found = model.hidden_states(["p", "q"], PROGRAMS)
    assert all(
        np.array_equal(getattr(found, name), getattr(GOOD, name)) for name in ("values", "emit", "read", "offsets")
    )
    assert model.log_likelihoods(["p", "q"], PROGRAMS) == [(-1.0, 2), (-2.0, 3)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"values": GOOD.values.astype(np.float64)}, r"ndarray float64 \[7, 2, 2\] .* expected values float32"),
        ({"values": GOOD.values[:, 0]}, "values float32 .rows, layers . 1, width."),
        ({"values": GOOD.values[:6]}, "read with a row of values, 0 to 5, for each of 5 words"),
        ({"emit": GOOD.emit[:-1]}, r"int64 \[4\] .* emit with a row"),
        ({"emit": GOOD.emit - 1}, "emit with a row"),
        ({"read": GOOD.read.astype(float)}, "read with a row"),
        ({"offsets": np.array([0, 3, 5])}, r"expected offsets \[0, 2, 5\]"),
        ({"offsets": [0, 2, 5]}, "expected an array offsets"),
    ],
)
def test_states_that_cannot_be_those_of_the_words(change, said):
    with pytest.raises(ModelError, match=said):
        returning(hidden_states=replace(GOOD, **change)).hidden_states(["p", "q"], PROGRAMS)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([], "expected a list of 1"),
        (None, "gave NoneType"),
        (["move(); }"], r"expected Generation\(text, tokens, finished\)"),
        ([Generation(b"move(); }", 2, True)], "expected Generation"),
        ([Generation("move(); }", 2, 1)], "expected Generation"),
    ],
)
def test_answers_that_are_none(found, said):
    with pytest.raises(ModelError, match=said):
        returning(generate=found).generate(["p"], 4)


@pytest.mark.parametrize(
    "found", [[-1.0], [(1.0, 2)], [(-np.inf, 2)], [(np.nan, 2)], [(-1.0, 0)], [(-1.0, 2), (-1.0, 2)]]
)
def test_likelihoods_that_are_none(found):
    with pytest.raises(ModelError, match="log_likelihoods gave"):
        returning(log_likelihoods=found).log_likelihoods(["p"], PROGRAMS[:1])


def test_a_method_that_is_not_there():
    with pytest.raises(ModelError, match="expected a method"):
        returning(generate=[]).hidden_states(["p"], PROGRAMS[:1])


def test_a_decoding_reaches_only_the_class_that_is_asked_for_one():
    seen = []

    def generate(*given):
        seen.append(given)
        return [Generation("}", 1, True)]

    model = ValidatedModel(SimpleNamespace(generate=generate), "py:a:b")
    model.generate(["p"], 4)
    model.generate(["p"], 4, Decoding(constrained=True))
    assert seen == [(["p"], 4), (["p"], 4, Decoding(constrained=True))]
