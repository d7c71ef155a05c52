"""The full grid (`--detail full`): results per layer, offset, position, probe depth, label budget and alternative.

`--detail layers` measures only the layers on the blind set at `read`. Each slice is measured like the verdict, but with
fewer alternatives, so that the grid of a small model takes minutes. See docs/probing.md, "What is measured". Letters:
`Q` seeds, `S` semantics, `F` features, `R` states, `P` programs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from benchmark.probing.control_gap import CONTROLS, FeatureResult, PriorBaseline, SkillScores, overall_skill
from benchmark.probing.grid import ConditionalSkill, Grid, Slice, SliceResult
from benchmark.probing.labels import ProbeSet, build_probe_set, list_semantics
from benchmark.probing.mdl import measure_codelengths
from benchmark.probing.probe_fit import ProbeTrainer, StateArray, fit_in_process
from benchmark.probing.protocol import BOOTSTRAP_SEED, FULL_GRID, MEAN, POOLS, STANDARD_GRID, Protocol
from benchmark.probing.state_source import (
    ProbedSource,
    Views,
    count_network_steps,
    probe_source,
    validation_gaps,
)
from benchmark.probing.token_history import token_history_states
from benchmark.probing.verdict import ProbeResult, verdict_from_evidence
from benchmark.statistics import Estimate, bootstrap_weights, holm, interval_over_units_and_seeds
from benchmark.tasks.probe_sets import (
    CROSSED_ALTERNATIVES,
    WIDE_BUDGET,
    crossed_outputs,
    first_inputs,
    parse_programs,
)
from benchmark.tasks.stage import BLIND, CROSSED, GENERATED, WIDE, Stage
from benchmark.tasks.task_sets import TaskSets
from karel_env.features import FEATURES, PRIMARY
from karel_env.language import Programs
from karel_env.screen import valid_alternatives
from karel_env.semantics import ORIGINAL, Semantics, mirror_class
from karel_env.world import Worlds

NUM_ALL_ALTERNATIVES = 29
"""Number of alternatives of the grid's verdict: all mirror classes."""
NUM_GRID_ALTERNATIVES = 4
"""Number of alternatives of every other slice."""
OFFSETS = (0, -2, -1, 1, 2)
FUTURE = (1, 2)
SMALL_BUDGET = 1_000
NUM_POOLED_SLICES = 11
"""Slices of the full grid that use pooled views: positions, depths, budgets, crossed prompts, and future offsets."""
READ, EMIT = "read", "emit"
POOLED = "pools"
StateLoader = Callable[[Stage, str, str], StateArray]
"""Returns the stored states of (stage, position, view)."""
EventCallback = Callable[[str], None]
"""Called with a description of the measurement that starts."""
ResultCallback = Callable[[ProbedSource, PriorBaseline, ProbeResult], None]
"""Called with the probed model, the label prior and the result of a slice."""


@dataclass(frozen=True)
class ProbeSite:
    """A probe set with the prompts that its states were read from.

    Attributes:
        name: name of the probe set in `Slice.probe_set`.
        stage: stage of the stored states of the model.
        programs, inputs: B programs and the first shown input worlds [B].
        outputs: first output worlds [B] that the prompts show; None if the prompts hide outputs.
        probe_set: labels at all `OFFSETS`.
    """

    name: str
    stage: Stage
    programs: Programs
    inputs: Worlds
    outputs: Worlds | None
    probe_set: ProbeSet

    def token_history_states(self, position: str, num_ahead: int = 0) -> np.ndarray:
        """float32 [R, D], states of the token-history baseline at a position, with `num_ahead` further tokens."""
        last_read = 0 if position == READ else -1
        return token_history_states(self.programs, self.inputs, self.probe_set, last_read + num_ahead, self.outputs)


def count_grid_steps(protocol: Protocol, detail: str, num_layers: int) -> int:
    """Approximate number of optimiser steps of a grid beyond those of the standard grid, for a model of `num_layers`."""
    if detail == STANDARD_GRID:
        return 0
    grid_protocol = replace(protocol, copies=1)
    view_steps = 2 * count_network_steps(grid_protocol, 1 + min(NUM_GRID_ALTERNATIVES, protocol.alternatives))
    if detail != FULL_GRID:
        return (num_layers + 1) * view_steps
    verdict_steps = (2 * len(POOLS) + 1) * count_network_steps(protocol, 1 + NUM_ALL_ALTERNATIVES)
    return (2 * len(OFFSETS) * (num_layers + 1) + len(POOLS) * NUM_POOLED_SLICES) * view_steps + verdict_steps


