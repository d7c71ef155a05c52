"""Online (prequential) codelength: bits per label when each block of labels is coded by probes trained on earlier blocks.

Source: Voita & Titov 2020 (arXiv 2003.12298), section 2.2; blocks consist of whole programs. Letters: `Q` seeds, `S`
semantics, `F` features, `P` programs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmark.probing.control_gap import Bootstrap, compute_delta
from benchmark.probing.grid import Codelength
from benchmark.probing.labels import DROPPED, MISSING, ProbeSet, Split
from benchmark.probing.prior import fit_step_prior
from benchmark.probing.probe_fit import ProbeTrainer, fit_in_process
from benchmark.probing.protocol import BOOTSTRAP_SEED, Protocol
from benchmark.probing.state_source import Views, fit_semantics
from benchmark.statistics import Estimate, bootstrap_weights, interval_over_units_and_seeds
from karel_env.features import FEATURES
from karel_env.screen import valid_alternatives

BLOCK_ENDS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
"""Ends of the blocks as shares of the programs. The first block is coded uniformly, each later one by trained probes."""
VALIDATION_INTERVAL = 10
"""Every tenth program of the earlier blocks is used for validation."""


def measure_codelengths(
    probe_set: ProbeSet,
    sources: Mapping[str, Sequence[Views]],
    protocol: Protocol,
    trainer: ProbeTrainer = fit_in_process,
) -> dict[str, Codelength]:
    """Measure the bits per label of each feature for the model and the controls.

    Args:
        probe_set: labels.
        sources: views per copy, by source: `model` and each of `control_gap.CONTROLS`.
        protocol: settings of the probes; each seed orders the programs differently.
        trainer: trains the probes.
    """
    blocks = [growing_blocks(probe_set, seed) for seed in protocol.seeds]
    coded = {name: _code_bits(probe_set, copies, blocks, protocol, trainer) for name, copies in sources.items()}
    prior = _prior_bits(probe_set, blocks)
    labels = _count_labels(probe_set)
    weights = bootstrap_weights(labels.shape[-1], protocol.resamples, BOOTSTRAP_SEED)
    rates = {name: _bits_per_label(bits, labels, weights) for name, bits in coded.items()}
    results = {}
    for f, feature in enumerate(FEATURES):
        columns = [i for i, name in enumerate(probe_set.semantics) if i and name in valid_alternatives(feature)]
        if not columns or not labels[:, f].sum(-1).all():
            continue
        gaps = {
            name: Bootstrap(*(part[:, columns, f].mean(1) - part[:, 0, f] for part in rate))
            for name, rate in rates.items()
        }
        model_rate = rates["model"].value[0]
        results[feature] = Codelength(
            original=float(model_rate[0, f]),
            alternatives=float(model_rate[columns, f].mean()),
            prior=float(prior[0, f].sum() / labels[0, f].sum()),
            gap=_estimate(gaps["model"], labels.shape[-1]),
            mdl_delta=_estimate(compute_delta(gaps), labels.shape[-1]),
        )
    return results


def _estimate(statistic: Bootstrap, n: int) -> Estimate:
    value, resampled, by_seed = statistic
    return interval_over_units_and_seeds(float(value[0]), resampled, by_seed, n, 0.95, same_units=True)


def growing_blocks(probe_set: ProbeSet, seed: int) -> list[np.ndarray]:
    """The program indices of each block, in a random order that depends on the seed."""
    generator = np.random.Generator(np.random.Philox(104_729 * (seed + 1)))
    order = generator.permutation(np.flatnonzero(probe_set.fold != DROPPED))
    ends = [round(share * len(order)) for share in BLOCK_ENDS]
    return [order[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def _splits(probe_set: ProbeSet, blocks: Sequence[np.ndarray]) -> list[Split]:
    """The split that codes each block after the first: earlier blocks for training and validation, the block for testing."""
    splits = []
    for number in range(1, len(blocks)):
        before = np.concatenate(blocks[:number])
        parts = (np.delete(before, np.s_[::VALIDATION_INTERVAL]), before[::VALIDATION_INTERVAL], blocks[number])
        splits.append(Split(*(np.flatnonzero(np.isin(probe_set.program, part)) for part in parts)))
    return splits


def _count_labels(probe_set: ProbeSet) -> np.ndarray:
    """float64 [S, F, P], number of labels of each program that is not dropped."""
    return _sum_by_program(
        probe_set, (probe_set.classes != MISSING).astype(np.float64), np.arange(len(probe_set.program))
    )


def _sum_by_program(probe_set: ProbeSet, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """float64 [S, F, P], sums of `values` [S, F, rows] by program without dropped ones, 0 for programs without rows."""
    summed = np.zeros((*values.shape[:2], len(probe_set.fold)))
    programs, starts = np.unique(probe_set.program[rows], return_index=True)
    summed[..., programs] = np.add.reduceat(values, starts, axis=-1)
    return summed[..., probe_set.fold != DROPPED]


def uniform_bits(probe_set: ProbeSet, block: np.ndarray) -> np.ndarray:
    """float64 [S, F, P], bits of a block's labels under a uniform code over classes."""
    rows = np.flatnonzero(np.isin(probe_set.program, block))
    is_labelled = probe_set.classes[:, :, rows] != MISSING
    return _sum_by_program(probe_set, is_labelled * np.log2(probe_set.counts)[:, None], rows)


