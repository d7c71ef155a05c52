"""What the probes find in one source of states: the model, untrained copies of it, or a recorder.

Letters: `Q` seeds, `S` semantics, `F` features, `R` states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.probing.control_gap import Evidence, PriorBaseline, select_pool, gather_evidence
from benchmark.probing.labels import ProbeSet, Split
from benchmark.probing.probe_fit import ProbeFit, ProbeTrainer, StateArray, fit_in_process
from benchmark.probing.protocol import Protocol

StepCallback = Callable[[int], None]
Views = Sequence[StateArray]
"""The states among which each semantics chooses on validation, float32 [R, D] each: layers, or pools of layers."""


@dataclass(frozen=True)
class ProbedSource:
    """A fit a view, and the evidence of the chosen ones."""

    fits: list[ProbeFit]
    evidence: Evidence


def probe_source(
    probe_set: ProbeSet,
    baseline: PriorBaseline,
    copies: Sequence[Views],
    protocol: Protocol,
    on_steps: StepCallback = lambda steps: None,
    widths: Sequence[int] | None = None,
    trainer: ProbeTrainer = fit_in_process,
) -> ProbedSource:
    """Fit the probes of one source.

    Args:
        probe_set: labels.
        tested: of the same.
        copies: the views of each copy of the source; probe seed i reads copy i modulo them.
        protocol: of the probes.
        progress: is told of the steps done, see `network_steps`.
        widths: of the hidden layers; the protocol's one unless given.
        fit: fits the probes.
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
    """The fit of one view, [R, D] of each copy, all seeds, by semantics."""
    states = [copies[seed % len(copies)] for seed in protocol.seeds]
    splits = [probe_set.split(seed) for seed in protocol.seeds]
    return fit_semantics(probe_set, states, protocol.seeds, splits, protocol, widths, on_steps, trainer)


def count_network_steps(protocol: Protocol, num_semantics: int) -> int:
    """Steps of all networks of one view, as its fit reports them."""
    return protocol.steps * len(protocol.seeds) * (protocol.copies - 1 + num_semantics)


def validation_gaps(fits: Sequence[ProbeFit], baseline: PriorBaseline, feature: int, columns: Sequence[int]) -> np.ndarray:
    """float64 [views], skill of the original less the mean of the alternatives (columns of S) on validation, over seeds.

    By it the best layer is named, so that no test figure chooses.
    """
    prior = np.stack([label_prior.validation[:, feature] for label_prior in baseline.priors])
    skills = 1 - np.stack([fit.validation[:, :, feature] for fit in fits]) / prior
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
    """One network a (semantics, seed), the original in copies, with a head for each feature over shared hidden layers."""
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
    """[G, ...] with the mean of the first `copies` groups in their place."""
    return np.concatenate([values[:copies].mean(0, keepdims=True), values[copies:]])


def evidence_to_arrays(sources: Mapping[str, ProbedSource]) -> dict[str, np.ndarray]:
    """The evidence of all sources as a run stores it, such as `model.probe`."""
    return {f"{name}.{part}": array for name, s in sources.items() for part, array in vars(s.evidence).items()}


def evidence_from_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, Evidence]:
    """The evidence of all sources from the arrays of `arrays_of`; other arrays may lie beside them."""
    names = dict.fromkeys(key.removesuffix(".probe") for key in arrays if key.endswith(".probe"))
    return {name: Evidence(*(arrays[f"{name}.{part}"] for part in ("probe", "totals", "pool"))) for name in names}
