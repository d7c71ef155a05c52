"""The step-conditional label prior: class frequencies given the number of actions before the token.

It is the zero of `skill`, and replaces a probe that is no better on validation (docs/probing.md, "Folds, seeds and
intervals"). Letters: `R` states, `S` semantics, `F` features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmark.probing.labels import MISSING, ProbeSet, Split
from karel_env.features import FEATURES

PRESENT_FEATURES = ("facing", "absolute_x", "absolute_y")
"""The features of the robot's present state that the prior of `reach` is conditioned on."""


@dataclass(frozen=True)
class LabelPrior:
    """The prior of one split.

    Attributes:
        validation: float64 [S, F], mean cross-entropy in nats on the validation states.
        log_prob: float64 [S, F, Rt], log-probability of each test label; 0 where the label is missing.
        correct: bool [S, F, Rt], whether the most frequent class is the true one.
    """

    validation: np.ndarray
    log_prob: np.ndarray
    correct: np.ndarray


def fit_step_prior(probe_set: ProbeSet, split: Split, present: ProbeSet | None = None) -> LabelPrior:
    """Fit the class frequencies per step on the training labels (add-one smoothing) and evaluate them on the others.

    Args:
        probe_set: labels.
        split: rows to fit on and to evaluate on.
        present: labels at offset 0; if given, frequencies are per (step, present state of the robot under the same
            semantics), so that skill is what does not follow from the present state.
    """
    shape = probe_set.classes.shape[:2]
    prior = LabelPrior(np.zeros(shape), np.zeros((*shape, len(split.test))), np.zeros((*shape, len(split.test)), bool))
    parts = (split.train, split.validation, split.test)
    for s in range(shape[0]):
        condition = probe_set.step if present is None else _with_present(present, s)
        conditions, num_conditions = [condition[rows] for rows in parts], int(condition.max()) + 1
        labels = [probe_set.classes[s][:, rows] for rows in parts]
        for f in range(shape[1]):
            (train, validation, tested), (_, _, is_labelled) = zip(
                *(_labelled(c, label[f]) for c, label in zip(conditions, labels, strict=True)), strict=True
            )
            log_prob = _frequencies(train[0], train[1], num_conditions, int(probe_set.counts[f]))
            prior.validation[s, f] = -log_prob[validation].mean() if len(validation[0]) else 0.0
            prior.log_prob[s, f, is_labelled] = log_prob[tested]
            prior.correct[s, f, is_labelled] = log_prob.argmax(1)[tested[0]] == tested[1]
    return prior


def _labelled(condition: np.ndarray, label: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """(condition, label) of the rows that have a label, and bool [rows], which these are."""
    is_labelled = label != MISSING
    if is_labelled.all():
        return (condition, label), is_labelled
    return (condition[is_labelled], label[is_labelled]), is_labelled


def _with_present(present: ProbeSet, semantics: int) -> np.ndarray:
    """int64 [R], index of the (step, heading, position) of each token under one semantics."""
    code = present.step.astype(np.int64)
    for name in PRESENT_FEATURES:
        f = FEATURES.index(name)
        code = code * (int(present.counts[f]) + 1) + present.classes[semantics, f] + 1
    return np.asarray(np.unique(code, return_inverse=True)[1])


def _frequencies(condition: np.ndarray, label: np.ndarray, num_conditions: int, classes: int) -> np.ndarray:
    """float64 [conditions, classes], log-probabilities."""
    counted = np.bincount(condition * classes + label, minlength=num_conditions * classes)
    count = counted.reshape(-1, classes) + 1.0
    return np.asarray(np.log(count / count.sum(1, keepdims=True)))
