"""Trained subspaces on a model with a planted one: it is recovered, and false semantics and shuffled donors do nothing."""

from __future__ import annotations

import numpy as np
import pytest
from toy_steerable import ToySteerable

from benchmark.causal.detail.das import TrainingBatch, train_basis
from benchmark.causal.detail.detail_evidence import CONDITIONS, DAS, EDIT_NAMES, NO_EDIT, detail_rows
from benchmark.causal.detail.detail_verdict import NOT_USED, STANDARD_STANDS, planted_users
from benchmark.causal.detail.donors import DonorSwap, pick_donors
from benchmark.causal.detail.measure_detail import DetailMeasurement, measure_detail
from benchmark.causal.pairs import PairSettings, derive_pairs, prefix_texts
from benchmark.causal.rotation import net_rotation
from benchmark.causal.session import CausalSession
from benchmark.causal.verdict import Rates
from benchmark.tasks.suite import load_suite

LAPTOP = load_suite("laptop")
FEW = PairSettings(tasks=100)


@pytest.fixture(scope="module")
def user() -> DetailMeasurement:
    return measure_detail(ToySteerable(LAPTOP, FEW), LAPTOP, FEW)


@pytest.fixture(scope="module")
def other() -> DetailMeasurement:
    """A model that stores the rotation and plans from the tokens."""
    return measure_detail(ToySteerable(LAPTOP, FEW, reads=False), LAPTOP, FEW)


def train(model: ToySteerable, rank: int) -> np.ndarray:
    pairs, batches = derive_pairs(LAPTOP, FEW), []
    session = CausalSession(model, LAPTOP, pairs)
    choose = np.flatnonzero(~pairs.is_report)
    for rows in np.array_split(choose, 2):
        prompts = [session.prompts[task] for task in pairs.task[rows]]
        prefixes, states = model.prepare_differentiable(prompts, prefix_texts(pairs.prefix[rows]), 0)
        batches.append(TrainingBatch(prefixes, states, pairs.target[rows], rows))
    values = (session.values[0] + pairs.turn) % 4
    donors = session.read_mean_states().sites[0]
    return train_basis(batches, values, donors, net_rotation(pairs.mean_prefix), rank)


def test_the_planted_subspace_is_recovered():
    model = ToySteerable(LAPTOP, FEW)
    basis = train(model, 4)
    np.testing.assert_allclose(basis.T @ basis, np.eye(4), atol=1e-5)
    # Singular values are the cosines of the angles between the subspaces.
    cosines = np.linalg.svd(model.code.T @ basis)[1]
    assert cosines.min() > 0.9
    untrained = np.linalg.qr(np.random.default_rng(0).normal(size=basis.shape))[0]
    assert np.linalg.svd(model.code.T @ untrained)[1].min() < 0.5


def test_training_is_deterministic():
    model = ToySteerable(LAPTOP, FEW)
    assert np.array_equal(train(model, 4), train(model, 4))


def shares(measurement: DetailMeasurement, name: str, condition: str) -> list[float]:
    (edit,) = (edit for edit in measurement.result.edits if edit.name == name)
    return [-1.0 if share is None else share.value for share in edit.by_site[condition]]


@pytest.mark.parametrize("name", [name for name in EDIT_NAMES if name not in ("erasure", "probe subspace")])
def test_every_edit_of_the_true_variable_is_right_in_a_user(user, name):
    assert min(shares(user, name, "steered")) > 0.75


def test_controls_do_nothing_in_a_user(user):
    shifts = [name for name in EDIT_NAMES if "shift" in name]
    for name in shifts:
        assert max(shares(user, name, "shuffled labels")) < 0.1, name
        assert max(shares(user, name, "false semantics")) < 0.1, name
    for name in DAS:
        assert max(shares(user, name, "false semantics")) < 0.45, name
        assert max(shares(user, name, "shuffled labels")) < 0.45, name
    assert max(shares(user, "erasure", "steered")) < 0.5


def test_train_and_test_shares_are_reported_under_both_semantics(user):
    parts = {(part.rank, part.site, part.semantics): part for part in user.result.subspaces}
    assert len(parts) == 2 * 2 * 2
    for (_, _, semantics), part in parts.items():
        if semantics == "steered":
            assert part.train.value > 0.85
            assert part.test.value > 0.75
        else:
            assert part.test.value < 0.45


def test_a_user_is_not_called_not_used_and_a_non_user_is(user, other):
    assert user.result.verdict == STANDARD_STANDS
    assert "may have an effect" in user.result.reason
    assert other.result.verdict == NOT_USED, other.result.reason
    assert other.result.reason == "not by a linear edit of rank <= 16 at one place"
    assert other.result.largest_effect.high < 0.1
    assert other.result.power >= 19


def test_without_subspaces_or_power_nothing_is_concluded(monkeypatch):
    monkeypatch.setattr(ToySteerable, "prepare_differentiable", None)
    without = measure_detail(ToySteerable(LAPTOP, FEW, reads=False), LAPTOP, FEW).result
    assert without.verdict == STANDARD_STANDS
    assert "cannot be differentiated" in without.no_subspaces
    assert without.subspaces == []
    rows = detail_rows(LAPTOP, FEW)
    zero = Rates(("natural",), np.zeros((1, 60)), np.ones((1, 60)))
    assert planted_users(rows, np.ones(len(rows.report), bool), zero) == 0


def test_doses_whole_programs_and_the_natural_range(user):
    result = user.result
    assert result.doses["0"].value == result.no_edit.value == 0
    assert result.doses["1"].value == pytest.approx(shares(user, "mean shift", "steered")[result.site])
    assert result.doses["0.5"].value < result.doses["1"].value
    assert result.programs[NO_EDIT].value == 0
    assert result.programs["edit at every word"].value > 0.7
    assert result.programs["other value"].value < 0.1
    assert all(edit.clamped.value == edit.by_site["steered"][result.site].value for edit in result.edits)


def test_donors_have_the_value_and_depend_on_the_row_alone():
    labels = np.random.default_rng(1).integers(0, 4, 200)
    rows = np.arange(50) * 7
    target = rows % 4
    picked = pick_donors(labels, target, rows)
    assert np.array_equal(labels[picked], target)
    assert np.array_equal(pick_donors(labels, target[10:20], rows[10:20]), picked[10:20])
    assert len(set(picked)) > 25
    states = np.random.default_rng(2).normal(size=(200, 12)).astype(np.float32)
    basis = np.linalg.qr(np.random.default_rng(3).normal(size=(12, 4)))[0].astype(np.float32)
    swapped = DonorSwap(states, labels, basis).replace(states[:50], target, rows)
    np.testing.assert_allclose(swapped @ basis, states[picked] @ basis, atol=1e-5)
    np.testing.assert_allclose(swapped - swapped @ basis @ basis.T, (states - states @ basis @ basis.T)[:50], atol=1e-5)
    assert np.array_equal(DonorSwap(states, labels).replace(states[:50], target, rows), states[picked])
    assert set(CONDITIONS) == {"steered", "shuffled labels", "false semantics"}
