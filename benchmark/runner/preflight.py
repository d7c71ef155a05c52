"""Checks before a run: the model fits the suite and the machine. Estimates time and memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmark.errors import ModelError
from benchmark.models.architecture import check_architecture
from benchmark.models.checkpoint import Checkpoint, available_memory
from benchmark.models.huggingface import DTYPES, HuggingFaceModel
from benchmark.models.json_files import (
    CONFIG_FILE,
    CONTEXT_KEYS,
    FEED_FORWARD_KEYS,
    HEAD_KEYS,
    LAYER_KEYS,
    WIDTH_KEYS,
    find_size,
    key_width,
    read_json,
)
from benchmark.models.memory import MemoryCheckpoint
from benchmark.models.tokenizer import check_token_ids, check_word_tokens, failures_as_model_errors
from benchmark.probing.full_grid import count_grid_steps
from benchmark.probing.probes import GROUPS_PER_CHUNK
from benchmark.probing.protocol import Protocol
from benchmark.probing.semantic_content import count_content_steps
from benchmark.probing.verdict import count_blind_steps
from benchmark.runner.jobs import num_threads
from benchmark.runner.measurements.cost import (
    CACHED_BYTES,
    LOAD_SECONDS,
    PROBE_FACTOR,
    SCAN_TOKEN_SECONDS,
    START_SECONDS,
    ModelCost,
    estimate_measurements,
)
from benchmark.runner.measurements.item_words import MEASUREMENT_WORDS
from benchmark.runner.measurements.measurement import Measurement
from benchmark.runner.plain_progress import format_duration
from benchmark.runner.plan import Job, Shard, plan, plan_dependent
from benchmark.tasks.prompt_template import LENGTH_FACTOR, PromptTemplate, build_prompt_template, render_prompts
from benchmark.tasks.prompts import prompt_ids
from benchmark.tasks.stage import GENERATED
from benchmark.tasks.suite import limit_test_tasks, test_tasks
from karel_env.features import class_counts
from karel_env.generation.recipe import Tasks
from karel_env.syntax.dialects import program_texts

MATMUL_SIZE = 768
NUM_STREAMED = 80
"""Matrices whose weights are read in turn: 94 MB in bfloat16."""
NUM_PREFLIGHT_TASKS = 200
"""Tasks whose prompts are tokenized."""


@dataclass(frozen=True)
class ResourceEstimate:
    """Estimated time and memory of a run; times are processor seconds of one thread.

    Attributes:
        shards: number of shards.
        prompt_tokens: tokens of the longest prompt.
        new_tokens: maximum number of generated tokens per program.
        evaluation_seconds, probing_seconds: rough, from the measured speed of a matrix product.
        memory_bytes: peak memory, rough.
        model_bytes: memory per evaluation worker, rough.
        available_bytes: memory available now.
        measurement_seconds: rough, of each measurement besides accuracy and probes, by name.
        start_seconds: rough, until the first item.
    """

    shards: int
    prompt_tokens: int
    new_tokens: int
    evaluation_seconds: float
    probing_seconds: float
    memory_bytes: int
    model_bytes: int
    available_bytes: int
    measurement_seconds: Mapping[str, float] = field(default_factory=dict)
    start_seconds: float = START_SECONDS

    @property
    def seconds(self) -> float:
        """Of the whole run, in whatever number of processes."""
        parts = self.start_seconds + self.evaluation_seconds + self.probing_seconds
        return parts + sum(self.measurement_seconds.values())

    @property
    def shard_seconds(self) -> float:
        """Of a shard of programs and states, on average."""
        return self.evaluation_seconds / max(1, self.shards)

    def check_memory(self, spec: str) -> None:
        """Check that the memory suffices; `spec` is the model's, for the message.

        Raises:
            ModelError: it does not.
        """
        if self.memory_bytes > self.available_bytes:
            raise ModelError(
                f"{spec}: needs about {self.memory_bytes / 1e9:.1f} GB of memory, {self.available_bytes / 1e9:.1f} GB are "
                "available; free some, use --dtype bfloat16, or fewer --workers"
            )

    def format_time(self, processes: int) -> str:
        """Processor time, and the time that this many processes take on idle cores."""
        text = f"about {format_duration(self.seconds)} of processor time"
        if processes > 1:
            wall = self.start_seconds + (self.seconds - self.start_seconds) / processes
            text += f", {format_duration(wall)} in {processes} processes on idle cores"
        return text


def check_fits(job: Job, protocol: Protocol, measurements: Sequence[Measurement] = ()) -> ResourceEstimate:
    """Estimate time and memory, see `estimate_resources`, and check that the memory suffices.

    Raises:
        ModelError: the context is too short for the suite's prompts, or the memory is too small.
    """
    estimate = estimate_resources(job, protocol, measurements)
    estimate.check_memory(job.checkpoint.spec)
    return estimate


def estimate_resources(job: Job, protocol: Protocol, measurements: Sequence[Measurement] = ()) -> ResourceEstimate:
    """Check that the prompts fit the context, and estimate time and memory.

    Loads only the tokenizer and the configuration. A baseline or a custom class gets a fixed memory estimate.

    Raises:
        ModelError: the context is too short for the suite's prompts.
    """
    if not job.checkpoint.has_hidden_states or job.checkpoint.is_custom:
        return ResourceEstimate(
            len(plan(job)), 0, 0, 0.0, 0.0, 600_000_000, 600_000_000, available_memory(), start_seconds=0.0
        )
    if isinstance(job.checkpoint, MemoryCheckpoint):
        config, tokenizer = job.checkpoint.config, job.checkpoint.tokenizer
    else:
        config = read_json(job.checkpoint.folder / CONFIG_FILE)
        tokenizer = HuggingFaceModel.load_tokenizer(job.checkpoint)
        check_architecture(job.checkpoint)
    # The first tasks of a suite do not depend on how many there are.
    sample = test_tasks(limit_test_tasks(job.suite, NUM_PREFLIGHT_TASKS))
    template = (
        build_prompt_template(job.suite, job.generation.track, tokenizer)
        if job.prompt_template is None
        else job.prompt_template
    )
    texts, programs = render_prompts(job.suite, sample), program_texts(sample.programs, job.suite.dialect)
    with failures_as_model_errors(job.checkpoint.spec):
        check_word_tokens(job.checkpoint.spec, tokenizer, " ".join([*texts, *programs]).split())
        prompts = [prompt_ids(tokenizer, text) for text in render_prompts(job.suite, sample, template=template)]
        answers = tokenizer(programs, add_special_tokens=False)["input_ids"]
    program_tokens = sum(map(len, answers)) / len(answers)
    check_token_ids(job.checkpoint.spec, [*prompts, *answers], find_size(config, ("vocab_size",)))
    prompt_tokens = max(map(len, prompts))
    new_tokens = HuggingFaceModel.max_new_tokens(
        tokenizer, job.suite.max_new_words * LENGTH_FACTOR[job.generation.track]
    )
    context = find_size(config, CONTEXT_KEYS)
    if context is not None and context < prompt_tokens + new_tokens:
        remedy = _fitting_shots(job, tokenizer, template, sample, context - new_tokens)
        raise ModelError(
            f"{job.checkpoint.spec}: context of {context} tokens, but suite {job.suite.name} needs {prompt_tokens} for the prompt "
            f"({template.shots} solved examples) and {new_tokens} for the program; {remedy}choose a suite with smaller worlds or a "
            "model with a longer context"
        )
    # The prefix that all prompts share is computed once.
    prefix_tokens = len(tokenizer(template.before)["input_ids"]) if template.before else 0
    return _estimate_from_tokens(
        job, protocol, prompt_tokens, new_tokens, prefix_tokens, config, program_tokens, measurements
    )  # fmt: skip


def _fitting_shots(job: Job, tokenizer: Any, template: PromptTemplate, sample: Tasks, most_tokens: int) -> str:
    """What to do so that few-shot prompts have at most so many tokens; empty if no number of solved examples fits."""

    def fits(num_shots: int) -> bool:
        suite = replace(job.suite, shots=num_shots)
        other = build_prompt_template(suite, job.generation.track, tokenizer)
        texts = render_prompts(suite, sample, template=other)
        return max(len(prompt_ids(tokenizer, text)) for text in texts) <= most_tokens

    if not template.shots or not fits(0):
        return ""
    fitting, too_many = 0, template.shots
    while too_many - fitting > 1:
        middle = (fitting + too_many) // 2
        fitting, too_many = (middle, too_many) if fits(middle) else (fitting, middle)
    return f"run it with --num-fewshot {fitting}, "


def _width_and_layers(config: dict[str, Any]) -> tuple[int, int]:
    """Those that a configuration states, else those of a model of medium size."""
    return find_size(config, WIDTH_KEYS) or 1024, find_size(config, LAYER_KEYS) or 24


def _estimate_from_tokens(
    job: Job,
    protocol: Protocol,
    prompt_tokens: int,
    new_tokens: int,
    prefix_tokens: int,
    config: dict[str, object],
    program_tokens: float,
    measurements: Sequence[Measurement],
) -> ResourceEstimate:
    speed = matmul_flops(DTYPES[job.dtype])
    # Probes of few columns are not bound by their products: the speed of bfloat16 would promise too much.
    probe_speed = matmul_flops(torch.float32)
    checkpoint, suite = job.checkpoint, job.suite
    width, layers = _width_and_layers(config)
    shards = plan(job) + plan_dependent(job)
    is_scan = str(config.get("model_type", "")).startswith("mamba")
    has_attention = find_size(config, HEAD_KEYS) is not None
    cost = ModelCost(
        2.0 * checkpoint.parameters / speed,
        SCAN_TOKEN_SECONDS if is_scan else 0.0,
        prompt_tokens - prefix_tokens,
        program_tokens + 1,
        width,
        probe_speed,
        has_attention and not is_scan,
        has_attention or is_scan,
        _pass_seconds(job),
        suite.batch,
        prefix_tokens,
        layers,
        # Products of few tokens wait for weights: they are no faster in bfloat16 than in float32.
        max(1.0, speed / probe_speed),
        4.0 * layers * width / speed if has_attention else 0.0,
    )
    evaluation = _evaluation_seconds(job, cost, shards)
    classes = sum(class_counts(suite.recipe.height[1], suite.recipe.width[1]).values())
    verdict_pass = width * protocol.hidden + protocol.hidden * classes
    first, second = protocol.deep_hidden
    content_pass = 4 * (width * (2 * first) + first * second)
    # Forward pass and weight gradients; no gradients of the states are computed.
    states_per_step = protocol.batch * 4.0
    verdict_steps = count_blind_steps(protocol) + count_grid_steps(protocol, job.grid, layers + 1)
    probing = verdict_steps * states_per_step * verdict_pass / probe_speed
    probing += count_content_steps(protocol) / 12 * states_per_step * content_pass / probe_speed
    text_tokens, read_tokens = prompt_tokens + new_tokens, prompt_tokens - prefix_tokens
    memory, model = _estimate_memory(job, protocol, text_tokens, read_tokens, classes, config)
    return ResourceEstimate(
        len(shards),
        prompt_tokens,
        new_tokens,
        evaluation,
        PROBE_FACTOR * probing if job.has_probes else 0.0,
        memory,
        model,
        available_memory(),
        estimate_measurements(job, cost, measurements),
    )


def _estimate_memory(
    job: Job, protocol: Protocol, text_tokens: int, read_tokens: int, classes: int, config: dict[str, Any]
) -> tuple[int, int]:
    """Bytes of the run and, of these, of the model.

    A batch has the suite's size; its texts have `text_tokens` tokens, of which `read_tokens` go through the model at a time.
    """
    checkpoint, suite = job.checkpoint, job.suite
    width, layers = _width_and_layers(config)
    element_bytes = torch.empty((), dtype=DTYPES[job.dtype]).element_size()
    # States stay on disk; the inputs of a probe take two bytes per value, for as many seeds as there are threads.
    states = 2 * suite.probe_programs * suite.recipe.length[1] * width * 2 * torch.get_num_threads()
    # Keys and values, and as much again while a token is appended to them.
    cached_width = key_width(config, width)
    cache = suite.batch * text_tokens * cached_width * layers * 4 * element_bytes
    # In one block at a time: three activations of its feed-forward layer, and shared keys and values repeated per query head.
    activations = 3 * read_tokens * (find_size(config, FEED_FORWARD_KEYS) or 4 * width)
    activations += 2 * text_tokens * width if cached_width < width else 0
    probes = torch.get_num_threads() * GROUPS_PER_CHUNK * (width + classes) * protocol.hidden * 4 * 6
    # With a device map accelerate places the weights by what is free, and loading fails where nothing is.
    is_placed = checkpoint.device_map is not None
    weights = 0 if is_placed else checkpoint.parameters * element_bytes * 2 + checkpoint.weight_bytes
    model = weights + cache + suite.batch * activations * element_bytes + 600_000_000
    return int(model + 3 * states + probes), int(model)


def _evaluation_seconds(job: Job, cost: ModelCost, shards: Sequence[Shard]) -> float:
    """Seconds to load the model and its copies, and to write and read the programs of all shards."""
    written = sum(shard.stop - shard.start for shard in shards if shard.stage.is_generating)
    read = sum(
        shard.stop - shard.start
        for shard in shards
        if not shard.stage.is_generating or (job.reads_states and shard.stage.kind == GENERATED)
    )
    # Programs of the suite's length are counted, not the longest that a model may write. Each prompt is read once per program.
    evaluation = cost.load() + cost.write(written) + replace(cost, shares_prompts=False).read(read, read)
    # Every copy is initialised once, and reads the prefix that all prompts share once.
    num_copies = job.random_inits if job.has_probes else 0
    return evaluation + num_copies * (LOAD_SECONDS + cost.prefix())


def _pass_seconds(job: Job) -> float:
    """Seconds in which the weights of a model come from memory once; 0 for a model that the cache holds."""
    num_bytes = job.checkpoint.parameters * torch.empty((), dtype=DTYPES[job.dtype]).element_size()
    if num_bytes <= CACHED_BYTES or job.device != "cpu":
        return 0.0
    return num_bytes / weight_bytes_per_second(DTYPES[job.dtype], job.suite.batch)


def _fastest_seconds(compute: Callable[[], object]) -> float:
    """Processor seconds of the fastest call within 0.15 s of them, by one thread.

    Time that other processes of the machine take is not counted, and the fastest call is the one that they disturb the least.
    """
    with num_threads(1):
        compute()
        end, fastest = time.thread_time() + 0.15, math.inf
        while fastest == math.inf or time.thread_time() < end:
            start = time.thread_time()
            compute()
            fastest = min(fastest, time.thread_time() - start)
    return fastest


def matmul_flops(dtype: torch.dtype) -> float:
    """Floating-point operations per processor second of a matrix product on one core, measured for 0.15 s."""
    a = torch.randn(MATMUL_SIZE, MATMUL_SIZE).to(dtype)
    return 2.0 * MATMUL_SIZE**3 / _fastest_seconds(lambda: a @ a)


def weight_bytes_per_second(dtype: torch.dtype, rows: int) -> float:
    """Bytes of weights per second in products with few rows, measured for 0.15 s on more weights than a cache holds."""
    weights = torch.randn(NUM_STREAMED, MATMUL_SIZE, MATMUL_SIZE).to(dtype)
    inputs = torch.randn(rows, MATMUL_SIZE).to(dtype)
    linear = torch.nn.functional.linear
    return weights.nbytes / _fastest_seconds(lambda: [linear(inputs, weight) for weight in weights])


def describe_start(job: Job, estimate: ResourceEstimate, folder: Path, processes: int = 0) -> str:
    """One line on a run that starts: model, suite, estimated time and run folder."""
    duration = f"{estimate.format_time(processes)} (rough)" if estimate.seconds else "time not estimated"
    tasks = f"{job.suite.tasks:,} test tasks"
    return f"{job.checkpoint.spec} on suite {job.suite.name}: {tasks}, {duration}; run folder {folder}"


def describe_plan(checkpoint: Checkpoint, job: Job, estimate: ResourceEstimate, processes: int = 0) -> str:
    """Text of `--dry-run`."""
    parts = {
        "start": estimate.start_seconds,
        "programs and states": estimate.evaluation_seconds,
        "probes": estimate.probing_seconds,
        **{MEASUREMENT_WORDS[name]: seconds for name, seconds in estimate.measurement_seconds.items()},
    }
    if not job.has_probes:
        del parts["probes"]
    probes = (
        f", probes of protocol 3 trained on {job.suite.probe_programs} programs, {job.grid} grid of states"
        if job.has_probes
        else ""
    )
    num_parts = f"{estimate.shards} part{'' if estimate.shards == 1 else 's'}"
    return "\n".join(
        [
            f"model      {checkpoint.spec} ({checkpoint.parameters:,} parameters, {job.dtype} on {job.device})",
            f"suite      {job.suite.name}: {job.suite.tasks} test tasks{probes}",
            f"tokens     {estimate.prompt_tokens} per prompt, up to {estimate.new_tokens} new",
            f"work       {num_parts} of up to {job.suite.shard} tasks or programs, and the measurements",
            f"time       {estimate.format_time(processes)} ("
            f"{', '.join(f'{name} {seconds:.0f} s' for name, seconds in parts.items())}); rough, from a matrix product "
            "measured now in processor time",
            f"memory     about {estimate.memory_bytes / 1e9:.1f} GB; {estimate.available_bytes / 1e9:.1f} GB available",
        ]
    )
