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
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from benchmark.errors import ModelError
from benchmark.models.interface import Decoding, Generation, HiddenStates, LanguageModel, Writer
from benchmark.models.loading import load, load_writer, tokenizer_of
from benchmark.probing.protocol import FULL_GRID, LAST, MEAN, STANDARD_GRID
from benchmark.runner.plan import Job, Shard, ShardResult
from benchmark.tasks.extraction import extract_program
from benchmark.tasks.probe_sets import crossed_outputs, parse_programs, stage_tasks
from benchmark.tasks.prompt_template import (
    LENGTH_FACTOR,
    PLAIN,
    TRAINED,
    PromptTemplate,
    build_prompt_template,
    render_prompts,
    sampling_seeds,
)
from benchmark.tasks.stage import (
    CONSTRAINED,
    CROSSED,
    GENERATED,
    LIKELIHOOD,
    RANDOM,
    SAMPLED,
    TEST,
)
from benchmark.tasks.suite import probe_tasks, test_tasks
from karel_env.generator import Tasks
from karel_env.language import FIRST_CONDITION, HEADER, HEADER_TEXT, Programs
from karel_env.world import Worlds

NUM_CHECK_TASKS = 16
RANDOM_INIT_SEED = 52_711
"""Untrained copy i is initialised from this plus i."""


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
        from benchmark.models.soundness import check_soundness

        tasks = test_tasks(self.job.suite).take(np.arange(min(NUM_CHECK_TASKS, self.job.suite.tasks)))
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
            seed = None if copy is None else RANDOM_INIT_SEED + copy
            model = load(self.job.checkpoint, self.job.dtype, self.job.device, seed, self.prompt_template.before)
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
    def frame(self) -> PromptTemplate:
        """What stands around the worlds of a task, laid out for the model's tokenizer."""
        if self.job.prompt_template is not None:
            return self.job.prompt_template
        if self.job.generation.track == TRAINED:
            return PLAIN
        return build_prompt_template(self.job.suite, self.job.generation.track, tokenizer_of(self.job.checkpoint))

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
        return ShardResult(samples, _concatenate(read))

    def _answers(
        self, stage: str, prompts: Sequence[str], tasks: np.ndarray
    ) -> Iterator[tuple[dict[str, int], list[Generation]]]:
        """What is written behind the prompts: once, or draw by draw with the draw's number."""
        room = self.job.suite.max_new_words * LENGTH_FACTOR[self.job.generation.track]
        if stage == SAMPLED:
            for draw in range(self.job.generation.samples):
                seeds = sampling_seeds(self.job.suite, tasks, draw)
                decoding = Decoding(temperature=self.job.generation.temperature, seeds=seeds)
                yield {"sample": draw}, self.model(stage).generate(prompts, room, decoding)
        elif stage == CONSTRAINED:
            yield {}, self.model(stage).generate(prompts, room, Decoding(constrained=True))
        else:
            yield {}, self.writer(stage).generate(prompts, room)

    def _sample(self, one: Generation) -> dict[str, Any]:
        """The entries of one answer, its program found in it where the track looks for one."""
        if self.job.generation.track == TRAINED:
            return vars(one)
        text = extract_program(one.text)
        return vars(one) | {"text": text} | ({} if text == one.text else {"raw": one.text})

    def _prompts(self, tasks: Tasks, outputs: Worlds | None = None) -> list[str]:
        return render_prompts(self.job.suite, tasks, outputs, self.prompt_template)

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
        programs, places = parse_programs(texts)
        return [self._at_words(model, [prompts[i] for i in places], programs, "emit")] if len(programs) else []

    def _reread(self, shard: Shard) -> ShardResult:
        model, read = self.model(shard.stage), []
        tasks = probe_tasks(self.job.suite)
        for start, stop in self._batches(shard):
            prompts = self._prompts(tasks.take(np.arange(start, stop)))
            read += self._states(model, prompts, self.job.texts[start:stop])
        return ShardResult([], _concatenate(read))

    def _read(self, tasks: Tasks, shard: Shard) -> ShardResult:
        model = self.model(shard.stage)
        read = []
        for start, stop in self._batches(shard):
            batch = tasks.take(np.arange(start, stop))
            crossed = CROSSED in shard.stage
            outputs = crossed_outputs(batch, shard.stage.rpartition("-")[2], start) if crossed else batch.inputs
            read.append(self._at_words(model, self._prompts(batch, outputs), batch.programs, "read"))
        return ShardResult([], _concatenate(read))

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


def _concatenate(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
