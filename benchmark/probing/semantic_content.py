"""Semantic content of the paper: accuracy of probes on the model's own programs, at the position that predicts each token.

Source: Jin & Rinard 2024, section 4. Letters: `Q` seeds, `F` features, `R` states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmark.probing.control_gap import list_test_programs, sum_by_program
from benchmark.probing.labels import MISSING, ProbeSet, Split, build_probe_set, number_distinct
from benchmark.probing.probe_fit import ProbeFit, ProbeTrainer, StateArray, fit_in_process
from benchmark.probing.protocol import BOOTSTRAP_SEED, Protocol
from benchmark.probing.state_source import StepCallback
from benchmark.statistics import Estimate, bootstrap_weights, interval_over_units_and_seeds
from benchmark.tasks.probe_sets import parse_programs
from karel_env.features import FEATURES, PAPER_FEATURES
from karel_env.semantics import ORIGINAL
from karel_env.world import Worlds

CONTENT_DEPTHS = ("linear", "mlp1", "mlp2")


@dataclass(frozen=True)
class SemanticContent:
    """Semantic content (paper) of the model's own programs.

    Attributes:
        arithmetic: arithmetic mean of accuracy over features, by probe depth; n counts distinct programs.
        geometric: geometric mean of accuracy over features, by probe depth.
        programs: number of distinct programs.
        test_states: number of distinct test states.
    """

    arithmetic: dict[str, Estimate]
    geometric: dict[str, float]
    programs: int
    test_states: int


def count_content_steps(protocol: Protocol) -> int:
    """Number of optimiser steps that `probe_semantic_content` reports to `on_steps`."""
    return protocol.steps * len(CONTENT_DEPTHS) * len(protocol.seeds) * sum(map(len, PAPER_FEATURES))


def measure_semantic_content(
    programs: GeneratedPrograms,
    protocol: Protocol,
    states: StateArray,
    on_steps: StepCallback = lambda steps: None,
    trainer: ProbeTrainer = fit_in_process,
) -> SemanticContent | None:
    """Measure the semantic content of the model's own programs; arguments as in `probe_semantic_content`."""
    hits = probe_semantic_content(programs, protocol, states, on_steps, trainer)
    return None if hits is None else semantic_content_from_hits(programs, protocol, hits)


def probe_semantic_content(
    programs: GeneratedPrograms,
    protocol: Protocol,
    states: StateArray,
    on_steps: StepCallback = lambda steps: None,
    trainer: ProbeTrainer = fit_in_process,
) -> np.ndarray | None:
    """Train the probes and return which predictions are correct; `semantic_content_from_hits` summarizes them.

    Args:
        programs: the programs that the model wrote for the probe tasks.
        protocol: settings of the probes.
        states: float32 [R, D], mean over layers at the position that predicts each action token of the valid programs.
        on_steps: called with the steps done; `count_content_steps` in all.
        trainer: trains the probes.

    Returns:
        bool [depths, groups of features, test states], test states of all seeds concatenated; None if fewer than
        `protocol.min_programs` programs are distinct.
    """
    if not programs.suffice(protocol):
        return None
    probe_set, splits = programs.probe_set, programs.splits
    heads = _head_features()
    targets = probe_set.classes[0, heads][:, None]
    counts = probe_set.counts[heads][:, None]
    widths = {"linear": [], "mlp1": [protocol.hidden], "mlp2": list(protocol.deep_hidden)}
    states_by_seed = [states] * len(protocol.seeds)
    return np.stack(
        [
            compute_hits(
                trainer(states_by_seed, targets, counts, splits, widths[depth], protocol.seeds, protocol, on_steps),
                programs,
            )
            for depth in CONTENT_DEPTHS
        ]
    )


def semantic_content_from_hits(
    programs: GeneratedPrograms, protocol: Protocol, hits: np.ndarray
) -> SemanticContent | None:
    """Compute the semantic content from the result of `probe_semantic_content`, which a run stores.

    Returns:
        None if fewer than `protocol.min_programs` programs are distinct.

    Raises:
        ValueError: the shape of `hits` does not match the programs.
    """
    if not programs.suffice(protocol):
        return None
    expected = (len(CONTENT_DEPTHS), len(PAPER_FEATURES), programs.num_test_states)
    if hits.shape != expected:
        raise ValueError(f"hits of shape {hits.shape}, expected {expected}")
    results = {depth: summarize_hits(hits[i], programs, protocol) for i, depth in enumerate(CONTENT_DEPTHS)}
    return SemanticContent(
        {depth: arithmetic for depth, (arithmetic, _) in results.items()},
        {depth: geometric for depth, (_, geometric) in results.items()},
        programs.num_distinct,
        programs.num_distinct_test_states,
    )


def pack_hits(hits: np.ndarray) -> np.ndarray:
    """uint8 [depths, groups, ceil(states / 8)], one bit per state, as stored in `probes.data`."""
    return np.packbits(hits, axis=-1)


