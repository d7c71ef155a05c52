"""What the full grid, or that of layers, finds: one slice for each place that is probed, and the figures taken over slices.

Source: shared/PROBING.md, The score and Cost. Nothing here computes; `full_grid` does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmark.statistics import Estimate


@dataclass(frozen=True)
class SliceResult:
    """One feature of one slice.

    Attributes:
        skill: under the original.
        alternatives: mean skill under the alternatives that the screen keeps for the feature.
        controls: of random-init and recorder, skill under the original and mean skill under the alternatives.
        gap: skill less alternatives; delta: gap less the larger gap of the controls; 95% intervals.
        p: one-sided, of delta > 0, not adjusted.
    """

    skill: float
    alternatives: float
    controls: dict[str, tuple[float, float]]
    gap: Estimate
    delta: Estimate
    p: float


@dataclass(frozen=True)
class Slice:
    """One place that is probed.

    Attributes:
        probe_set: `blind`, `wide` (the blind set of the largest budget), `generated`, or `crossed NAME`.
        position: `read` or `emit`.
        view: `layer i`, `mean`, or `pools` (mean or last, each semantics by its own validation).
        offset: in program states.
        depth: `linear`, `mlp1` or `mlp2`.
        budget: programs that a probe is trained on.
        alternatives: how many semantics beside the original.
        programs, states: that the figures rest on.
        features: readings by feature.
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
    """Online codelength of one feature, bits a label (Voita & Titov 2020, arXiv 2003.12298).

    Attributes:
        original: under the original.
        alternatives: mean under the alternatives.
        prior: of the step's label frequencies, learnt from the same blocks.
        gap: alternatives less original, so that more is better for the model.
        mdl_delta: gap less the larger gap of the controls.
    """

    original: float
    alternatives: float
    prior: float
    gap: Estimate
    mdl_delta: Estimate


@dataclass(frozen=True)
class ConditionalSkill:
    """What the hidden state adds to the recorder (conditional probing, Hewitt et al. 2021, arXiv 2109.09234).

    Attributes:
        recorder: skill of the recorder alone, under the original.
        added: skill of recorder and state together less that.
        added_alternatives: the same, mean under the alternatives.
    """

    recorder: float
    added: Estimate
    added_alternatives: Estimate


@dataclass(frozen=True)
class Grid:
    """The full grid of one model, or that of layers, which has slices and the best layer only.

    Attributes:
        verdict: with all 29 alternatives; None in the grid of layers.
        slices: every place that was probed.
        best_layer: the layer with the largest gap of the primary feature on validation programs, blind set at `read`.
        codelength: by feature, blind set at `read`.
        reach: the largest future offset, on `generated` at `emit`, at which and below which delta is above 0; 0 if none;
            None where it was not looked for.
        reach_p: Holm-adjusted one-sided p by future offset.
        conditional: by feature.
    """

    verdict: str | None
    slices: list[Slice]
    best_layer: str
    codelength: dict[str, Codelength] = field(default_factory=dict)
    reach: int | None = None
    reach_p: dict[int, float] = field(default_factory=dict)
    conditional: dict[str, ConditionalSkill] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether it is the full grid."""
        return self.verdict is not None
