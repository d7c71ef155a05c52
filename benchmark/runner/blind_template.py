"""The prompt template in which hidden states are read: as that of the run, with the outputs of solved examples hidden.

The prompts of the blind set show inputs in place of outputs. In the few-shot track the solved examples do as well, so that
nothing before a program tells what words do in the original semantics.
"""

from __future__ import annotations

from dataclasses import replace

from benchmark.models.loading import load_tokenizer_or_none
from benchmark.runner.plan import Job
from benchmark.tasks.prompt_template import PLAIN, TRAINED, PromptTemplate, build_prompt_template
from benchmark.tasks.suite import shot_tasks


def blind_template(job: Job) -> PromptTemplate:
    """The template of a job's blind prompts."""
    if job.generation.track == TRAINED:
        return PLAIN
    shots = shot_tasks(job.suite)
    tokenizer = load_tokenizer_or_none(job.checkpoint)
    return build_prompt_template(job.suite, job.generation.track, tokenizer, replace(shots, outputs=shots.inputs))
