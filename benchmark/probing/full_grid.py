"""The full grid (`--grid full`): every layer, offset, position, depth, budget and alternative, and the figures over them.

`--grid layers` is the part of it that says which layer. Each place is measured as the verdict is, with fewer
alternatives, so that a map of a small model takes minutes. Source: shared/PROBING.md, The score and Cost. Letters: `Q`
seeds, `S` semantics, `F` features, `R` states, `P` programs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from benchmark.probing.control_gap import CONTROLS, FeatureResult, SkillScores, PriorBaseline
from benchmark.probing.grid import ConditionalSkill, Grid, SliceResult, Slice
from benchmark.probing.labels import ProbeSet, build_probe_set, list_semantics
from benchmark.probing.mdl import measure_codelengths
from benchmark.probing.probe_fit import ProbeTrainer, StateArray, fit_in_process
from benchmark.probing.protocol import BOOTSTRAP_SEED, FULL_GRID, MEAN, POOLS, STANDARD_GRID, Protocol
from benchmark.probing.state_source import (
    ProbedSource,
    Views,
    evidence_to_arrays,
    evidence_from_arrays,
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
    crossed_tasks,
    first_inputs,
    wide_tasks,
    parse_programs,
)
from benchmark.tasks.stage import BLIND, CROSSED, GENERATED, RANDOM, WIDE
from benchmark.tasks.suite import Suite, blind_tasks, probe_tasks
from karel_env.features import FEATURES, PRIMARY
from karel_env.language import Programs
from karel_env.screen import valid_alternatives
from karel_env.semantics import ORIGINAL, Semantics, mirror_class
from karel_env.world import Worlds

NUM_ALL_ALTERNATIVES = 29
"""Alternatives of the grid's verdict: all mirror classes."""
NUM_GRID_ALTERNATIVES = 4
"""Alternatives of every other slice."""
OFFSETS = (0, -2, -1, 1, 2)
FUTURE = (1, 2)
SMALL_BUDGET = 1_000
NUM_POOLED_SLICES = 11
"""Of the full grid, beside those of single layers: both positions, depths, budgets, crossed prompts, and ahead."""
READ, EMIT = "read", "emit"
POOLED = "pools"
StateLoader = Callable[[str, str, str], StateArray]
"""The stored states of (stage, position, view)."""
EventCallback = Callable[[str], None]
ResultCallback = Callable[[ProbedSource, PriorBaseline, ProbeResult], None]


@dataclass(frozen=True)
class ProbeSite:
    """A probe set, and what a recorder knows there.

    Attributes:
        name: as slices call it.
        stage: whose states are read; untrained copies are in `random-i-STAGE`.
        programs, inputs: B programs and the first shown worlds [B].
        outputs: worlds [B] that the prompts show as first outputs, None where they are hidden.
        probe_set: labels at all `OFFSETS`.
    """

    name: str
    stage: str
    programs: Programs
    inputs: Worlds
    outputs: Worlds | None
    probe_set: ProbeSet

    def recorder(self, position: str, ahead: int = 0) -> np.ndarray:
        """float32 [R, D], what keeps all words read so far and the prompt's first example; `ahead` words more."""
        back = 0 if position == READ else -1
        return token_history_states(self.programs, self.inputs, self.probe_set, back + ahead, self.outputs)


def count_grid_steps(protocol: Protocol, grid: str, layers: int) -> int:
    """About how many steps all networks of a grid take beyond the standard one's, for a model of so many layers."""
    if grid == STANDARD_GRID:
        return 0
    swept = replace(protocol, copies=1)
    view = 2 * count_network_steps(swept, 1 + min(NUM_GRID_ALTERNATIVES, protocol.alternatives))
    if grid != FULL_GRID:
        return (layers + 1) * view
    every = (2 * len(POOLS) + 1) * count_network_steps(protocol, 1 + NUM_ALL_ALTERNATIVES)
    return (2 * len(OFFSETS) * (layers + 1) + len(POOLS) * NUM_POOLED_SLICES) * view + every


