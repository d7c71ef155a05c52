"""Rotation by layer: skill, gaps and the arithmetic difference of protocol 4 at each layer by itself.

The verdict of protocol 4 selects among a few views on validation; a profile shows where in the network the state is read.
It decides nothing.

Letters: `R` labelled action words, `D` hidden width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from benchmark.probing.version4.measure_rotation import JudgedSuite
from benchmark.probing.version4.rotation_evidence import JudgedRows
from benchmark.probing.version4.rotation_interval import UNSEEN_ROWS, compute_skills, estimate_gap
from benchmark.probing.version4.rotation_protocol import RotationProtocol
from benchmark.probing.version4.rotation_sources import probe_rotation
from benchmark.probing.version4.sequential_verdict import rows_of_seeds
from benchmark.probing.version4.turn_pairs import ALL_PAIRS, ARITHMETIC_PAIRS, MARKER_PAIRS, POSE_PAIRS, TurnPair
from benchmark.statistics import Estimate, bootstrap_weights

BOOTSTRAP_SEED, LEVEL = 90_031, 0.95
COMPARED_PAIRS: Mapping[str, Sequence[TurnPair]] = {
    "gap": MARKER_PAIRS, "pose gap": POSE_PAIRS, "arithmetic": ARITHMETIC_PAIRS,
}  # fmt: skip


@dataclass(frozen=True)
class LayerResult:
    """What is read at one layer, on the rows with unseen prefixes.

    Attributes:
        layer: index of the layer, 0 for the embeddings.
        skill: skill of rotation under the original semantics.
        gaps: skill minus the mean skill of other labels, by name of `COMPARED_PAIRS`.
        num_rows: number of rows.
    """

    layer: int
    skill: Estimate
    gaps: Mapping[str, Estimate]
    num_rows: int


def profile_layers(
    judged: JudgedSuite,
    layers: Mapping[int, np.ndarray],
    protocol: RotationProtocol,
    seeds: Sequence[int],
    earlier: Mapping[int, LayerResult] = MappingProxyType({}),
) -> Iterator[LayerResult]:
    """Probe each layer for rotation under every label, and yield one result per layer, in order.

    Args:
        judged: blind set, labels and judged rows of a suite.
        layers: float32 [R, D] by index of the layer.
        protocol: settings of the probes.
        seeds: the probe seeds; seed q tests the prompts of fold q.
        earlier: results by layer that are known and not computed again.
    """
    rows = rows_of_seeds(judged.judged_rows, seeds)
    for layer, states in sorted(layers.items()):
        yield earlier[layer] if layer in earlier else _probe_layer(judged, layer, states, protocol, rows)


def _probe_layer(
    judged: JudgedSuite, layer: int, states: np.ndarray, protocol: RotationProtocol, rows: JudgedRows
) -> LayerResult:
    evidence = probe_rotation(judged.probe_set, rows, [[states]], protocol)
    assert rows.prior is not None
    num_groups = rows.num_rows.shape[2]
    weights = bootstrap_weights(num_groups, protocol.resamples, BOOTSTRAP_SEED)
    skills = compute_skills(evidence, rows.prior, weights, UNSEEN_ROWS)
    gaps = {
        name: estimate_gap(skills.gap([ALL_PAIRS.index(pair) for pair in pairs]), num_groups, LEVEL)
        for name, pairs in COMPARED_PAIRS.items()
    }
    return LayerResult(layer, estimate_gap(skills.original(), num_groups, LEVEL), gaps, int(rows.num_rows[:, 1].sum()))
