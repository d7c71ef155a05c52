"""Diagnostics reported with the verdict: accuracy and the references to judge it by. They do not enter the verdict.

Sources: control labels and selectivity, Hewitt & Liang 2019 (arXiv 1909.03368), section 2; macro-F1 as in scikit-learn.
Letters: `Q` seeds, `S` semantics, `F` features, `R` states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmark.probing.control_gap import PriorBaseline, skill_score
from benchmark.probing.labels import MISSING, ProbeSet
from benchmark.probing.probe_fit import ProbeFit
from benchmark.probing.protocol import Protocol
from karel_env.features import FEATURES
from karel_env.language import Programs

CONTROL_LABELS = "control labels"
CONTROL_SEED = 77_023


@dataclass(frozen=True)
class Diagnostics:
    """Diagnostics of one feature under the original semantics, over all test states.

    Attributes:
        skill_unseen: skill on test states whose action prefix does not occur in the training of their probes; None if
            there are no such states.
        accuracy: share of states whose most probable class is the true one.
        majority: accuracy of the most frequent class of each step.
        macro_f1: mean of the F1 score over the classes that occur.
        selectivity: accuracy minus accuracy on control labels (Hewitt & Liang 2019).
        states: number of test states.
    """

    skill_unseen: float | None
    accuracy: float
    majority: float
    macro_f1: float
    selectivity: float
    states: int


def add_control_labels(probe_set: ProbeSet, programs: Programs) -> ProbeSet:
    """Add one more semantics, `CONTROL_LABELS`, to a probe set: a random class per (step, token).

    Hewitt & Liang (2019) assign each word type a random label with the frequencies of the real labels; a type here is a
    token at a step of the program. A probe can learn these labels by memorisation only.
    """
    generator = np.random.default_rng(CONTROL_SEED)
    word = programs.words[programs.offsets[probe_set.program] + 3 + probe_set.word].astype(np.int64)
    types, type_index = np.unique(probe_set.step * 100 + word, return_inverse=True)
    control = np.full((len(FEATURES), len(probe_set.program)), MISSING, np.int16)
    for f in range(len(FEATURES)):
        label = probe_set.classes[0, f]
        present = label[label != MISSING]
        if len(present):
            control[f] = generator.choice(present, len(types))[type_index]
    classes_by_offset = np.concatenate(
        [probe_set.classes_by_offset, np.broadcast_to(control, (len(probe_set.offsets), 1, *control.shape))], 1
    )
    return replace(probe_set, classes_by_offset=classes_by_offset, semantics=(*probe_set.semantics, CONTROL_LABELS))


@dataclass(frozen=True)
class DiagnosticEvidence:
    """The counts that the diagnostics are computed from, as stored in `probes.data`; `C` is the largest number of classes.

    Attributes:
        confusion: int64 [F, C, C], number of test states by true and by most probable class, under the original.
        control_hits: int64 [F], number of test states whose control label is the most probable class.
        unseen: float64 [F], nats, cross-entropy summed over test states whose action prefix is not in the training set.
    """

    confusion: np.ndarray
    control_hits: np.ndarray
    unseen: np.ndarray


def macro_f1(confusion: np.ndarray) -> float:
    """Macro-F1: unweighted mean of 2 TP / (2 TP + FP + FN) over the classes that occur as true or predicted class.

    Args:
        confusion: int [C, C], counts by true and by predicted class.
    """
    hits, occurrences = np.diag(confusion), confusion.sum(0) + confusion.sum(1)
    return float(np.mean(2 * hits[occurrences > 0] / occurrences[occurrences > 0]))


def collect_diagnostic_evidence(
    fits: Sequence[ProbeFit], pool: np.ndarray, probe_set: ProbeSet, protocol: Protocol
) -> DiagnosticEvidence:
    """Count the diagnostics of all features; `pool` int [Q, S, F] is the view that each seed and semantics selected."""
    splits = [probe_set.split(seed) for seed in protocol.seeds]
    control = probe_set.semantics.index(CONTROL_LABELS) if CONTROL_LABELS in probe_set.semantics else None
    num_classes = int(probe_set.counts.max())
    confusion = np.zeros((len(FEATURES), num_classes, num_classes), np.int64)
    control_hits, unseen = np.zeros(len(FEATURES), np.int64), np.zeros(len(FEATURES))
    for f in range(len(FEATURES)):

        def labels_and_predictions(semantics: int, f: int = f) -> tuple[np.ndarray, np.ndarray]:
            """Labels and predictions of the labelled test states of all seeds."""
            label = np.concatenate([probe_set.classes[semantics, f, split.test] for split in splits])
            predicted = np.concatenate(
                [fits[pool[q, semantics, f]].predicted[q][semantics, f] for q in range(len(splits))]
            )
            return label[label != MISSING], predicted[label != MISSING]

        label, predicted = labels_and_predictions(0)
        np.add.at(confusion[f], (label, predicted), 1)
        control_pair = labels_and_predictions(control) if control is not None else (label, label)
        control_hits[f] = int((control_pair[0] == control_pair[1]).sum())
        for q, split in enumerate(splits):
            is_unseen = ~probe_set.is_seen[split.test]
            unseen[f] -= fits[pool[q, 0, f]].log_prob[q][0, f, is_unseen].sum()
    return DiagnosticEvidence(confusion, control_hits, unseen)


def compute_diagnostics(
    evidence: DiagnosticEvidence, probe_set: ProbeSet, baseline: PriorBaseline, protocol: Protocol
) -> dict[str, Diagnostics]:
    """Compute the diagnostics of each feature that has labels from stored evidence."""
    prior = _prior_on_unseen(probe_set, baseline, protocol)
    diagnostics: dict[str, Diagnostics] = {}
    for f, feature in enumerate(FEATURES):
        confusion = evidence.confusion[f]
        states = int(confusion.sum())
        if not states:
            continue
        accuracy = float(np.trace(confusion) / states)
        with np.errstate(invalid="ignore", divide="ignore"):
            unseen = skill_score(evidence.unseen[f], prior[f])
        diagnostics[feature] = Diagnostics(
            skill_unseen=float(unseen) if np.isfinite(unseen) else None,
            accuracy=accuracy,
            majority=float(sum(label_prior.correct[0, f].sum() for label_prior in baseline.priors) / states),
            macro_f1=macro_f1(confusion),
            selectivity=accuracy - float(evidence.control_hits[f] / states),
            states=states,
        )
    return diagnostics


def count_labels(probe_set: ProbeSet, protocol: Protocol) -> np.ndarray:
    """int64 [F, C], number of test states of all seeds by class under the original: the row sums of each confusion matrix."""
    num_classes = int(probe_set.counts.max())
    tests = np.concatenate([probe_set.split(seed).test for seed in protocol.seeds])
    labels = probe_set.classes[0][:, tests]
    return np.stack([np.bincount(label[label != MISSING], minlength=num_classes) for label in labels]).astype(np.int64)


def _prior_on_unseen(probe_set: ProbeSet, baseline: PriorBaseline, protocol: Protocol) -> np.ndarray:
    """float64 [F], nats, cross-entropy of the prior under the original on test states with an unseen action prefix."""
    prior = np.zeros(len(FEATURES))
    for q, seed in enumerate(protocol.seeds):
        is_unseen = ~probe_set.is_seen[probe_set.split(seed).test]
        prior -= baseline.priors[q].log_prob[0][:, is_unseen].sum(-1)
    return prior
