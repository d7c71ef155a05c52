"""Check the samples of a submission.

Prompt digests are recomputed, programs are extracted from the raw outputs and executed, and every figure of accuracy is
recomputed.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from benchmark.artifacts import FRAME, MAX_BYTES, PROBES, SAMPLES
from benchmark.errors import SubmissionError
from benchmark.files import sanitize, stream_rows
from benchmark.probing.protocol import Protocol
from benchmark.probing.semantic_content import (
    CONTENT_DEPTHS,
    GeneratedPrograms,
    semantic_content_from_hits,
    unpack_hits,
)
from benchmark.probing.state_source import CONTENT_HITS, RunEvidence
from benchmark.runner.plan import GenerationOptions
from benchmark.runner.record import Record, set_recorded_prompts
from benchmark.submit.rendered_prompts import has_chat_template, read_prompt_template, render_template_digest
from benchmark.submit.report import Sample, VerificationReport
from benchmark.submit.schema import LOCAL_WEIGHTS, validate_schema
from benchmark.tasks.extraction import extract_program
from benchmark.tasks.pass_at_k import summarize_constrained, summarize_sampled
from benchmark.tasks.probe_sets import first_inputs
from benchmark.tasks.prompt_template import PLAIN, TRAINED, PromptTemplate, build_prompt_template, render_prompts
from benchmark.tasks.scoring import OUTCOMES, score_programs, summarize
from benchmark.tasks.stage import CONSTRAINED, GENERATED, GENERATION_STAGES, SAMPLED, TEST, Stage
from benchmark.tasks.suite import MAX_SHOTS, Suite, shot_tasks
from benchmark.tasks.task_sets import TaskSets
from karel_env.features import PAPER_FEATURES
from karel_env.generation.recipe import Tasks
from karel_env.syntax.dialects import DIALECTS, KAREL

ACCURACY_TOLERANCE = 1e-9
"""Absolute tolerance of a recomputed figure of accuracy."""


def read_samples(folder: Path) -> list[Sample]:
    """Read the lines of `samples.jsonl.gz`; raises `SubmissionError` on the first line that does not fit the schema."""
    rows = stream_rows(folder / SAMPLES, MAX_BYTES[SAMPLES])
    return [validate_schema(Sample, row, f"{SAMPLES} line {number}") for number, row in enumerate(rows, 1)]


def generation_options_from_record(record: Record) -> GenerationOptions:
    """Return the generation options of a record."""
    sampled = record.sampled
    return GenerationOptions(
        track=record.track,
        constrained=record.constrained is not None,
        samples=sampled.samples if sampled else 0,
        temperature=sampled.temperature if sampled else 0.0,
        states=record.meaning is not None or record.model.spec.startswith("baseline:"),
    )


def prompt_digests(suite: Suite, tasks: Tasks, frame: PromptTemplate = PLAIN) -> list[str]:
    """Compute the SHA-256 of the prompt of each task."""
    return [hashlib.sha256(text.encode()).hexdigest() for text in render_prompts(suite, tasks, template=frame)]


@lru_cache(maxsize=8)
def _stage_digests(task_sets: TaskSets, stage: Stage, frame: PromptTemplate) -> list[str]:
    """Submissions of a suite and a template have the same prompts."""
    return prompt_digests(task_sets.suite, task_sets.of_stage(stage), frame)


def check_samples(report: VerificationReport, task_sets: TaskSets, folder: Path, is_proposed: bool = False) -> None:
    """Check every sample and all figures of accuracy; mismatches are added to `report`.

    Args:
        report: report of the verification.
        task_sets: task sets of the suite of the record.
        folder: folder of the submission.
        is_proposed: whether the submission comes from a pull request, and thus must store the text of its chat template.

    Raises:
        SubmissionError: a proposed submission with a chat template has no `frame.json`.
    """
    record, suite, options = report.record, task_sets.suite, generation_options_from_record(report.record)
    frame = _check_prompt(report, task_sets, folder, is_proposed)
    has_network = not record.model.spec.startswith("baseline:")
    rows_by_stage = {stage: [row for row in report.samples if row.stage == stage] for stage in GENERATION_STAGES}
    expected_counts = {
        TEST: suite.tasks,
        GENERATED: suite.probe_programs if has_network and options.states else 0,
        CONSTRAINED: suite.tasks if options.constrained else 0,
        SAMPLED: suite.tasks if options.samples else 0,
    }
    for stage, rows in rows_by_stage.items():
        check_stage(report, suite, rows, stage, expected_counts[stage], options.samples if stage == SAMPLED else 0)
        if rows and frame is not None:
            digests = _stage_digests(task_sets, Stage(stage), frame)
            for row in rows:
                expected_digest = digests[row.task] if row.task < len(digests) else None
                report.compare(f"samples.{stage}.{row.task}.prompt", row.prompt, expected_digest)
    if any(mismatch.entry.endswith(": tasks") for mismatch in report.mismatches):
        return
    _check_scores(report, task_sets, rows_by_stage[TEST])
    if record.constrained is not None:
        constrained_rows = [row.model_dump() for row in rows_by_stage[CONSTRAINED]]
        constrained = summarize_constrained(suite, task_sets.test, constrained_rows)
        report.compare("constrained", record.constrained, constrained, ACCURACY_TOLERANCE)
    if record.sampled is not None:
        sampled_rows = [row.model_dump() for row in rows_by_stage[SAMPLED]]
        sampled = summarize_sampled(suite, task_sets.test, sampled_rows, options.samples, options.temperature)
        report.compare("sampled", record.sampled, sampled, ACCURACY_TOLERANCE)
    digests_text = (
        "prompts' digests" if frame is not None else "answers (prompts in a chat template need the tokenizer)"
    )
    report.checks.append(f"samples: {len(report.samples):,} {digests_text}, {suite.tasks:,} programs executed again")
    report.checks.append("accuracy: every figure and interval")
    if expected_counts[GENERATED]:
        _check_content_counts(report, _generated_programs(report, task_sets))


def _check_prompt(
    report: VerificationReport, task_sets: TaskSets, folder: Path, is_proposed: bool
) -> PromptTemplate | None:
    """Check the prompt template of a record and return it; None for an older run that did not store its chat template."""
    record, suite = report.record, task_sets.suite
    report.compare("frame is there", record.frame is not None, record.track != TRAINED)
    if record.track == TRAINED:
        return PLAIN
    report.compare("constrained is there", record.constrained is not None, True)
    if record.frame is None:
        return build_prompt_template(suite, record.track, shots=task_sets.shots)
    claimed = record.frame
    if not 0 <= claimed.shots <= MAX_SHOTS or claimed.dialect not in DIALECTS:
        raise SubmissionError(
            f"frame: {claimed.shots} solved examples in {sanitize(claimed.dialect)}; expected 0 to {MAX_SHOTS} in "
            f"{' or '.join(DIALECTS)}"
        )
    has_suite_shots = claimed.shots == suite.shots
    suite = set_recorded_prompts(suite, record)
    shots = task_sets.shots if has_suite_shots else shot_tasks(suite, task_sets.test, task_sets.probe)
    plain = build_prompt_template(suite, record.track, shots=shots)
    if report.submission.model == LOCAL_WEIGHTS:
        report.compare("frame.chat_template", claimed.chat_template, has_chat_template(folder))
    if not claimed.chat_template:
        report.compare("frame.sha256", claimed.sha256, plain.digest)
        return plain
    frame = read_prompt_template(folder, suite, shots)
    if frame is None and is_proposed:
        raise SubmissionError(f"{FRAME}: not there; run the model again with this version, which stores the prompt")
    if frame is not None:
        report.compare("frame.sha256", claimed.sha256, frame.digest)
    if report.submission.model == LOCAL_WEIGHTS and has_chat_template(folder):
        report.compare(
            "frame.sha256, rendered again", claimed.sha256, render_template_digest(folder, suite, record.track)
        )
        report.checks.append("prompt: the chat template, rendered again")
    elif frame is None:
        report.checks.append("prompt: its chat template as claimed; the run did not store what it rendered")
    else:
        report.checks.append("prompt: shows the suite's solved examples; its chat template as claimed")
    return frame


def check_stage(
    report: VerificationReport, suite: Suite, rows: list[Sample], stage: str, num_tasks: int, samples_per_task: int
) -> None:
    """Check that a stage has every task once, or once per sample, and that each text is the program in its raw output."""
    num_expected = num_tasks * max(samples_per_task, 1)
    if len(rows) != num_expected:
        # Compare the numbers before building a list of that size: a record can claim 10^9 samples.
        report.compare(f"samples.{stage}: tasks", len(rows), num_expected)
    elif samples_per_task:
        pairs = sorted((row.task, -1 if row.sample is None else row.sample) for row in rows)
        is_complete = pairs == [(task, draw) for task in range(num_tasks) for draw in range(samples_per_task)]
        report.compare(f"samples.{stage}: tasks", is_complete, True)
    else:
        is_complete = [row.task for row in rows] == list(range(num_tasks))
        is_complete &= all(row.sample is None for row in rows)
        report.compare(f"samples.{stage}: tasks", is_complete, True)
    dialect = KAREL if report.record.frame is None else report.record.frame.dialect
    for row in rows:
        raw = row.text if row.raw is None else row.raw
        text = raw if report.record.track == TRAINED else extract_program(raw, dialect)
        report.compare(f"samples.{stage}.{row.task}.text", row.text, text)


def _check_scores(report: VerificationReport, task_sets: TaskSets, rows: list[Sample]) -> None:
    scores = score_programs(task_sets.suite, task_sets.test, [row.text for row in rows])
    for i, row in enumerate(rows):
        recomputed = {
            "outcome": OUTCOMES[scores.outcome[i]], "shown": bool(scores.shown[i]),
            "held_out": bool(scores.held_out[i]), "exact": bool(scores.exact[i]),
        }  # fmt: skip
        claimed = {name: getattr(row, name) for name in recomputed}
        if claimed != recomputed:
            report.compare(f"samples.test.{row.task}", claimed, recomputed)
    report.compare("accuracy", report.record.accuracy, summarize(scores), ACCURACY_TOLERANCE)


def _generated_programs(report: VerificationReport, task_sets: TaskSets) -> GeneratedPrograms | None:
    """The programs that the model of a submission wrote for the probe tasks; None if they do not suffice to probe them."""
    texts = tuple(row.text for row in report.samples if row.stage == GENERATED)
    return _labelled_programs(texts, task_sets, report.record.protocol)


@lru_cache(maxsize=1)
def _labelled_programs(texts: tuple[str, ...], task_sets: TaskSets, protocol: Protocol) -> GeneratedPrograms | None:
    """Two checks of a submission need them."""
    programs = GeneratedPrograms.from_texts(texts, first_inputs(task_sets.probe), protocol)
    return programs if programs is not None and programs.suffice(protocol) else None


def _check_content_counts(report: VerificationReport, programs: GeneratedPrograms | None) -> None:
    """Check the entries of semantic content that need no hidden states: numbers of programs and states, and depths."""
    content = report.record.content
    report.compare("content is there", content is not None, programs is not None)
    if content is None or programs is None:
        return
    report.compare("content.depths", sorted(content.arithmetic), sorted(CONTENT_DEPTHS))
    report.compare("content.depths", sorted(content.geometric), sorted(CONTENT_DEPTHS))
    report.compare("content.programs", content.programs, programs.num_distinct)
    report.compare("content.test_states", content.test_states, programs.num_distinct_test_states)
    for depth, figure in content.arithmetic.items():
        report.compare(f"content.{depth}.n", figure.n, programs.num_distinct_tested)
    report.checks.append("content: numbers of programs and states")


def check_semantic_content(report: VerificationReport, task_sets: TaskSets, evidence: RunEvidence) -> None:
    """Check semantic content against the stored hits of its probes; the leaderboard omits it if they are not stored."""
    record = report.record
    if record.content is None:
        report.compare(f"{PROBES}: {CONTENT_HITS} is there", evidence.content_hits is not None, False)
        return
    if evidence.content_hits is None:
        report.checks.append(
            "content: its figures not recomputed, the run stored no evidence of them; not on the board"
        )
        return
    programs = _generated_programs(report, task_sets)
    num_states = 0 if programs is None else programs.num_test_states
    expected_shape = (len(CONTENT_DEPTHS), len(PAPER_FEATURES), -(-num_states // 8))
    if programs is None or evidence.content_hits.shape != expected_shape:
        report.compare(f"{PROBES}: shape of {CONTENT_HITS}", evidence.content_hits.shape, expected_shape)
        return
    hits = unpack_hits(evidence.content_hits, num_states)
    recomputed = semantic_content_from_hits(programs, record.protocol, hits)
    report.compare("content", record.content, recomputed, ACCURACY_TOLERANCE)
    report.checks.append("content: every figure and interval, from probes.data")
