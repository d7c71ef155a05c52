"""Diagnostics beside the verdict: accuracy and what it is worth. They decide nothing.

Sources: control labels and selectivity, Hewitt & Liang 2019 (arXiv 1909.03368), section 2; macro-F1 as in scikit-learn.
Letters: `Q` seeds, `S` semantics, `F` features, `R` states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmark.labels import MISSING, ProbeSet
from benchmark.probing import Fit
from benchmark.protocol import Protocol
from benchmark.semantic_content import Tested
from karel_env.features import FEATURES
from karel_env.language import Programs

CONTROL = "control labels"
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


def with_control_labels(probe_set: ProbeSet, programs: Programs) -> ProbeSet:
    """The probe set with one more semantics, `CONTROL`: a random class for each (step, word), drawn as labels fall.

    Hewitt & Liang give each word type a random label with the frequencies of the real ones; a type here is a word at
    a step of the program. What a probe learns of these labels it has memorised.
    """
    random = np.random.default_rng(CONTROL_SEED)
    word = programs.words[programs.offsets[probe_set.program] + 3 + probe_set.word].astype(np.int64)
    types, kind = np.unique(probe_set.step * 100 + word, return_inverse=True)
    drawn = np.full((len(FEATURES), len(probe_set.program)), MISSING, np.int16)
    for f in range(len(FEATURES)):
        label = probe_set.classes[0, f]
        known = label[label != MISSING]
        if len(known):
            drawn[f] = random.choice(known, len(types))[kind]
    around = np.concatenate([probe_set.around, np.broadcast_to(drawn, (len(probe_set.offsets), 1, *drawn.shape))], 1)
    return replace(probe_set, around=around, semantics=(*probe_set.semantics, CONTROL))


def macro_f1(label: np.ndarray, predicted: np.ndarray) -> float:
    """Unweighted mean over the classes that occur in either of 2 TP / (2 TP + FP + FN)."""
    scores = []
    for one in np.union1d(label, predicted):
        hit = ((label == one) & (predicted == one)).sum()
        scores.append(2 * hit / ((label == one).sum() + (predicted == one).sum()))
    return float(np.mean(scores))


def diagnose(
    fits: Sequence[Fit], pool: np.ndarray, probe_set: ProbeSet, tested: Tested, protocol: Protocol
) -> dict[str, Diagnostics]:
    """Of each feature with any label; `pool` int [Q, S, F] is the view that each seed and semantics chose."""
    splits = [probe_set.split(seed) for seed in protocol.seeds]
    unseen = _skill_on_unseen(fits, pool, probe_set, tested, protocol)
    found: dict[str, Diagnostics] = {}
    control = probe_set.semantics.index(CONTROL) if CONTROL in probe_set.semantics else None
    for f, feature in enumerate(FEATURES):

        def pooled(semantics: int, f: int = f) -> tuple[np.ndarray, np.ndarray]:
            """Labels and predictions of all seeds' test states that have a label."""
            label = np.concatenate([probe_set.classes[semantics, f, split.test] for split in splits])
            said = np.concatenate([fits[pool[q, semantics, f]].predicted[q][semantics, f] for q in range(len(splits))])
            return label[label != MISSING], said[label != MISSING]

        label, said = pooled(0)
        if not len(label):
            continue
        accuracy = float((label == said).mean())
        apart = pooled(control) if control is not None else (label, label)
        found[feature] = Diagnostics(
            skill_unseen=None if np.isnan(unseen[f]) else float(unseen[f]),
            accuracy=accuracy,
            majority=float(sum(prior.correct[0, f].sum() for prior in tested.priors) / len(label)),
            macro_f1=macro_f1(label, said),
            selectivity=accuracy - float((apart[0] == apart[1]).mean()),
            states=len(label),
        )
    return found


def _skill_on_unseen(
    fits: Sequence[Fit], pool: np.ndarray, probe_set: ProbeSet, tested: Tested, protocol: Protocol
) -> np.ndarray:
    """float64 [F], skill under the original on test states with an action prefix not seen in training; NaN if none."""
    prior, probe = np.zeros(len(FEATURES)), np.zeros(len(FEATURES))
    for q, seed in enumerate(protocol.seeds):
        fresh = ~probe_set.seen[probe_set.split(seed).test]
        prior += tested.priors[q].log_prob[0][:, fresh].sum(-1)
        probe += [fits[pool[q, 0, f]].log_prob[q][0, f, fresh].sum() for f in range(len(FEATURES))]
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - probe / prior
