"""The measurement protocol: every number that a row depends on and that is not the suite's.

Source: shared/PROBING.md. A change here is a new protocol version; rows of different versions never mix.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

PROTOCOL_VERSION = 3
BOOTSTRAP_SEED = 31_337
POOLS = ("mean", "last")
"""Pooled states that each semantics chooses from on validation: mean over layers, last layer."""


@dataclass(frozen=True)
class Protocol:
    """The settings of every probe, and the standard grid.

    Attributes:
        version: of the protocol.
        alternatives: how many alternative semantics, taken evenly from those that the screen keeps for the primary
            feature; more than it keeps: all 29 mirror classes, of which each feature uses those kept for it.
        copies: networks of the original semantics a seed, each from an initialisation of its own; its cross-entropy is
            their mean. The alternatives have one each and are many, the original is one and enters every gap whole.
        seeds: of the probes; seed i draws the initialisations and the order of training.
        random_inits: untrained copies of the model; probe seed i reads copy i modulo this.
        folds: of the programs of a probe set; probe seed i is tested on fold i modulo this, chooses by the next, and
            is trained on the others.
        hidden: width of the one hidden layer of the verdict's probes.
        deep_hidden: widths of the two hidden layers of `sc_mlp2`.
        ridge: of the whitening of states, relative to their largest variance.
        steps, batch: optimiser steps of a probe and states a step.
        learning_rate, weight_decay: of AdamW; the rate falls to 0 along a half cosine.
        checks: evaluations on validation during training; the best one counts, a probe and a feature.
        units: groups of programs that the bootstrap draws whole, at most; what is stored with a run is summed over them.
        resamples: of the bootstrap over programs.
        margin: skill by which delta must exceed 0 for REPRESENTS.
        degenerate: a feature whose most frequent class has at least this share is left out of RECORD-ONLY.
        min_programs: fewest distinct programs for which probes are fitted.
    """

    version: int = PROTOCOL_VERSION
    alternatives: int = 18
    copies: int = 4
    seeds: tuple[int, ...] = tuple(range(10))
    random_inits: int = 3
    folds: int = 10
    hidden: int = 256
    deep_hidden: tuple[int, int] = (256, 1024)
    ridge: float = 1e-4
    steps: int = 400
    batch: int = 256
    learning_rate: float = 2e-2
    weight_decay: float = 0.5
    checks: int = 3
    units: int = 500
    resamples: int = 2000
    margin: float = 0.03
    degenerate: float = 0.99
    min_programs: int = 100

    def digest(self) -> str:
        """SHA-256 of all settings."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


STANDARD = Protocol()


STANDARD_GRID, LAYERS_GRID, FULL_GRID = GRIDS = ("standard", "layers", "full")


MEAN, LAST = POOLS
