"""The settings of protocol 4. docs/protocol4.md tells the question, the rule and how each setting was selected."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from benchmark.probing.protocol import Protocol

ROTATION_VERSION = 4
VERDICT_SETTINGS = (
    "resamples", "margin", "arithmetic_margin", "min_unseen", "read_skill", "derivable", "degenerate", "min_programs",
    "alternatives", "deep_hidden",
)  # fmt: skip
"""Settings that change no evidence, or that are of protocol 3 alone."""


@dataclass(frozen=True)
class RotationProtocol(Protocol):
    """The settings of protocol 4; those of `Protocol` that have the same name mean the same.

    Attributes:
        copies: networks per label and seed, the same number for the original, the alternatives and the record heads.
        prompts: largest number of prompts that are read, the first ones of the suite's blind set.
        programs_per_prompt: programs that share a prompt.
        min_unseen: smallest number of judged rows for any verdict but INCONCLUSIVE.
        read_skill: mean skill below which labels and record heads count as not read.
        derivable: derivability from the true state at which an alternative is dropped.
        arithmetic_margin: smallest lower end of the interval of the arithmetic difference for REPRESENTS.
    """

    version: int = ROTATION_VERSION
    copies: int = 1
    seeds: tuple[int, ...] = tuple(range(7))
    random_inits: int = 5
    folds: int = 7
    units: int = 350
    prompts: int = 1750
    programs_per_prompt: int = 4
    min_unseen: int = 1000
    read_skill: float = 0.05
    derivable: float = 0.2
    arithmetic_margin: float = 0.01

    @property
    def max_programs(self) -> int:
        """Largest number of programs that are read."""
        return self.prompts * self.programs_per_prompt

    def evidence_digest(self) -> str:
        """SHA-256 of the settings that evidence depends on: all but those of the verdict."""
        settings = {name: value for name, value in asdict(self).items() if name not in VERDICT_SETTINGS}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


ROTATION_STANDARD = RotationProtocol()
