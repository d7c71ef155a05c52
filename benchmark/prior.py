"""The step-conditional prior: what is known of a label from the number of actions before it alone.

It is the zero of `skill`, and what a probe falls back on that does no better on validation.
Source: shared/PROBING.md, The score. Letters: `R` states, `S` semantics, `F` features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmark.labels import MISSING, ProbeSet, Split


@dataclass(frozen=True)
class Prior:
    """The prior of one split.

    Attributes:
        validation: float64 [S, F], cross-entropy in nats on its validation states.
        log_prob: float64 [S, F, Rt], log-probability of each test label; 0 where the label is missing.
        correct: bool [S, F, Rt], whether the most frequent class is the true one.
    """

    validation: np.ndarray
    log_prob: np.ndarray
    correct: np.ndarray


def step_prior(probe_set: ProbeSet, split: Split) -> Prior:
    """Frequencies of each step among the training labels, with one added to each count, on the other states."""
    shape = probe_set.classes.shape[:2]
    found = Prior(np.zeros(shape), np.zeros((*shape, len(split.test))), np.zeros((*shape, len(split.test)), bool))
    for s, f in np.ndindex(*shape):
        label = probe_set.classes[s, f]
        log_prob = _frequencies(probe_set.step, label, split.train, int(probe_set.counts[f]))
        chosen = split.validation[label[split.validation] != MISSING]
        found.validation[s, f] = -log_prob[probe_set.step[chosen], label[chosen]].mean() if len(chosen) else 0.0
        known = label[split.test] != MISSING
        tested = split.test[known]
        found.log_prob[s, f, known] = log_prob[probe_set.step[tested], label[tested]]
        found.correct[s, f, known] = log_prob.argmax(1)[probe_set.step[tested]] == label[tested]
    return found


def _frequencies(step: np.ndarray, label: np.ndarray, train: np.ndarray, classes: int) -> np.ndarray:
    """float64 [steps, classes], log-probabilities."""
    there = train[label[train] != MISSING]
    count = np.ones((int(step.max()) + 1, classes))
    np.add.at(count, (step[there], label[there]), 1)
    return np.asarray(np.log(count / count.sum(1, keepdims=True)))