class FullGrid:
    """The probing measurements of one model over a grid of slices.

    Args:
        task_sets: task sets of the suite.
        protocol: protocol of the run.
        load_states: returns stored states.
        layers: names of the model's layers, the embeddings first.
        texts: the model's generated texts, one per probe task.
        on_event: called with a description of each measurement when it starts.
        trainer: trains the probes.
    """

    def __init__(
        self,
        task_sets: TaskSets,
        protocol: Protocol,
        load_states: StateLoader,
        layers: Sequence[str],
        texts: Sequence[str],
        on_event: EventCallback = lambda message: None,
        trainer: ProbeTrainer = fit_in_process,
    ) -> None:
        self.task_sets, self.suite, self.layers, self.texts = task_sets, task_sets.suite, list(layers), texts
        self.load_states, self.on_event = load_states, on_event
        self.protocol, self.trainer = protocol, trainer
        self.grid_protocol = replace(protocol, alternatives=min(NUM_GRID_ALTERNATIVES, protocol.alternatives), copies=1)
        self.token_history_sources: dict[tuple[object, ...], ProbedSource] = {}

    @property
    def pooled_views(self) -> list[str]:
        """The views of a slice named `pools`."""
        return [MEAN, self.layers[-1]]

    @cached_property
    def blind(self) -> ProbeSite:
        """The blind set, on which the verdict is taken."""
        tasks = self.task_sets.blind
        return self._create_site(
            BLIND, Stage(BLIND), tasks.programs, first_inputs(tasks), None, self.suite.probe_programs
        )

    @cached_property
    def generated(self) -> ProbeSite | None:
        """The model's own programs; None if fewer than `protocol.min_programs` are distinct."""
        programs, text_index = parse_programs(self.texts)
        if len({programs.program(i).tobytes() for i in range(len(programs))}) < self.protocol.min_programs:
            return None
        tasks = self.task_sets.probe
        return self._create_site(
            GENERATED, Stage(GENERATED), programs, tasks.inputs[text_index, 0], tasks.outputs[text_index, 0], None
        )

    def _create_site(
        self,
        name: str,
        stage: Stage,
        programs: Programs,
        inputs: Worlds,
        outputs: Worlds | None,
        budget: int | None,
        semantics: Sequence[Semantics] | None = None,
    ) -> ProbeSite:
        semantics = semantics or list_semantics(self.grid_protocol)
        probe_set = build_probe_set(programs, inputs, semantics, self.protocol, OFFSETS, budget)
        return ProbeSite(name, stage, programs, inputs, outputs, probe_set)

    def measure(self) -> Grid:
        """Measure the full grid."""
        verdict, verdict_slice = self._measure_verdict()
        slices = [verdict_slice]
        layer_slices, best_layer = self._measure_layers(self.blind, READ, OFFSETS)
        slices += layer_slices
        if self.generated is not None:
            slices += self._measure_layers(self.generated, EMIT, OFFSETS)[0]
            slices.append(self.measure_slice(self.generated, READ, POOLED))
        slices.append(self.measure_slice(self.blind, EMIT, POOLED))
        slices += [self.measure_slice(self.blind, READ, POOLED, depth=depth) for depth in ("linear", "mlp1", "mlp2")]
        slices += self._measure_budgets()
        slices += self._measure_crossed()
        reach, reach_p = self._measure_reach()
        self.on_event("codelength")
        token_history, copies = self.blind.token_history_states(READ), self._copies(self.blind, READ, self.pooled_views)
        probe_set = self.blind.probe_set.at_offset(0)
        sources: dict[str, Sequence[Views]] = {
            "model": [self._views(self.blind, READ, self.pooled_views)],
            "random-init": copies,
            "recorder": [[token_history]],
        }
        codelengths = measure_codelengths(probe_set, sources, self.grid_protocol, self.trainer)
        return Grid(verdict, slices, best_layer, codelengths, reach, reach_p, self._measure_conditional())

    def measure_layers(self) -> Grid:
        """Measure every layer on the blind set at `read`, offset 0, and select the best one."""
        slices, best_layer = self._measure_layers(self.blind, READ, (0,))
        return Grid(None, slices, best_layer)

    def _views(self, site: ProbeSite, position: str, views: Sequence[str], copy: int | None = None) -> list[StateArray]:
        stage = site.stage if copy is None else site.stage.of_random_init(copy)
        return [self.load_states(stage, position, view) for view in views]

    def _copies(self, site: ProbeSite, position: str, views: Sequence[str]) -> list[list[StateArray]]:
        return [self._views(site, position, views, copy) for copy in range(self.protocol.random_inits)]

    def measure_slice(
        self,
        site: ProbeSite,
        position: str,
        view: str,
        offset: int = 0,
        depth: str = "mlp1",
        protocol: Protocol | None = None,
        on_result: ResultCallback = lambda source, baseline, result: None,
        baseline: PriorBaseline | None = None,
        num_ahead: int = 0,
    ) -> Slice:
        """Measure one slice.

        Args:
            site: the probe set.
            position, view, offset, depth: see `Slice`.
            protocol: settings of the probes; `grid_protocol` if None.
            on_result: called with the probed model and the result.
            baseline: label prior; the step-conditional prior if None.
            num_ahead: number of tokens beyond the position that the token-history baseline is given.
        """
        protocol = protocol or self.grid_protocol
        self.on_event(f"{site.name}, {position}, {view}, offset {offset:+d}, {depth}")
        probe_set = site.probe_set.at_offset(offset)
        baseline = baseline or PriorBaseline.from_probe_set(probe_set, protocol)
        views = self.pooled_views if view == POOLED else [view]
        widths = {"linear": [], "mlp1": [protocol.hidden], "mlp2": list(protocol.deep_hidden)}[depth]
        key = (site.name, position, offset, depth, probe_set.budget, protocol.alternatives, num_ahead)
        if key not in self.token_history_sources:
            token_history = [[site.token_history_states(position, num_ahead)]]
            self.token_history_sources[key] = probe_source(
                probe_set, baseline, token_history, protocol, widths=widths, trainer=self.trainer
            )
        model = probe_source(
            probe_set, baseline, [self._views(site, position, views)], protocol, widths=widths, trainer=self.trainer
        )
        copies = self._copies(site, position, views)
        random_init = probe_source(probe_set, baseline, copies, protocol, widths=widths, trainer=self.trainer)
        sources = {"model": model, "random-init": random_init, "recorder": self.token_history_sources[key]}
        evidence = {name: source.evidence for name, source in sources.items()}
        result = verdict_from_evidence(probe_set, baseline, evidence, protocol, views)
        on_result(model, baseline, result)
        return Slice(
            probe_set=site.name,
            position=position,
            view=view,
            offset=offset,
            depth=depth,
            budget=probe_set.budget or self.suite.probe_programs,
            alternatives=len(probe_set.semantics) - 1,
            programs=result.test_programs,
            states=result.test_states,
            features=self._slice_results(probe_set, baseline, sources, result.features),
        )

    def _slice_results(
        self,
        probe_set: ProbeSet,
        baseline: PriorBaseline,
        sources: dict[str, ProbedSource],
        features: dict[str, FeatureResult],
    ) -> dict[str, SliceResult]:
        results = {}
        skills = {name: overall_skill(source.evidence, baseline) for name, source in sources.items()}
        for name, result in features.items():
            f = FEATURES.index(name)
            columns = [probe_set.semantics.index(alternative) for alternative in result.alternatives]
            controls = {c: (float(skills[c][0, f]), float(skills[c][columns, f].mean())) for c in CONTROLS}
            results[name] = SliceResult(
                result.skill.value, result.skill_alternatives, controls, result.gap, result.delta, result.p
            )
        return results

    def _measure_verdict(self) -> tuple[str, Slice]:
        """Measure the blind set at `read` with all alternatives."""
        protocol = replace(self.protocol, alternatives=NUM_ALL_ALTERNATIVES)
        blind = self.blind
        semantics = list_semantics(protocol)
        site = self._create_site(
            BLIND, Stage(BLIND), blind.programs, blind.inputs, None, blind.probe_set.budget, semantics
        )
        verdicts: list[str] = []
        verdict_slice = self.measure_slice(
            site, READ, POOLED, protocol=protocol, on_result=lambda _, __, result: verdicts.append(result.verdict)
        )
        return verdicts[0], verdict_slice

    def _measure_layers(self, site: ProbeSite, position: str, offsets: Sequence[int]) -> tuple[list[Slice], str]:
        """Measure every layer and the mean at `offsets`; select the layer with the largest validation gap at offset 0."""
        slices, gaps = [], {}
        columns = [i for i, name in enumerate(site.probe_set.semantics) if i and name in valid_alternatives(PRIMARY)]
        for view in [*self.layers, MEAN]:

            def store_gap(source: ProbedSource, baseline: PriorBaseline, result: ProbeResult, view: str = view) -> None:
                gaps[view] = float(validation_gaps(source.fits, baseline, FEATURES.index(PRIMARY), columns)[0])

            slices += [
                self.measure_slice(site, position, view, offset, on_result=store_gap if offset == 0 else _ignore_result)
                for offset in sorted(offsets)
            ]
        return slices, max(self.layers, key=lambda layer: gaps[layer])

    def _measure_budgets(self) -> list[Slice]:
        """Measure the blind set at a fifth of the budget, and the wide set at the largest budget with more steps."""
        budget = self.suite.probe_programs
        reduced_set = replace(self.blind.probe_set, budget=budget * SMALL_BUDGET // 5_000)
        small_slice = self.measure_slice(replace(self.blind, probe_set=reduced_set), READ, POOLED)
        tasks = self.task_sets.wide
        large_budget = budget * WIDE_BUDGET // 5_000
        site = self._create_site(WIDE, Stage(WIDE), tasks.programs, first_inputs(tasks), None, large_budget)
        long_protocol = replace(
            self.grid_protocol, steps=round(self.grid_protocol.steps * (large_budget / budget) ** 0.75)
        )
        return [small_slice, self.measure_slice(site, READ, POOLED, protocol=long_protocol)]

    def _measure_crossed(self) -> list[Slice]:
        """Measure prompts of which half show outputs under the original and half under one alternative."""
        slices = []
        tasks = self.task_sets.crossed
        for name in CROSSED_ALTERNATIVES:
            semantics = [ORIGINAL, mirror_class(name)]
            outputs = crossed_outputs(tasks, name)[:, 0]
            budget = self.suite.probe_programs // 5
            stage = Stage(CROSSED, alternative=name)
            site = self._create_site(
                f"crossed {name}", stage, tasks.programs, first_inputs(tasks), outputs, budget, semantics
            )
            slices.append(self.measure_slice(site, READ, POOLED))
        return slices

    def measure_future(self, site: ProbeSite, offset: int, view: str = POOLED) -> Slice:
        """Measure a future state at `emit`, against the present state as prior and all tokens up to `offset` as control."""
        probe_set = site.probe_set.at_offset(offset)
        prior = PriorBaseline.from_probe_set(probe_set, self.grid_protocol, site.probe_set.at_offset(0))
        return self.measure_slice(site, EMIT, view, offset, baseline=prior, num_ahead=1 + offset)

    def _measure_reach(self) -> tuple[int, dict[int, float]]:
        """Measure `Grid.reach`; the prior gets the present state, the token-history baseline the tokens up to the offset."""
        site = self.generated
        if site is None:
            return 0, {}
        p_values = {}
        for offset in FUTURE:
            p_values[str(offset)] = self.measure_future(site, offset).features[PRIMARY].p
        adjusted = {int(name): p for name, p in holm(p_values).items()}
        reach = 0
        for offset in FUTURE:
            if adjusted[offset] >= 0.05:
                break
            reach = offset
        return reach, dict(sorted(adjusted.items()))

    def _measure_conditional(self) -> dict[str, ConditionalSkill]:
        """Measure the skill that the mean over layers adds to the token-history baseline."""
        self.on_event("conditional probing")
        site, protocol = self.blind, self.grid_protocol
        probe_set = site.probe_set.at_offset(0)
        baseline = PriorBaseline.from_probe_set(probe_set, protocol)
        token_history = site.token_history_states(READ)
        combined = np.concatenate([token_history, self.load_states(site.stage, READ, MEAN)[:]], 1)
        sources = {
            name: probe_source(probe_set, baseline, [[states]], protocol, trainer=self.trainer)
            for name, states in (("recorder", token_history), ("both", combined))
        }
        n = len(baseline.programs)
        weights = bootstrap_weights(baseline.prior.shape[-1], protocol.resamples, BOOTSTRAP_SEED)
        skills = SkillScores({name: source.evidence for name, source in sources.items()}, baseline, weights)
        token_history_skill = skills.bootstrap("recorder")
        added = [
            part - token_history_part
            for part, token_history_part in zip(skills.bootstrap("both"), token_history_skill, strict=True)
        ]
        results = {}
        for f, feature in enumerate(FEATURES):
            columns = [i for i, name in enumerate(probe_set.semantics) if i and name in valid_alternatives(feature)]

            def estimate(parts: Sequence[np.ndarray]) -> Estimate:
                value, resampled, by_seed = parts
                return interval_over_units_and_seeds(float(value[0]), resampled, by_seed, n, 0.95)

            if columns:
                results[feature] = ConditionalSkill(
                    float(token_history_skill.value[0, 0, f]),
                    estimate([part[:, 0, f] for part in added]),
                    estimate([part[:, columns, f].mean(1) for part in added]),
                )
        return results


def _ignore_result(source: ProbedSource, baseline: PriorBaseline, result: ProbeResult) -> None:
    """Do nothing."""
