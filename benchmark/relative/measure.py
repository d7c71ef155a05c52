"""Measure a source of states on the blind set of `relative`: rotation, forward and sideways, and the values of conditions.

The figures are those of protocol 4, by the same code. In programs with control flow every record is sampled; in straight-line
programs rotation has the exact records, and only displacement has sampled ones.

Letters: `R` action words, `C` condition words, `D` width.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from benchmark.errors import UsageError
from benchmark.probing.control_gap import RANDOM_INIT
from benchmark.probing.device.trainer import trainer_on
from benchmark.probing.probe_fit import ProbeFit, StateArray
from benchmark.probing.token_history import token_history_states
from benchmark.probing.version4.derivability import derivability_losses, judged_derivability, screened_pairs
from benchmark.probing.version4.rotation_evidence import JudgedRows, RotationEvidence, judge_rows
from benchmark.probing.version4.rotation_interval import GapSample, estimate_gap
from benchmark.probing.version4.rotation_protocol import RotationProtocol
from benchmark.probing.version4.rotation_sources import execute_records, probe_rotation
from benchmark.probing.version4.rotation_verdict import (
    MODEL,
    TOKEN_HISTORY,
    RotationResult,
    verdict_from_rotation_evidence,
)
from benchmark.probing.version4.turn_pairs import ALL_PAIRS, MARKER_PAIRS, TurnPair
from benchmark.relative.blind_programs import draw_blind_programs, draw_screen_programs
from benchmark.relative.conditions import condition_probe_set, condition_skills, probe_conditions
from benchmark.relative.control_labels import FIRST_JUDGED, ControlProbeSet, build_control_probe_set
from benchmark.relative.displacement import DisplacementFigure, displacement_figures
from benchmark.relative.sampled_records import NUM_SAMPLES, sample_records
from benchmark.statistics import Estimate
from benchmark.tasks.shared_prompts import SharedPrompts
from benchmark.tasks.suite import Suite
from karel_env.generation.recipe import ControlRecipe, Tasks
from karel_env.limits import MAX_EVENTS

SCREEN_PROGRAMS = 20_000
"""Programs from which the derivability of the alternatives is estimated."""
MIN_CONDITION_ROWS = 100
"""Fewest condition words with an unseen text for which their values are probed."""


@dataclass(frozen=True)
class ConditionFigure:
    """The values of conditions on unseen rows.

    Attributes:
        skill: under the original, 95% interval.
        gap, history_gap: skill under the original minus mean skill under the marker alternatives, of the model and of the
            token history.
        delta: gap minus that of the token history (at least 0), 95% interval.
        rows: condition words that are tested.
    """

    skill: Estimate
    gap: float
    history_gap: float
    delta: Estimate
    rows: int


@dataclass(frozen=True)
class RelativeResult:
    """All figures of one source.

    Attributes:
        rotation: figures and verdict by the rule of protocol 4; on programs with control flow the rule decides nothing.
        displacement: forward and sideways.
        conditions: None for straight-line programs, or if too few are tested.
        derivability: by alternative, on the rows of the verdict.
        programs, words, executed, labelled: programs, their action words, those that the original executes, and those that have
            a label under every semantics.
    """

    rotation: RotationResult
    displacement: list[DisplacementFigure]
    conditions: ConditionFigure | None
    derivability: dict[str, float]
    programs: int
    words: int
    executed: int
    labelled: int


@dataclass(frozen=True)
class RelativeSuite:
    """The blind set of a suite with its labels and what does not depend on the model.

    Attributes:
        suite: the suite.
        protocol: settings of the probes.
        num_samples: samples of a record per row.
        screen_programs: programs from which derivability is estimated.
        device: where the probes are trained.
    """

    suite: Suite
    protocol: RotationProtocol
    num_samples: int = NUM_SAMPLES
    screen_programs: int = SCREEN_PROGRAMS
    device: str = "cpu"

    @property
    def trainer(self) -> Callable[..., ProbeFit]:
        """The probe trainer of the device."""
        return trainer_on(self.device)

    @cached_property
    def blind(self) -> SharedPrompts:
        """Programs and prompts."""
        return draw_blind_programs(self.suite, self.protocol)

    @cached_property
    def probe_set(self) -> ControlProbeSet:
        """Labels of the action words."""
        return self._label(self.blind.tasks, self.blind.group)

    def _label(self, tasks: Tasks, cluster: np.ndarray) -> ControlProbeSet:
        recipe = self.suite.recipe
        limits = (recipe.events, FIRST_JUDGED) if isinstance(recipe, ControlRecipe) else (MAX_EVENTS, 0)
        return build_control_probe_set(
            tasks.programs, tasks.inputs[:, 0], cluster, self.protocol, self.suite.probe_programs, *limits
        )

    @cached_property
    def judged_rows(self) -> JudgedRows:
        """Rows that the seeds test."""
        return judge_rows(self.probe_set, self.protocol)

    @cached_property
    def condition_set(self) -> ControlProbeSet | None:
        """Labels of the condition words; None for straight-line programs or too few of them."""
        if not isinstance(self.suite.recipe, ControlRecipe):
            return None
        labelled = condition_probe_set(self.probe_set)
        split = labelled.split(self.protocol.seeds[0])
        is_enough = min(map(len, vars(split).values())) > 0 and len(labelled.row) >= MIN_CONDITION_ROWS
        return labelled if is_enough else None

    @cached_property
    def derivability(self) -> dict[str, float]:
        """How much of each alternative rotation follows from the true state, on the word positions of the unseen rows."""
        tasks = draw_screen_programs(self.suite, self.screen_programs)
        return screen_control_flow(self._label(tasks, np.arange(len(tasks))), self.judged_rows)

    @cached_property
    def kept_pairs(self) -> tuple[tuple[TurnPair, ...], tuple[TurnPair, ...]]:
        """The marker alternatives and the pose-word alternatives that the screen keeps."""
        return screened_pairs(self.derivability, self.protocol.derivable)

    @cached_property
    def history(self) -> RotationEvidence:
        """Evidence of the token history: all words so far, and the input."""
        states = self.history_states(self.probe_set)
        return self.probe([[states]])

    def probe(self, copies: Sequence[Sequence[np.ndarray]]) -> RotationEvidence:
        """Evidence of a source without its records.

        Args:
            copies: float32 [R, D] of the labelled action words, per copy of the source and view.
        """
        return probe_rotation(self.probe_set, self.judged_rows, copies, self.protocol, self.trainer)

    def history_states(self, probe_set: ControlProbeSet) -> np.ndarray:
        """float32 [R, D], all words so far one-hot, and the input."""
        return token_history_states(probe_set.programs, probe_set.inputs, probe_set)  # type: ignore[arg-type]

    def evidence(
        self, views: Sequence[np.ndarray], random_init: RotationEvidence | None = None
    ) -> Mapping[str, RotationEvidence]:
        """Evidence of a source and of all its controls.

        Args:
            views: float32 [R, D] per view, of the labelled action words.
            random_init: evidence of the randomly initialised copies.
        """
        probe_set, rows, protocol = self.probe_set, self.judged_rows, self.protocol
        records = sample_records(probe_set, rows, views, protocol, self.num_samples, self.trainer)
        if not isinstance(self.suite.recipe, ControlRecipe):
            for name, exact in execute_records(probe_set, rows, views, protocol, self.trainer).items():
                sampled = records[name]
                records[name] = replace(
                    exact, displacement=sampled.displacement, displacement_by_seed=sampled.displacement_by_seed
                )
        copies = {} if random_init is None else {RANDOM_INIT: random_init}
        return {MODEL: self.probe([views]), **records, TOKEN_HISTORY: self.history, **copies}

    def measure(
        self,
        views: Sequence[np.ndarray],
        random_init: RotationEvidence | None = None,
        condition_views: Sequence[np.ndarray] = (),
    ) -> RelativeResult:
        """All figures of a source; arguments of `evidence`, and float32 [C, D] per view of the labelled condition words.

        Raises:
            UsageError: the screen keeps no marker alternative.
        """
        marker, pose = self.kept_pairs
        if not marker:
            raise UsageError(
                f"{self.suite.name}: every alternative follows from the state (derivability {self.protocol.derivable} or more); "
                "expected longer programs, set probe.blind_length in the suite"
            )
        evidence, probe_set = self.evidence(views, random_init), self.probe_set
        return RelativeResult(
            verdict_from_rotation_evidence(evidence, self.judged_rows, self.protocol, marker, pose),
            displacement_figures(evidence, self.judged_rows, self.protocol, marker),
            self._conditions(list(condition_views)) if condition_views else None,
            self.derivability,
            len(probe_set.programs),
            probe_set.num_words,
            probe_set.num_executed,
            len(probe_set.row),
        )

    def _conditions(self, views: list[StateArray]) -> ConditionFigure | None:
        probe_set = self.condition_set
        if probe_set is None:
            return None
        rows = judge_rows(probe_set, self.protocol)
        sources: list[list[StateArray]] = [views, [self.history_states(probe_set)]]
        skills, history = (
            condition_skills(
                probe_conditions(probe_set, rows, states, self.protocol, self.trainer), rows, self.protocol
            )
            for states in sources
        )
        columns = [ALL_PAIRS.index(pair) for pair in MARKER_PAIRS]
        n = rows.num_rows.shape[2]
        gap, history_gap = skills.gap(columns), history.gap(columns)
        return ConditionFigure(
            estimate_gap(skills.original(), n, 0.95),
            gap.value,
            history_gap.value,
            estimate_gap(_difference(gap, history_gap), n, 0.95),
            int(rows.num_rows[:, 1].sum()),
        )


def screen_control_flow(sample: ControlProbeSet, judged_rows: JudgedRows) -> dict[str, float]:
    """Derivability of each alternative from the labels of a sample, as in `probing/version4/derivability.py`.

    Late word positions are rare in programs with control flow; those without a program on either side are left out.
    """
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        losses = derivability_losses(sample)
    is_known = np.isfinite(losses).all((0, 1))
    rows = np.zeros(losses.shape[-1])
    by_position = judged_rows.num_rows[:, 1].sum(1)[: len(rows)]
    rows[: len(by_position)] = by_position
    return judged_derivability(np.where(is_known, losses, 0), rows * is_known)


def _difference(model: GapSample, control: GapSample) -> GapSample:
    """A gap minus that of a control, at least 0, inside each resample and seed."""
    return GapSample(
        model.value - max(control.value, 0.0),
        model.resampled - np.maximum(control.resampled, 0),
        model.by_seed - np.maximum(control.by_seed, 0),
    )
