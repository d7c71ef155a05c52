"""Stages of a run: units of computation over a task set, for the model or for a randomly initialised copy of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

TEST, GENERATED, BLIND, WIDE, CROSSED, RANDOM = "test", "generated", "blind", "wide", "crossed", "random"
CONSTRAINED, SAMPLED = "constrained", "sampled"
CHECK = "check"
"""Not a stage: the model is loaded and checked before its first shard."""
GENERATION_STAGES = (TEST, GENERATED, CONSTRAINED, SAMPLED)
"""Stages in which the model writes programs."""
TEST_SET_STAGES = (TEST, CONSTRAINED, SAMPLED)
STAGE_WORDS = {
    "tasks": "drawing tasks", TEST: "programs for the test tasks", CONSTRAINED: "programs under a grammar", SAMPLED: "sampled programs",
    GENERATED: "programs for the probe tasks and their states", BLIND: "states at given programs",
    WIDE: "states at more given programs", CROSSED: "states after prompts of other semantics,",
}  # fmt: skip
"""What is computed in a stage, by its kind."""


@dataclass(frozen=True)
class Stage:
    """One stage; `str(stage)` is its name in file names and records, and is not read back.

    Attributes:
        kind: one of the constants of this module, such as `BLIND`.
        random_init: index of the randomly initialised copy, None for the model itself.
        alternative: name of the alternative semantics of a `CROSSED` stage, else None.
    """

    kind: str
    random_init: int | None = None
    alternative: str | None = None

    def __str__(self) -> str:
        name = self.kind if self.alternative is None else f"{self.kind}-{self.alternative}"
        return name if self.random_init is None else f"{RANDOM}-{self.random_init}-{name}"

    def describe(self, num_copies: int) -> str:
        """The stage in words, for the progress of a run with so many randomly initialised copies."""
        words = STAGE_WORDS.get(self.kind, self.kind)
        words = words if self.alternative is None else f"{words} {self.alternative}"
        return words if self.random_init is None else f"{words}, untrained copy {self.random_init + 1} of {num_copies}"

    @property
    def is_generating(self) -> bool:
        """Whether the model writes programs in this stage."""
        return self.random_init is None and self.kind in GENERATION_STAGES

    def of_random_init(self, index: int) -> Stage:
        """The same stage of randomly initialised copy `index`."""
        return replace(self, random_init=index)
