"""The plan of a run: which shards of which stages it consists of, from what was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmark.models.checkpoint import Checkpoint
from benchmark.probing.protocol import FULL_GRID, STANDARD_GRID
from benchmark.tasks import suite as suites
from benchmark.tasks.probe_sets import CROSSED_ALTERNATIVES, _num_wide_programs, stage_tasks
from benchmark.tasks.prompt_template import FEWSHOT, TRAINED, PromptTemplate
from benchmark.tasks.stage import (
    BLIND,
    CONSTRAINED,
    CROSSED,
    GENERATED,
    RANDOM,
    SAMPLED,
    TEST,
    TEST_SET_STAGES,
    WIDE,
    base_stage,
)
from benchmark.tasks.suite import Suite


@dataclass(frozen=True)
class GenerationOptions:
    """How programs are asked for.

    Attributes:
        track: one of `tracks.TRACKS`.
        constrained: whether the test tasks are also answered under the grammar.
        samples: draws a test task besides the greedy answer, 0 for none.
        temperature: of the draws.
        states: whether hidden states are read; without them a run gives no verdict.
    """

    track: str = TRAINED
    constrained: bool = False
    samples: int = 0
    temperature: float = 0.0
    states: bool = True


DEFAULT_GENERATION = GenerationOptions()


@dataclass(frozen=True)
class Job:
    """What every worker of a run needs to know.

    Attributes:
        suite: the suite, with its number of tasks already limited.
        checkpoint: files of the model.
        dtype, device: how it computes.
        random_inits: untrained copies to read.
        grid: which states are kept: the pooled ones that the standard grid reads, or every layer at both positions.
        texts: what the model wrote for the probe tasks, for untrained copies to read; empty until it is known.
        threads: of one forward pass. Another number may change the last bits of a state, so it is part of a run's
            identity and does not depend on how many workers there are.
        asked: what is asked besides, see `Asked`.
        frame: what stands around the worlds of a task, rendered once per run; None to render it where it is used.
    """

    suite: Suite
    checkpoint: Checkpoint
    dtype: str
    device: str
    random_inits: int
    grid: str = STANDARD_GRID
    texts: tuple[str, ...] = ()
    threads: int = 1
    generation: GenerationOptions = DEFAULT_GENERATION
    frame: PromptTemplate | None = None

    @property
    def reads_states(self) -> bool:
        """Whether hidden states are read."""
        return self.checkpoint.network and self.generation.states


@dataclass(frozen=True, order=True)
class Shard:
    """Items `start` to `stop` of a stage."""

    stage: str
    start: int
    stop: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.stage}-{self.start:06d}"


@dataclass(frozen=True)
class ShardResult:
    """What a shard gives.

    Attributes:
        samples: for generating stages a dict an item: task, prompt (SHA-256), text, tokens, finished; in the few-shot
            track also raw, what the program in text was found in, where it is other; for `sampled` also sample, the
            number of the draw; for `likelihood`: task, log_likelihood (nats), tokens.
        states: float32 [rows, D] at the action words of the valid programs, in order, by position and view, such as
            `read.mean` or `emit.layer 3`; empty for `test`.
        seconds: that it took.
        share: of the suite's batch that was computed at a time; less than 1 where memory was short.
    """

    samples: list[dict[str, Any]]
    states: dict[str, np.ndarray] = field(default_factory=dict)
    seconds: float = 0.0
    share: float = 1.0


def plan(job: Job) -> list[Shard]:
    """All shards of a run that need no other's result, in order."""
    suite = job.suite
    stages = [TEST]
    stages += [CONSTRAINED] if job.generation.constrained else []
    stages += [SAMPLED] if job.generation.samples else []
    if not job.reads_states:
        return [shard for stage in stages for shard in shards_of(suite, stage)]
    stages.append(GENERATED)
    forced = [BLIND, WIDE, *(f"{CROSSED}-{name}" for name in CROSSED_ALTERNATIVES)] if job.grid == FULL_GRID else [BLIND]
    for stage in forced:
        stages += [stage, *(f"{RANDOM}-{i}-{stage}" for i in range(job.random_inits))]
    return [shard for stage in stages for shard in shards_of(suite, stage)]


def shards_of(suite: Suite, stage: str) -> list[Shard]:
    """The shards of one stage; test and probe tasks are counted without being drawn."""
    known = dict.fromkeys(TEST_SET_STAGES, suite.tasks) | {GENERATED: suite.probe_programs}
    count = known.get(base_stage(stage)) or len(stage_tasks(suite, stage))
    return [Shard(stage, a, b) for a, b in suite.shards(count)]


def plan_dependent(job: Job) -> list[Shard]:
    """The shards that need what the model wrote (`Job.texts`): untrained copies reading it, in the full grid."""
    if job.grid != FULL_GRID or not job.reads_states:
        return []
    stages = [f"{RANDOM}-{i}-{GENERATED}" for i in range(job.random_inits)]
    return [shard for stage in stages for shard in shards_of(job.suite, stage)]


def task_sets(job: Job) -> dict[str, str]:
    """Purpose (`suites.tasks_for`) of each task set that a run draws, by the name of its piece."""
    if not job.reads_states and job.generation.track == TRAINED:
        return {f"tasks-{suites.TEST}": suites.TEST}
    if not job.reads_states:
        return {f"tasks-{purpose}": purpose for purpose in (suites.TEST, suites.PROBE, suites.SHOTS)}
    purposes = [suites.TEST, suites.PROBE, suites.BLIND]
    purposes += [suites.SHOTS] if job.generation.track == FEWSHOT else []
    purposes += [suites.blind_purpose(_num_wide_programs(job.suite))] if job.grid == FULL_GRID else []
    return {f"tasks-{purpose}": purpose for purpose in purposes}
