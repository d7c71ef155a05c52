"""The verdict on the blind set, from stored hidden states to every probing result of a leaderboard row.

Letters: `S` semantics, `F` features, `R` states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from benchmark.probing.control_gap import (
    CONTROLS,
    MODEL,
    RANDOM_INIT,
    TOKEN_HISTORY,
    Evidence,
    FeatureResult,
    PriorBaseline,
    analyze_features,
    check_controls,
    decide_verdict,
)
from benchmark.probing.diagnostics import (
    Diagnostics,
    add_control_labels,
    collect_diagnostic_evidence,
    compute_diagnostics,
)
from benchmark.probing.labels import DROPPED, ProbeSet, build_probe_set, list_semantics
from benchmark.probing.probe_fit import ProbeTrainer, fit_in_process
from benchmark.probing.protocol import BOOTSTRAP_SEED, POOLS, Protocol
from benchmark.probing.readout import Readout, compute_readout
from benchmark.probing.state_source import (
    RunEvidence,
    StepCallback,
    Views,
    count_network_steps,
    probe_source,
)
from benchmark.probing.token_history import token_history_states
from benchmark.tasks.probe_sets import first_inputs
from benchmark.tasks.suite import Suite, blind_tasks
from karel_env.features import FEATURES
from karel_env.generation.recipe import Tasks
from karel_env.screen import valid_alternatives
from karel_env.semantics import ADVERSARIAL, FLIP

EXTRA_SEMANTICS = (FLIP, ADVERSARIAL)
"""Semantics of the paper that are measured and reported with the alternatives, but enter no gap."""


@dataclass(frozen=True)
class ProbeResult:
    """The probing result on the blind set: does the model represent the robot's state?

    Attributes:
        verdict: REPRESENTS, RECORD-ONLY or INCONCLUSIVE, decided on facing.
        features: results by feature.
        diagnostics: diagnostics of the model by feature; they do not enter the verdict.
        semantics: names of the original, the alternatives, and the extra semantics.
        programs, dropped: number of programs of the probe set, and of those left out to keep the folds disjoint.
        test_programs, test_states: number of programs and states that the intervals are computed from.
    """

    verdict: str
    features: dict[str, FeatureResult]
    diagnostics: dict[str, Diagnostics]
    semantics: tuple[str, ...]
    programs: int
    dropped: int
    test_programs: int
    test_states: int


def count_blind_steps(protocol: Protocol, num_views: int = 2 * len(POOLS) + 1) -> int:
    """Number of optimiser steps that `measure` reports to `on_steps`, for the views of all sources together."""
    return num_views * count_network_steps(protocol, len(list_semantics(protocol, EXTRA_SEMANTICS)) + 1)


def measure(
    tasks: Tasks,
    probe_set: ProbeSet,
    protocol: Protocol,
    model_views: Views,
    random_views: Sequence[Views],
    on_steps: StepCallback = lambda steps: None,
    trainer: ProbeTrainer = fit_in_process,
) -> tuple[ProbeResult, RunEvidence, Readout]:
    """Measure skill, gap, delta and verdict on the blind set of a suite, with the controls of the protocol.

    Args:
        tasks: the blind set that the model has read.
        probe_set: its labels, see `blind_probe_set`.
        protocol: settings of the probes.
        model_views: float32 [R, D] per pool of `POOLS`, the model's states at each action word.
        random_views: the same per randomly initialised copy of the model.
        on_steps: called with the steps done; `count_blind_steps` in all.
        trainer: trains the probes.

    Returns:
        See `measure_against`.
    """
    token_history = token_history_states(tasks.programs, first_inputs(tasks), probe_set)
    controls = {RANDOM_INIT: random_views, TOKEN_HISTORY: [[token_history]]}
    check_controls(controls)
    return measure_against(probe_set, model_views, controls, protocol, POOLS, on_steps, trainer)


def measure_against(
    probe_set: ProbeSet,
    model_views: Views,
    controls: Mapping[str, Sequence[Views]],
    protocol: Protocol,
    views: Sequence[str] = POOLS,
    on_steps: StepCallback = lambda steps: None,
    trainer: ProbeTrainer = fit_in_process,
) -> tuple[ProbeResult, RunEvidence, Readout]:
    """Measure skill, gap, delta and verdict of states against any controls.

    Args:
        probe_set: labels of `blind_probe_set`, R rows.
        model_views: float32 [R, D] per view, the model's states at each action word.
        controls: by name at least one control; its views per copy, float32 [R, D'] each. Probe seed i reads copy i
            modulo the number of copies.
        protocol: settings of the probes.
        views: names of the model's views.
        on_steps: called with the steps done; `count_blind_steps` of all views.
        trainer: trains the probes.

    Returns:
        The result; the evidence that it is computed from; the readout of the first seed.
    """
    baseline = PriorBaseline.from_probe_set(probe_set, protocol)
    sources = {
        name: probe_source(probe_set, baseline, copies, protocol, on_steps, trainer=trainer)
        for name, copies in ({MODEL: [model_views]} | dict(controls)).items()
    }
    model = sources[MODEL]
    counts = collect_diagnostic_evidence(model.fits, model.evidence.pool, probe_set, protocol)
    diagnostics = compute_diagnostics(counts, probe_set, baseline, protocol)
    evidence = RunEvidence({name: source.evidence for name, source in sources.items()}, counts)
    names = [semantics.name for semantics in list_semantics(protocol, EXTRA_SEMANTICS)]
    readout = compute_readout(probe_set, baseline, model.fits, views, names, protocol)
    result = verdict_from_evidence(probe_set, baseline, evidence.sources, protocol, views, diagnostics, required=())
    return result, evidence, readout


def blind_probe_set(suite: Suite, protocol: Protocol, tasks: Tasks | None = None) -> ProbeSet:
    """The labels of the suite's blind set (`tasks`, drawn if None): original, alternatives, extras, and control labels."""
    tasks = blind_tasks(suite) if tasks is None else tasks
    semantics = list_semantics(protocol, EXTRA_SEMANTICS)
    probe_set = build_probe_set(tasks.programs, first_inputs(tasks), semantics, protocol, budget=suite.probe_programs)
    return add_control_labels(probe_set, tasks.programs)


@lru_cache(maxsize=2)
def load_blind_set(suite: Suite, protocol: Protocol) -> tuple[ProbeSet, PriorBaseline]:
    """Labels of a suite's blind set and the prior baseline of its test programs; the last two are kept."""
    probe_set = blind_probe_set(suite, protocol)
    return probe_set, PriorBaseline.from_probe_set(probe_set, protocol)


def verdict_from_evidence(
    probe_set: ProbeSet,
    baseline: PriorBaseline,
    evidence: Mapping[str, Evidence],
    protocol: Protocol,
    views: Sequence[str] = POOLS,
    diagnostics: Mapping[str, Diagnostics] | None = None,
    required: Sequence[str] = CONTROLS,
) -> ProbeResult:
    """Compute the probing result from the evidence of a run (`RunEvidence.sources`).

    Args:
        probe_set: labels of `blind_probe_set`.
        baseline: label prior on the same labels.
        evidence: evidence of `model` and of each of `CONTROLS`.
        protocol: protocol of the run.
        views: names of the views that `Evidence.pool` indexes.
        diagnostics: diagnostics of the model, which this evidence does not determine.
        required: names of the controls of the verdict; empty for every source in `evidence`.

    Raises:
        ValueError: a required control is missing.
    """
    check_controls(evidence, required)
    if required:
        # Sources that the protocol does not name enter no verdict of it.
        evidence = {name: evidence[name] for name in (MODEL, *required)}
    alternatives = {name: valid_alternatives(name) for name in FEATURES}
    results = analyze_features(evidence, probe_set, baseline, alternatives, protocol, views, BOOTSTRAP_SEED)
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
