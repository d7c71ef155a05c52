"""The verdict: what the blind set says, from stored states to every figure of the row.

Letters: `S` semantics, `F` features, `R` states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.probing.control_gap import FeatureResult, PriorBaseline, analyze_features, decide_verdict
from benchmark.probing.diagnostics import (
    DiagnosticEvidence,
    Diagnostics,
    collect_diagnostic_evidence,
    compute_diagnostics,
    add_control_labels,
)
from benchmark.probing.labels import DROPPED, ProbeSet, build_probe_set, list_semantics
from benchmark.probing.probe_fit import ProbeTrainer, fit_in_process
from benchmark.probing.protocol import BOOTSTRAP_SEED, POOLS, Protocol
from benchmark.probing.readout import Readout, compute_readout
from benchmark.probing.state_source import StepCallback, Views, evidence_to_arrays, evidence_from_arrays, count_network_steps, probe_source
from benchmark.probing.token_history import token_history_states
from benchmark.tasks.probe_sets import first_inputs
from benchmark.tasks.suite import Suite, blind_tasks
from karel_env.features import FEATURES
from karel_env.screen import valid_alternatives
from karel_env.semantics import ADVERSARIAL, FLIP

EXTRA_SEMANTICS = (FLIP, ADVERSARIAL)
"""Semantics of the paper that are measured and named beside the alternatives, and enter no gap."""
DIAGNOSTICS, CONTENT_HITS = "diagnostics", "content.hits"
"""Names in `probes.data`: before the parts of `DiagnosticEvidence`; of what `content_of_hits` takes, packed."""


def diagnostic_evidence_from_arrays(arrays: Mapping[str, np.ndarray]) -> DiagnosticEvidence | None:
    """What the arrays of `probes.data` hold for the diagnostics; None where an older run stored nothing."""
    names = ("confusion", "control_hits", "unseen")
    if any(f"{DIAGNOSTICS}.{name}" not in arrays for name in names):
        return None
    return DiagnosticEvidence(*(arrays[f"{DIAGNOSTICS}.{name}"] for name in names))


@dataclass(frozen=True)
class ProbeResult:
    """What the blind set says: does the model represent the robot's state?

    Attributes:
        verdict: on facing.
        features: results by feature.
        diagnostics: of the model, by feature; they decide nothing.
        semantics: names; the original, the alternatives, and those beside them.
        programs, dropped: of the probe set in all, and those left out to keep the folds apart.
        test_programs, test_states: what the intervals rest on.
    """

    verdict: str
    features: dict[str, FeatureResult]
    diagnostics: dict[str, Diagnostics]
    semantics: tuple[str, ...]
    programs: int
    dropped: int
    test_programs: int
    test_states: int


def count_blind_steps(protocol: Protocol) -> int:
    """Steps of all networks that `measure_meaning` reports, for progress."""
    return (2 * len(POOLS) + 1) * count_network_steps(protocol, len(list_semantics(protocol, EXTRA_SEMANTICS)) + 1)


def measure(
    suite: Suite,
    protocol: Protocol,
    model_views: Views,
    random_views: Sequence[Views],
    on_steps: StepCallback = lambda steps: None,
    trainer: ProbeTrainer = fit_in_process,
) -> tuple[ProbeResult, dict[str, np.ndarray], Readout]:
    """Skill, gap, delta and verdict on the blind set; the arrays that they are computed from, and readings, to be stored.

    Args:
        suite: whose blind set was read.
        protocol: of the probes.
        model: its pooled states at the reading of each action word, in the order of `POOLS`.
        random: the same of each untrained copy.
        progress: is told of the steps done, see `blind_steps`.
        fit: fits the probes.
    """
    tasks = blind_tasks(suite)
    probe_set = blind_probe_set(suite, protocol)
    baseline = PriorBaseline.of(probe_set, protocol)
    token_history = token_history_states(tasks.programs, first_inputs(tasks), probe_set)
    sources = {
        "model": probe_source(probe_set, baseline, [model_views], protocol, on_steps, trainer=trainer),
        "random-init": probe_source(probe_set, baseline, random_views, protocol, on_steps, trainer=trainer),
        "recorder": probe_source(probe_set, baseline, [[token_history]], protocol, on_steps, trainer=trainer),
    }
    arrays = evidence_to_arrays(sources)
    evidence = collect_diagnostic_evidence(sources["model"].fits, arrays["model.pool"], probe_set, protocol)
    diagnostics = compute_diagnostics(evidence, probe_set, baseline, protocol)
    arrays |= {f"{DIAGNOSTICS}.{name}": array for name, array in vars(evidence).items()}
    names = [semantics.name for semantics in list_semantics(protocol, EXTRA_SEMANTICS)]
    readout = compute_readout(probe_set, baseline, sources["model"].fits, POOLS, names, protocol)
    return verdict_from_evidence(probe_set, baseline, arrays, protocol, POOLS, diagnostics), arrays, readout


def blind_probe_set(suite: Suite, protocol: Protocol) -> ProbeSet:
    """The labels of the suite's blind set: original, alternatives, extras, and control labels."""
    tasks = blind_tasks(suite)
    semantics = list_semantics(protocol, EXTRA_SEMANTICS)
    probe_set = build_probe_set(tasks.programs, first_inputs(tasks), semantics, protocol, budget=suite.probe_programs)
    return add_control_labels(probe_set, tasks.programs)


def verdict_from_evidence(
    probe_set: ProbeSet,
    baseline: PriorBaseline,
    arrays: Mapping[str, np.ndarray],
    protocol: Protocol,
    views: Sequence[str] = POOLS,
    diagnostics: Mapping[str, Diagnostics] | None = None,
) -> ProbeResult:
    """What the stored arrays of a run (`probes.data`) say.

    Args:
        probe_set, tested: of `blind_probe_set`.
        arrays: by source and part of its `Evidence`, such as `model.probe`.
        protocol: of the run.
        views: names of those that the model's evidence was chosen from.
        diagnostics: of the model, which the arrays do not hold.
    """
    alternatives = {name: valid_alternatives(name) for name in FEATURES}
    results = analyze_features(evidence_from_arrays(arrays), probe_set, baseline, alternatives, protocol, views, BOOTSTRAP_SEED)
    return ProbeResult(
        verdict=decide_verdict(results, protocol),
        features=results,
        diagnostics=dict(diagnostics or {}),
        semantics=probe_set.semantics,
        programs=len(probe_set.fold),
        dropped=int((probe_set.fold == DROPPED).sum()),
        test_programs=len(baseline.programs),
        test_states=int(np.isin(probe_set.program, baseline.programs).sum()),
    )
