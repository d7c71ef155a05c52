"""Probe training, compared with plain torch, scikit-learn, and separate training of each network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from benchmark.probing import probes as probing
from benchmark.probing.labels import MISSING, Split
from benchmark.probing.probes import Networks, batch_order, fit_probes, whiten
from benchmark.probing.protocol import STANDARD
from benchmark.runner.store import MemmapStates

SPLIT = Split(np.arange(600), np.arange(600, 800), np.arange(800, 1000))
OTHER_SPLIT = Split(np.arange(400, 1000), np.arange(200, 400), np.arange(190))
QUICK = replace(STANDARD, steps=60, checks=3, batch=64, learning_rate=1e-2, weight_decay=1.0)
EXACT = {"matmul_dtype": torch.float32}


def problem(groups=3, heads=2, classes=(4, 3), seed=0):
    """States, and labels that are noisy linear functions of them."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(1000, 10)).astype(np.float32)
    targets = np.stack(
        [
            [(states @ rng.normal(size=(10, c)) + rng.gumbel(size=(1000, c))).argmax(1) for c in classes[:heads]]
            for _ in range(groups)
        ]
    )
    return states, targets, np.array(classes[:heads])


@pytest.mark.parametrize("widths", [[], [16], [16, 8]])
def test_grouped_training_equals_separate_training(widths):
    states, targets, counts = problem()
    together = fit_probes([states] * 2, targets, counts, [SPLIT, OTHER_SPLIT], widths, [3, 5], QUICK, **EXACT)
    for q, (seed, split) in enumerate([(3, SPLIT), (5, OTHER_SPLIT)]):
        for g in range(3):
            alone = fit_probes([states], targets[g : g + 1], counts, [split], widths, [seed], QUICK, **EXACT)
            np.testing.assert_allclose(alone.log_prob[0][0], together.log_prob[q][g], atol=2e-4)
            np.testing.assert_allclose(alone.validation[0, 0], together.validation[q, g], atol=2e-4)
            assert (alone.predicted[0][0] == together.predicted[q][g]).mean() > 0.99


@pytest.mark.parametrize("widths", [[], [16], [16, 8]])
def test_a_network_matches_plain_torch(widths):
    """Modules, autograd, cross-entropy and AdamW of torch, from the same weights and in the same order of states."""
    states, targets, counts = problem(groups=1)
    ours = fit_probes([states], targets, counts, [SPLIT], widths, [3], replace(QUICK, checks=1), **EXACT)
    inputs = torch.from_numpy(whiten(states, SPLIT.train, QUICK.ridge))
    sizes = [inputs.shape[1] + 1, *widths, int(counts.sum())]
    start = Networks(sizes, [0], 3, torch.float32)
    layers = [torch.nn.Linear(a, b) for a, b in zip([inputs.shape[1], *widths], sizes[1:], strict=True)]
    with torch.no_grad():
        for i, layer in enumerate(layers):
            layer.weight.copy_(start.weights[i][0, :, : layer.weight.shape[1]])
            layer.bias.zero_()
    model = torch.nn.Sequential(*(m for layer in layers for m in (layer, torch.nn.ReLU())))[:-1]
    optimizer = torch.optim.AdamW(model.parameters(), lr=QUICK.learning_rate, weight_decay=QUICK.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, QUICK.steps)
    labels = torch.from_numpy(targets[0])
    for rows in torch.from_numpy(batch_order(SPLIT.train, QUICK, 3)).split(QUICK.batch):
        parts = model(inputs[rows]).split(counts.tolist(), -1)
        loss = sum(torch.nn.functional.cross_entropy(part, labels[k, rows]) for k, part in enumerate(parts))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        parts = model(inputs[SPLIT.test]).log_softmax(-1) if len(counts) == 1 else model(inputs[SPLIT.test])
        for k, part in enumerate(parts.split(counts.tolist(), -1)):
            theirs = part.log_softmax(-1).gather(1, labels[k, SPLIT.test][:, None])[:, 0]
            np.testing.assert_allclose(ours.log_prob[0][0, k], theirs, atol=1e-4)
            assert np.array_equal(ours.predicted[0][0, k], part.argmax(-1))


