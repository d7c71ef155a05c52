"""One shard of work on one model, in process: what the model writes, and its hidden states.

A shard is a fixed slice of the suite with a fixed batch plan, so its result does not depend on who computes it.
Stages: `test` (programs for the test tasks), `generated` (programs for the probe tasks, and the states at which
their words were emitted), `blind` (states at the words of given programs, outputs hidden), and `random-0-blind`,
`random-1-blind`, ... (the same of untrained copies of the model). The full grid adds `wide` (a blind set of the
largest label budget), `crossed-NAME` (prompts of which half show outputs under the alternative NAME), their untrained
copies, and `random-0-generated`, ...: what untrained copies hold at the programs that the model wrote. `constrained` is
`test` again with only what the grammar allows, `sampled` several draws a test task. The evaluation of
training checkpoints (`trajectory`) also has `likelihood`: how probable the model finds the test tasks' own programs.

Letters: `L` layers + 1, `D` hidden width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from benchmark.tasks import suite as suites
from benchmark.models.checkpoint import Checkpoint
from benchmark.errors import ModelError
from benchmark.tasks.extraction import answered
from benchmark.models.loading import load, load_writer, tokenizer_of
from benchmark.models.interface import Decoding, Generation, HiddenStates, LanguageModel, Writer
from benchmark.tasks.prompts import examples_text
from benchmark.probing.protocol import POOLS
from benchmark.models.soundness import check_soundness
from benchmark.tasks.suite import Suite, blind_tasks, probe_tasks, test_tasks
from benchmark.tasks.prompt_template import BARE, FEWSHOT, ROOM, TRAINED, Frame, frame_of, seeds_of
from karel_env.generator import Tasks
from karel_env.interpreter import run
from karel_env.language import FIRST_CONDITION, HEADER, HEADER_TEXT, Programs
from karel_env.parser import ParseError, parse
from karel_env.semantics import mirror_class
from karel_env.world import Worlds

TEST, GENERATED, BLIND, WIDE, CROSSED, RANDOM = "test", "generated", "blind", "wide", "crossed", "random"
LIKELIHOOD, CONSTRAINED, SAMPLED = "likelihood", "constrained", "sampled"
CHECK = "check"
"""No stage: the model is loaded and looked at before its first shard."""
CHECKED_TASKS = 16
OF_TEST_TASKS = (TEST, LIKELIHOOD, CONSTRAINED, SAMPLED)
STANDARD_GRID, LAYERS_GRID, FULL_GRID = GRIDS = ("standard", "layers", "full")
MEAN, LAST = POOLS
CROSSED_WITH = ("lmpru", "pulmr")
"""Alternatives of the crossed prompts: move becomes a turn in one, a marker action in the other."""
WIDE_BUDGET = 25_000
"""Label budget of the wide set, in program-world pairs."""
RANDOM_SEED = 52_711
"""Untrained copy i is initialised from this plus i."""


@dataclass(frozen=True)
class Asked:
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


PLAIN = Asked()


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
    asked: Asked = PLAIN
    frame: Frame | None = None

    @property
    def reads(self) -> bool:
        """Whether hidden states are read."""
        return self.checkpoint.network and self.asked.states


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
    stages += [CONSTRAINED] if job.asked.constrained else []
    stages += [SAMPLED] if job.asked.samples else []
    if not job.reads:
        return [shard for stage in stages for shard in shards_of(suite, stage)]
    stages.append(GENERATED)
    forced = [BLIND, WIDE, *(f"{CROSSED}-{name}" for name in CROSSED_WITH)] if job.grid == FULL_GRID else [BLIND]
    for stage in forced:
        stages += [stage, *(f"{RANDOM}-{i}-{stage}" for i in range(job.random_inits))]
    return [shard for stage in stages for shard in shards_of(suite, stage)]


def shards_of(suite: Suite, stage: str) -> list[Shard]:
    """The shards of one stage; test and probe tasks are counted without being drawn."""
    known = dict.fromkeys(OF_TEST_TASKS, suite.tasks) | {GENERATED: suite.probe_programs}
    count = known.get(_kind(stage)) or len(stage_tasks(suite, stage))
    return [Shard(stage, a, b) for a, b in suite.shards(count)]


def _kind(stage: str) -> str:
    """The stage that an untrained copy repeats; any other is its own."""
    return stage.split("-", 2)[-1] if stage.startswith(RANDOM) else stage


def plan_after(job: Job) -> list[Shard]:
    """The shards that need what the model wrote (`Job.texts`): untrained copies reading it, in the full grid."""
    if job.grid != FULL_GRID or not job.reads:
        return []
    stages = [f"{RANDOM}-{i}-{GENERATED}" for i in range(job.random_inits)]
    return [shard for stage in stages for shard in shards_of(job.suite, stage)]


def stage_tasks(suite: Suite, stage: str) -> Tasks:
    """The tasks of a stage or of its untrained copies."""
    kind = _kind(stage)
    if kind in OF_TEST_TASKS:
        return test_tasks(suite)
    if kind == GENERATED:
        return probe_tasks(suite)
    if kind == WIDE:
        return wide_tasks(suite)
    return crossed_tasks(suite) if kind.startswith(CROSSED) else blind_tasks(suite)


def task_sets(job: Job) -> dict[str, str]:
    """Purpose (`suites.tasks_for`) of each task set that a run draws, by the name of its piece."""
    if not job.reads and job.asked.track == TRAINED:
        return {f"tasks-{suites.TEST}": suites.TEST}
    if not job.reads:
        return {f"tasks-{purpose}": purpose for purpose in (suites.TEST, suites.PROBE, suites.SHOTS)}
    purposes = [suites.TEST, suites.PROBE, suites.BLIND]
    purposes += [suites.SHOTS] if job.asked.track == FEWSHOT else []
    purposes += [suites.blind_purpose(_wide(job.suite))] if job.grid == FULL_GRID else []
    return {f"tasks-{purpose}": purpose for purpose in purposes}


def wide_tasks(suite: Suite) -> Tasks:
    """A blind set of the largest label budget, in proportion where the suite's own budget is limited."""
    return blind_tasks(suite, _wide(suite))


