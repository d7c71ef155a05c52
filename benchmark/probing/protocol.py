"""The probing protocol: every setting that results depend on and that is not part of the suite.

docs/probing.md, "Settings", tells how they were selected. A change here is a new protocol version; leaderboard rows of
different versions are never compared.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

PROTOCOL_VERSION = 3
BOOTSTRAP_SEED = 31_337
POOLS = ("mean", "last")
"""Views that each semantics selects from on validation: mean over layers, last layer."""


@dataclass(frozen=True)
class Protocol:
    """The settings of the probes and of the verdict.

    Attributes:
        version: version of the protocol.
        alternatives: number of alternative semantics, evenly spaced among those that the screen keeps for the primary
            feature; if larger than their number, all 29 mirror classes, of which each feature uses those kept for it.
        copies: number of networks (random restarts) of the original semantics per seed, over which cross-entropies are
            averaged. Alternatives have one network each, since every gap averages over them.
        seeds: probe seeds; a seed determines initialisations and the order of batches.
        random_inits: number of randomly initialised copies of the model; probe seed i reads copy i modulo this number.
        folds: number of folds of a probe set; probe seed i is tested on fold i modulo this number, validated on the
            next, and trained on the others.
        hidden: width of the hidden layer of the verdict's probes.
        deep_hidden: widths of the two hidden layers of `mlp2` probes.
        ridge: ridge of the whitening, relative to the largest variance of the states.
        steps, batch: optimiser steps of a probe, and states per step.
        learning_rate, weight_decay: settings of AdamW; the learning rate follows a half cosine to 0.
        checks: validation checkpoints during training; the best one is used, per probe and feature.
        units: largest number of groups of programs; evidence is stored and bootstrapped per group.
        resamples: number of bootstrap resamples over programs.
        margin: smallest lower end of delta's 95% interval for REPRESENTS, and half-width of the band of RECORD-ONLY.
        degenerate: a feature whose most frequent class has at least this share does not enter RECORD-ONLY.
        min_programs: smallest number of distinct programs for which probes are trained.
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
