"""Train the probes and record heads of a source of states, and gather their evidence.

Letters: `Q` seeds, `F` relative features, `K` labels, `R` rows, `T` places, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from benchmark.probing.labels import MISSING, Split
from benchmark.probing.probe_fit import ProbeFit, ProbeTrainer, StateArray, fit_in_process
from benchmark.probing.version4.readable_record import (
    NUM_WORDS,
    RECORDS,
    WORD_PAIRS,
    count_targets,
    executed_losses,
    pair_count_targets,
    place_targets,
)
from benchmark.probing.version4.relative_labels import RELATIVE_FEATURES, ROTATION, RelativeProbeSet
from benchmark.probing.version4.rotation_evidence import (
    JudgedRows,
    RotationEvidence,
    select_on_validation,
    step_prior_loss,
)
from benchmark.probing.version4.rotation_protocol import RotationProtocol
from benchmark.probing.version4.turn_pairs import ALL_PAIRS, NUM_ROTATIONS

Views = Sequence[StateArray]
"""Alternative states, float32 [R, D] each, from which validation selects."""


def probe_rotation(
    probe_set: RelativeProbeSet,
    judged_rows: JudgedRows,
    copies: Sequence[Views],
    protocol: RotationProtocol,
    trainer: ProbeTrainer = fit_in_process,
) -> RotationEvidence:
    """Probe one source for the relative features under every label.

    Args:
        probe_set: labels.
        judged_rows: rows that the seeds test, of all seeds or of some.
        copies: views per copy of the source; probe seed i reads copy i modulo the number of copies.
        protocol: settings of the probes; every label has `protocol.copies` networks, whose losses are averaged.
        trainer: trains the probes.
    """
    targets = np.repeat(probe_set.classes, protocol.copies, 0)
    inits = list(range(protocol.copies)) * len(probe_set.classes)
    fits = [
        _fit(judged_rows, [views[v] for views in copies], targets, probe_set.counts, inits, protocol, trainer)
        for v in range(len(copies[0]))
    ]
    losses = []
    for q, rows in enumerate(judged_rows.evaluated):
        candidates = []
        for fit in fits:
            by_copy = -fit.log_prob[q].astype(np.float64).reshape(-1, protocol.copies, *fit.log_prob[q].shape[1:])
            candidates.append(by_copy.mean(1).swapaxes(0, 1))
        step = probe_set.step[rows]
        losses.append(select_on_validation(candidates, judged_rows.prior_loss[q], step, judged_rows.num_validation[q]))
    return judged_rows.sum_losses(losses)


def execute_records(
    probe_set: RelativeProbeSet,
    judged_rows: JudgedRows,
    views: Views,
    protocol: RotationProtocol,
    posterior_trainer: Callable[..., ProbeFit] = fit_in_process,
) -> dict[str, RotationEvidence]:
    """Read the words, the counts and the pair counts from a model's states and execute them under every label.

    `posterior_trainer` trains like `fit_probes`, and takes its `with_posterior`.

    Returns the evidence of `RECORDS`, on rotation only. The evidence of the first has the cross-entropies of the word and
    count heads.
    """
    positions, counts = place_targets(probe_set.prefixes), count_targets(probe_set.prefixes)
    sums = pair_count_targets(probe_set.prefixes)
    num_places = len(positions)
    trainer = partial(posterior_trainer, with_posterior=True)
    place_fits: list[ProbeFit] = []
    count_fits: list[ProbeFit] = []
    for view in views:
        inits = list(range(protocol.copies))
        for targets, classes, fits in (
            (positions, NUM_WORDS, place_fits),
            (np.concatenate([counts, sums]), num_places + 1, count_fits),
        ):
            grouped = np.repeat(targets[None], protocol.copies, 0)
            fits.append(_fit(judged_rows, [view], grouped, np.full(len(targets), classes), inits, protocol, trainer))
    losses: dict[str, list[np.ndarray]] = {name: [] for name in RECORDS}
    heads = []
    for q, rows in enumerate(judged_rows.evaluated):
        candidates: dict[str, list[np.ndarray]] = {name: [] for name in RECORDS}
        for place_fit, count_fit in zip(place_fits, count_fits, strict=True):
            executed = _execute(probe_set, rows, _posteriors(place_fit, q), _posteriors(count_fit, q), num_places)
            for name, loss in executed.items():
                full = judged_rows.prior_loss[q].copy()
                full[RELATIVE_FEATURES.index(ROTATION)] = loss
                candidates[name].append(full)
        step = probe_set.step[rows]
        for name in RECORDS:
            losses[name].append(
                select_on_validation(candidates[name], judged_rows.prior_loss[q], step, judged_rows.num_validation[q])
            )
        head_targets = np.concatenate([positions, counts])
        heads.append(_head_losses(probe_set, judged_rows.splits[q], head_targets, place_fits, count_fits, q))
    head_losses = np.stack(heads)
    return {
        name: judged_rows.sum_losses(losses[name], head_losses if name == RECORDS[0] else None, has_displacement=False)
        for name in RECORDS
    }


def _fit(
    judged_rows: JudgedRows,
    copies: Views,
    targets: np.ndarray,
    counts: np.ndarray,
    inits: Sequence[int],
    protocol: RotationProtocol,
    trainer: Callable[..., ProbeFit],
) -> ProbeFit:
    """Train on the splits of all seeds; results are for validation rows and then test rows."""
    splits = [
        Split(split.train, split.validation, rows)
        for split, rows in zip(judged_rows.splits, judged_rows.evaluated, strict=True)
    ]
    states = [copies[seed % len(copies)] for seed in judged_rows.seeds]
    return trainer(states, targets, counts, splits, [protocol.hidden], judged_rows.seeds, protocol, inits=inits)


def _posteriors(fit: ProbeFit, q: int) -> np.ndarray:
    """float32 [G, R, C], probabilities of the classes of all heads of one seed."""
    assert fit.log_posterior is not None
    return np.exp(fit.log_posterior[q]).swapaxes(1, 2)


def _execute(
    probe_set: RelativeProbeSet, rows: np.ndarray, by_place: np.ndarray, by_count: np.ndarray, num_places: int
) -> dict[str, np.ndarray]:
    """float64 [K, len(rows)] by record, loss of the executed posteriors, mean over networks."""
    lengths = probe_set.step[rows] + 1
    losses = {name: np.zeros((len(ALL_PAIRS), len(rows))) for name in RECORDS}
    labels = probe_set.classes[:, RELATIVE_FEATURES.index(ROTATION), rows]
    for network in range(len(by_place)):
        place_probs = by_place[network].reshape(len(rows), num_places, NUM_WORDS)
        count_probs = by_count[network].reshape(len(rows), NUM_WORDS + len(WORD_PAIRS), num_places + 1)
        for name, loss in executed_losses(place_probs, count_probs, lengths, ALL_PAIRS, labels).items():
            losses[name] += loss / len(by_place)
    assert all(np.isfinite(loss).all() for loss in losses.values())
    assert probe_set.counts[0] == NUM_ROTATIONS
    return losses


def _head_losses(
    probe_set: RelativeProbeSet,
    split: Split,
    targets: np.ndarray,
    place_fits: Sequence[ProbeFit],
    count_fits: Sequence[ProbeFit],
    q: int,
) -> np.ndarray:
    """float64 [2, H], validation cross-entropy of the best view of each word and count head, and of its prior."""
    by_view = [
        np.concatenate([place_fit.validation[q].mean(0), count_fit.validation[q].mean(0)[:NUM_WORDS]])
        for place_fit, count_fit in zip(place_fits, count_fits, strict=True)
    ]
    priors = []
    for target in targets:
        labelled = split.validation[target[split.validation] != MISSING]
        priors.append(step_prior_loss(probe_set.step, target, split.train, labelled).mean() if len(labelled) else 0.0)
    prior = np.array(priors)
    return np.stack([np.minimum(np.min(by_view, 0), prior), prior])
