"""Training for protocol 4: posteriors, sums over groups, and states whose gaps are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from worlds import WORLDS_SUITE

from benchmark.probing.labels import MISSING, Split
from benchmark.probing.probes import fit_probes
from benchmark.probing.version4.measure_rotation import measure_rotation, prefix_history_states, relative_probe_set
from benchmark.probing.version4.rotation_evidence import judge_rows, step_prior_loss
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD
from benchmark.probing.version4.rotation_sources import probe_rotation
from benchmark.probing.version4.turn_pairs import SEMANTIC_PAIRS
from benchmark.tasks.shared_prompts import shared_prompts
from benchmark.tasks.suite import load_suite

PROTOCOL = replace(
    ROTATION_STANDARD, folds=4, seeds=(0, 1), copies=1, steps=60, checks=2, hidden=24, batch=128, random_inits=2
)  # fmt: skip


@pytest.fixture(scope="module")
def blind():
    return shared_prompts(load_suite(WORLDS_SUITE))


@pytest.fixture(scope="module")
def probe_set(blind):
    return relative_probe_set(blind, PROTOCOL, 400)


@pytest.fixture(scope="module")
def judged(probe_set):
    return judge_rows(probe_set, PROTOCOL)


def test_posteriors_are_distributions_that_hold_the_probability_of_the_label() -> None:
    random = np.random.default_rng(0)
    states = random.normal(size=(200, 6)).astype(np.float32)
    targets = np.stack([random.integers(3, size=200), random.integers(2, size=200)])[None].repeat(2, 0)
    targets[0, 1, 170:180] = MISSING
    split = Split(np.arange(100), np.arange(100, 150), np.arange(150, 200))
    counts = np.array([3, 2])
    arguments = ([states], targets, counts, [split], [8], [0], PROTOCOL)
    fit, plain = fit_probes(*arguments, inits=[0, 1], with_posterior=True), fit_probes(*arguments, inits=[0, 1])
    assert plain.log_posterior is None
    assert (plain.log_prob[0] == fit.log_prob[0]).all()
    posterior = fit.log_posterior[0]
    assert posterior.shape == (2, 5, 50)
    for head, classes in enumerate((slice(0, 3), slice(3, 5))):
        assert np.exp(posterior[:, classes]).sum(1) == pytest.approx(np.ones((2, 50)), abs=1e-3)
        label = targets[0, head, split.test]
        labelled = np.flatnonzero(label >= 0)
        own = posterior[:, classes][:, label[labelled], labelled]
        assert own == pytest.approx(fit.log_prob[0][:, head, labelled], abs=1e-3)
        assert (posterior[:, classes].argmax(1) == fit.predicted[0][:, head]).all()


def test_every_test_row_is_summed_once(probe_set, judged) -> None:
    tested = [split.test for split in judged.splits]
    assert judged.num_rows.sum() == sum(map(len, tested))
    assert (judged.num_seeds == 1).all()
    unseen = sum(probe_set.is_unseen(split, split.test).sum() for split in judged.splits)
    assert judged.num_unseen == unseen == judged.num_rows[:, 1].sum()
    losses = [np.ones((3, len(probe_set.classes), len(rows))) for rows in judged.evaluated]
    summed = judged.sum_losses(losses)
    assert (summed.rotation[0] == judged.num_rows.sum(0)).all()
    assert (summed.displacement[1, 6] == judged.num_rows.sum((0, 1))).all()
    assert (summed.by_position[0] == judged.num_rows.sum((1, 2))).all()
    assert summed.rotation_by_seed[:, 0].sum(1).tolist() == [len(rows) for rows in tested]
    assert summed.displacement_by_seed[:, 0, 0].tolist() == [len(rows) for rows in tested]


def test_a_group_of_the_bootstrap_lies_in_one_fold(probe_set, judged) -> None:
    groups = [set(np.unique(cell % judged.num_rows.shape[2]).tolist()) for cell in judged.cell]
    assert not groups[0] & groups[1]
    assert len(groups[0] | groups[1]) == judged.num_rows.shape[2]


def test_the_prior_against_frequencies_by_hand(probe_set) -> None:
    split, label = probe_set.split(0), probe_set.classes[0, 0]
    rows = split.test[:50]
    loss = step_prior_loss(probe_set.step, label, split.train, rows)
    for i in (0, 7, 31):
        same_step = label[split.train][probe_set.step[split.train] == probe_set.step[rows[i]]]
        frequency = ((same_step == label[rows[i]]).sum() + 1) / (len(same_step) + label.max() + 1)
        assert loss[i] == pytest.approx(-np.log(frequency))


def test_states_with_a_known_content(blind, probe_set, judged) -> None:
    history = prefix_history_states(probe_set, blind.tasks.inputs[:, 0])
    baseline = probe_rotation(probe_set, judged, [[history]], PROTOCOL)
    rotation = np.eye(4, dtype=np.float32)[probe_set.classes[0, 0]]
    noise = np.random.default_rng(0).normal(size=(len(rotation), 8)).astype(np.float32)
    evidence = measure_rotation(
        probe_set, judged, [noise, rotation], PROTOCOL, baseline, [[noise], [noise[::-1].copy()]]
    )

    def skills(source: str) -> np.ndarray:
        return 1 - evidence[source].rotation.sum((1, 2)) / judged.prior.rotation.sum((1, 2))

    num_semantics = len(SEMANTIC_PAIRS)
    assert skills("model")[0] > 0.9 > 0.5 > skills("model")[1:num_semantics].max()
    assert skills("model")[num_semantics:].min() > 0.4  # They follow from the rotation in part.
    assert abs(skills("random-init")).max() < 0.03
    assert skills("token-history").min() > 0.2
    assert max(skills(name)[0] for name in evidence if name.startswith("record")) < skills("model")[0]
    head_loss, head_prior = evidence["record-places"].heads.mean(0)
    assert (head_loss <= head_prior + 1e-6).all()
    assert (head_loss < head_prior - 0.01).any()
