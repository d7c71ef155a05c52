"""The plan of a run: the shards of each stage, given the options."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmark.installation.cache_settings import DEFAULT_CACHE, CacheSettings
from benchmark.models.checkpoint import Checkpoint
from benchmark.probing.protocol import FULL_GRID, STANDARD_GRID
from benchmark.tasks.probe_sets import CROSSED_ALTERNATIVES
from benchmark.tasks.prompt_template import FEWSHOT, TRAINED, PromptTemplate
from benchmark.tasks.stage import BLIND, CONSTRAINED, CROSSED, GENERATED, SAMPLED, TEST, WIDE, Stage
from benchmark.tasks.suite import Suite
from benchmark.tasks.task_sets import BLIND_SET, PROBE_SET, SHOT_SET, TEST_SET, WIDE_SET, num_stage_tasks


@dataclass(frozen=True)
class GenerationOptions:
    """How programs are generated. The field names are part of a run's identity.

    Attributes:
        track: one of `prompt_template.TRACKS`.
        constrained: whether the test tasks are also decoded under the grammar.
        samples: programs sampled per test task in addition to the greedy one, 0 for none.
        temperature: sampling temperature.
        states: whether hidden states are read; without them a run has no verdict.
    """

    track: str = TRAINED
    constrained: bool = False
    samples: int = 0
    temperature: float = 0.0
    states: bool = True


DEFAULT_GENERATION = GenerationOptions()


@dataclass(frozen=True)
class Job:
    """The model, the suite and the options of a run, as every worker gets them.

    Attributes:
        suite: the suite, with its number of tasks already limited.
        checkpoint: the model's files.
        dtype, device: dtype and device of the forward pass.
        random_inits: number of randomly initialised copies.
        grid: which states are stored: the pooled ones of the standard grid, or every layer at both positions.
        texts: the model's programs for the probe tasks, which the randomly initialised copies read; empty until known.
        threads: CPU threads per forward pass. Another number may change the last bits of a state, so it is part of a
            run's identity and independent of the number of workers.
        generation: how programs are generated.
        prompt_template: the template around a task's worlds, rendered once per run; None to render it where it is used.
        probes: whether the states of the probes of the record are read; a preview has none.
        cache: where evidence that several runs share is cached.
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
    prompt_template: PromptTemplate | None = None
    probes: bool = True
    cache: CacheSettings = DEFAULT_CACHE

    @property
    def reads_states(self) -> bool:
        """Whether hidden states are read."""
        return self.checkpoint.has_hidden_states and self.generation.states

    @property
    def has_probes(self) -> bool:
        """Whether the record has the verdict of its probes."""
        return self.reads_states and self.probes


@dataclass(frozen=True)
class Shard:
    """Tasks `start` to `stop` of a stage."""

    stage: Stage
    start: int
    stop: int

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.stage}-{self.start:06d}"


@dataclass(frozen=True)
class ShardResult:
    """The result of a shard.

    Attributes:
        samples: one dict per task of a generating stage: task, prompt (SHA-256), text, tokens, finished; in the few-shot
            track also raw, the whole completion, where it differs from the program in text; in `sampled` also sample, the
            index of the draw.
        states: float32 [rows, D] at the action words of the valid programs, in order, by position and view, such as
            `read.mean` or `emit.layer 3`; empty for `test`.
        seconds: wall-clock time.
        batch_scale: fraction of the suite's batch size; below 1 after an out-of-memory failure.
    """

    samples: list[dict[str, Any]]
    states: dict[str, np.ndarray] = field(default_factory=dict)
    seconds: float = 0.0
    batch_scale: float = 1.0


def plan(job: Job) -> list[Shard]:
    """All shards of a run that depend on no other result, in order."""
    stages = [Stage(TEST)]
    stages += [Stage(CONSTRAINED)] if job.generation.constrained else []
    stages += [Stage(SAMPLED)] if job.generation.samples else []
    if job.has_probes:
        stages.append(Stage(GENERATED))
        read_stages = [Stage(BLIND)]
        if job.grid == FULL_GRID:
            read_stages += [Stage(WIDE), *(Stage(CROSSED, alternative=name) for name in CROSSED_ALTERNATIVES)]
        for stage in read_stages:
            stages += [stage, *(stage.of_random_init(i) for i in range(job.random_inits))]
    return [shard for stage in stages for shard in shards_of(job.suite, stage)]


def shards_of(suite: Suite, stage: Stage) -> list[Shard]:
    """The shards of one stage; its tasks are counted without drawing them."""
    return [Shard(stage, start, stop) for start, stop in suite.shards(num_stage_tasks(suite, stage))]


def plan_dependent(job: Job) -> list[Shard]:
    """The shards that depend on `Job.texts`: in the full grid, randomly initialised copies that read the model's programs."""
    if job.grid != FULL_GRID or not job.has_probes:
        return []
    stages = [Stage(GENERATED, random_init=i) for i in range(job.random_inits)]
    return [shard for stage in stages for shard in shards_of(job.suite, stage)]


def task_sets(job: Job) -> list[str]:
    """Names of the task sets (see `TaskSets.get`) that a run draws."""
    is_fewshot = job.generation.track == FEWSHOT
    if not job.has_probes:
        return [TEST_SET, PROBE_SET, SHOT_SET] if is_fewshot else [TEST_SET]
    names = [TEST_SET, PROBE_SET, BLIND_SET]
    names += [SHOT_SET] if is_fewshot else []
    return [*names, WIDE_SET] if job.grid == FULL_GRID else names
