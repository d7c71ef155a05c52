"""One shard of work on one model, in process: what the model writes, and its hidden states.

A shard is a fixed slice of the suite with a fixed batch plan, so its result does not depend on who computes it.
Stages: `test` (programs for the test tasks), `generated` (programs for the probe tasks, and the states at which
their words were emitted), `blind` (states at the words of given programs, outputs hidden), and `random-0`,
`random-1`, ... (the same of untrained copies of the model).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmark.checkpoint import Checkpoint
from benchmark.errors import ModelError
from benchmark.huggingface import HuggingFaceModel
from benchmark.models import HiddenStates, LanguageModel
from benchmark.prompts import prompt_text
from benchmark.suites import Suite, blind_tasks, probe_tasks, test_tasks
from karel_env.generator import Tasks
from karel_env.language import FIRST_CONDITION, HEADER, HEADER_TEXT, Programs
from karel_env.parser import ParseError, parse
from karel_env.world import Worlds

TEST, GENERATED, BLIND, RANDOM = "test", "generated", "blind", "random"
RANDOM_SEED = 52_711
"""Untrained copy i is initialised from this plus i."""


@dataclass(frozen=True)
class Job:
    """What every worker of a run needs to know.

    Attributes:
        suite: the suite, with its number of tasks already limited.
        checkpoint: files of the model.
        dtype, device: how it computes.
        random_inits: untrained copies to read.
        threads: CPU threads of a worker; 0 leaves torch's choice.
    """

    suite: Suite
    checkpoint: Checkpoint
    dtype: str
    device: str
    random_inits: int
    threads: int = 0


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
        samples: for generating stages a dict an item: task, prompt (SHA-256), text, tokens, finished.
        states: float32 [rows, pools, D] at the action words of the valid programs, in order; empty for `test`.
        seconds: that it took.
    """

    samples: list[dict[str, Any]]
    states: np.ndarray = field(default_factory=lambda: np.zeros((0, 2, 0), np.float32))
    seconds: float = 0.0


def plan(job: Job) -> list[Shard]:
    """All shards of a run, in order."""
    suite = job.suite
    stages = [(TEST, suite.tasks), (GENERATED, suite.probe_programs), (BLIND, len(blind_tasks(suite)))]
    stages += [(f"{RANDOM}-{i}", len(blind_tasks(suite))) for i in range(job.random_inits)]
    return [Shard(stage, a, b) for stage, count in stages for a, b in suite.shards(count)]


def prompts_of(suite: Suite, tasks: Tasks, blind: bool = False) -> list[str]:
    """The prompt of each task; blind ones show every input again in place of its output."""
    shown = suite.shown
    after = tasks.inputs if blind else tasks.outputs
    return [prompt_text(tasks.inputs[i, :shown], after[i, :shown], suite.show_under_robot) for i in range(len(tasks))]


def written_programs(texts: Sequence[str]) -> tuple[Programs, np.ndarray]:
    """The programs among what a model wrote behind the header, and int64 their places among the texts."""
    found, places = [], []
    for place, text in enumerate(texts):
        try:
            found.append(parse(f"{HEADER_TEXT} {text}"))
        except ParseError:
            continue
        places.append(place)
    return Programs.of(found), np.array(places, np.int64)


class Worker:
    """Holds one model and computes shards; an untrained copy replaces it while its stage lasts."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.loaded: tuple[int | None, LanguageModel] | None = None

    def evaluate(self, shard: Shard) -> ShardResult:
        """The result of one shard."""
        suite = self.job.suite
        if shard.stage == TEST:
            return self._generate(test_tasks(suite), shard, states=False)
        if shard.stage == GENERATED:
            return self._generate(probe_tasks(suite), shard, states=True)
        return self._read(blind_tasks(suite), shard)

    def model(self, stage: str) -> LanguageModel:
        """The model of a stage: the one under test, or an untrained copy."""
        copy = int(stage.removeprefix(f"{RANDOM}-")) if stage.startswith(RANDOM) else None
        if self.loaded is None or self.loaded[0] != copy:
            self.loaded = None
            seed = None if copy is None else RANDOM_SEED + copy
            model = HuggingFaceModel(self.job.checkpoint, self.job.dtype, self.job.device, random_seed=seed)
            self.loaded = (copy, model)
        return self.loaded[1]

    def _generate(self, tasks: Tasks, shard: Shard, states: bool) -> ShardResult:
        model = self.model(shard.stage)
        samples: list[dict[str, Any]] = []
        read: list[np.ndarray] = []
        for start, stop in self._batches(shard):
            prompts = prompts_of(self.job.suite, tasks.take(np.arange(start, stop)))
            written = model.generate(prompts, self.job.suite.max_new_words)
            for task, (prompt, one) in enumerate(zip(prompts, written, strict=True), start):
                digest = hashlib.sha256(prompt.encode()).hexdigest()
                samples.append({"task": task, "prompt": digest, **vars(one)})
            if states:
                programs, places = written_programs([one.text for one in written])
                if len(programs):
                    read.append(_pooled(model, [prompts[i] for i in places], programs, "emit"))
        return ShardResult(samples, _joined(read))

    def _read(self, tasks: Tasks, shard: Shard) -> ShardResult:
        model = self.model(shard.stage)
        read = []
        for start, stop in self._batches(shard):
            batch = tasks.take(np.arange(start, stop))
            read.append(_pooled(model, prompts_of(self.job.suite, batch, blind=True), batch.programs, "read"))
        return ShardResult([], _joined(read))

    def _batches(self, shard: Shard) -> list[tuple[int, int]]:
        size = self.job.suite.batch
        return [(a, min(a + size, shard.stop)) for a in range(shard.start, shard.stop, size)]


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros((0, 2, 0), np.float32)


def _pooled(model: LanguageModel, prompts: Sequence[str], programs: Programs, position: str) -> np.ndarray:
    """float32 [action words, 2, D], the pooled states (`protocol.POOLS`) at one position of each action word."""
    texts = [text.removeprefix(HEADER_TEXT).lstrip() for text in programs.texts()]
    states: HiddenStates = model.hidden_states(prompts, texts)
    rows = getattr(states, position)
    bodies = [programs.program(i)[len(HEADER) :] for i in range(len(programs))]
    acting = np.concatenate(bodies) < FIRST_CONDITION
    values = states.values[rows[acting]]
    if not np.isfinite(values).all():
        raise ModelError("hidden states: NaN or infinity; try another --dtype")
    return np.stack([values.mean(1), values[:, -1]], 1)


def first_inputs(tasks: Tasks) -> Worlds:
    """Worlds [N], the first shown input of each task: the one that labels speak of."""
    return tasks.inputs[:, 0]
