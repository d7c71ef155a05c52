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
    for s in range(shape[0]):
        condition = probe_set.step if present is None else _with_present(present, s)
        for f in range(shape[1]):
            label = probe_set.classes[s, f]
            log_prob = _frequencies(condition, label, split.train, int(probe_set.counts[f]))
            validation = split.validation[label[split.validation] != MISSING]
            prior.validation[s, f] = (
                -log_prob[condition[validation], label[validation]].mean() if len(validation) else 0.0
            )
            is_labelled = label[split.test] != MISSING
            tested = split.test[is_labelled]
            prior.log_prob[s, f, is_labelled] = log_prob[condition[tested], label[tested]]
            prior.correct[s, f, is_labelled] = log_prob.argmax(1)[condition[tested]] == label[tested]
    return prior


def _with_present(present: ProbeSet, semantics: int) -> np.ndarray:
    """int64 [R], index of the (step, heading, position) of each token under one semantics."""
    code = present.step.astype(np.int64)
    for name in PRESENT_FEATURES:
        f = FEATURES.index(name)
        code = code * (int(present.counts[f]) + 1) + present.classes[semantics, f] + 1
    return np.asarray(np.unique(code, return_inverse=True)[1])


def _frequencies(step: np.ndarray, label: np.ndarray, train: np.ndarray, classes: int) -> np.ndarray:
    """float64 [steps, classes], log-probabilities."""
    labelled = train[label[train] != MISSING]
    cells = (int(step.max()) + 1) * classes
    counted = np.bincount(step[labelled] * classes + label[labelled], minlength=cells)
    count = counted.reshape(-1, classes) + 1.0
    return np.asarray(np.log(count / count.sum(1, keepdims=True)))
