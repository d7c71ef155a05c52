"""The programs that a model writes for the probe tasks of a suite, with its hidden states where it predicts each word."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmark.errors import UsageError
from benchmark.models.checkpoint import Checkpoint
from benchmark.probing.written.content_labels import WrittenPrograms
from benchmark.runner.plan import Job
from benchmark.runner.probe_answers import answer_probe_tasks
from benchmark.tasks.suite import load_suite, probe_tasks


def write_programs(
    checkpoint: Checkpoint,
    suite_name: str,
    num_tasks: int | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    threads: int = 1,
) -> tuple[WrittenPrograms, np.ndarray]:
    """Let a model answer the probe tasks.

    Returns:
        The valid programs, and float32 [R, D], the mean over layers at `emit` for each action word, in order.

    Raises:
        UsageError: the model has no hidden states, or none of its answers is a program.
    """
    import torch

    if not checkpoint.has_hidden_states:
        raise UsageError(f"--model {checkpoint.spec}: has no hidden states; expected path:FOLDER or hf:org/name")
    suite = load_suite(suite_name)
    suite = replace(suite, probe_programs=num_tasks or suite.probe_programs)
    torch.set_num_threads(threads)
    job = Job(suite, checkpoint, dtype, device, random_inits=0)
    texts, states = answer_probe_tasks(job)
    written = WrittenPrograms.from_texts(texts, probe_tasks(suite))
    if written is None:
        raise UsageError(
            f"{checkpoint.spec}: none of its {len(texts):,} answers is a program; expected a model of Karel"
        )
    return written, states
