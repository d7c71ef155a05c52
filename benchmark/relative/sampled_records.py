"""The readable record where it cannot be executed exactly: samples of the words that probes read, executed one by one.

Walls and conditions make displacement, and rotation in programs with control flow, no function of the counts. The record is
given more than any reader has of it: the skeleton of the program (conditions, loops, brackets) and the world.

Letters: `Q` seeds, `F` relative features, `K` labels, `R` rows, `T` places, `S` samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from benchmark.probing.labels import MISSING, Split
from benchmark.probing.probe_fit import ProbeFit, StateArray, fit_in_process
from benchmark.probing.version4.readable_record import (
    NUM_WORDS,
    RECORDS,
    WORD_PAIRS,
    count_targets,
    pair_count_targets,
    place_targets,
)
from benchmark.probing.version4.relative_labels import RELATIVE_FEATURES
from benchmark.probing.version4.rotation_evidence import (
    JudgedRows,
    RotationEvidence,
    select_on_validation,
    step_prior_loss,
)
from benchmark.probing.version4.rotation_protocol import RotationProtocol
from benchmark.probing.version4.turn_pairs import SAME_WORDS_PAIRS, SEMANTIC_PAIRS
from benchmark.relative.control_labels import SEMANTICS, SUMS, ControlProbeSet
from benchmark.relative.samples import sample_counts, sample_places, sample_sums
from karel_env.execution.first_executions import FirstExecutions, run_to_words

NUM_SAMPLES = 64
PRIOR_WEIGHTS = (0.05, 0.5, 4.0)
"""Samples that the label prior stands for beside those that are executed; validation selects, with the view."""
_ROWS_PER_CHUNK = 1000
_SAMPLES_SEED = 80_201


def sample_records(
    probe_set: ControlProbeSet,
    judged_rows: JudgedRows,
    views: Sequence[StateArray],
    protocol: RotationProtocol,
    num_samples: int = NUM_SAMPLES,
    posterior_trainer: Callable[..., ProbeFit] = fit_in_process,
) -> dict[str, RotationEvidence]:
    """Read words, counts and sums of two counts from states and execute samples of each under every label.

    Args:
        probe_set: labels.
        judged_rows: rows that the seeds test.
        views: float32 [R, D] per view.
        protocol: settings of the probes.
        num_samples: S, per row, seed, view and record.
        posterior_trainer: trains like `fit_probes`, and takes its `with_posterior`.

    Returns:
        evidence of `RECORDS` with losses of all features. That of the first has the cross-entropies of the heads.
    """
    positions, counts = place_targets(probe_set.prefixes), count_targets(probe_set.prefixes)
    heads = np.concatenate([counts, pair_count_targets(probe_set.prefixes)])
    num_places = len(positions)
    place_fits, count_fits = [], []
    for view in views:
        fit = partial(_fit_heads, judged_rows, view, protocol, posterior_trainer)
        place_fits.append(fit(positions, NUM_WORDS))
        count_fits.append(fit(heads, num_places + 1))
    losses: dict[str, list[np.ndarray]] = {name: [] for name in RECORDS}
    head_losses = []
    for q, rows in enumerate(judged_rows.evaluated):
        candidates: dict[str, list[np.ndarray]] = {name: [] for name in RECORDS}
        for v, (place_fit, count_fit) in enumerate(zip(place_fits, count_fits, strict=True)):
            random = np.random.default_rng([_SAMPLES_SEED, judged_rows.seeds[q], v])
            for network in range(protocol.copies):
                by_place = _posterior(place_fit, q, network).reshape(len(rows), num_places, NUM_WORDS)
                by_count = _posterior(count_fit, q, network).reshape(len(rows), len(heads), num_places + 1)
                hits = _execute(probe_set, rows, by_place, by_count, num_samples, random)
                for name, (num_right, num_executed) in hits.items():
                    candidates[name] += _smooth(num_right, num_executed, judged_rows.prior_loss[q])
        step = probe_set.step[rows]
        for name in RECORDS:
            losses[name].append(
                select_on_validation(candidates[name], judged_rows.prior_loss[q], step, judged_rows.num_validation[q])
            )
        by_view = [
            np.concatenate([place_fit.validation[q].mean(0), count_fit.validation[q].mean(0)[:NUM_WORDS]])
            for place_fit, count_fit in zip(place_fits, count_fits, strict=True)
        ]
        head_losses.append(_head_losses(probe_set, judged_rows.splits[q], [*positions, *counts], by_view))
    return {
        name: judged_rows.sum_losses(losses[name], np.stack(head_losses) if name == RECORDS[0] else None)
        for name in RECORDS
    }


def _fit_heads(
    judged_rows: JudgedRows,
    view: StateArray,
    protocol: RotationProtocol,
    trainer: Callable[..., ProbeFit],
    targets: np.ndarray,
    num_classes: int,
) -> ProbeFit:
    """Train heads of one width on the splits of all seeds; results are for validation rows and then test rows."""
    splits = [
        Split(split.train, split.validation, rows)
        for split, rows in zip(judged_rows.splits, judged_rows.evaluated, strict=True)
    ]
    grouped = np.repeat(targets[None], protocol.copies, 0)
    inits = list(range(protocol.copies))
    states = [view] * len(splits)
    widths = np.full(len(targets), num_classes)
    return trainer(
        states,
        grouped,
        widths,
        splits,
        [protocol.hidden],
        judged_rows.seeds,
        protocol,
        inits=inits,
        with_posterior=True,
    )


def _posterior(fit: ProbeFit, q: int, network: int) -> np.ndarray:
    """float32 [R, C], probabilities of the classes of all heads."""
    assert fit.log_posterior is not None
    return np.exp(fit.log_posterior[q][network]).T


def _execute(
    probe_set: ControlProbeSet,
    rows: np.ndarray,
    by_place: np.ndarray,
    by_count: np.ndarray,
    num_samples: int,
    random: np.random.Generator,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """int32 [F, K, R] and [K, R] by record: samples that end in the true class, and samples that execute the word."""
    shape = (len(RELATIVE_FEATURES), len(probe_set.classes), len(rows))
    hits = {name: (np.zeros(shape, np.int32), np.zeros(shape[1:], np.int32)) for name in RECORDS}
    for start in range(0, len(rows), _ROWS_PER_CHUNK):
        chunk = slice(start, start + _ROWS_PER_CHUNK)
        chunk_rows, lengths = rows[chunk], probe_set.step[rows[chunk]] + 1
        at_places = sample_places(by_place[chunk], num_samples, random)
        of_counts = sample_counts(by_count[chunk, :NUM_WORDS], lengths, num_samples, random)
        for name, samples in zip(RECORDS, (at_places, of_counts), strict=False):
            executed = run(probe_set, chunk_rows, samples, range(len(SEMANTICS)), with_sums=True)
            _count(probe_set, chunk_rows, executed, range(shape[1]), hits[name], chunk)
        for k, pair in enumerate(SEMANTIC_PAIRS):
            head = NUM_WORDS + WORD_PAIRS.index((pair.left, pair.right))
            samples = sample_sums(by_count[chunk, head], lengths, pair, num_samples, random)
            labels = [k, *(range(len(SEMANTICS), shape[1]) if k == 0 else [])]
            executed = run(probe_set, chunk_rows, samples, [k], with_sums=k == 0)
            _count(probe_set, chunk_rows, executed, labels, hits[RECORDS[2]], chunk)
    return hits


assert all((pair.left, pair.right) == (SEMANTIC_PAIRS[0].left, SEMANTIC_PAIRS[0].right) for pair in SAME_WORDS_PAIRS)


def run(
    probe_set: ControlProbeSet, rows: np.ndarray, samples: np.ndarray, labels: Sequence[int], with_sums: bool
) -> FirstExecutions:
    """Execute samples up to the words of some rows under the semantics of some labels."""
    semantics = [SEMANTICS[k] for k in labels]
    sums = SUMS if with_sums else ()
    return run_to_words(
        probe_set.programs, probe_set.inputs, probe_set.words(rows), samples, semantics, sums, probe_set.max_events
    )


def _count(
    probe_set: ControlProbeSet,
    rows: np.ndarray,
    executed: FirstExecutions,
    labels: Sequence[int],
    hits: tuple[np.ndarray, np.ndarray],
    chunk: slice,
) -> None:
    """Add the samples of some labels to the counts of a record."""
    num_right, num_executed = hits
    for i, k in enumerate(labels):
        num_executed[k, chunk] = executed.num_executed[:, i]
        for f, by_class in enumerate((executed.rotation, executed.forward, executed.sideways)):
            label = probe_set.classes[k, f, rows]
            if f == 0 or k < len(SEMANTICS):
                num_right[f, k, chunk] = by_class[np.arange(len(rows)), i, label]


def _smooth(num_right: np.ndarray, num_executed: np.ndarray, prior_loss: np.ndarray) -> list[np.ndarray]:
    """float64 [F, K, R] per prior weight, loss of the share of samples that are right, mixed with the label prior."""
    prior = np.exp(-prior_loss)
    has_label = prior_loss > 0
    return [
        np.where(has_label, -np.log((num_right + weight * prior) / (num_executed + weight)), 0)
        for weight in PRIOR_WEIGHTS
    ]


def _head_losses(
    probe_set: ControlProbeSet, split: Split, targets: Sequence[np.ndarray], by_view: Sequence[np.ndarray]
) -> np.ndarray:
    """float64 [2, H], validation cross-entropy of the best view of each head, and of its prior."""
    priors = []
    for target in targets:
        labelled = split.validation[target[split.validation] != MISSING]
        priors.append(step_prior_loss(probe_set.step, target, split.train, labelled).mean() if len(labelled) else 0.0)
    prior = np.array(priors)
    return np.stack([np.minimum(np.min(by_view, 0), prior), prior])
