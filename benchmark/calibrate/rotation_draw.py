"""One draw of the known answers of protocol 4, and the measurement of a pseudo-model in it: a cell.

Cells take hours, and are kept under the digest of the modules that this one imports (`rotation_calibration`). What does not
decide a figure, such as storing and printing, is in other modules.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from benchmark.calibrate.draws import suite_of_draw
from benchmark.calibrate.rotation_kinds import MIXED_KIND, RECORD_KIND, STATE_KIND, RotationKinds
from benchmark.probing.control_gap import RANDOM_INIT, RECORD_ONLY, REPRESENTS
from benchmark.probing.version4.measure_rotation import measure_rotation, prefix_history_states, relative_probe_set
from benchmark.probing.version4.rotation_evidence import RotationEvidence, judge_rows
from benchmark.probing.version4.rotation_protocol import RotationProtocol
from benchmark.probing.version4.rotation_sources import probe_rotation
from benchmark.probing.version4.rotation_verdict import TOKEN_HISTORY, RotationResult, verdict_from_rotation_evidence
from benchmark.tasks.shared_prompts import shared_prompts
from benchmark.tasks.suite import Suite

CONTROL_SEED_OFFSET = 500
FORBIDDEN = {RECORD_KIND: REPRESENTS, MIXED_KIND: RECORD_ONLY}
"""The verdict that a pseudo-model of each kind must not get; kind R must get REPRESENTS."""
Cell = dict[str, Any]
Controls = dict[str, RotationEvidence]
"""Evidence of the token history and of randomly initialised networks, by name."""


@dataclass(frozen=True)
class RotationDraw:
    """One draw of programs, pseudo-models and controls.

    Attributes:
        suite: suite with the seed of the draw.
        protocol: settings of the probes.
        seed: index of the draw.
        prompts: number of prompts, each with several programs.
    """

    suite: Suite
    protocol: RotationProtocol
    seed: int
    prompts: int

    @cached_property
    def _blind(self) -> Any:
        return shared_prompts(suite_of_draw(self.suite, self.seed)).take_prompts(self.prompts)

    @cached_property
    def builder(self) -> RotationKinds:
        """The pseudo-models of this draw."""
        probe_set = relative_probe_set(self._blind, self.protocol, self.suite.probe_programs)
        return RotationKinds(probe_set, self._blind.tasks.inputs[:, 0], self.seed)

    @cached_property
    def judged(self) -> Any:
        """The rows that the seeds test."""
        return judge_rows(self.builder.probe_set, self.protocol)

    def probe_controls(self) -> Controls:
        """Probe the controls of the draw, which all of its pseudo-models share."""
        probe_set, builder = self.builder.probe_set, self.builder
        first = CONTROL_SEED_OFFSET + 10 * self.seed
        copies = [[builder.random_network(first + i)] for i in range(self.protocol.random_inits)]
        history = [[prefix_history_states(probe_set, builder.inputs)]]
        return {
            TOKEN_HISTORY: probe_rotation(probe_set, self.judged, history, self.protocol),
            RANDOM_INIT: probe_rotation(probe_set, self.judged, copies, self.protocol),
        }

    def measure(self, name: str, controls: Controls) -> Cell:
        """Measure one pseudo-model with the code that measures a model."""
        began = time.process_time()
        kind, views = self.builder.kinds()[name]
        evidence = {
            **measure_rotation(self.builder.probe_set, self.judged, views(), self.protocol, controls[TOKEN_HISTORY]),
            RANDOM_INIT: controls[RANDOM_INIT],
        }
        result = verdict_from_rotation_evidence(evidence, self.judged, self.protocol)
        return to_cell(name, kind, self.seed, result) | {"seconds": round(time.process_time() - began, 1)}


def is_right(kind: str, verdict: str) -> bool:
    """Whether a pseudo-model of a kind may get a verdict."""
    return verdict == REPRESENTS if kind == STATE_KIND else verdict != FORBIDDEN[kind]


def to_cell(name: str, kind: str, seed: int, result: RotationResult) -> Cell:
    """The JSON record of one measured pseudo-model."""
    assert result.pose_delta is not None
    assert result.pose_gap is not None
    figures = {
        "skill": result.skill.value,
        "skill_all": result.skill_all,
        "skill_alternatives_all": result.skill_alternatives_all,
        "gap": result.gap.value,
        "controls": result.control_gaps,
        "delta": [result.delta.value, result.delta.low, result.delta.high],
        "delta90": [result.delta90.value, result.delta90.low, result.delta90.high],
        "delta_all": {feature: [e.value, e.low, e.high] for feature, e in result.delta90_all.items()},
        "pose_gap": result.pose_gap,
        "pose_delta": [result.pose_delta.value, result.pose_delta.low, result.pose_delta.high],
        "arithmetic": [result.arithmetic.value, result.arithmetic.low, result.arithmetic.high],
        "turn_count": [result.turn_count.value, result.turn_count.low, result.turn_count.high],
        "label_skills": result.label_skills,
        "surplus": result.surplus,
        "head_skill": result.head_skill,
        "excess": result.excess,
    }
    return {
        "pseudo-model": name, "kind": kind, "seed": seed, "found": result.verdict, "reason": result.reason,
        "right": is_right(kind, result.verdict), "unseen_rows": result.unseen_rows, **figures,
    }  # fmt: skip
