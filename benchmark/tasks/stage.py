"""Stages of a run: units of computation over a task set. Stages of randomly initialised copies are `random-i-STAGE`."""

from __future__ import annotations

TEST, GENERATED, BLIND, WIDE, CROSSED, RANDOM = "test", "generated", "blind", "wide", "crossed", "random"
LIKELIHOOD, CONSTRAINED, SAMPLED = "likelihood", "constrained", "sampled"
CHECK = "check"
"""Not a stage: the model is loaded and checked before its first shard."""
TEST_SET_STAGES = (TEST, LIKELIHOOD, CONSTRAINED, SAMPLED)


def base_stage(stage: str) -> str:
    """The stage that a randomly initialised copy repeats; any other stage is returned unchanged."""
    return stage.split("-", 2)[-1] if stage.startswith(RANDOM) else stage
