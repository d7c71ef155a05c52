"""Probe one source of states: the model, randomly initialised copies of it, or the token-history baseline; its evidence.

Letters: `Q` seeds, `S` semantics, `F` features, `R` states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.probing.control_gap import Evidence, PriorBaseline, gather_evidence, select_pool, skill_score
from benchmark.probing.diagnostics import DiagnosticEvidence
from benchmark.probing.labels import ProbeSet, Split
from benchmark.probing.probe_fit import ProbeFit, ProbeTrainer, StateArray, fit_in_process
from benchmark.probing.protocol import Protocol

StepCallback = Callable[[int], None]
"""Called with the number of optimiser steps done since its last call."""
Views = Sequence[StateArray]
"""The alternative states, float32 [R, D] each, from which each semantics selects one on validation: layers or pools."""
DIAGNOSTICS, CONTENT_HITS = "diagnostics", "content.hits"
"""Names in `probes.data`: the prefix of the parts of `DiagnosticEvidence`; the array of `pack_hits`."""


@dataclass(frozen=True)
class ProbedSource:
    """The probes of one source of states.

    Attributes:
        fits: probe fit per view.
        evidence: cross-entropies of the views that validation selected.
    """

    fits: list[ProbeFit]
    evidence: Evidence


@dataclass(frozen=True)
class RunEvidence:
    """Everything that the probing figures of a record are computed from.

    Attributes:
        sources: evidence of `model` and of each of `CONTROLS`.
        diagnostics: counts of the model's diagnostics; None for an older run that stored none.
        content_hits: hits of the probes of semantic content, as packed by `pack_hits`; None if they were not stored.
    """

    sources: Mapping[str, Evidence]
    diagnostics: DiagnosticEvidence | None = None
    content_hits: np.ndarray | None = None

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The named arrays of `probes.data`, such as `model.probe`."""
        arrays = {
            f"{name}.{part}": array for name, source in self.sources.items() for part, array in vars(source).items()
        }
        if self.diagnostics is not None:
            arrays |= {f"{DIAGNOSTICS}.{part}": array for part, array in vars(self.diagnostics).items()}
        return arrays if self.content_hits is None else arrays | {CONTENT_HITS: self.content_hits}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> RunEvidence:
        """The evidence of the arrays of `to_arrays`; arrays of other names are ignored.

        Raises:
            KeyError: a source misses one of its arrays.
        """
        names = dict.fromkeys(key.removesuffix(".probe") for key in arrays if key.endswith(".probe"))
        sources = {
            name: Evidence(*(arrays[f"{name}.{part}"] for part in ("probe", "totals", "pool"))) for name in names
        }
        counts = [arrays.get(f"{DIAGNOSTICS}.{part}") for part in ("confusion", "control_hits", "unseen")]
        stored = [array for array in counts if array is not None]
        return cls(
            sources, DiagnosticEvidence(*stored) if len(stored) == len(counts) else None, arrays.get(CONTENT_HITS)
        )


def probe_source(
    probe_set: ProbeSet,
    baseline: PriorBaseline,
    copies: Sequence[Views],
    protocol: Protocol,
    on_steps: StepCallback = lambda steps: None,
    widths: Sequence[int] | None = None,
    trainer: ProbeTrainer = fit_in_process,
) -> ProbedSource:
    """Train the probes of one source and gather their evidence.

    Args:
        probe_set: labels.
        baseline: label prior on the same labels.
        copies: views per copy of the source; probe seed i reads copy i modulo the number of copies.
        protocol: settings of the probes.
        on_steps: called with the steps done; `count_network_steps` per view in all.
        widths: widths of the hidden layers, empty for linear probes; `[protocol.hidden]` if None.
        trainer: trains the probes.
    """
    hidden = [protocol.hidden] if widths is None else list(widths)
    fits = [
        fit_view(probe_set, [views[view] for views in copies], protocol, hidden, on_steps, trainer)
        for view in range(len(copies[0]))
    ]
    return ProbedSource(fits, gather_evidence(fits, select_pool(fits), probe_set, baseline, protocol))


def fit_view(
    probe_set: ProbeSet,
    copies: Sequence[StateArray],
    protocol: Protocol,
    widths: Sequence[int],
    on_steps: StepCallback = lambda steps: None,
    trainer: ProbeTrainer = fit_in_process,
) -> ProbeFit:
    """Train the probes of one view for all seeds; `copies` holds states [R, D] per copy."""
    states = [copies[seed % len(copies)] for seed in protocol.seeds]
    splits = [probe_set.split(seed) for seed in protocol.seeds]
    return fit_semantics(probe_set, states, protocol.seeds, splits, protocol, widths, on_steps, trainer)


def count_network_steps(protocol: Protocol, num_semantics: int) -> int:
    """Number of optimiser steps of all networks of one view."""
    return protocol.steps * len(protocol.seeds) * (protocol.copies - 1 + num_semantics)


def validation_gaps(
    fits: Sequence[ProbeFit], baseline: PriorBaseline, feature: int, columns: Sequence[int]
) -> np.ndarray:
    """float64 [views], validation gap per view, mean over seeds: skill of the original minus mean skill of the alternatives.

    The best layer is selected by it, so that no test result selects a layer. `columns` indexes the alternatives in S.
    """
    prior = np.stack([label_prior.validation[:, feature] for label_prior in baseline.priors])
    skills = skill_score(np.stack([fit.validation[:, :, feature] for fit in fits]), prior)
    return (skills[:, :, 0] - skills[:, :, list(columns)].mean(-1)).mean(-1)


def fit_semantics(
    probe_set: ProbeSet,
    states: Sequence[StateArray],
    seeds: Sequence[int],
    splits: Sequence[Split],
    protocol: Protocol,
    widths: Sequence[int],
    on_steps: StepCallback = lambda steps: None,
    trainer: ProbeTrainer = fit_in_process,
) -> ProbeFit:
    """Train one network per (semantics, seed), with one head per feature on shared hidden layers.

    The original semantics has `protocol.copies` networks, over which its results are averaged.

    Args:
        probe_set: labels.
        states: states [R, D] per seed.
        seeds: Q probe seeds.
        splits: split per seed.
        protocol: settings of the probes.
        widths: widths of the hidden layers.
        on_steps: called with the steps done.
        trainer: trains the probes.
    """
    copies = protocol.copies
    targets = np.concatenate([np.repeat(probe_set.classes[:1], copies, 0), probe_set.classes[1:]])
    inits = [*range(copies), *[0] * (len(targets) - copies)]
    fit = trainer(states, targets, probe_set.counts, splits, widths, seeds, protocol, on_steps, inits)
    return ProbeFit(
        np.stack([_average_copies(values, copies) for values in fit.validation]),
        [_average_copies(values, copies) for values in fit.log_prob],
        [values[copies - 1 :] for values in fit.predicted],
    )


def _average_copies(values: np.ndarray, copies: int) -> np.ndarray:
    """[G - copies + 1, ...], the first `copies` groups of [G, ...] replaced by their mean."""
    return np.concatenate([values[:copies].mean(0, keepdims=True), values[copies:]])