def _wide(suite: Suite) -> int:
    return 2 * suite.probe_programs * WIDE_BUDGET // 5_000


def crossed_tasks(suite: Suite) -> Tasks:
    """The first fifth of the blind set, a smaller budget, since each alternative has prompts of its own."""
    return blind_tasks(suite).take(np.arange(len(blind_tasks(suite)) // 5))


def crossed_outputs(tasks: Tasks, name: str, first: int = 0) -> Worlds:
    """Worlds [N, E], outputs under the original for even tasks and under the alternative `name` for odd ones.

    `first` is the number of the first task given.
    """
    other = run(tasks.programs, tasks.inputs, mirror_class(name)).worlds
    cells, robot = tasks.outputs.cells.copy(), tasks.outputs.robot.copy()
    odd = slice(1 - first % 2, None, 2)
    cells[odd], robot[odd] = other.cells[odd], other.robot[odd]
    return Worlds(cells, robot, tasks.outputs.size)


def prompts_of(suite: Suite, tasks: Tasks, outputs: Worlds | None = None, frame: Frame = BARE) -> list[str]:
    """The prompt of each task in its frame, with its outputs or with those given [N, E] in their place."""
    shown, under = suite.shown, suite.show_under_robot
    after = tasks.outputs if outputs is None else outputs
    return [frame.around(examples_text(tasks.inputs[i, :shown], after[i, :shown], under)) for i in range(len(tasks))]


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
        self.job, self.batch = job, job.suite.batch
        self.loaded: tuple[int | None, LanguageModel] | None = None
        self.baseline: Writer | None = None

    def evaluate(self, shard: Shard, share: float = 1.0) -> ShardResult:
        """The result of one shard, with this share of the suite's batch: less than 1 where memory was short."""
        self.batch = max(1, int(self.job.suite.batch * share))
        return replace(self._evaluate(shard), share=share)

    def _evaluate(self, shard: Shard) -> ShardResult:
        if shard.stage in (TEST, GENERATED, CONSTRAINED, SAMPLED):
            return self._generate(stage_tasks(self.job.suite, shard.stage), shard)
        if shard.stage == LIKELIHOOD:
            return self._weigh(shard)
        if shard.stage.endswith(GENERATED):
            return self._reread(shard)
        return self._read(stage_tasks(self.job.suite, shard.stage), shard)

    def check(self) -> None:
        """Load the model and look at it on one task: is it causal, and does it write what its logits say?

        Raises:
            ModelError: it must not be evaluated.
        """
        if not self.job.checkpoint.network:
            return
        tasks = test_tasks(self.job.suite).take(np.arange(min(CHECKED_TASKS, self.job.suite.tasks)))
        programs = [text.removeprefix(HEADER_TEXT).lstrip() for text in tasks.programs.texts()]
        longest = max(range(len(programs)), key=lambda i: len(programs[i]))
        prompt = self._prompts(tasks)[longest]
        checkpoint = self.job.checkpoint
        check_soundness(self.model(TEST), prompt, programs[longest], self.job.dtype, checkpoint.spec)

    def model(self, stage: str) -> LanguageModel:
        """The model of a stage: the one under test, or an untrained copy."""
        copy = int(stage.split("-")[1]) if stage.startswith(RANDOM) else None
        if self.loaded is None or self.loaded[0] != copy:
            self.loaded = None
            seed = None if copy is None else RANDOM_SEED + copy
            model = load(self.job.checkpoint, self.job.dtype, self.job.device, seed, self.frame.before)
            self.loaded = (copy, model)
        return self.loaded[1]

    def writer(self, stage: str) -> Writer:
        """What writes the programs of a stage: the model, or one without hidden states."""
        if self.job.checkpoint.network:
            return self.model(stage)
        if self.baseline is None:
            self.baseline = load_writer(self.job.checkpoint, self.job.suite)
        return self.baseline

    @cached_property
    def frame(self) -> Frame:
        """What stands around the worlds of a task, laid out for the model's tokenizer."""
        if self.job.frame is not None:
            return self.job.frame
        if self.job.asked.track == TRAINED:
            return BARE
        return frame_of(self.job.suite, self.job.asked.track, tokenizer_of(self.job.checkpoint))

    def _generate(self, tasks: Tasks, shard: Shard) -> ShardResult:
        samples: list[dict[str, Any]] = []
        read: list[dict[str, np.ndarray]] = []
        for start, stop in self._batches(shard):
            prompts = self._prompts(tasks.take(np.arange(start, stop)))
            digests = [hashlib.sha256(prompt.encode()).hexdigest() for prompt in prompts]
            for draw, written in self._answers(shard.stage, prompts, np.arange(start, stop)):
                for task, (digest, one) in enumerate(zip(digests, written, strict=True), start):
                    samples.append({"task": task, **draw, "prompt": digest, **self._sample(one)})
            if shard.stage == GENERATED:
                texts = [sample["text"] for sample in samples[-len(prompts) :]]
                read += self._states(self.model(shard.stage), prompts, texts)
        return ShardResult(samples, _joined(read))

    def _answers(
        self, stage: str, prompts: Sequence[str], tasks: np.ndarray
    ) -> Iterator[tuple[dict[str, int], list[Generation]]]:
        """What is written behind the prompts: once, or draw by draw with the draw's number."""
        room = self.job.suite.max_new_words * ROOM[self.job.asked.track]
        if stage == SAMPLED:
            for draw in range(self.job.asked.samples):
                seeds = seeds_of(self.job.suite, tasks, draw)
                decoding = Decoding(temperature=self.job.asked.temperature, seeds=seeds)
                yield {"sample": draw}, self.model(stage).generate(prompts, room, decoding)
        elif stage == CONSTRAINED:
            yield {}, self.model(stage).generate(prompts, room, Decoding(constrained=True))
        else:
            yield {}, self.writer(stage).generate(prompts, room)

    def _sample(self, one: Generation) -> dict[str, Any]:
        """The entries of one answer, its program found in it where the track looks for one."""
        if self.job.asked.track == TRAINED:
            return vars(one)
        text = answered(one.text)
        return vars(one) | {"text": text} | ({} if text == one.text else {"raw": one.text})

    def _prompts(self, tasks: Tasks, outputs: Worlds | None = None) -> list[str]:
        return prompts_of(self.job.suite, tasks, outputs, self.frame)

    def _weigh(self, shard: Shard) -> ShardResult:
        tasks, samples = stage_tasks(self.job.suite, shard.stage), []
        for start, stop in self._batches(shard):
            batch = tasks.take(np.arange(start, stop))
            texts = [text.removeprefix(HEADER_TEXT).lstrip() for text in batch.programs.texts()]
            found = self.model(shard.stage).log_likelihoods(self._prompts(batch), texts)
            samples += [
                {"task": task, "log_likelihood": value, "tokens": tokens}
                for task, (value, tokens) in enumerate(found, start)
            ]
        return ShardResult(samples)

    def _states(
        self, model: LanguageModel, prompts: Sequence[str], texts: Sequence[str]
    ) -> list[dict[str, np.ndarray]]:
        """The states at the valid programs among the texts: one batch, or none."""
        programs, places = written_programs(texts)
        return [self._at_words(model, [prompts[i] for i in places], programs, "emit")] if len(programs) else []

    def _reread(self, shard: Shard) -> ShardResult:
        model, read = self.model(shard.stage), []
        tasks = probe_tasks(self.job.suite)
        for start, stop in self._batches(shard):
            prompts = self._prompts(tasks.take(np.arange(start, stop)))
            read += self._states(model, prompts, self.job.texts[start:stop])
        return ShardResult([], _joined(read))

    def _read(self, tasks: Tasks, shard: Shard) -> ShardResult:
        model = self.model(shard.stage)
        read = []
        for start, stop in self._batches(shard):
            batch = tasks.take(np.arange(start, stop))
            crossed = CROSSED in shard.stage
            outputs = crossed_outputs(batch, shard.stage.rpartition("-")[2], start) if crossed else batch.inputs
            read.append(self._at_words(model, self._prompts(batch, outputs), batch.programs, "read"))
        return ShardResult([], _joined(read))

    def _at_words(
        self, model: LanguageModel, prompts: Sequence[str], programs: Programs, position: str
    ) -> dict[str, np.ndarray]:
        """float32 [action words, D] by position and view: the pools; in the other grids every layer, in the full one twice."""
        texts = [text.removeprefix(HEADER_TEXT).lstrip() for text in programs.texts()]
        states: HiddenStates = model.hidden_states(prompts, texts)
        bodies = [programs.program(i)[len(HEADER) :] for i in range(len(programs))]
        acting = np.concatenate(bodies) < FIRST_CONDITION
        if not np.isfinite(states.values).all():
            raise ModelError("hidden states: NaN or infinity; try another --dtype")
        found = {}
        for place in ("emit", "read") if self.job.grid == FULL_GRID else (position,):
            values = states.values[getattr(states, place)[acting]]
            found[f"{place}.{MEAN}"] = values.mean(1)
            if self.job.grid == STANDARD_GRID:
                found[f"{place}.{LAST}"] = values[:, -1]
            else:
                found |= {f"{place}.layer {i}": values[:, i] for i in range(values.shape[1])}
        return found

    def _batches(self, shard: Shard) -> list[tuple[int, int]]:
        return [(a, min(a + self.batch, shard.stop)) for a in range(shard.start, shard.stop, self.batch)]


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def first_inputs(tasks: Tasks) -> Worlds:
    """Worlds [N], the first shown input of each task: the one that labels speak of."""
    return tasks.inputs[:, 0]
