"""Whole programs are executed from the turned state."""

from __future__ import annotations

import numpy as np

from benchmark.causal.detail.whole_programs import reaches_outputs
from benchmark.causal.evidence import NOT_RUN
from benchmark.causal.pairs import PairSettings, derive_pairs
from benchmark.causal.targets import END
from benchmark.tasks.suite import load_suite

LAPTOP = load_suite("laptop")
FEW = PairSettings(tasks=30)


def test_whole_programs_are_executed_from_the_turned_state():
    """A program that undoes the turn and writes the rest of a solution is right, and one that does not is not."""
    pairs = derive_pairs(LAPTOP, FEW)
    rows = np.flatnonzero(pairs.target == END)[:8]
    ended = np.full((len(rows), 4), NOT_RUN, np.int8)
    ended[:, 0] = END
    assert reaches_outputs(LAPTOP, pairs, rows, ended).all(), "where the target is the bracket, nothing is left to do"
    around = ended.copy()
    around[:, :3] = [1, 2, END]
    assert reaches_outputs(LAPTOP, pairs, rows, around).all(), "left and right cancel"
    turned = ended.copy()
    turned[:, :2] = [1, END]
    assert not reaches_outputs(LAPTOP, pairs, rows, turned).any()
    around[:, 2] = NOT_RUN
    assert not reaches_outputs(LAPTOP, pairs, rows, around).any(), "a program without its bracket is not right"
