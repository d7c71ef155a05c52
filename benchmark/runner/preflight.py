"""Before a run: does the model fit the suite and the machine, and what will it take?"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmark.errors import ModelError
from benchmark.models.architecture import check_architecture
from benchmark.models.checkpoint import Checkpoint, available_memory
from benchmark.models.huggingface import DTYPES, HuggingFaceModel
from benchmark.models.json_files import CONFIG, read_json
from benchmark.models.tokenizer import check_ids, check_words, named_failures
from benchmark.probing.full_grid import count_grid_steps
from benchmark.probing.probes import GROUPS_PER_CHUNK, select_matmul_dtype
from benchmark.probing.protocol import Protocol
from benchmark.probing.semantic_content import count_content_steps
from benchmark.probing.verdict import count_blind_steps
from benchmark.runner.plan import Job, plan, plan_dependent
from benchmark.tasks.prompt_template import LENGTH_FACTOR, build_prompt_template, render_prompts
from benchmark.tasks.prompts import prompt_ids
from benchmark.tasks.suite import test_tasks
from karel_env.features import class_counts

MATMUL_SIZE = 768
NUM_PREFLIGHT_TASKS = 200
"""Tasks whose prompts are measured."""
OVERHEAD_FACTOR = 1.6
"""Time of a run over the time of its matrix products alone, as measured on the shipped model."""


@dataclass(frozen=True)
class ResourceEstimate:
    """What a run will take.

    Attributes:
        shards: in all.
        prompt_tokens, new_tokens: longest prompt, and room for a program.
        evaluation_seconds, probing_seconds: rough, from the speed of a matrix product measured just now.
        memory_bytes: largest at any time, rough.
        model_bytes: of a worker that evaluates, rough.
        available_bytes: of memory now.
    """

    shards: int
    prompt_tokens: int
    new_tokens: int
    evaluation_seconds: float
    probing_seconds: float
    memory_bytes: int
    model_bytes: int
    available_bytes: int


def check_fits(job: Job, protocol: Protocol) -> ResourceEstimate:
    """Load the tokenizer and the configuration only, and estimate; only memory for a baseline or a class of the user's.

    Raises:
        ModelError: the context is too short for the suite's prompts, or memory will not do.
    """
    if not job.checkpoint.network or job.checkpoint.own:
        return ResourceEstimate(len(plan(job)), 0, 0, 0.0, 0.0, 600_000_000, 600_000_000, available_memory())
    config = read_json(job.checkpoint.folder / CONFIG)
    tokenizer = HuggingFaceModel.load_tokenizer(job.checkpoint)
    check_architecture(job.checkpoint)
    # The first tasks of a suite do not depend on how many there are.
    sample = test_tasks(replace(job.suite, tasks=min(NUM_PREFLIGHT_TASKS, job.suite.tasks), sha256=""))
    frame = build_prompt_template(job.suite, job.generation.track, tokenizer) if job.prompt_template is None else job.prompt_template
    texts, programs = render_prompts(job.suite, sample), sample.programs.texts()
    with named_failures(job.checkpoint.spec):
        check_words(job.checkpoint.spec, tokenizer, " ".join([*texts, *programs]).split())
        prompts = [prompt_ids(tokenizer, text) for text in render_prompts(job.suite, sample, frame=frame)]
        answers = tokenizer(programs, add_special_tokens=False)["input_ids"]
    vocabulary = next((part["vocab_size"] for part in _text_configs(config) if isinstance(part.get("vocab_size"), int)), None)
    check_ids(job.checkpoint.spec, [*prompts, *answers], vocabulary)
    prompt = max(map(len, prompts))
    new = HuggingFaceModel.room(tokenizer, job.suite.max_new_words * LENGTH_FACTOR[job.generation.track])
    context = config.get("max_position_embeddings") or config.get("n_positions") or config.get("max_seq_len")
    if isinstance(context, int) and 0 < context < prompt + new:
        raise ModelError(
            f"{job.checkpoint.spec}: context of {context} tokens, but suite {job.suite.name} needs {prompt} for the prompt "
            f"({frame.shots} solved examples) and {new} for the program; choose a suite with smaller worlds or a model "
            "with a longer context"
        )
    # What stands before every task is computed once.
    preamble = len(tokenizer(frame.before)["input_ids"]) if frame.before else 0
    estimate = _estimate_resources(job, protocol, prompt, new, preamble, config)
    if estimate.memory_bytes > estimate.available_bytes:
        raise ModelError(
            f"{job.checkpoint.spec}: needs about {estimate.memory_bytes / 1e9:.1f} GB of memory, "
            f"{estimate.available_bytes / 1e9:.1f} GB are available; free some, use --dtype bfloat16, or fewer --workers"
        )
    return estimate


def _text_configs(config: dict[str, Any]) -> list[dict[str, Any]]:
    """A configuration's parts that may speak of the text model, the most specific first."""
    return [part for part in (config.get("text_config"), config) if isinstance(part, dict)]


