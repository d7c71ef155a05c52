"""*Represents* (protocol 4) behind the prompts of the execution task, where a model reads a program to tell what it does.

A prompt is the description of the language and one world; there are no solved examples, whose headings would tell what words
do. Programs, labels, probes, controls and rule are those of the few-shot track.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial

import numpy as np

from benchmark.causal.execution.heading_tasks import describe_task, heading_prompts
from benchmark.errors import ModelError
from benchmark.models.loading import load_model
from benchmark.probing.control_gap import RANDOM_INIT
from benchmark.probing.version4.measure_rotation import JudgedSuite, judge_suite
from benchmark.probing.version4.rotation_evidence import RotationEvidence, merge_evidence
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD, RotationProtocol
from benchmark.probing.version4.rotation_verdict import RotationResult
from benchmark.probing.version4.suite_controls import SuiteControls
from benchmark.probing.version4.track_protocol import rotation_protocol, view_layers
from benchmark.runner.blind_reading import read_blind_states
from benchmark.runner.evidence_cache import read_cached, untrained_copy_key, write_cached
from benchmark.runner.measurements.represents import (
    RepresentsCollector,
    collect_copy,
    conclude_rotation,
    probe_model_on,
    rotation_suite,
    seeds_of_copy,
)
from benchmark.runner.plan import Job
from benchmark.runner.worker import RANDOM_INIT_SEED
from benchmark.tasks.prompt_template import FEWSHOT
from benchmark.tasks.suite import Suite
from karel_env.recipe import Tasks
from karel_env.world import world_texts


def execution_prompts(suite: Suite, tasks: Tasks) -> list[str]:
    """The prompts of the execution task in the first input of each task, without solved examples."""
    return heading_prompts(world_texts(tasks.inputs[:, 0], suite.show_under_robot))


def read_executing_views(job: Job, judged: JudgedSuite, copy: int | None) -> list[np.ndarray]:
    """float32 [R, D] per view of the few-shot track, of a model or of its randomly initialised copy."""
    seed = None if copy is None else RANDOM_INIT_SEED + copy
    model = load_model(job.checkpoint, job.dtype, job.device, seed, f"{describe_task()}\n\n")
    read = read_blind_states(
        model, job.suite, judged.blind, select_layers=partial(view_layers, FEWSHOT),
        render=partial(execution_prompts, job.suite),
    )  # fmt: skip
    return list(read.values())


def measure_represents_executing(
    job: Job, protocol: RotationProtocol = ROTATION_STANDARD, on_step: Callable[[str], None] = lambda step: None
) -> RotationResult:
    """Measure a model with its randomly initialised copies.

    Args:
        job: model, suite, dtype and device.
        protocol: settings of the probes in the trained track, of which those of the few-shot track are made.
        on_step: called with the name of each step.

    Raises:
        ModelError: the model has no hidden states, or they cannot be read.
    """
    if not job.reads_states:
        raise ModelError(f"{job.checkpoint.spec}: has no hidden states; expected a language model")
    protocol = rotation_protocol(FEWSHOT, protocol)
    judged = judge_suite(rotation_suite(job.suite), protocol)
    on_step("hidden states")
    evidence = probe_model_on(job.device, judged, judged.judged_rows, read_executing_views(job, judged, None), protocol)
    copies = []
    for copy in range(protocol.random_inits):
        if seeds := seeds_of_copy(protocol, copy):
            on_step(f"hidden states of untrained copy {copy + 1} of {protocol.random_inits}")
            arrays = _copy_evidence(job, judged, protocol, copy)
            copies.append((seeds, RotationEvidence.from_arrays(arrays, RANDOM_INIT)))
    evidence[RANDOM_INIT] = merge_evidence(copies, protocol.seeds)
    controls = RepresentsCollector(job, protocol).suite_controls()
    return conclude_rotation(evidence, SuiteControls.from_arrays(controls), judged.judged_rows, protocol)


def _copy_evidence(job: Job, judged: JudgedSuite, protocol: RotationProtocol, copy: int) -> dict[str, np.ndarray]:
    """Evidence of a randomly initialised copy, from the cache or new."""
    digest = hashlib.sha256(describe_task().encode()).hexdigest()
    key = untrained_copy_key(job, protocol, RANDOM_INIT_SEED + copy, digest)
    cached = None if key is None else read_cached(key, job.cache)
    if cached is not None:
        return cached
    views = read_executing_views(job, judged, copy)
    arrays = collect_copy(judged, views, protocol, seeds_of_copy(protocol, copy), job.device)
    if key is not None:
        write_cached(key, arrays, job.cache)
    return arrays
