from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from benchmark.labels import MISSING, Split
from benchmark.probing import fit_probes, whitened
from benchmark.protocol import STANDARD

SPLIT = Split(np.arange(600), np.arange(600, 800), np.arange(800, 1000))
OTHER = Split(np.arange(400, 1000), np.arange(200, 400), np.arange(190))
QUICK = replace(STANDARD, steps=60, checks=3, batch=64)


def problem(groups=3, heads=2, classes=(4, 3), seed=0):
    """States of which each label is a noisy linear function."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(1000, 10)).astype(np.float32)
    targets = np.stack(
        [
            [(states @ rng.normal(size=(10, c)) + rng.gumbel(size=(1000, c))).argmax(1) for c in classes[:heads]]
            for _ in range(groups)
        ]
    )
    return states, targets, np.broadcast_to(np.array(classes[:heads]), (groups, heads))


@pytest.mark.parametrize("widths", [[], [16], [16, 8]])
def test_together_is_one_by_one(widths):
    states, targets, counts = problem()
    together = fit_probes(states, targets, counts, [SPLIT, OTHER], widths, [3, 5], QUICK)
    for q, (seed, split) in enumerate([(3, SPLIT), (5, OTHER)]):
        for g in range(3):
            alone = fit_probes(states, targets[g : g + 1], counts[g : g + 1], [split], widths, [seed], QUICK)
            np.testing.assert_allclose(alone.log_prob[0][0], together.log_prob[q][g], atol=2e-4)
            assert np.array_equal(alone.correct[0][0].shape, together.correct[q][g].shape)
            np.testing.assert_allclose(alone.validation[0, 0], together.validation[q, g], atol=2e-4)


def test_seeds_differ_and_repeat():
    states, targets, counts = problem()
    first = fit_probes(states, targets, counts, [SPLIT] * 2, [16], [0, 1], QUICK)
    again = fit_probes(states, targets, counts, [SPLIT] * 2, [16], [0, 1], QUICK)
    assert np.array_equal(first.log_prob[1], again.log_prob[1])
    assert not np.array_equal(first.log_prob[0], first.log_prob[1])


def test_linear_probe_reaches_the_logistic_regression_of_scikit_learn():
    states, targets, counts = problem(groups=1, heads=1, classes=(4,))
    long = replace(STANDARD, steps=600, batch=256, learning_rate=2e-2, weight_decay=0.0)
    fit = fit_probes(states, targets, counts, [SPLIT], [], [0], long)
    scaled = whitened(states, SPLIT.train, 0.0)
    judge = LogisticRegression(C=1e3, max_iter=1000).fit(scaled[SPLIT.train], targets[0, 0, SPLIT.train])
    theirs = log_loss(targets[0, 0, SPLIT.test], judge.predict_proba(scaled[SPLIT.test]))
    assert -fit.log_prob[0].mean() == pytest.approx(theirs, abs=0.02)
    assert fit.correct[0].mean() == pytest.approx(judge.score(scaled[SPLIT.test], targets[0, 0, SPLIT.test]), abs=0.04)


def test_heads_of_different_sizes_keep_their_order():
    states, targets, counts = problem(groups=1, heads=4, classes=(5, 2, 5, 3))
    longer = replace(QUICK, steps=300, learning_rate=2e-2)
    fit = fit_probes(states, targets, counts, [SPLIT], [], [0], longer)
    chance = np.log([5, 2, 5, 3])
    assert (-fit.log_prob[0][0].mean(1) < 0.9 * chance).all()
    for head in range(4):
        one = slice(head, head + 1)
        alone = fit_probes(states, targets[:, one], counts[:, one], [SPLIT], [], [0], longer)
        assert abs(alone.correct[0].mean() - fit.correct[0][0, head].mean()) < 0.1


def test_missing_labels_cost_and_count_nothing():
    states, targets, counts = problem(groups=1, heads=1)
    targets[0, 0, 900:] = MISSING
    targets[0, 0, :300] = MISSING
    fit = fit_probes(states, targets, counts, [SPLIT], [8], [0], QUICK)
    assert (fit.log_prob[0][0, 0, 100:] == 0).all()
    assert (fit.log_prob[0][0, 0, :100] < 0).all()
    assert not fit.correct[0][0, 0, 100:].any()


def test_test_labels_decide_nothing():
    states, targets, counts = problem()
    changed = targets.copy()
    changed[:, :, 800:] = 0
    first = fit_probes(states, targets, counts, [SPLIT], [8], [0], QUICK)
    second = fit_probes(states, changed, counts, [SPLIT], [8], [0], QUICK)
    assert np.array_equal(first.validation, second.validation)
    same = targets[:, :, 800:] == 0
    assert np.array_equal(first.log_prob[0][same], second.log_prob[0][same])


def test_whitened_states_are_uncorrelated_with_deviation_one():
    rng = np.random.default_rng(0)
    states = (rng.normal(size=(500, 6)) @ rng.normal(size=(6, 8)) * 10 + 3).astype(np.float32)
    states[:, 3] = 7
    found = whitened(states, np.arange(400), 0.0)
    assert found.shape == (500, 6)
    np.testing.assert_allclose(np.cov(found[:400].T, bias=True), np.eye(6), atol=1e-3)
    assert whitened(np.ones((10, 3), np.float32), np.arange(5), 1e-4).shape == (10, 0)
