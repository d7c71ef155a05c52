"""Measure a source of hidden states under protocol 4: what all sources share, the evidence of each, and the verdict.

Letters: `R` labelled action words, `D` width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from benchmark.probing.control_gap import RANDOM_INIT
from benchmark.probing.probe_fit import ProbeTrainer, fit_in_process
from benchmark.probing.token_history import world_features
from benchmark.probing.version4.relative_labels import RelativeProbeSet, build_relative_probe_set
from benchmark.probing.version4.rotation_evidence import JudgedRows, RotationEvidence, judge_rows
from benchmark.probing.version4.rotation_protocol import RotationProtocol
from benchmark.probing.version4.rotation_sources import Views, execute_records, probe_rotation
from benchmark.probing.version4.rotation_verdict import MODEL, TOKEN_HISTORY
from benchmark.tasks.shared_prompts import SharedPrompts, shared_prompts
from benchmark.tasks.suite import Suite, num_blind_programs
from karel_env.world import Worlds


@dataclass(frozen=True)
class JudgedSuite:
    """What all sources of a suite share: the blind set with shared prompts, its labels, and the rows that are judged."""

    blind: SharedPrompts
    probe_set: RelativeProbeSet
    judged_rows: JudgedRows


@lru_cache(maxsize=2)
def judge_suite(suite: Suite, protocol: RotationProtocol) -> JudgedSuite:
    """Draw and label the blind set of protocol 4: the programs of its first prompts."""
    num_pairs = min(num_blind_programs(suite), protocol.prompts * protocol.programs_per_prompt)
    blind = shared_prompts(suite, num_pairs, protocol.programs_per_prompt).take_prompts(protocol.prompts)
    probe_set = relative_probe_set(blind, protocol, suite.probe_programs)
    return JudgedSuite(blind, probe_set, judge_rows(probe_set, protocol))


def relative_probe_set(blind: SharedPrompts, protocol: RotationProtocol, budget: int) -> RelativeProbeSet:
    """The labels of a blind set with shared prompts, in the first input of each."""
    return build_relative_probe_set(blind.tasks.programs, blind.tasks.inputs[:, 0], blind.group, protocol, budget)


def prefix_history_states(probe_set: RelativeProbeSet, inputs: Worlds) -> np.ndarray:
    """float32 [R, D], the one-hot words so far and the input world: the token history of protocol 4."""
    words = (probe_set.prefixes[..., None] == np.arange(5)).reshape(len(probe_set.program), -1)
    return np.concatenate([words, world_features(inputs)[probe_set.program]], 1).astype(np.float32)


def probe_model(
    probe_set: RelativeProbeSet,
    judged_rows: JudgedRows,
    views: Views,
    protocol: RotationProtocol,
    trainer: ProbeTrainer = fit_in_process,
) -> dict[str, RotationEvidence]:
    """Evidence of a model and of the records that its states hold, by source."""
    return {
        MODEL: probe_rotation(probe_set, judged_rows, [views], protocol, trainer),
        **execute_records(probe_set, judged_rows, views, protocol),
    }


def measure_rotation(
    probe_set: RelativeProbeSet,
    judged_rows: JudgedRows,
    model_views: Views,
    protocol: RotationProtocol,
    token_history: RotationEvidence,
    random_views: Sequence[Views] = (),
    trainer: ProbeTrainer = fit_in_process,
) -> Mapping[str, RotationEvidence]:
    """Evidence of a model and its controls, by source, for `verdict_from_rotation_evidence`.

    Args:
        probe_set: labels.
        judged_rows: rows that the seeds test.
        model_views: float32 [R, D] per view.
        protocol: settings of the probes.
        token_history: evidence of the token history, which does not depend on the model.
        random_views: views per randomly initialised copy.
        trainer: trains the probes.
    """
    evidence = {
        **probe_model(probe_set, judged_rows, model_views, protocol, trainer),
        TOKEN_HISTORY: token_history,
    }
    if random_views:
        evidence[RANDOM_INIT] = probe_rotation(probe_set, judged_rows, random_views, protocol, trainer)
    return evidence
