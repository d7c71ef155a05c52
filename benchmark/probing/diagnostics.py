"""Diagnostics beside the verdict: accuracy and what it is worth. They decide nothing.

Sources: control labels and selectivity, Hewitt & Liang 2019 (arXiv 1909.03368), section 2; macro-F1 as in scikit-learn.
Letters: `Q` seeds, `S` semantics, `F` features, `R` states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmark.probing.control_gap import PriorBaseline
from benchmark.probing.labels import MISSING, ProbeSet
from benchmark.probing.probe_fit import ProbeFit
from benchmark.probing.protocol import Protocol
from karel_env.features import FEATURES
from karel_env.language import Programs

CONTROL_LABELS = "control labels"
CONTROL_SEED = 77_023


@dataclass(frozen=True)
class Diagnostics:
    """Of one feature, under the original, over all test states.

    Attributes:
        skill_unseen: skill on test states whose action prefix does not occur in their probes' training; None if none.
        accuracy: share of states whose most probable class is the true one.
        majority: the same of the most frequent class of the step.
        macro_f1: mean over the classes that occur of the harmonic mean of precision and recall.
        selectivity: accuracy less that on control labels, which a word's type alone decides.
        states: n of all of these.
    """

    skill_unseen: float | None
    accuracy: float
    majority: float
    macro_f1: float
    selectivity: float
    states: int


def add_control_labels(probe_set: ProbeSet, programs: Programs) -> ProbeSet:
    """The probe set with one more semantics, `CONTROL`: a random class for each (step, word), drawn as labels fall.

    Hewitt & Liang give each word type a random label with the frequencies of the real ones; a type here is a word at
    a step of the program. What a probe learns of these labels it has memorised.
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
    around = np.concatenate([probe_set.around, np.broadcast_to(control, (len(probe_set.offsets), 1, *control.shape))], 1)
    return replace(probe_set, around=around, semantics=(*probe_set.semantics, CONTROL_LABELS))


@dataclass(frozen=True)
class DiagnosticEvidence:
    """What the diagnostics are computed from, as `probes.data` holds it; `C` is the largest number of classes.

    Attributes:
        confusion: int64 [F, C, C], test states by true and by most probable class, under the original.
        control_hits: int64 [F], test states whose class under the control labels is the most probable one.
        unseen: float64 [F], nats, summed over test states whose action prefix training does not have.
    """

    confusion: np.ndarray
    control_hits: np.ndarray
    unseen: np.ndarray


def macro_f1(confusion: np.ndarray) -> float:
    """Unweighted mean over the classes that occur in either of 2 TP / (2 TP + FP + FN).

    Args:
        confusion: int [C, C], by true and by predicted class.
    """
    hits, occurrences = np.diag(confusion), confusion.sum(0) + confusion.sum(1)
    return float(np.mean(2 * hits[occurrences > 0] / occurrences[occurrences > 0]))


def collect_diagnostic_evidence(
    fits: Sequence[ProbeFit], pool: np.ndarray, probe_set: ProbeSet, protocol: Protocol
) -> DiagnosticEvidence:
    """Of all features; `pool` int [Q, S, F] is the view that each seed and semantics chose."""
    splits = [probe_set.split(seed) for seed in protocol.seeds]
    control = probe_set.semantics.index(CONTROL_LABELS) if CONTROL_LABELS in probe_set.semantics else None
    num_classes = int(probe_set.counts.max())
    confusion = np.zeros((len(FEATURES), num_classes, num_classes), np.int64)
    control_hits, unseen = np.zeros(len(FEATURES), np.int64), np.zeros(len(FEATURES))
    for f in range(len(FEATURES)):

        def labels_and_predictions(semantics: int, f: int = f) -> tuple[np.ndarray, np.ndarray]:
            """Labels and predictions of all seeds' test states that have a label."""
            label = np.concatenate([probe_set.classes[semantics, f, split.test] for split in splits])
            predicted = np.concatenate([fits[pool[q, semantics, f]].predicted[q][semantics, f] for q in range(len(splits))])
            return label[label != MISSING], predicted[label != MISSING]

        label, predicted = labels_and_predictions(0)
        np.add.at(confusion[f], (label, predicted), 1)
        control_pair = labels_and_predictions(control) if control is not None else (label, label)
        control_hits[f] = int((control_pair[0] == control_pair[1]).sum())
        for q, split in enumerate(splits):
            is_unseen = ~probe_set.seen[split.test]
            unseen[f] -= fits[pool[q, 0, f]].log_prob[q][0, f, is_unseen].sum()
    return DiagnosticEvidence(confusion, control_hits, unseen)


def compute_diagnostics(
    evidence: DiagnosticEvidence, probe_set: ProbeSet, baseline: PriorBaseline, protocol: Protocol
) -> dict[str, Diagnostics]:
    """The diagnostics of each feature with any label, from what a run stores."""
    prior = _prior_on_unseen(probe_set, baseline, protocol)
    diagnostics: dict[str, Diagnostics] = {}
    for f, feature in enumerate(FEATURES):
        confusion = evidence.confusion[f]
        states = int(confusion.sum())
        if not states:
            continue
        accuracy = float(np.trace(confusion) / states)
        with np.errstate(invalid="ignore", divide="ignore"):
            unseen = 1 - evidence.unseen[f] / prior[f]
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
    """int64 [F, C], test states of all seeds by their class under the original: the row sums of every confusion."""
    num_classes = int(probe_set.counts.max())
    tests = np.concatenate([probe_set.split(seed).test for seed in protocol.seeds])
    labels = probe_set.classes[0][:, tests]
    return np.stack([np.bincount(label[label != MISSING], minlength=num_classes) for label in labels]).astype(np.int64)


def _prior_on_unseen(probe_set: ProbeSet, baseline: PriorBaseline, protocol: Protocol) -> np.ndarray:
    """float64 [F], nats of the prior under the original on test states with an action prefix not seen in training."""
    prior = np.zeros(len(FEATURES))
    for q, seed in enumerate(protocol.seeds):
        is_unseen = ~probe_set.seen[probe_set.split(seed).test]
        prior -= baseline.priors[q].log_prob[0][:, is_unseen].sum(-1)
    return prior