def test_seeds_and_initialisations_differ_and_repeat():
    states, targets, counts = problem()
    equal_fit = np.repeat(targets[:1], 2, 0)
    first = fit_probes([states] * 2, equal_fit, counts, [SPLIT] * 2, [16], [0, 1], QUICK, inits=[0, 1])
    repeated = fit_probes([states] * 2, equal_fit, counts, [SPLIT] * 2, [16], [0, 1], QUICK, inits=[0, 1])
    assert np.array_equal(first.log_prob[1], repeated.log_prob[1])
    assert not np.allclose(first.log_prob[0], first.log_prob[1], atol=1e-2)
    assert not np.allclose(first.log_prob[0][0], first.log_prob[0][1], atol=1e-2)
    paired = fit_probes([states], equal_fit, counts, [SPLIT], [16], [0], QUICK)
    # Not to the last bit: the rows of one product are computed by different kernels on some processors.
    np.testing.assert_allclose(paired.log_prob[0][0], paired.log_prob[0][1], atol=1e-5)


def test_threads_and_chunks_change_nothing(monkeypatch):
    states, targets, counts = problem(groups=5)
    threads = torch.get_num_threads()
    fits = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            fits.append(fit_probes([states] * 3, targets, counts, [SPLIT] * 3, [16], [0, 1, 2], QUICK))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert all(np.array_equal(*pair) for pair in zip(fits[0].log_prob, fits[1].log_prob, strict=True))
    monkeypatch.setattr(probing, "GROUPS_PER_CHUNK", 2)
    chunked = fit_probes([states], targets, counts, [SPLIT], [16], [0], QUICK, **EXACT)
    monkeypatch.setattr(probing, "GROUPS_PER_CHUNK", 5)
    full_fit = fit_probes([states], targets, counts, [SPLIT], [16], [0], QUICK, **EXACT)
    np.testing.assert_allclose(chunked.log_prob[0], full_fit.log_prob[0], atol=1e-4)


def test_linear_probe_matches_logistic_regression_of_scikit_learn():
    states, targets, counts = problem(groups=1, heads=1, classes=(4,))
    long = replace(STANDARD, steps=600, batch=256, learning_rate=2e-2, weight_decay=0.0)
    fit = fit_probes([states], targets, counts, [SPLIT], [], [0], long, **EXACT)
    scaled = whiten(states, SPLIT.train, 0.0)
    judge = LogisticRegression(C=1e3, max_iter=1000).fit(scaled[SPLIT.train], targets[0, 0, SPLIT.train])
    truth = targets[0, 0, SPLIT.test]
    assert -fit.log_prob[0].mean() == pytest.approx(log_loss(truth, judge.predict_proba(scaled[SPLIT.test])), abs=0.02)
    ours = (fit.predicted[0][0, 0] == truth).mean()
    assert ours == pytest.approx(judge.score(scaled[SPLIT.test], truth), abs=0.04)


def test_heads_of_different_sizes_keep_their_order():
    states, targets, counts = problem(groups=1, heads=4, classes=(5, 2, 5, 3))
    longer = replace(QUICK, steps=300, learning_rate=2e-2)
    fit = fit_probes([states], targets, counts, [SPLIT], [], [0], longer)
    assert (-fit.log_prob[0][0].mean(1) < 0.9 * np.log([5, 2, 5, 3])).all()
    for head in range(4):
        one = slice(head, head + 1)
        alone = fit_probes([states], targets[:, one], counts[one], [SPLIT], [], [0], longer)
        assert abs((alone.predicted[0] == fit.predicted[0][:, one]).mean() - 1) < 0.1


def test_groups_may_have_different_classes():
    """A class that a group does not have is never predicted and has no probability."""
    states, targets, _ = problem(groups=2, heads=1, classes=(5,))
    targets[1] %= 2
    fit = fit_probes([states], targets, np.array([[5], [2]]), [SPLIT], [16], [0], replace(QUICK, steps=200))
    assert fit.predicted[0][1].max() == 1
    with pytest.raises(ValueError, match="different class counts"):
        fit_probes([states], np.repeat(targets, 2, 1), np.array([[5, 5], [5, 2]]), [SPLIT], [16], [0], QUICK)
    alone = fit_probes([states], targets[1:], np.array([2]), [SPLIT], [16], [0], replace(QUICK, steps=200))
    assert -fit.log_prob[0][1].mean() == pytest.approx(-alone.log_prob[0][0].mean(), abs=0.1)


