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
    parts = split.train, split.validation, split.test
    for s in range(shape[0]):
        condition = probe_set.step.astype(np.int64) if present is None else _with_present(present, s)
        steps, conditions = int(condition.max()) + 1, [condition[rows] for rows in parts]
        labels = [probe_set.classes[s][:, rows] for rows in parts]
        for f in range(shape[1]):
            # One more column, the first, is for missing labels.
            width = int(probe_set.counts[f]) + 1
            train, validation, test = (
                at * width + label[f] - MISSING for at, label in zip(conditions, labels, strict=True)
            )
            log_prob, is_largest = _frequencies(train, steps, width)
            is_labelled = labels[1][f] != MISSING
            prior.validation[s, f] = -log_prob[validation[is_labelled]].mean() if is_labelled.any() else 0.0
            prior.log_prob[s, f], prior.correct[s, f] = log_prob[test], is_largest[test]
    return prior


def _with_present(present: ProbeSet, semantics: int) -> np.ndarray:
    """int64 [R], index of the (step, heading, position) of each token under one semantics."""
    code = present.step.astype(np.int64)
    for name in PRESENT_FEATURES:
        f = FEATURES.index(name)
        code = code * (int(present.counts[f]) + 1) + present.classes[semantics, f] + 1
    return np.asarray(np.unique(code, return_inverse=True)[1])


def _frequencies(cells: np.ndarray, steps: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """float64 and bool [steps * width], log-probability of each label and whether it is the most frequent of its step.

    Args:
        cells: step * width + column of each training label; column 0, of missing labels, gets 0 and False.
        steps, width: number of steps and of columns.
    """
    count = np.bincount(cells, minlength=steps * width).reshape(steps, width)[:, 1:] + 1.0
    log_prob, is_largest = np.zeros((steps, width)), np.zeros((steps, width), bool)
    log_prob[:, 1:] = np.log(count / count.sum(1, keepdims=True))
    is_largest[np.arange(steps), log_prob[:, 1:].argmax(1) + 1] = True
    return log_prob.ravel(), is_largest.ravel()
