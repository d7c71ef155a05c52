"""Merges: does the model continue two prefixes alike that lead to the same state? NumPy only; no hidden states.

The figure is 1 - TV(same state) / TV(other state), with the total variation of next-word distributions over pairs of
prefixes of one length after one prompt; prefixes of the same state are no permutations of each other. Its floor is the
same figure for prefixes of the same state under alternative semantics. After Vafa et al. 2024 (2406.03689).

Letters: `R` prefixes, `J` pairs of them, `U` tasks, `W` resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from benchmark.causal.pairs import (
    STANDARD_PAIRS,
    PairSettings,
    candidate_prefixes,
    derive_pairs,
    hash_states,
    posterior_of_distinct,
    prefix_length,
    rank_within,
)
from benchmark.causal.rotation import alternative_semantics
from benchmark.causal.targets import SuffixTable, execute_prefixes
from benchmark.statistics import Estimate, bootstrap_weights
from benchmark.tasks.suite import Suite
from karel_env.language import Programs
from karel_env.semantics import ORIGINAL, Semantics
from karel_env.world import Worlds

MERGE_TASKS, PAIRS_PER_TASK, PREFIXES_PER_TASK = 120, 4, 40
MIN_OTHER = 0.1
"""Smallest total variation between prefixes of other states for which the figure is defined."""
SAME, OTHER, FALSE = range(3)
RESAMPLES, BOOTSTRAP_SEED, LEVEL = 2000, 31_339, 0.95


@dataclass(frozen=True)
class MergePairs:
    """Pairs of prefixes.

    Attributes:
        task: int64 [R].
        prefix: int8 [R, K].
        posterior: float64 [R, 6], exact distribution of the next word.
        first, second: int64 [J], rows of each pair.
        kind: int8 [J], `SAME`, `OTHER` or `FALSE`: the same state, another one, the same under an alternative only.
    """

    task: np.ndarray
    prefix: np.ndarray
    posterior: np.ndarray
    first: np.ndarray
    second: np.ndarray
    kind: np.ndarray


@dataclass(frozen=True)
class MergeResult:
    """The figure; None where it is not defined.

    Attributes:
        merges, floor: with 95% intervals over tasks.
        agreement: 1 - mean total variation to the exact posterior.
        same, other: mean total variations.
        pairs: number of pairs of the same state.
    """

    merges: Estimate | None
    floor: Estimate | None
    agreement: float
    same: float
    other: float
    pairs: int


@lru_cache(maxsize=4)
def merge_pairs(suite: Suite, settings: PairSettings = STANDARD_PAIRS) -> MergePairs:
    """Derive the pairs from the first report tasks of a suite."""
    pairs = derive_pairs(suite, settings)
    chunk = np.flatnonzero(pairs.split)[:MERGE_TASKS]
    length = prefix_length(suite)
    task, prefix = candidate_prefixes(pairs.tasks, chunk, length)
    inputs, outputs = (worlds[:, : suite.shown] for worlds in (pairs.tasks.inputs, pairs.tasks.outputs))
    reached = execute_prefixes(prefix, inputs[task])
    posterior = posterior_of_distinct(SuffixTable.of_suite(suite, length), reached, outputs[task], task)
    rows = np.flatnonzero(posterior.sum(1) > 0)
    order = hash_states(reached[rows], prefix[rows].astype(np.int64) @ 7 ** np.arange(length))
    rows = rows[rank_within(task[rows], order) < PREFIXES_PER_TASK]
    task, prefix, posterior = task[rows], prefix[rows], posterior[rows]
    states = [_state_keys(prefix, inputs[task], task, s) for s in (ORIGINAL, *alternative_semantics())]
    first, second, kind = _pair_rows(task, prefix, states)
    used = np.unique(np.concatenate([first, second]))
    number = np.full(len(task), -1)
    number[used] = np.arange(len(used))
    return MergePairs(task[used], prefix[used], posterior[used], number[first], number[second], kind)


def _state_keys(prefix: np.ndarray, inputs: Worlds, task: np.ndarray, semantics: Semantics) -> np.ndarray:
    programs = Programs.straight_line(prefix, np.full(len(prefix), prefix.shape[1]))
    from karel_env.execution.interpreter import run

    return hash_states(run(programs, inputs, semantics).worlds, task)


def _pair_rows(
    task: np.ndarray, prefix: np.ndarray, states: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of both prefixes and kind of each pair: up to `PAIRS_PER_TASK` of each kind per task."""
    sorted_prefix = np.sort(prefix, 1)
    pairs: list[tuple[int, int, int]] = []
    for number in np.unique(task):
        rows = np.flatnonzero(task == number)
        a, b = (rows[part] for part in np.triu_indices(len(rows), 1))
        is_permutation = (sorted_prefix[a] == sorted_prefix[b]).all(1)
        is_same = states[0][a] == states[0][b]
        is_false = ~is_same & np.any([s[a] == s[b] for s in states[1:]], 0) & ~is_permutation
        kinds = (is_same & ~is_permutation, ~is_same & ~is_permutation, is_false)
        counts = [min(PAIRS_PER_TASK, int(part.sum())) for part in kinds]
        if counts[SAME] == 0:
            continue
        for kind, part in enumerate(kinds):
            indices = np.flatnonzero(part)
            spread = indices[np.linspace(0, len(indices) - 1, counts[kind]).round().astype(int)]
            pairs += [(int(a[i]), int(b[i]), kind) for i in spread]
    first, second, kind_of = np.array(pairs, np.int64).reshape(-1, 3).T
    return first, second, kind_of.astype(np.int8)