def _estimate_resources(
    job: Job, protocol: Protocol, prompt: int, new: int, preamble: int, config: dict[str, object]
) -> ResourceEstimate:
    speed, probe_speed = matmul_flops(DTYPES[job.dtype]), matmul_flops(select_matmul_dtype())
    checkpoint, suite = job.checkpoint, job.suite
    width = next((int(str(config[k])) for k in ("hidden_size", "n_embd", "d_model") if k in config), 1024)
    layers = next((int(str(config[k])) for k in ("num_hidden_layers", "n_layer", "n_layers") if k in config), 24)
    shards = plan(job) + plan_dependent(job)
    items = sum(shard.stop - shard.start for shard in shards)
    evaluation = items * (prompt - preamble + new) * 2.0 * checkpoint.parameters / speed
    classes = sum(class_counts(suite.recipe.height[1], suite.recipe.width[1]).values())
    verdict_pass = width * protocol.hidden + protocol.hidden * classes
    first, second = protocol.deep_hidden
    content_pass = 4 * (width * (2 * first) + first * second)
    # Forward, and the gradient of the weights: a probe has no use for that of its states.
    states_a_step = protocol.batch * 4.0
    verdict_steps = count_blind_steps(protocol) + count_grid_steps(protocol, job.grid, layers + 1)
    probing = verdict_steps * states_a_step * verdict_pass / probe_speed
    probing += count_content_steps(protocol) / 12 * states_a_step * content_pass / probe_speed
    item = torch.empty((), dtype=DTYPES[job.dtype]).element_size()
    stored = checkpoint.weight_bytes
    # States stay on disk; a probe's inputs are two bytes a value, of as many seeds as there are threads.
    states = 2 * suite.probe_programs * suite.recipe.length[1] * width * 2 * torch.get_num_threads()
    cache = suite.batch * (prompt + new) * width * layers * 4 * item
    probes = torch.get_num_threads() * GROUPS_PER_CHUNK * (width + classes) * protocol.hidden * 4 * 6
    model = checkpoint.parameters * item * 2 + stored + cache + 600_000_000
    memory = model + 3 * states + probes
    return ResourceEstimate(
        len(shards), prompt, new, OVERHEAD_FACTOR * evaluation, OVERHEAD_FACTOR * probing, int(memory), int(model), available_memory()
    )


def matmul_flops(dtype: torch.dtype) -> float:
    """Floating-point operations a second of a matrix product on this machine's processor, measured for a moment."""
    a = torch.randn(MATMUL_SIZE, MATMUL_SIZE).to(dtype)
    a @ a
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < 0.15:
        a @ a
        count += 1
    return 2.0 * MATMUL_SIZE**3 * count / (time.perf_counter() - began)


def describe_plan(checkpoint: Checkpoint, job: Job, estimate: ResourceEstimate) -> str:
    """What would run, for `--dry-run`."""
    minutes = (estimate.evaluation_seconds + estimate.probing_seconds) / 60
    return "\n".join(
        [
            f"model      {checkpoint.spec} ({checkpoint.parameters:,} parameters, {job.dtype} on {job.device})",
            f"suite      {job.suite.name}: {job.suite.tasks} test tasks, label budget {job.suite.probe_programs} programs, {job.grid} grid",
            f"tokens     {estimate.prompt_tokens} a prompt, up to {estimate.new_tokens} new",
            f"work       {estimate.shards} shards of up to {job.suite.shard} items",
            f"time       about {minutes:.0f} min in one process (evaluation {estimate.evaluation_seconds:.0f} s, "
            f"probing {estimate.probing_seconds:.0f} s); rough, from a matrix product measured now",
            f"memory     about {estimate.memory_bytes / 1e9:.1f} GB; {estimate.available_bytes / 1e9:.1f} GB available",
        ]
    )