def test_missing_labels_are_ignored():
    states, targets, counts = problem(groups=1, heads=1)
    targets[0, 0, 900:] = MISSING
    targets[0, 0, :300] = MISSING
    fit = fit_probes([states], targets, counts, [SPLIT], [8], [0], QUICK)
    assert (fit.log_prob[0][0, 0, 100:] == 0).all()
    assert (fit.log_prob[0][0, 0, :100] < 0).all()
    changed = states.copy()
    changed[:300] = np.random.default_rng(1).permutation(changed[:300])
    unchanged = fit_probes([changed], targets, counts, [SPLIT], [8], [0], QUICK)
    np.testing.assert_allclose(unchanged.log_prob[0], fit.log_prob[0], atol=0.05)


def test_test_labels_do_not_affect_selection():
    states, targets, counts = problem()
    changed = targets.copy()
    changed[:, :, 800:] = 0
    first = fit_probes([states], targets, counts, [SPLIT], [8], [0], QUICK)
    second = fit_probes([states], changed, counts, [SPLIT], [8], [0], QUICK)
    assert np.array_equal(first.validation, second.validation)
    assert np.array_equal(first.predicted[0], second.predicted[0])
    unchanged = targets[:, :, 800:] == 0
    assert np.array_equal(first.log_prob[0][unchanged], second.log_prob[0][unchanged])


def test_whitened_states_are_uncorrelated_with_deviation_one():
    rng = np.random.default_rng(0)
    states = (rng.normal(size=(500, 6)) @ rng.normal(size=(6, 8)) * 10 + 3).astype(np.float32)
    states[:, 3] = 7
    whitened = whiten(states, np.arange(400), 0.0)
    assert whitened.shape == (500, 6)
    np.testing.assert_allclose(np.cov(whitened[:400].T, bias=True), np.eye(6), atol=1e-3)
    assert whiten(np.ones((10, 3), np.float32), np.arange(5), 1e-4).shape == (10, 0)


def test_memory_mapped_states_equal_arrays(tmp_path):
    states, targets, counts = problem()
    parts = []
    for i, part in enumerate(np.array_split(states, 3)):
        np.save(tmp_path / f"{i}.npy", part)
        parts.append(np.load(tmp_path / f"{i}.npy", mmap_mode="r"))
    stored = MemmapStates(parts)
    assert stored.shape == states.shape
    np.testing.assert_array_equal(stored[np.array([999, 0, 334, 333])], states[[999, 0, 334, 333]])
    np.testing.assert_array_equal(stored[330:340], states[330:340])
    ours, theirs = (fit_probes([s], targets, counts, [SPLIT], [8], [0], QUICK) for s in (stored, states))
    assert np.array_equal(ours.log_prob[0], theirs.log_prob[0])


def test_bfloat16_products_keep_scores():
    states, targets, counts = problem(groups=4)
    long = replace(STANDARD, steps=200, batch=128)
    skills = []
    for products in (torch.float32, torch.bfloat16):
        fit = fit_probes([states] * 2, targets, counts, [SPLIT, OTHER_SPLIT], [32], [0, 1], long, matmul_dtype=products)
        skills.append([-log_prob.mean(-1) / np.log(counts) for log_prob in fit.log_prob])
    assert np.abs(np.subtract(*skills)).max() < 0.02
    assert np.abs(np.subtract(*skills)).mean() < 0.005


def test_on_steps_counts_every_network():
    states, targets, counts = problem(groups=11)
    steps: list[int] = []
    fit_probes([states] * 2, targets, counts, [SPLIT] * 2, [8], [0, 1], QUICK, steps.append)
    assert sum(steps) == 11 * 2 * QUICK.steps
