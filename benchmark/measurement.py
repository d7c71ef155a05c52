"""The probing stage of a run: from stored states to the verdict and the paper's columns.

Letters: `Q` seeds, `S` semantics, `F` features, `R` states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.evaluation import first_inputs, written_programs
from benchmark.labels import DROPPED, MISSING, ProbeSet, Split, build_probe_set, with_original
from benchmark.probing import Fit, fit_probes
from benchmark.protocol import POOLS, Protocol
from benchmark.recorder import recorder_states
from benchmark.semantic_content import (
    Evidence,
    FeatureResult,
    Tested,
    analyse,
    choose_pool,
    gather_evidence,
    over_programs,
    skill_on_unseen,
    tested_programs,
    verdict,
)
from benchmark.statistics import Estimate, bootstrap_weights, interval_over_units_and_seeds
from benchmark.suites import Suite, blind_tasks, probe_tasks
from karel_env.features import FEATURES, PAPER_FEATURES, PRIMARY
from karel_env.screen import kept
from karel_env.semantics import ORIGINAL

Progress = Callable[[int], None]
CONTENT_DEPTHS = ("linear", "mlp1", "mlp2")
BOOTSTRAP_SEED = 31_337


@dataclass(frozen=True)
class Meaning:
    """What the blind set says: does the model represent the robot's state?

    Attributes:
        verdict: on facing.
        features: results by feature.
        semantics: names; the original, then the alternatives.
        programs, dropped: of the probe set in all, and those left out to keep the folds apart.
        test_programs, test_states: what the intervals rest on.
    """

    verdict: str
    features: dict[str, FeatureResult]
    semantics: tuple[str, ...]
    programs: int
    dropped: int
    test_programs: int
    test_states: int


@dataclass(frozen=True)
class Content:
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


def blind_steps(protocol: Protocol) -> int:
    """Optimiser steps that `measure_meaning` reports, for progress."""
    return protocol.steps * (len(POOLS) * (1 + min(protocol.random_inits, len(protocol.seeds))) + 1)


def content_steps(protocol: Protocol) -> int:
    """Optimiser steps that `measure_content` reports, for progress."""
    return protocol.steps * len(CONTENT_DEPTHS)


def measure_meaning(
    suite: Suite,
    protocol: Protocol,
    model_states: np.ndarray,
    random_states: list[np.ndarray],
    progress: Progress = lambda steps: None,
) -> tuple[Meaning, dict[str, np.ndarray]]:
    """Skill, gap, delta and verdict on the blind set; and the arrays that they are computed from, to be stored.

    Args:
        suite: whose blind set was read.
        protocol: of the probes.
        model_states: float32 [R, pools, D], at the reading of each action word.
        random_states: the same of each untrained copy.
        progress: is told of optimiser steps done.
    """
    tasks = blind_tasks(suite)
    inputs = first_inputs(tasks)
    probe_set = blind_probe_set(suite, protocol)
    tested = Tested.of(probe_set, protocol)
    model = read_source(probe_set, tested, [model_states], protocol, progress)
    recorder = recorder_states(tasks.programs, inputs, probe_set)[:, None]
    sources = {
        "model": model,
        "random-init": read_source(probe_set, tested, random_states, protocol, progress),
        "recorder": read_source(probe_set, tested, [recorder], protocol, progress),
    }
    unseen = skill_on_unseen(model.fits, model.evidence.pool, probe_set, tested, protocol)
    arrays = arrays_of(sources)
    return judged(probe_set, tested, arrays, protocol, unseen), arrays


@dataclass(frozen=True)
class Source:
    """What the probes found in one source of states: a fit a pooled state, and the evidence of the chosen ones."""

    fits: list[Fit]
    evidence: Evidence


def read_source(
    probe_set: ProbeSet,
    tested: Tested,
    copies: Sequence[np.ndarray],
    protocol: Protocol,
    progress: Progress = lambda steps: None,
) -> Source:
    """Fit the probes of one source: float32 [R, pools, D] of each of its copies; probe seed i reads copy i modulo them."""
    fits = _fit_pools(probe_set, copies, protocol, progress)
    return Source(fits, gather_evidence(fits, choose_pool(fits), probe_set, tested, protocol))


def arrays_of(sources: Mapping[str, Source]) -> dict[str, np.ndarray]:
    """The evidence of all sources as `judged` takes it and a run stores it, such as `model.probe`."""
    return {f"{name}.{part}": array for name, s in sources.items() for part, array in vars(s.evidence).items()}


def blind_probe_set(suite: Suite, protocol: Protocol) -> ProbeSet:
    """The labels of the suite's blind set, under the original and the alternatives of a run."""
    tasks = blind_tasks(suite)
    return build_probe_set(tasks.programs, first_inputs(tasks), with_original(kept(PRIMARY), protocol), protocol)


def judged(
    probe_set: ProbeSet,
    tested: Tested,
    arrays: Mapping[str, np.ndarray],
    protocol: Protocol,
    unseen: np.ndarray | None = None,
) -> Meaning:
    """What the stored arrays of a run (`probes.data`) say.

    Args:
        probe_set, tested: of `blind_probe_set`.
        arrays: by source and part of its `Evidence`, such as `model.probe`.
        protocol: of the run.
        unseen: float [F], skills on unseen prefixes, which the arrays do not hold.
    """
    names = dict.fromkeys(key.rpartition(".")[0] for key in arrays)
    evidence = {name: Evidence(*(arrays[f"{name}.{part}"] for part in ("probe", "totals", "pool"))) for name in names}
    allowed = {name: kept(name) for name in FEATURES}
    results = analyse(evidence, probe_set, tested, allowed, protocol, POOLS, BOOTSTRAP_SEED, unseen)
    return Meaning(
        verdict=verdict(results, protocol),
        features=results,
        semantics=probe_set.semantics,
        programs=len(probe_set.fold),
        dropped=int((probe_set.fold == DROPPED).sum()),
        test_programs=len(tested.programs),
        test_states=int(np.isin(probe_set.program, tested.programs).sum()),
    )