def score_merges(pairs: MergePairs, log_probs: np.ndarray) -> MergeResult | None:
    """The figure of a model from its scores of the six continuations, float [R, 6], after the prefixes of `pairs`.

    None if the suite has no pairs of prefixes that lead to the same state.
    """
    if not len(pairs.task):
        return None
    probability = _probabilities(log_probs)
    sums, counts = _sum_variation(pairs, probability)
    means = sums.sum(1) / counts.sum(1).clip(min=1)
    is_defined = bool(means[OTHER] >= MIN_OTHER)
    merges, floor = (_estimate(sums, counts, kind) if is_defined else None for kind in (SAME, FALSE))
    agreement = 1 - float(np.abs(probability - pairs.posterior).sum(1).mean()) / 2
    return MergeResult(merges, floor, agreement, float(means[SAME]), float(means[OTHER]), int(counts[SAME].sum()))


def resample_merges(pairs: MergePairs, log_probs: np.ndarray) -> np.ndarray:
    """float64 [W], the figure in each bootstrap resample of the tasks, of scores as for `score_merges`.

    Resample w draws the same tasks for every model of a suite.
    """
    sums, counts = _sum_variation(pairs, _probabilities(log_probs))
    return _ratio(sums, counts, SAME, bootstrap_weights(sums.shape[1], RESAMPLES, BOOTSTRAP_SEED))


def _probabilities(log_probs: np.ndarray) -> np.ndarray:
    shifted = np.exp(log_probs.astype(np.float64) - log_probs.max(1, keepdims=True))
    return np.asarray(shifted / shifted.sum(1, keepdims=True))


def _sum_variation(pairs: MergePairs, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float64 [3, U] each: total variation summed over the pairs of each kind and task, and their number."""
    variation = np.abs(probability[pairs.first] - probability[pairs.second]).sum(1) / 2
    tasks, slot = np.unique(pairs.task[pairs.first], return_inverse=True)
    sums, counts = np.zeros((3, len(tasks))), np.zeros((3, len(tasks)))
    for kind in (SAME, OTHER, FALSE):
        rows = pairs.kind == kind
        sums[kind] = np.bincount(slot[rows], variation[rows], len(tasks))
        counts[kind] = np.bincount(slot[rows], None, len(tasks))
    return sums, counts


def _estimate(sums: np.ndarray, counts: np.ndarray, kind: int) -> Estimate:
    """The figure of a kind with its interval over tasks."""
    weights = bootstrap_weights(sums.shape[1], RESAMPLES, BOOTSTRAP_SEED)
    low, high = np.quantile(_ratio(sums, counts, kind, weights), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value = _ratio(sums, counts, kind, np.ones((1, sums.shape[1])))[0]
    return Estimate(float(value), float(low), float(high), int(counts[kind].sum()))


def _ratio(sums: np.ndarray, counts: np.ndarray, kind: int, weights: np.ndarray) -> np.ndarray:
    """float64 [W], 1 - mean variation of a kind / mean variation of `OTHER`, under weights of tasks float64 [W, U]."""
    means = (weights @ sums.T) / (weights @ counts.T).clip(min=1e-9)
    return np.asarray(1 - means[:, kind] / means[:, OTHER].clip(min=1e-9))
