"""Stages of a run: what is computed of which tasks. The untrained copies of a model have stages of their own."""

from __future__ import annotations

TEST, GENERATED, BLIND, WIDE, CROSSED, RANDOM = "test", "generated", "blind", "wide", "crossed", "random"


LIKELIHOOD, CONSTRAINED, SAMPLED = "likelihood", "constrained", "sampled"


CHECK = "check"
"""No stage: the model is loaded and looked at before its first shard."""


TEST_SET_STAGES = (TEST, LIKELIHOOD, CONSTRAINED, SAMPLED)


def base_stage(stage: str) -> str:
    """The stage that an untrained copy repeats; any other is its own."""
    return stage.split("-", 2)[-1] if stage.startswith(RANDOM) else stage
