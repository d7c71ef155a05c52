"""What a model answers to the probe tasks of a suite, with its hidden states where it predicts each word."""

from __future__ import annotations

import numpy as np

from benchmark.probing.protocol import MEAN
from benchmark.runner.plan import Job, shards_of
from benchmark.runner.worker import Worker
from benchmark.tasks.stage import GENERATED, Stage


def answer_probe_tasks(job: Job) -> tuple[list[str], np.ndarray]:
    """Answer the probe tasks in this process.

    Returns:
        The text per task, and float32 [R, D], mean over layers at `emit` for each action word of the valid programs, in
        order; [0] if there is no such word.
    """
    worker = Worker(job)
    # Not the shards of `plan`: a preview, and a run without protocol 3, plan none of the probe tasks.
    results = [worker.evaluate(shard) for shard in shards_of(job.suite, Stage(GENERATED))]
    texts = [sample["text"] for result in results for sample in result.samples]
    view = f"emit.{MEAN}"
    parts = [result.states[view] for result in results if view in result.states]
    # A shard without a valid program has states of no width.
    return texts, np.concatenate([part for part in parts if len(part)] or [np.zeros(0, np.float32)])
