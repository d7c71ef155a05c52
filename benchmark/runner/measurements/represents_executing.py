"""*Represents* (protocol 4) behind the prompts of the execution task, where a model reads a program to tell what it does.

A prompt is the description of the language and one world; there are no solved examples, whose headings would tell what words
do. Programs, labels, probes, controls and rule are those of the few-shot track.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from benchmark.causal.execution.heading_tasks import describe_task, heading_prompts
from benchmark.errors import ModelError
from benchmark.models.loading import load_model
from benchmark.probing.version4.measure_rotation import JudgedSuite
from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD, RotationProtocol
from benchmark.probing.version4.rotation_verdict import RotationResult
from benchmark.probing.version4.track_protocol import view_layers
from benchmark.runner.blind_reading import read_blind_states
from benchmark.runner.measurements.item_words import describe_items
from benchmark.runner.measurements.represents import RepresentsCollector, RepresentsMeasurement
from benchmark.runner.plan import Job
from benchmark.runner.worker import RANDOM_INIT_SEED
from benchmark.tasks.prompt_template import FEWSHOT
from benchmark.tasks.suite import Suite
from karel_env.generation.recipe import Tasks
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


class ExecutingCollector(RepresentsCollector):
    """Reads behind the prompts of the execution task."""

    template_digest = hashlib.sha256(describe_task().encode()).hexdigest()

    def _views(self, copy: int | None, batch_scale: float) -> list[np.ndarray]:
        """See `read_executing_views`."""
        suite = replace(self.job.suite, batch=max(1, int(self.job.suite.batch * batch_scale)))
        return read_executing_views(replace(self.job, suite=suite), self.judged, copy)


def measure_represents_executing(
    job: Job, protocol: RotationProtocol = ROTATION_STANDARD, on_step: Callable[[str], None] = lambda step: None
) -> RotationResult:
    """Measure a model with its randomly initialised copies.

    Args:
        job: model, suite, dtype and device, of the few-shot track.
        protocol: settings of the probes in the trained track, of which those of the few-shot track are made.
        on_step: called with the name of each step.

    Raises:
        ModelError: the model has no hidden states, or they cannot be read.
    """
    if not job.reads_states:
        raise ModelError(f"{job.checkpoint.spec}: has no hidden states; expected a language model")
    measurement = RepresentsMeasurement(protocol)
    collector = ExecutingCollector(job, measurement.protocol_of(job))
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for item, words in describe_items(measurement.name, measurement.phases(job)).items():
        on_step(words)
        arrays[item] = collector.collect(item, arrays.__getitem__, 1.0)
    result: RotationResult = measurement.conclude(job, arrays.__getitem__).entries["rotation"]
    return result
