"""Known answers of the causal measurement on trained networks, see `planner_network`; their cells are stored by content.

A cell is that of `causal_calibration`, with how well a linear head reads the rotation, and how often the network writes the
next word of a program.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmark.calibrate.causal_calibration import Cell, make_cell
from benchmark.calibrate.trained.open_worlds import TRAINED_KINDS, open_suite
from benchmark.calibrate.trained.planner_network import (
    IGNORED,
    NUM_STEPS,
    PLANTED_WIDTH,
    PlannerNetwork,
    init_planner,
    make_data,
    steerable_planner,
    train_planner,
)
from benchmark.causal.measurement import CausalMeasurement, measure_use
from benchmark.causal.pairs import STANDARD_PAIRS, PairSettings
from benchmark.environment import source_digest
from benchmark.runner.store import dump_with_digest, load_with_digest, write_atomic
from benchmark.tasks.suite import Suite

UNTRAINED_OFFSET, FRESH_OFFSET = 1_000, 2_000
"""Added to the seed of a training for the untrained copy, and for the programs on which it is tested."""
NUM_FRESH = 2_000


def measure_trained(suite: Suite, trainings: int, folder: Path) -> list[Cell]:
    """Measure every kind with each training; cells of earlier calls are read from `folder`.

    Args:
        suite: gives frequencies and lengths of actions; worlds are those of `open_worlds`.
        trainings: number of trainings per kind, with seeds 0, 1, 2 ...
        folder: where cells are stored.
    """
    tasks = open_suite(suite)
    return [
        _stored(
            folder / f"trained-{kind.replace(' ', '-')}-{seed:03d}-{_key(tasks)}.json",
            lambda kind=kind, seed=seed: measure_network(train_planner(tasks, kind, seed), tasks, seed),  # type: ignore[misc]
        )
        for seed in range(trainings)
        for kind in TRAINED_KINDS
    ]


def measure_network(network: PlannerNetwork, suite: Suite, seed: int, settings: PairSettings = STANDARD_PAIRS) -> Cell:
    """Measure one trained network.

    Args:
        network: the network.
        suite: an open suite, on which it was trained.
        seed: seed of the training.
        settings: number of pairs.
    """
    kind = network.config.kind
    measurement = measure_planner(network, suite, seed, settings)
    words, rotation = read_accuracies(network, suite, seed)
    return make_cell(kind, seed, measurement) | {"word accuracy": words, "rotation accuracy": rotation}


def measure_planner(
    network: PlannerNetwork, suite: Suite, seed: int, settings: PairSettings = STANDARD_PAIRS
) -> CausalMeasurement:
    """Edit a trained network and its untrained copy through the hooks that any network is edited with."""
    copies = [
        steerable_planner(part, suite, settings)
        for part in (network, init_planner(network.config.kind, UNTRAINED_OFFSET + seed).eval())
    ]
    return measure_use(copies[0], suite, copies[1], settings)


def read_accuracies(network: PlannerNetwork, suite: Suite, seed: int, count: int = NUM_FRESH) -> tuple[float, float]:
    """Share of next words, and of rotations at the last block that the planted head reads, on programs not trained on."""
    data = make_data(suite, FRESH_OFFSET + seed, count)
    with torch.no_grad():
        states = network.states(data.ids)
        pairs = (network.words(states), data.words), (network.rotation(states[-1][..., -PLANTED_WIDTH:]), data.rotation)
        words, rotation = (
            float((logits.argmax(-1) == labels)[labels != IGNORED].double().mean()) for logits, labels in pairs
        )
    return words, rotation


def _key(suite: Suite) -> str:
    settings = [suite.name, suite.version, suite.seed, NUM_STEPS, source_digest()]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]


def _stored(path: Path, compute: Callable[[], Cell]) -> Cell:
    try:
        cell: Cell = load_with_digest(path.read_bytes())["cell"]
        return cell
    except FileNotFoundError:
        pass
    except (ValueError, KeyError):
        print(f"{path}: corrupt (digest mismatch), recomputing", file=sys.stderr)
    cell = json.loads(json.dumps(compute()))
    print(f"{cell['planner']}, training {cell['seed']}: {cell['verdict']}", file=sys.stderr, flush=True)
    write_atomic(path, dump_with_digest({"cell": cell}))
    return cell
