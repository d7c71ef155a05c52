"""The paper's semantic content: accuracy of probes on the model's own programs, at the position that emits each word.

Source: Jin & Rinard 2024, section 4; shared/PROBING.md, The score. Letters: `Q` seeds, `F` features, `R` states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmark.probing.control_gap import list_test_programs, sum_by_program
from benchmark.probing.labels import MISSING, ProbeSet, Split, build_probe_set
from benchmark.probing.probe_fit import ProbeFit, ProbeTrainer, StateArray, fit_in_process
from benchmark.probing.protocol import BOOTSTRAP_SEED, Protocol
from benchmark.probing.state_source import StepCallback
from benchmark.statistics import Estimate, bootstrap_weights, interval_over_units_and_seeds
from benchmark.tasks.probe_sets import first_inputs, parse_programs
from benchmark.tasks.suite import Suite, probe_tasks
from karel_env.features import FEATURES, PAPER_FEATURES
from karel_env.semantics import ORIGINAL

CONTENT_DEPTHS = ("linear", "mlp1", "mlp2")


@dataclass(frozen=True)
class SemanticContent:
    """The paper's semantic content, of the model's own programs.

    Attributes:
        arithmetic: by depth of the probe, the mean over features of accuracy; n counts distinct programs.
        geometric: the same with the geometric mean.
        programs: distinct programs in all; test_states: what the figures rest on.
    """

    arithmetic: dict[str, Estimate]
    geometric: dict[str, float]
    programs: int
    test_states: int


def count_content_steps(protocol: Protocol) -> int:
    """Steps of all networks that `measure_content` reports, for progress."""
    return protocol.steps * len(CONTENT_DEPTHS) * len(protocol.seeds) * sum(map(len, PAPER_FEATURES))


def measure_semantic_content(
    suite: Suite,
    protocol: Protocol,
    texts: Sequence[str],
    states: StateArray,
    on_steps: StepCallback = lambda steps: None,
    trainer: ProbeTrainer = fit_in_process,
) -> SemanticContent | None:
    """The paper's semantic content of the model's own programs; see `measure_content_hits`."""
    hits = probe_semantic_content(suite, protocol, texts, states, on_steps, trainer)
    return None if hits is None else semantic_content_from_hits(suite, protocol, texts, hits)


def probe_semantic_content(
    suite: Suite,
    protocol: Protocol,
    texts: Sequence[str],
    states: StateArray,
    on_steps: StepCallback = lambda steps: None,
    trainer: ProbeTrainer = fit_in_process,
) -> np.ndarray | None:
    """Where the probes are right, which `content_of_hits` computes the figures from; None with too few programs to tell.

    Args:
        suite: whose probe tasks the model answered.
        protocol: of the probes.
        texts: what it wrote for each probe task.
        states: float32 [R, D], the mean over layers at the emission of each action word of the valid programs among them.
        progress: is told of the steps done, see `content_steps`.
        fit: fits the probes.

    Returns:
        bool [depths, groups of features, test states of all seeds, one seed after the other].
    """
    sample = _ProgramSample.of(suite, protocol, texts)
    if sample is None:
        return None
    probe_set, splits = sample.probe_set, sample.splits
    heads = _head_features()
    targets = probe_set.classes[0, heads][:, None]
    counts = probe_set.counts[heads][:, None]
    widths = {"linear": [], "mlp1": [protocol.hidden], "mlp2": list(protocol.deep_hidden)}
    states_by_seed = [states] * len(protocol.seeds)
    return np.stack(
        [
            _compute_hits(
                trainer(states_by_seed, targets, counts, splits, widths[depth], protocol.seeds, protocol, on_steps),
                sample,
            )
            for depth in CONTENT_DEPTHS
        ]
    )


def semantic_content_from_hits(
    suite: Suite, protocol: Protocol, texts: Sequence[str], hits: np.ndarray
) -> SemanticContent | None:
    """The figures from what `measure_content_hits` returns, which a run stores; None with too few programs to tell.

    Raises:
        ValueError: `hits` has another shape than these programs give.
    """
    sample = _ProgramSample.of(suite, protocol, texts)
    if sample is None:
        return None
    expected = (len(CONTENT_DEPTHS), len(PAPER_FEATURES), sample.rows)
    if hits.shape != expected:
        raise ValueError(f"hits of shape {hits.shape}, not {expected}")
    figures = {depth: _summarize_hits(hits[i], sample, protocol) for i, depth in enumerate(CONTENT_DEPTHS)}
    tested = np.unique(np.concatenate([split.test for split in sample.splits]))
    return SemanticContent(
        {depth: mean for depth, (mean, _) in figures.items()},
        {depth: geometric for depth, (_, geometric) in figures.items()},
        sample.distinct,
        len(tested),
    )


def pack_hits(hits: np.ndarray) -> np.ndarray:
    """uint8 [depths, groups, ceil(states / 8)], one bit per state, as `probes.data` holds them."""
    return np.packbits(hits, axis=-1)


def unpack_hits(packed: np.ndarray, num_states: int) -> np.ndarray:
    """What `packed_hits` was given, of so many states."""
    return np.unpackbits(packed, axis=-1, count=num_states).astype(bool)


def count_hit_states(suite: Suite, protocol: Protocol, texts: Sequence[str]) -> int | None:
    """Test states of all seeds, the last axis of the hits; None with too few distinct programs."""
    sample = _ProgramSample.of(suite, protocol, texts)
    return None if sample is None else sample.rows


@dataclass(frozen=True)
class _ProgramSample:
    """The programs of a model that its probes are fitted and tested on.

    Attributes:
        probe_set: their labels.
        splits: of each seed, without the states that are never executed.
        kind: int [B], which programs are the same; distinct: how many are not.
    """

    probe_set: ProbeSet
    splits: list[Split]
    kind: np.ndarray
    distinct: int

    @classmethod
    def of(cls, suite: Suite, protocol: Protocol, texts: Sequence[str]) -> _ProgramSample | None:
        programs, _ = parse_programs(texts)
        first_index: dict[bytes, int] = {}
        kind = np.array(
            [first_index.setdefault(programs.program(i).tobytes(), len(first_index)) for i in range(len(programs))],
            np.int64,
        )
        if len(first_index) < protocol.min_programs:
            return None
        probe_set = generated_probe_set(suite, protocol, texts)
        executed = (probe_set.classes[0, _head_features()] != MISSING).all(0)
        return cls(
            probe_set,
            [_filter_split(probe_set.split(seed), executed) for seed in protocol.seeds],
            kind,
            len(first_index),
        )

    @property
    def rows(self) -> int:
        return sum(len(split.test) for split in self.splits)


def _head_features() -> list[int]:
    return [FEATURES.index(name) for group in PAPER_FEATURES for name in group]


def generated_probe_set(suite: Suite, protocol: Protocol, texts: Sequence[str]) -> ProbeSet:
    """The labels of the programs that a model wrote for the probe tasks, under the original."""
    programs, text_index = parse_programs(texts)
    inputs = first_inputs(probe_tasks(suite))[text_index]
    return build_probe_set(programs, inputs, [ORIGINAL], protocol)


def _filter_split(split: Split, is_kept: np.ndarray) -> Split:
    """The split without the states that are not kept."""
    return Split(*(rows[is_kept[rows]] for rows in (split.train, split.validation, split.test)))


def _compute_hits(fit: ProbeFit, sample: _ProgramSample) -> np.ndarray:
    """bool [groups of features, test states of all seeds], where a probe is right; a group, where all its heads are."""
    names = [name for group in PAPER_FEATURES for name in group]
    label = sample.probe_set.classes[0, _head_features()]
    right = []
    for predicted, split in zip(fit.predicted, sample.splits, strict=True):
        correct = dict(zip(names, predicted[:, 0] == label[:, split.test], strict=True))
        right.append(np.stack([np.all([correct[name] for name in group], 0) for group in PAPER_FEATURES]))
    return np.concatenate(right, axis=1)


def _summarize_hits(hits: np.ndarray, sample: _ProgramSample, protocol: Protocol) -> tuple[Estimate, float]:
    """Mean over features of accuracy with its interval over programs and seeds, and the geometric mean.

    A model writes the same program for many tasks, so the bootstrap draws distinct programs with all their copies.
    """
    splits, probe_set = sample.splits, sample.probe_set
    ends = np.cumsum([len(split.test) for split in splits])[:-1]
    right = [part.astype(np.float64) for part in np.split(hits, ends, axis=1)]
    sums, by_seed = sum_by_program(right, splits, probe_set)
    sizes, seed_sizes = sum_by_program([np.ones(len(split.test)) for split in splits], splits, probe_set)
    _, cluster = np.unique(sample.kind[list_test_programs(splits, probe_set)], return_inverse=True)
    sums, sizes = (np.stack([np.bincount(cluster, row) for row in np.atleast_2d(totals)]) for totals in (sums, sizes))
    weights = bootstrap_weights(sizes.shape[1], protocol.resamples, BOOTSTRAP_SEED)
    resampled = (weights @ sums.T).mean(-1) / (weights @ sizes[0])
    accuracy = sums.sum(-1) / sizes.sum()
    seeds = by_seed.mean(1) / seed_sizes
    estimate = interval_over_units_and_seeds(float(accuracy.mean()), resampled, seeds, sizes.shape[1], 0.95)
    # The interval is symmetric, a share is not.
    estimate = replace(estimate, low=max(0.0, estimate.low), high=min(1.0, estimate.high))
    return estimate, float(np.exp(np.log(np.maximum(accuracy, 1e-12)).mean()))