class FullGrid:
    """The measurements of one model.

    Args:
        suite, protocol: of the run.
        states: finds stored states.
        layers: names of the model's layers, the embeddings first.
        texts: what the model wrote for the probe tasks.
        told: hears what is being measured.
        fit: fits the probes.
    """

    def __init__(
        self,
        suite: Suite,
        protocol: Protocol,
        states: StateLoader,
        layers: Sequence[str],
        texts: Sequence[str],
        told: EventCallback = lambda what: None,
        fit: ProbeTrainer = fit_in_process,
    ) -> None:
        self.suite, self.states, self.layers, self.texts, self.told = suite, states, list(layers), texts, told
        self.protocol, self.fit = protocol, fit
        self.swept = replace(protocol, alternatives=min(NUM_GRID_ALTERNATIVES, protocol.alternatives), copies=1)
        self.recorders: dict[tuple[object, ...], ProbedSource] = {}

    @property
    def pools(self) -> list[str]:
        """The views of a slice named `pools`."""
        return [MEAN, self.layers[-1]]

    @cached_property
    def blind(self) -> ProbeSite:
        """The set of the verdict."""
        tasks = blind_tasks(self.suite)
        return self._place(BLIND, BLIND, tasks.programs, first_inputs(tasks), None, self.suite.probe_programs)

    @cached_property
    def generated(self) -> ProbeSite | None:
        """The model's own programs; None with too few of them."""
        programs, places = parse_programs(self.texts)
        if len({programs.program(i).tobytes() for i in range(len(programs))}) < self.protocol.min_programs:
            return None
        tasks = probe_tasks(self.suite)
        return self._place(GENERATED, GENERATED, programs, tasks.inputs[places, 0], tasks.outputs[places, 0], None)

    def _place(
        self,
        name: str,
        stage: str,
        programs: Programs,
        inputs: Worlds,
        outputs: Worlds | None,
        budget: int | None,
        semantics: Sequence[Semantics] | None = None,
    ) -> ProbeSite:
        meanings = semantics or list_semantics(self.swept)
        probe_set = build_probe_set(programs, inputs, meanings, self.protocol, OFFSETS, budget)
        return ProbeSite(name, stage, programs, inputs, outputs, probe_set)

    def measure(self) -> Grid:
        """The whole grid."""
        verdict, whole = self._verdict()
        slices = [whole]
        sweep, best = self._layers(self.blind, READ, OFFSETS)
        slices += sweep
        if self.generated is not None:
            slices += self._layers(self.generated, EMIT, OFFSETS)[0]
            slices.append(self.slice(self.generated, READ, POOLED))
        slices.append(self.slice(self.blind, EMIT, POOLED))
        slices += [self.slice(self.blind, READ, POOLED, depth=depth) for depth in ("linear", "mlp1", "mlp2")]
        slices += self._budgets()
        slices += self._crossed()
        reach, reach_p = self._reach()
        self.told("codelength")
        recorder, copies = self.blind.recorder(READ), self._copies(self.blind, READ, self.pools)
        at = self.blind.probe_set.at(0)
        sources: dict[str, Sequence[Views]] = {
            "model": [self._views(self.blind, READ, self.pools)],
            "random-init": copies,
            "recorder": [[recorder]],
        }
        code = measure_codelengths(at, sources, self.swept, self.fit)
        return Grid(verdict, slices, best, code, reach, reach_p, self._conditional())

    def measure_layers(self) -> Grid:
        """Every layer where the verdict is taken, and the best one: a fraction of the whole for a model of many layers."""
        slices, best = self._layers(self.blind, READ, (0,))
        return Grid(None, slices, best)

    def _views(self, place: ProbeSite, position: str, views: Sequence[str], copy: int | None = None) -> list[StateArray]:
        stage = place.stage if copy is None else f"{RANDOM}-{copy}-{place.stage}"
        return [self.states(stage, position, view) for view in views]

    def _copies(self, place: ProbeSite, position: str, views: Sequence[str]) -> list[list[StateArray]]:
        return [self._views(place, position, views, copy) for copy in range(self.protocol.random_inits)]

    def slice(
        self,
        place: ProbeSite,
        position: str,
        view: str,
        offset: int = 0,
        depth: str = "mlp1",
        protocol: Protocol | None = None,
        shown: ResultCallback = lambda source, tested, meaning: None,
        prior: PriorBaseline | None = None,
        ahead: int = 0,
    ) -> Slice:
        """Measure one place.

        Args:
            place, position, view, offset, depth: where and how; see `Slice`.
            protocol: `swept` unless given.
            shown: is shown the model's source, and what is found.
            prior: another prior than the step's.
            ahead: words that the recorder is given beyond the position.
        """
        protocol = protocol or self.swept
        self.told(f"{place.name}, {position}, {view}, offset {offset:+d}, {depth}")
        probe_set = place.probe_set.at(offset)
        tested = prior or PriorBaseline.from_probe_set(probe_set, protocol)
        views = self.pools if view == POOLED else [view]
        widths = {"linear": [], "mlp1": [protocol.hidden], "mlp2": list(protocol.deep_hidden)}[depth]
        key = (place.name, position, offset, depth, probe_set.budget, protocol.alternatives, ahead)
        if key not in self.recorders:
            recorder = [[place.recorder(position, ahead)]]
            self.recorders[key] = probe_source(probe_set, tested, recorder, protocol, widths=widths, trainer=self.fit)
        model = probe_source(
            probe_set, tested, [self._views(place, position, views)], protocol, widths=widths, trainer=self.fit
        )
        copies = self._copies(place, position, views)
        untrained = probe_source(probe_set, tested, copies, protocol, widths=widths, trainer=self.fit)
        sources = {"model": model, "random-init": untrained, "recorder": self.recorders[key]}
        meaning = verdict_from_evidence(probe_set, tested, evidence_to_arrays(sources), protocol, views)
        shown(model, tested, meaning)
        readings = self._readings(probe_set, tested, sources, meaning.features)
        return Slice(
            place.name, position, view, offset, depth, probe_set.budget or self.suite.probe_programs,
            len(probe_set.semantics) - 1, meaning.test_programs, meaning.test_states, readings,
        )  # fmt: skip

    def _readings(
        self, probe_set: ProbeSet, tested: PriorBaseline, sources: dict[str, ProbedSource], features: dict[str, FeatureResult]
    ) -> dict[str, SliceResult]:
        found = {}
        skills = {
            name: 1 - source.evidence.probe.sum(-1, dtype=np.float64) / tested.prior.sum(-1)
            for name, source in sources.items()
        }
        for name, result in features.items():
            f = FEATURES.index(name)
            columns = [probe_set.semantics.index(alternative) for alternative in result.alternatives]
            controls = {c: (float(skills[c][0, f]), float(skills[c][columns, f].mean())) for c in CONTROLS}
            found[name] = SliceResult(
                result.skill.value, result.skill_alternatives, controls, result.gap, result.delta, result.p
            )
        return found

    def _verdict(self) -> tuple[str, Slice]:
        """The blind set at `read` with every alternative."""
        protocol = replace(self.protocol, alternatives=NUM_ALL_ALTERNATIVES)
        blind = self.blind
        meanings = list_semantics(protocol)
        whole = self._place(BLIND, BLIND, blind.programs, blind.inputs, None, blind.probe_set.budget, meanings)
        found: list[str] = []
        one = self.slice(
            whole, READ, POOLED, protocol=protocol, shown=lambda s, t, meaning: found.append(meaning.verdict)
        )
        return found[0], one

    def _layers(self, place: ProbeSite, position: str, offsets: Sequence[int]) -> tuple[list[Slice], str]:
        """Every layer and the mean at these offsets; the layer with the largest gap on validation at offset 0."""
        slices, gaps = [], {}
        allowed = [i for i, name in enumerate(place.probe_set.semantics) if i and name in valid_alternatives(PRIMARY)]
        for view in [*self.layers, MEAN]:

            def keep(source: ProbedSource, tested: PriorBaseline, meaning: ProbeResult, view: str = view) -> None:
                gaps[view] = float(validation_gaps(source.fits, tested, FEATURES.index(PRIMARY), allowed)[0])

            slices += [
                self.slice(place, position, view, offset, shown=keep if offset == 0 else _ignore)
                for offset in sorted(offsets)
            ]
        return slices, max(self.layers, key=lambda layer: gaps[layer])

    def _budgets(self) -> list[Slice]:
        """The blind set at a fifth of the budget, and the wide set at the largest, trained longer in proportion."""
        budget = self.suite.probe_programs
        few = replace(self.blind.probe_set, budget=budget * SMALL_BUDGET // 5_000)
        small = self.slice(replace(self.blind, probe_set=few), READ, POOLED)
        tasks = wide_tasks(self.suite)
        large = budget * WIDE_BUDGET // 5_000
        place = self._place(WIDE, WIDE, tasks.programs, first_inputs(tasks), None, large)
        longer = replace(self.swept, steps=round(self.swept.steps * (large / budget) ** 0.75))
        return [small, self.slice(place, READ, POOLED, protocol=longer)]

    def _crossed(self) -> list[Slice]:
        """Prompts of which half show outputs under the original and half under an alternative, one alternative each."""
        slices = []
        tasks = crossed_tasks(self.suite)
        for name in CROSSED_ALTERNATIVES:
            semantics = [ORIGINAL, mirror_class(name)]
            outputs = crossed_outputs(tasks, name)[:, 0]
            budget = self.suite.probe_programs // 5
            stage = f"{CROSSED}-{name}"
            place = self._place(
                f"crossed {name}", stage, tasks.programs, first_inputs(tasks), outputs, budget, semantics
            )
            slices.append(self.slice(place, READ, POOLED))
        return slices

    def future(self, place: ProbeSite, offset: int, view: str = POOLED) -> Slice:
        """What `emit` holds of a state ahead beyond what the present one and the words up to there tell of it."""
        probe_set = place.probe_set.at(offset)
        prior = PriorBaseline.from_probe_set(probe_set, self.swept, place.probe_set.at(0))
        return self.slice(place, EMIT, view, offset, prior=prior, ahead=1 + offset)

    def _reach(self) -> tuple[int, dict[int, float]]:
        """See `Grid.reach`: the prior is given the present state, the recorder the words up to the offset."""
        place = self.generated
        if place is None:
            return 0, {}
        raw = {}
        for offset in FUTURE:
            raw[offset] = self.future(place, offset).features[PRIMARY].p
        adjusted = {int(name): p for name, p in holm({str(k): p for k, p in raw.items()}).items()}
        reach = 0
        for offset in FUTURE:
            if adjusted[offset] >= 0.05:
                break
            reach = offset
        return reach, dict(sorted(adjusted.items()))

    def _conditional(self) -> dict[str, ConditionalSkill]:
        """What the mean over layers adds to the recorder."""
        self.told("conditional probing")
        place, protocol = self.blind, self.swept
        probe_set = place.probe_set.at(0)
        tested = PriorBaseline.from_probe_set(probe_set, protocol)
        recorder = place.recorder(READ)
        both = np.concatenate([recorder, self.states(place.stage, READ, MEAN)[:]], 1)
        sources = {
            name: probe_source(probe_set, tested, [[states]], protocol, trainer=self.fit)
            for name, states in (("recorder", recorder), ("both", both))
        }
        n = len(tested.programs)
        weights = bootstrap_weights(tested.prior.shape[-1], protocol.resamples, BOOTSTRAP_SEED)
        skills = SkillScores(evidence_from_arrays(evidence_to_arrays(sources)), tested, weights)
        three = [
            (skills.overall(name)[None], skills.resampled(name), skills.by_seed(name)) for name in ("both", "recorder")
        ]
        added = [one - other for one, other in zip(*three, strict=True)]
        found = {}
        for f, feature in enumerate(FEATURES):
            columns = [i for i, name in enumerate(probe_set.semantics) if i and name in valid_alternatives(feature)]

            def estimate(parts: Sequence[np.ndarray]) -> Estimate:
                value, resampled, by_seed = parts
                return interval_over_units_and_seeds(float(value[0]), resampled, by_seed, n, 0.95)

            if columns:
                found[feature] = ConditionalSkill(
                    float(three[1][0][0, 0, f]),
                    estimate([one[:, 0, f] for one in added]),
                    estimate([one[:, columns, f].mean(1) for one in added]),
                )
        return found


def _ignore(source: ProbedSource, tested: PriorBaseline, meaning: ProbeResult) -> None:
    """Shown a source, keeps nothing."""
