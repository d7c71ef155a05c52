"""Results of additional generations for the test tasks: grammar-constrained decoding, and pass@k of sampled answers.

Letters: `N` tasks, `K` samples per task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark.statistics import Estimate, bootstrap_weights, wilson
from benchmark.tasks.scoring import Summary, score_programs, summarize
from benchmark.tasks.suite import Suite
from karel_env.generation.recipe import Tasks

NUM_RESAMPLES, BOOTSTRAP_SEED = 2_000, 20_210_707


@dataclass(frozen=True)
class ConstrainedSummary:
    """Results of grammar-constrained decoding.

    Attributes:
        accuracy: accuracy as of unconstrained answers; the denominator is all tasks.
        finished: share of answers that end with their closing bracket within `max_new_tokens`.
        valid: share of finished answers that parse, None if none is finished; 1 unless the grammar is num_wrong.
    """

    accuracy: Summary
    finished: Estimate
    valid: Estimate | None


@dataclass(frozen=True)
class SampledSummary:
    """pass@k of answers sampled at a temperature.

    Attributes:
        samples: K, samples per task.
        temperature: temperature of the softmax.
        shown, held_out: pass@k by k: probability that at least one of k samples turns every shown (held-out) input into
            its output; 95% interval by bootstrap over tasks.
    """

    samples: int
    temperature: float
    shown: dict[int, Estimate]
    held_out: dict[int, Estimate]


def summarize_constrained(suite: Suite, tasks: Tasks, samples: Sequence[Mapping[str, Any]]) -> ConstrainedSummary:
    """Summarize constrained answers, one sample per task.

    Args:
        suite: the suite.
        tasks: its test set.
        samples: N samples with the entries text and finished, in task order.

    Raises:
        ValueError: there are no samples.
    """
    scores = score_programs(suite, tasks, [sample["text"] for sample in samples])
    is_finished = np.array([sample["finished"] for sample in samples])
    finished_rate = wilson(int(is_finished.sum()), len(is_finished))
    if finished_rate is None:
        raise ValueError("summarize_constrained: no samples, expected one per task")
    valid = wilson(int((scores.num_tokens[is_finished] >= 0).sum()), int(is_finished.sum()))
    return ConstrainedSummary(summarize(scores), finished_rate, valid)


def summarize_sampled(
    suite: Suite, tasks: Tasks, samples: Sequence[Mapping[str, Any]], num_samples: int, temperature: float
) -> SampledSummary:
    """Summarize `num_samples` samples per task of the test set `tasks`, given in any order."""
    shown, held_out = (np.zeros((len(tasks), num_samples), bool) for _ in range(2))
    by_sample: dict[int, list[Mapping[str, Any]]] = {}
    for sample in samples:
        by_sample.setdefault(sample["sample"], []).append(sample)
    for sample_index in range(num_samples):
        ordered_samples = sorted(by_sample.get(sample_index, ()), key=lambda sample: int(sample["task"]))
        scores = score_programs(suite, tasks, [sample["text"] for sample in ordered_samples])
        shown[:, sample_index], held_out[:, sample_index] = scores.shown, scores.held_out
    ks = sorted({1, num_samples, *(2**i for i in range(1, num_samples.bit_length()) if 2**i < num_samples)})
    return SampledSummary(
        num_samples,
        temperature,
        {k: pass_at_k(shown.sum(1), num_samples, k) for k in ks},
        {k: pass_at_k(held_out.sum(1), num_samples, k) for k in ks},
    )


def pass_at_k(correct: np.ndarray, num_samples: int, k: int) -> Estimate:
    """Unbiased pass@k: mean over tasks of 1 - C(K - correct, k) / C(K, k) (Chen et al. 2021, equation 1).

    Args:
        correct: int [N], number of correct samples of each task.
        num_samples: K, samples per task.
        k: number of samples of which one must be correct, at most K.
    """
    from scipy.special import gammaln

    num_wrong = num_samples - np.asarray(correct)
    has_k_wrong = num_wrong >= k
    clipped_wrong = np.where(has_k_wrong, num_wrong, k)
    log_ratio = (
        gammaln(clipped_wrong + 1)
        - gammaln(clipped_wrong - k + 1)
        - gammaln(num_samples + 1)
        + gammaln(num_samples - k + 1)
    )
    estimates = 1 - np.where(has_k_wrong, np.exp(log_ratio), 0.0)
    means = bootstrap_weights(len(estimates), NUM_RESAMPLES, BOOTSTRAP_SEED) @ estimates / len(estimates)
    lower, upper = np.quantile(means, (0.025, 0.975))
    return Estimate(float(estimates.mean()), float(lower), float(upper), len(estimates))
