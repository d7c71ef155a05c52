"""Computes the shards of one model in process: generated programs and hidden states.

A shard is a fixed slice of the suite with fixed batches, so its result does not depend on the worker that computes it.
Stages: `test` (programs for the test tasks), `generated` (programs for the probe tasks, and the states at which
their words were emitted), `blind` (states at the words of given programs, outputs hidden), and `random-0-blind`,
`random-1-blind`, ... (the same of randomly initialised copies of the model). The full grid adds `wide` (a blind set of the
largest label budget), `crossed-NAME` (prompts of which half show outputs under the alternative NAME), their randomly
initialised copies, and `random-0-generated`, ...: states of those copies at the programs that the model wrote.
`constrained` is `test` with decoding restricted to the grammar, `sampled` several samples per test task.

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
from benchmark.models.interface import Decoding, Generation, HiddenStates, LanguageModel, ProgramGenerator
from benchmark.models.loading import load_generator, load_model, load_tokenizer_or_none
from benchmark.probing.protocol import FULL_GRID, LAST, MEAN, STANDARD_GRID
from benchmark.runner.plan import Job, Shard, ShardResult
from benchmark.tasks.extraction import extract_program
from benchmark.tasks.probe_sets import crossed_outputs, parse_programs
from benchmark.tasks.prompt_template import (
    LENGTH_FACTOR,
    PLAIN,
    TRAINED,
    PromptTemplate,
    build_prompt_template,
    render_prompts,
    sampling_seeds,
)
from benchmark.tasks.stage import CONSTRAINED, GENERATED, SAMPLED
from benchmark.tasks.task_sets import TaskSets
from karel_env.generation.recipe import Tasks
from karel_env.language import FIRST_CONDITION, HEADER, Programs
from karel_env.syntax.dialects import KAREL, program_bodies
from karel_env.world import Worlds

NUM_CHECK_TASKS = 16
RANDOM_INIT_SEED = 52_711
"""Copy i is initialised with this seed plus i."""


class Worker:
    """Holds one model and computes shards; in a stage of a randomly initialised copy it holds that copy instead.

    Args:
        job: the model, the suite and the options.
        task_sets: task sets of the suite; drawn when needed if None.
    """

    def __init__(self, job: Job, task_sets: TaskSets | None = None) -> None:
        self.job, self.batch_size = job, job.suite.batch
        self.task_sets = task_sets or TaskSets(job.suite)
        self.loaded: tuple[int | None, LanguageModel] | None = None
        self.baseline: ProgramGenerator | None = None

    def evaluate(self, shard: Shard, batch_scale: float = 1.0) -> ShardResult:
        """Compute one shard with this fraction of the suite's batch size: below 1 after an out-of-memory failure."""
        self.batch_size = max(1, int(self.job.suite.batch * batch_scale))
        tasks = self.task_sets.of_stage(shard.stage)
        if shard.stage.is_generating:
            result = self._generate(tasks, shard)
        elif shard.stage.kind == GENERATED:
            result = self._read_generated(tasks, shard)
        else:
            result = self._read(tasks, shard)
        return replace(result, batch_scale=batch_scale)

    def check(self) -> None:
        """Load the model and check on one task that it is causal and that its greedy decoding follows its logits.

        Raises:
            ModelError: a check fails.
        """
        if not self.job.checkpoint.has_hidden_states:
            return
        from benchmark.models.soundness import check_soundness

        tasks = self.task_sets.test.take(np.arange(min(NUM_CHECK_TASKS, self.job.suite.tasks)))
        programs = program_bodies(tasks.programs, self.job.suite.dialect)
        longest = max(range(len(programs)), key=lambda i: len(programs[i]))
        prompt = self._prompts(tasks)[longest]
        checkpoint = self.job.checkpoint
        check_soundness(self.model(), prompt, programs[longest], self.job.dtype, checkpoint.spec)

    def model(self, random_init: int | None = None) -> LanguageModel:
        """The evaluated model, or its randomly initialised copy of this index."""
        if self.loaded is None or self.loaded[0] != random_init:
            self.loaded = None
            seed = None if random_init is None else RANDOM_INIT_SEED + random_init
            model = load_model(self.job.checkpoint, self.job.dtype, self.job.device, seed, self.prompt_template.before)
            self.loaded = (random_init, model)
        return self.loaded[1]

    def writer(self) -> ProgramGenerator:
        """The generator of programs: the model, or a baseline without hidden states."""
        if self.job.checkpoint.has_hidden_states:
            return self.model()
        if self.baseline is None:
            self.baseline = load_generator(self.job.checkpoint, self.job.suite)
        return self.baseline

    @cached_property
    def prompt_template(self) -> PromptTemplate:
        """The template around a task's worlds, rendered for the model's tokenizer."""
        if self.job.prompt_template is not None:
            return self.job.prompt_template
        if self.job.generation.track == TRAINED:
            return PLAIN
        tokenizer = load_tokenizer_or_none(self.job.checkpoint)
        return build_prompt_template(self.job.suite, self.job.generation.track, tokenizer, self.task_sets.shots)

    def _generate(self, tasks: Tasks, shard: Shard) -> ShardResult:
        samples: list[dict[str, Any]] = []
        views: list[dict[str, np.ndarray]] = []
        for start, stop in self._batches(shard):
            prompts = self._prompts(tasks.take(np.arange(start, stop)))
            digests = [hashlib.sha256(prompt.encode()).hexdigest() for prompt in prompts]
            for draw, generations in self._generations(shard.stage.kind, prompts, np.arange(start, stop)):
                for task, (digest, generation) in enumerate(zip(digests, generations, strict=True), start):
                    samples.append({"task": task, **draw, "prompt": digest, **self._sample(generation)})
            if shard.stage.kind == GENERATED:
                texts = [sample["text"] for sample in samples[-len(prompts) :]]
                views += self._states(self.model(), prompts, texts)
        return ShardResult(samples, _concatenate(views))

    def _generations(
        self, kind: str, prompts: Sequence[str], tasks: np.ndarray
    ) -> Iterator[tuple[dict[str, int], list[Generation]]]:
        """Completions of the prompts: once, or per draw with the draw's index."""
        max_new_words = self.job.suite.max_new_words * LENGTH_FACTOR[self.job.generation.track]
        dialect = self.job.suite.dialect
        if kind == SAMPLED:
            for draw in range(self.job.generation.samples):
                seeds = sampling_seeds(self.job.suite, tasks, draw)
                decoding = Decoding(temperature=self.job.generation.temperature, seeds=seeds, dialect=dialect)
                yield {"sample": draw}, self.model().generate(prompts, max_new_words, decoding)
        elif kind == CONSTRAINED:
            yield {}, self.model().generate(prompts, max_new_words, Decoding(constrained=True, dialect=dialect))
        else:
            # Baselines that are no network take no decoding.
            options = () if dialect == KAREL else (Decoding(dialect=dialect),)
            yield {}, self.writer().generate(prompts, max_new_words, *options)

    def _sample(self, generation: Generation) -> dict[str, Any]:
        """The entries of one sample; in the few-shot track its program is extracted from the completion."""
        if self.job.generation.track == TRAINED:
            return vars(generation)
        text = extract_program(generation.text, self.job.suite.dialect)
        return vars(generation) | {"text": text} | ({} if text == generation.text else {"raw": generation.text})

    def _prompts(self, tasks: Tasks, outputs: Worlds | None = None) -> list[str]:
        return render_prompts(self.job.suite, tasks, outputs, self.prompt_template)

    def _states(
        self, model: LanguageModel, prompts: Sequence[str], texts: Sequence[str]
    ) -> list[dict[str, np.ndarray]]:
        """Hidden states at the valid programs among the texts: one batch, or none."""
        programs, indices = parse_programs(texts)
        return [self._at_words(model, [prompts[i] for i in indices], programs, "emit")] if len(programs) else []

    def _read_generated(self, tasks: Tasks, shard: Shard) -> ShardResult:
        model, views = self.model(shard.stage.random_init), []
        for start, stop in self._batches(shard):
            prompts = self._prompts(tasks.take(np.arange(start, stop)))
            views += self._states(model, prompts, self.job.texts[start:stop])
        return ShardResult([], _concatenate(views))

    def _read(self, tasks: Tasks, shard: Shard) -> ShardResult:
        model, views = self.model(shard.stage.random_init), []
        for start, stop in self._batches(shard):
            batch = tasks.take(np.arange(start, stop))
            alternative = shard.stage.alternative
            outputs = batch.inputs if alternative is None else crossed_outputs(batch, alternative, start)
            views.append(self._at_words(model, self._prompts(batch, outputs), batch.programs, "read"))
        return ShardResult([], _concatenate(views))

    def _at_words(
        self, model: LanguageModel, prompts: Sequence[str], programs: Programs, position: str
    ) -> dict[str, np.ndarray]:
        """float32 [action words, D] by position and view: pooled views in the standard grid, else every layer; both positions in the full grid."""
        texts = program_bodies(programs, self.job.suite.dialect)
        states: HiddenStates = model.hidden_states(prompts, texts)
        bodies = [programs.program(i)[len(HEADER) :] for i in range(len(programs))]
        is_action = np.concatenate(bodies) < FIRST_CONDITION
        if not np.isfinite(states.values).all():
            raise ModelError("hidden states: NaN or infinity; try another --dtype")
        views = {}
        for name in ("emit", "read") if self.job.grid == FULL_GRID else (position,):
            values = states.values[getattr(states, name)[is_action]]
            views[f"{name}.{MEAN}"] = values.mean(1)
            if self.job.grid == STANDARD_GRID:
                views[f"{name}.{LAST}"] = values[:, -1]
            else:
                views |= {f"{name}.layer {i}": values[:, i] for i in range(values.shape[1])}
        return views

    def _batches(self, shard: Shard) -> list[tuple[int, int]]:
        return [(a, min(a + self.batch_size, shard.stop)) for a in range(shard.start, shard.stop, self.batch_size)]


def _concatenate(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
