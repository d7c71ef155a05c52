"""Full detail: tables of edits, doses and whole programs, on an untrained model whose pairs are taken as solved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from agreement import loaded

from benchmark.causal.detail import _reaches_outputs, format_detail, measure_detail
from benchmark.causal.edits import EDITS
from benchmark.causal.measurement import measure_use
from benchmark.causal.pairs import PairSettings, derive_pairs
from benchmark.causal.session import CausalSession
from benchmark.causal.targets import END
from benchmark.models.steering import open_steerable
from benchmark.tasks.prompt_template import PLAIN
from benchmark.tasks.suite import load_suite

LAPTOP = load_suite("laptop")
FEW = PairSettings(tasks=30)


def test_full_detail(tiny_folder):
    model = open_steerable(loaded(tiny_folder))
    measurement = measure_use(model, LAPTOP, settings=FEW)
    assert measurement.evidence is not None
    evidence = replace(measurement.evidence, is_solved=np.ones_like(measurement.evidence.is_solved))
    detail = measure_detail(model, LAPTOP, evidence, FEW)
    pairs = derive_pairs(LAPTOP, FEW)
    rows = pairs.is_report & pairs.is_strict
    assert detail.pairs == rows.sum() > 5
    assert set(detail.by_edit) == set(EDITS)
    assert all(len(shares) == 2 for shares in detail.by_edit.values())
    assert detail.by_dose["1"] == pytest.approx(max((evidence.steered[0] == pairs.target)[rows].mean(), 0))
    assert detail.by_dose["0"] == pytest.approx((evidence.unedited == pairs.target)[rows].mean())
    text = format_detail(detail, model.sites)
    assert text.count("whole programs") == 3
    assert "mean shift" in text


def test_whole_programs_are_executed_from_the_turned_state(tiny_folder):
    """A program that undoes the turn and writes the rest of a solution is right, and one that does not is not."""
    pairs = derive_pairs(LAPTOP, FEW)
    rows = np.flatnonzero(pairs.target == END)[:8]
    session = CausalSession(open_steerable(loaded(tiny_folder)), LAPTOP, pairs, PLAIN)
    ended = [[*pairs.prefix[row].tolist(), END] for row in rows]
    is_open = np.zeros(len(rows), bool)
    assert _reaches_outputs(session, rows, ended, is_open).all(), (
        "where the target is the bracket, nothing is left to do"
    )
    turned = [[*pairs.prefix[row].tolist(), 1, END] for row in rows]
    assert not _reaches_outputs(session, rows, turned, is_open).any()
    assert not _reaches_outputs(session, rows, ended, ~is_open).any(), "a program without its bracket is not right"
