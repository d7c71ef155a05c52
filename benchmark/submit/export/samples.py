"""The samples of a submission with the texts that its samples file leaves out: the prompt and the reference program."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from benchmark.runner.record import set_recorded_prompts
from benchmark.submit.rendered_prompts import read_prompt_template
from benchmark.submit.report import VerificationReport
from benchmark.tasks.prompt_template import PLAIN, TRAINED, build_prompt_template, render_prompts
from benchmark.tasks.stage import TEST
from benchmark.tasks.suite import load_suite, shot_tasks
from benchmark.tasks.task_sets import TaskSets
from karel_env.syntax.dialects import program_bodies

SAMPLE_METRICS = ("shown", "held_out", "exact", "valid")


@dataclass(frozen=True)
class ExportedSample:
    """One test task with a model's answer.

    Attributes:
        task: number of the task.
        prompt: text of the prompt; empty if the run did not store the chat template that it stood in.
        prompt_sha256: SHA-256 of the prompt.
        reference: the program that made the examples, as it follows the prompt.
        answer: text of the model.
        tokens: tokens that the model wrote.
        finished: whether it ended by itself.
        outcome: as in the samples file.
        scores: whether the answer has each of `SAMPLE_METRICS`.
    """

    task: int
    prompt: str
    prompt_sha256: str
    reference: str
    answer: str
    tokens: int
    finished: bool
    outcome: str
    scores: dict[str, bool]


def list_samples(report: VerificationReport, folder: Path) -> list[ExportedSample]:
    """The samples of the test stage of a submission that verifies, in the order of the tasks.

    Args:
        report: report of the verification.
        folder: folder of the submission.
    """
    record = report.record
    task_sets = TaskSets(load_suite(record.suite.name, record.suite.seed))
    suite, tasks = task_sets.suite, task_sets.test
    template = PLAIN
    if record.track != TRAINED:
        suite = set_recorded_prompts(suite, record)
        has_suite_shots = suite.shots == task_sets.suite.shots
        shots = task_sets.shots if has_suite_shots else shot_tasks(suite, task_sets.test, task_sets.probe)
        template = read_prompt_template(folder, suite, shots) or build_prompt_template(suite, record.track, shots=shots)
    prompts = render_prompts(suite, tasks, template=template)
    references = program_bodies(tasks.programs)
    samples = []
    for sample in report.samples:
        if sample.stage != TEST:
            continue
        prompt = prompts[sample.task]
        is_prompt = hashlib.sha256(prompt.encode()).hexdigest() == sample.prompt
        is_valid = sample.outcome not in ("empty", "unparsable")
        samples.append(
            ExportedSample(
                sample.task, prompt if is_prompt else "", sample.prompt, references[sample.task], sample.text, sample.tokens,
                sample.finished, sample.outcome or "",
                {"shown": bool(sample.shown), "held_out": bool(sample.held_out), "exact": bool(sample.exact), "valid": is_valid},
            )
        )  # fmt: skip
    return samples