def unpack_hits(packed: np.ndarray, num_states: int) -> np.ndarray:
    """bool [depths, groups, num_states], the inverse of `pack_hits`."""
    return np.unpackbits(packed, axis=-1, count=num_states).astype(bool)


@dataclass(frozen=True)
class GeneratedPrograms:
    """The B valid programs that a model wrote for the probe tasks, with the labels and splits of their probes.

    Attributes:
        probe_set: labels under the original semantics.
        splits: split per seed, without tokens that are never executed.
        cluster: int [B], index of the distinct program.
        num_distinct: number of distinct programs.
    """

    probe_set: ProbeSet
    splits: list[Split]
    cluster: np.ndarray
    num_distinct: int

    @classmethod
    def from_texts(cls, texts: Sequence[str], inputs: Worlds, protocol: Protocol) -> GeneratedPrograms | None:
        """Parse and label programs; None if no text is a valid program.

        Args:
            texts: the model's generated text per probe task.
            inputs: worlds [probe tasks] in which the programs are executed for labels, see `first_inputs`.
            protocol: folds and seeds of the probes.
        """
        programs, text_index = parse_programs(texts)
        if not len(programs):
            return None
        cluster = number_distinct(programs)
        probe_set = build_probe_set(programs, inputs[text_index], [ORIGINAL], protocol)
        is_executed = (probe_set.classes[0, _head_features()] != MISSING).all(0)
        splits = [_filter_split(probe_set.split(seed), is_executed) for seed in protocol.seeds]
        return cls(probe_set, splits, cluster, int(cluster.max()) + 1)

    def suffice(self, protocol: Protocol) -> bool:
        """Whether enough distinct programs were written for a measurement."""
        return self.num_distinct >= protocol.min_programs

    @property
    def num_test_states(self) -> int:
        """Number of test states of all seeds, the last axis of the hits."""
        return sum(len(split.test) for split in self.splits)

    @property
    def num_distinct_test_states(self) -> int:
        """Number of states that any seed tests, each counted once."""
        return len(np.unique(np.concatenate([split.test for split in self.splits])))

    @property
    def num_distinct_tested(self) -> int:
        """Number of distinct programs that any seed tests, over which intervals are taken."""
        return len(np.unique(self.cluster[list_test_programs(self.splits, self.probe_set)]))


def _head_features() -> list[int]:
    return [FEATURES.index(name) for group in PAPER_FEATURES for name in group]


def _filter_split(split: Split, is_kept: np.ndarray) -> Split:
    """The split restricted to rows for which `is_kept` is true."""
    return Split(*(rows[is_kept[rows]] for rows in (split.train, split.validation, split.test)))


def compute_hits(fit: ProbeFit, programs: GeneratedPrograms) -> np.ndarray:
    """bool [groups of features, test states of all seeds], whether all heads of a group predict the true class."""
    names = [name for group in PAPER_FEATURES for name in group]
    label = programs.probe_set.classes[0, _head_features()]
    hits = []
    for predicted, split in zip(fit.predicted, programs.splits, strict=True):
        is_correct = dict(zip(names, predicted[:, 0] == label[:, split.test], strict=True))
        hits.append(np.stack([np.all([is_correct[name] for name in group], 0) for group in PAPER_FEATURES]))
    return np.concatenate(hits, axis=1)


def summarize_hits(hits: np.ndarray, programs: GeneratedPrograms, protocol: Protocol) -> tuple[Estimate, float]:
    """Arithmetic mean of accuracy over features with its interval over programs and seeds, and the geometric mean.

    A model writes the same program for many tasks, so the bootstrap resamples distinct programs (cluster bootstrap).
    """
    splits, probe_set = programs.splits, programs.probe_set
    ends = np.cumsum([len(split.test) for split in splits])[:-1]
    hits_by_seed = [part.astype(np.float64) for part in np.split(hits, ends, axis=1)]
    sums, by_seed = sum_by_program(hits_by_seed, splits, probe_set)
    sizes, seed_sizes = sum_by_program([np.ones(len(split.test)) for split in splits], splits, probe_set)
    _, cluster = np.unique(programs.cluster[list_test_programs(splits, probe_set)], return_inverse=True)
    sums, sizes = (np.stack([np.bincount(cluster, row) for row in np.atleast_2d(totals)]) for totals in (sums, sizes))
    weights = bootstrap_weights(sizes.shape[1], protocol.resamples, BOOTSTRAP_SEED)
    resampled = (weights @ sums.T).mean(-1) / (weights @ sizes[0])
    accuracy = sums.sum(-1) / sizes.sum()
    seed_accuracy = by_seed.mean(1) / seed_sizes
    estimate = interval_over_units_and_seeds(float(accuracy.mean()), resampled, seed_accuracy, sizes.shape[1], 0.95)
    # The interval is symmetric and can exceed the range of a share.
    estimate = replace(estimate, low=max(0.0, estimate.low), high=min(1.0, estimate.high))
    return estimate, float(np.exp(np.log(np.maximum(accuracy, 1e-12)).mean()))
