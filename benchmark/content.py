"""The paper's semantic content: accuracy of probes on the model's own programs, at the position that emits each word.

Source: Jin & Rinard 2024, section 4; shared/PROBING.md, The score. Letters: `Q` seeds, `F` features, `R` states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.evaluation import first_inputs, written_programs
from benchmark.labels import MISSING, ProbeSet, Split, build_probe_set
from benchmark.probing import Fit, Fitter, Rows, fit_probes
from benchmark.protocol import BOOTSTRAP_SEED, Protocol
from benchmark.semantic_content import over_programs, tested_programs
from benchmark.sources import Progress
from benchmark.statistics import Estimate, bootstrap_weights, interval_over_units_and_seeds
from benchmark.suites import Suite, probe_tasks
from karel_env.features import FEATURES, PAPER_FEATURES
from karel_env.semantics import ORIGINAL

CONTENT_DEPTHS = ("linear", "mlp1", "mlp2")


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


def content_steps(protocol: Protocol) -> int:
    """Steps of all networks that `measure_content` reports, for progress."""
    return protocol.steps * len(CONTENT_DEPTHS) * len(protocol.seeds) * sum(map(len, PAPER_FEATURES))


def measure_content(
    suite: Suite,
    protocol: Protocol,
    texts: Sequence[str],
    states: Rows,
    progress: Progress = lambda steps: None,
    fit: Fitter = fit_probes,
) -> Content | None:
    """The paper's semantic content of the model's own programs; None with too few distinct programs to tell.

    Args:
        suite: whose probe tasks the model answered.
        protocol: of the probes.
        texts: what it wrote for each probe task.
        states: float32 [R, D], the mean over layers at the emission of each action word of the valid programs among them.
        progress: is told of the steps done, see `content_steps`.
        fit: fits the probes.
    """
    programs, _ = written_programs(texts)
    known: dict[bytes, int] = {}
    kind = np.array(
        [known.setdefault(programs.program(i).tobytes(), len(known)) for i in range(len(programs))], np.int64
    )
    distinct = len(known)
    if distinct < protocol.min_programs:
        return None
    probe_set = generated_probe_set(suite, protocol, texts)
    heads = [FEATURES.index(name) for group in PAPER_FEATURES for name in group]
    executed = (probe_set.classes[0, heads] != MISSING).all(0)
    splits = [_only(probe_set.split(seed), executed) for seed in protocol.seeds]
    targets = probe_set.classes[0, heads][:, None]
    counts = probe_set.counts[heads][:, None]
    widths = {"linear": [], "mlp1": [protocol.hidden], "mlp2": list(protocol.deep_hidden)}
    read = [states] * len(protocol.seeds)
    arithmetic, geometric = {}, {}
    for depth in CONTENT_DEPTHS:
        found = fit(read, targets, counts, splits, widths[depth], protocol.seeds, protocol, progress)
        arithmetic[depth], geometric[depth] = _content(found, probe_set, splits, kind, protocol)
    tested = np.unique(np.concatenate([split.test for split in splits]))
    return Content(arithmetic, geometric, distinct, len(tested))


def generated_probe_set(suite: Suite, protocol: Protocol, texts: Sequence[str]) -> ProbeSet:
    """The labels of the programs that a model wrote for the probe tasks, under the original."""
    programs, places = written_programs(texts)
    inputs = first_inputs(probe_tasks(suite))[places]
    return build_probe_set(programs, inputs, [ORIGINAL], protocol)


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
    names = [name for group in PAPER_FEATURES for name in group]
    label = probe_set.classes[0, [FEATURES.index(name) for name in names]]
    for said, split in zip(fit.predicted, splits, strict=True):
        correct = dict(zip(names, said[:, 0] == label[:, split.test], strict=True))
        groups = [np.all([correct[name] for name in group], 0) for group in PAPER_FEATURES]
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