def _code_bits(
    probe_set: ProbeSet,
    copies: Sequence[Views],
    blocks: Sequence[Sequence[np.ndarray]],
    protocol: Protocol,
    trainer: ProbeTrainer,
) -> np.ndarray:
    """float64 [Q, S, F, P], bits of each program's labels, coded by the view with the lowest validation cross-entropy."""
    splits_by_seed = [_splits(probe_set, seed_blocks) for seed_blocks in blocks]
    splits = [split for seed_splits in splits_by_seed for split in seed_splits]
    seeds = [seed for seed, seed_splits in zip(protocol.seeds, splits_by_seed, strict=True) for _ in seed_splits]
    fits = []
    for view in range(len(copies[0])):
        states = [copies[seed % len(copies)][view] for seed in seeds]
        fits.append(fit_semantics(probe_set, states, seeds, splits, protocol, [protocol.hidden], trainer=trainer))
    bits = np.stack([uniform_bits(probe_set, seed_blocks[0]) for seed_blocks in blocks])
    semantics, features = np.indices(probe_set.classes.shape[:2])
    for i, (seed, split) in enumerate(zip(seeds, splits, strict=True)):
        prior = fit_step_prior(probe_set, split)
        validation = np.stack([fit.validation[i] for fit in fits])
        values = np.stack([fit.log_prob[i] for fit in fits])[validation.argmin(0), semantics, features]
        values = np.where((validation.min(0) < prior.validation)[..., None], values, prior.log_prob)
        q = list(protocol.seeds).index(seed)
        bits[q] += _sum_by_program(probe_set, -values.astype(np.float64) / np.log(2), split.test)
    return bits


def _prior_bits(probe_set: ProbeSet, blocks: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """float64 [S, F, P], bits of each program's labels coded by the step-conditional prior, in the first seed's order."""
    bits = uniform_bits(probe_set, blocks[0][0])
    for split in _splits(probe_set, blocks[0]):
        bits += _sum_by_program(probe_set, -fit_step_prior(probe_set, split).log_prob / np.log(2), split.test)
    return bits


def _bits_per_label(bits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Bootstrap:
    """Bits per label, trailing axes [S, F]."""
    mean = bits.mean(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        resampled = np.tensordot(weights, mean, (1, 2)) / np.tensordot(weights, labels, (1, 2))
        return Bootstrap((mean.sum(-1) / labels.sum(-1))[None], resampled, bits.sum(-1) / labels.sum(-1))
