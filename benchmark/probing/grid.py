"""Results of the full grid and of the grid of layers, as a record stores them; `full_grid` computes them."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmark.statistics import Estimate


@dataclass(frozen=True)
class SliceResult:
    """Results of one feature in one slice.

    Attributes:
        skill: skill under the original.
        alternatives: mean skill under the alternatives that the screen keeps for the feature.
        controls: skill under the original and mean skill under the alternatives, by control (`random-init`, `recorder`).
        gap: skill - alternatives, with a 95% interval.
        delta: gap minus the larger gap of the controls, with a 95% interval.
        p: one-sided p of delta > 0, not adjusted.
    """

    skill: float
    alternatives: float
    controls: dict[str, tuple[float, float]]
    gap: Estimate
    delta: Estimate
    p: float


@dataclass(frozen=True)
class Slice:
    """The probing results of one combination of probe set, position, view, offset, probe depth and budget.

    Attributes:
        probe_set: `blind`, `wide` (the blind set of the largest budget), `generated`, or `crossed NAME`.
        position: `read` (the token itself) or `emit` (the position that predicts it).
        view: `layer i`, `mean`, or `pools` (mean or last layer, selected per semantics on validation).
        offset: program states from the one after the token.
        depth: `linear`, `mlp1` or `mlp2`.
        budget: number of programs that a probe is trained on.
        alternatives: number of alternative semantics.
        programs, states: number of test programs and test states.
        features: results by feature.
    """

    probe_set: str
    position: str
    view: str
    offset: int
    depth: str
    budget: int
    alternatives: int
    programs: int
    states: int
    features: dict[str, SliceResult]


@dataclass(frozen=True)
class Codelength:
    """Online codelength of one feature, in bits per label (Voita & Titov 2020, arXiv 2003.12298).

    Attributes:
        original: codelength under the original.
        alternatives: mean codelength under the alternatives.
        prior: codelength of the step's label frequencies, estimated from the same blocks.
        gap: alternatives - original, so that a larger gap is better.
        mdl_delta: gap minus the larger gap of the controls.
    """

    original: float
    alternatives: float
    prior: float
    gap: Estimate
    mdl_delta: Estimate


@dataclass(frozen=True)
class ConditionalSkill:
    """Skill that the hidden state adds to the token-history baseline (conditional probing, Hewitt et al. 2021, arXiv
    2109.09234).

    Attributes:
        recorder: skill of the token-history baseline alone, under the original.
        added: skill of baseline and hidden state together minus skill of the baseline alone, under the original.
        added_alternatives: the same difference, mean over the alternatives.
    """

    recorder: float
    added: Estimate
    added_alternatives: Estimate


@dataclass(frozen=True)
class Grid:
    """The full grid of one model, or the grid of layers, which has slices and the best layer only.

    Attributes:
        verdict: verdict with all 29 alternatives; None in the grid of layers.
        slices: every measured slice.
        best_layer: the layer with the largest gap of the primary feature on validation programs, blind set at `read`.
        codelength: codelength by feature, blind set at `read`.
        reach: the largest future offset, on `generated` at `emit`, up to which every delta is above 0; 0 if there is
            none; None if not measured.
        reach_p: Holm-adjusted one-sided p by future offset.
        conditional: conditional skill by feature.
    """

    verdict: str | None
    slices: list[Slice]
    best_layer: str
    codelength: dict[str, Codelength] = field(default_factory=dict)
    reach: int | None = None
    reach_p: dict[int, float] = field(default_factory=dict)
    conditional: dict[str, ConditionalSkill] = field(default_factory=dict)

    @property
    def is_full(self) -> bool:
        """Whether this is the full grid."""
        return self.verdict is not None