def _fit_pools(probe_set: ProbeSet, copies: Sequence[np.ndarray], protocol: Protocol, progress: Progress) -> list[Fit]:
    """A fit a pooled state."""
    fits = []
    for pool in range(copies[0].shape[1]):
        parts: dict[int, Fit] = {}
        for c, states in enumerate(copies):
            seeds = [s for s in protocol.seeds if s % len(copies) == c]
            if seeds:
                fit = _fit(probe_set, states[:, pool], seeds, protocol, progress)
                parts |= {seed: _one_seed(fit, i) for i, seed in enumerate(seeds)}
        fits.append(_stacked([parts[seed] for seed in protocol.seeds]))
    return fits


def _one_seed(fit: Fit, index: int) -> Fit:
    return Fit(fit.validation[index : index + 1], [fit.log_prob[index]], [fit.correct[index]])


def _stacked(fits: list[Fit]) -> Fit:
    log_prob, correct = [one for f in fits for one in f.log_prob], [one for f in fits for one in f.correct]
    return Fit(np.concatenate([f.validation for f in fits]), log_prob, correct)


def _fit(probe_set: ProbeSet, states: np.ndarray, seeds: Sequence[int], protocol: Protocol, progress: Progress) -> Fit:
    """One network a (semantics, seed), with a head for each feature over a shared hidden layer."""
    counts = np.broadcast_to(probe_set.counts, probe_set.classes.shape[:2])
    splits = [probe_set.split(seed) for seed in seeds]
    return fit_probes(states, probe_set.classes, counts, splits, [protocol.hidden], seeds, protocol, progress)


def measure_content(
    suite: Suite,
    protocol: Protocol,
    texts: list[str],
    states: np.ndarray,
    progress: Progress = lambda steps: None,
) -> Content | None:
    """The paper's semantic content of the model's own programs; None with too few distinct programs to tell.

    Args:
        suite: whose probe tasks the model answered.
        protocol: of the probes.
        texts: what it wrote for each probe task.
        states: float32 [R, pools, D], at the emission of each action word of the valid programs among them.
        progress: is told of optimiser steps done.
    """
    programs, places = written_programs(texts)
    known: dict[bytes, int] = {}
    kind = np.array(
        [known.setdefault(programs.program(i).tobytes(), len(known)) for i in range(len(programs))], np.int64
    )
    distinct = len(known)
    if distinct < protocol.min_programs:
        return None
    inputs = first_inputs(probe_tasks(suite))[places]
    probe_set = build_probe_set(programs, inputs, [ORIGINAL], protocol)
    heads = [FEATURES.index(name) for group in PAPER_FEATURES for name in group]
    executed = (probe_set.classes[0, heads] != MISSING).all(0)
    splits = [_only(probe_set.split(seed), executed) for seed in protocol.seeds]
    targets = probe_set.classes[0, heads][:, None]
    counts = probe_set.counts[heads][:, None]
    widths = {"linear": [], "mlp1": [protocol.hidden], "mlp2": list(protocol.deep_hidden)}
    arithmetic, geometric = {}, {}
    for depth in CONTENT_DEPTHS:
        fit = fit_probes(states[:, 0], targets, counts, splits, widths[depth], protocol.seeds, protocol, progress)
        arithmetic[depth], geometric[depth] = _content(fit, probe_set, splits, kind, protocol)
    tested = np.unique(np.concatenate([split.test for split in splits]))
    return Content(arithmetic, geometric, distinct, len(tested))


def _only(split: Split, kept: np.ndarray) -> Split:
    """The split without the states that are not kept."""
    return Split(*(rows[kept[rows]] for rows in (split.train, split.validation, split.test)))


def _content(
    fit: Fit, probe_set: ProbeSet, splits: Sequence[Split], kind: np.ndarray, protocol: Protocol
) -> tuple[Estimate, float]:
    """Mean over features of accuracy with its interval over programs and seeds, and the geometric mean.

    A model writes the same program for many tasks, so the bootstrap draws distinct programs with all their copies;
    `kind` int [B] tells which programs are the same.
    """
    right: list[np.ndarray] = []
    for correct in fit.correct:
        start, groups = 0, []
        for group in PAPER_FEATURES:
            groups.append(correct[start : start + len(group), 0].all(0))
            start += len(group)
        right.append(np.stack(groups).astype(np.float64))
    hits, by_seed = over_programs(right, splits, probe_set)
    sizes, seed_sizes = over_programs([np.ones(len(split.test)) for split in splits], splits, probe_set)
    _, cluster = np.unique(kind[tested_programs(splits, probe_set)], return_inverse=True)
    hits, sizes = (np.stack([np.bincount(cluster, row) for row in np.atleast_2d(each)]) for each in (hits, sizes))
    weights = bootstrap_weights(sizes.shape[1], protocol.resamples, BOOTSTRAP_SEED)
    resampled = (weights @ hits.T).mean(-1) / (weights @ sizes[0])
    whole = hits.sum(-1) / sizes.sum()
    seeds = by_seed.mean(1) / seed_sizes
    estimate = interval_over_units_and_seeds(float(whole.mean()), resampled, seeds, sizes.shape[1], 0.95)
    return estimate, float(np.exp(np.log(np.maximum(whole, 1e-12)).mean()))
