"""Edits and natural ranges on states whose structure is known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmark.causal.edits import EDITS, MeanShift, SubspaceSwap, class_means, erasure, mean_shift, probe_swap
from benchmark.causal.natural_range import ComponentRange

RANDOM = np.random.default_rng(3)
LABELS = RANDOM.integers(0, 4, 2000)
CODES = RANDOM.normal(size=(4, 16)) * 3
STATES = (CODES[LABELS] + RANDOM.normal(size=(2000, 16)) * np.linspace(0.2, 2, 16)).astype(np.float32)
SOURCE = LABELS[:50]
TARGET = (SOURCE + 1) % 4


@pytest.mark.parametrize("name", [name for name in EDITS if name != "erasure"])
def test_an_edit_moves_the_class_mean(name):
    edit = EDITS[name](STATES, LABELS, 4)
    edited = edit(STATES[:50], SOURCE, TARGET)
    assert edited.dtype == np.float32
    means = class_means(STATES, LABELS, 4)
    moved = np.stack([edited[value == TARGET].mean(0) for value in range(4)])
    if isinstance(edit, SubspaceSwap):
        np.testing.assert_allclose(edited @ edit.read, means[TARGET] @ edit.read, atol=1e-3)
    else:
        assert np.array_equal(((moved[:, None] - means[None]) ** 2).sum(2).argmin(1), np.arange(4))
    assert edit.rank == (16 if name == "mean vector" else 3)


def test_the_mean_shift_to_the_same_value_changes_no_bit_and_doses_scale():
    edit = mean_shift(STATES, LABELS, 4)
    assert np.array_equal(edit(STATES[:50], SOURCE, SOURCE), STATES[:50])
    one, half = (MeanShift(edit.means, scale)(STATES[:50], SOURCE, TARGET) - STATES[:50] for scale in (1.0, 0.5))
    np.testing.assert_allclose(one, 2 * half, atol=1e-5)


def test_a_swap_leaves_what_is_outside_its_subspace():
    edit = probe_swap(STATES, LABELS, 4, by_covariance=False)
    difference = edit(STATES[:50], SOURCE, TARGET) - STATES[:50]
    outside = difference - difference @ edit.read @ edit.read.T
    assert np.abs(outside).max() < 1e-4
    weighted = probe_swap(STATES, LABELS, 4, by_covariance=True)
    np.testing.assert_allclose(weighted.read.T @ weighted.write, np.eye(3), atol=1e-3)


def test_erasure_removes_the_value():
    erased = erasure(STATES, LABELS, 4)(STATES, LABELS, LABELS)
    assert np.ptp(class_means(erased, LABELS, 4), axis=0).max() < 1e-3


def test_random_vectors_have_the_norms_and_stay_in_the_leading_components():
    natural = ComponentRange.of(STATES)
    norms = np.linspace(1, 5, 30)
    vectors = natural.random_vectors(norms, range(30))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), norms, rtol=1e-5)
    leading = natural.leading
    assert 1 < leading.shape[1] < 16
    np.testing.assert_allclose(vectors @ leading @ leading.T, vectors, atol=1e-4)
    assert np.array_equal(vectors, natural.random_vectors(norms, range(30)))
    assert not np.array_equal(vectors, natural.random_vectors(norms, range(1, 31)))


def test_natural_states_are_in_their_range():
    natural = ComponentRange.of(STATES)
    coordinates = STATES @ natural.basis
    assert (coordinates >= natural.low).all()
    assert (coordinates <= natural.high).all()
