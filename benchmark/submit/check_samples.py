"""The answers of a submission, checked: prompts digested again, programs found and executed again, figures computed again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmark.artifacts import FRAME, MAX_BYTES, PROBES, SAMPLES
from benchmark.errors import SubmissionError
from benchmark.files import stream_rows
from benchmark.probing.semantic_content import CONTENT_DEPTHS, semantic_content_from_hits, count_hit_states, unpack_hits
from benchmark.probing.verdict import CONTENT_HITS
from benchmark.runner.plan import GenerationOptions
from benchmark.runner.record import Record
from benchmark.submit.rendered_prompts import has_chat_template, render_template_digest, read_prompt_template
from benchmark.submit.report import Sample, VerificationReport
from benchmark.submit.schema import LOCAL_WEIGHTS, validate_schema
from benchmark.tasks.extraction import extract_program
from benchmark.tasks.pass_at_k import summarize_constrained, summarize_sampled
from benchmark.tasks.probe_sets import stage_tasks, parse_programs
from benchmark.tasks.prompt_template import PLAIN, TRAINED, PromptTemplate, build_prompt_template, render_prompts
from benchmark.tasks.scoring import OUTCOMES, score, summarize
from benchmark.tasks.stage import CONSTRAINED, GENERATED, SAMPLED, TEST
from benchmark.tasks.suite import Suite, test_tasks
from karel_env.features import PAPER_FEATURES

GENERATION_STAGES = (TEST, GENERATED, CONSTRAINED, SAMPLED)
ACCURACY_TOLERANCE = 1e-9
"""Largest difference of a figure of accuracy."""


def read_samples(folder: Path) -> list[Sample]:
    """The lines of `samples.jsonl.gz`; raises `SubmissionError`."""
    rows = stream_rows(folder / SAMPLES, MAX_BYTES[SAMPLES])
    return [validate_schema(Sample, row, f"{SAMPLES} line {number}") for number, row in enumerate(rows, 1)]


def generation_options_of_record(record: Record) -> GenerationOptions:
    """How the programs of a record were asked for."""
    sampled = record.sampled
    return GenerationOptions(
        track=record.track,
        constrained=record.constrained is not None,
        samples=sampled.samples if sampled else 0,
        temperature=sampled.temperature if sampled else 0.0,
        states=record.meaning is not None or record.model.spec.startswith("baseline:"),
    )


@lru_cache(maxsize=8)
def prompt_digests(suite: Suite, stage: str, frame: PromptTemplate = PLAIN) -> list[str]:
    """SHA-256 of the prompt of each task of a stage."""
    prompts = render_prompts(suite, stage_tasks(suite, stage), frame=frame)
    return [hashlib.sha256(text.encode()).hexdigest() for text in prompts]


def check_samples(found: VerificationReport, suite: Suite, folder: Path, incoming: bool = False) -> None:
    """Every line of the samples, and all figures of accuracy; differences are noted in `found`.

    Args:
        found: of the verification.
        suite: of the record.
        folder: of the submission.
        incoming: it comes from outside, so a prompt that a chat template laid out must be stored with it.
    """
    record, asked, frame = (
        found.record,
        generation_options_of_record(found.record),
        _check_prompt(found, suite, folder, incoming),
    )
    network = not record.model.spec.startswith("baseline:")
    stages = {stage: [row for row in found.samples if row.stage == stage] for stage in GENERATION_STAGES}
    wanted = {
        TEST: suite.tasks,
        GENERATED: suite.probe_programs if network and asked.states else 0,
        CONSTRAINED: suite.tasks if asked.constrained else 0,
        SAMPLED: suite.tasks if asked.samples else 0,
    }
    for stage, rows in stages.items():
        _check_stage(found, suite, rows, stage, wanted[stage], asked.samples if stage == SAMPLED else 0)
        if rows and frame is not None:
            expected = prompt_digests(suite, stage, frame)
            for row in rows:
                said = expected[row.task] if row.task < len(expected) else None
                found.compare(f"samples.{stage}.{row.task}.prompt", row.prompt, said)
    if any(one.entry.endswith(": tasks") for one in found.mismatches):
        return
    _check_scores(found, suite, stages[TEST])
    if record.constrained is not None:
        again = summarize_constrained(suite, [row.model_dump() for row in stages[CONSTRAINED]])
        found.compare("constrained", record.constrained, again, ACCURACY_TOLERANCE)
    if record.sampled is not None:
        drawn = [row.model_dump() for row in stages[SAMPLED]]
        again_drawn = summarize_sampled(suite, drawn, asked.samples, asked.temperature)
        found.compare("sampled", record.sampled, again_drawn, ACCURACY_TOLERANCE)
    digested = "prompts' digests" if frame is not None else "answers (prompts in a chat template need the tokenizer)"
    found.checked.append(f"samples: {len(found.samples):,} {digested}, {suite.tasks:,} programs executed again")
    found.checked.append("accuracy: every figure and interval")
    if wanted[GENERATED]:
        _check_content_counts(found, suite, [row.text for row in stages[GENERATED]])


def _check_prompt(found: VerificationReport, suite: Suite, folder: Path, incoming: bool) -> PromptTemplate | None:
    """What stood around the tasks; None where an older run of a chat template did not store it."""
    record = found.record
    found.compare("frame is there", record.frame is not None, record.track != TRAINED)
    if record.track == TRAINED:
        return PLAIN
    found.compare("constrained is there", record.constrained is not None, True)
    plain = build_prompt_template(suite, record.track)
    if record.frame is None:
        return plain
    said = record.frame
    found.compare("frame.shots", said.shots, plain.shots)
    if found.submission.model == LOCAL_WEIGHTS:
        found.compare("frame.chat_template", said.chat_template, has_chat_template(folder))
    if not said.chat_template:
        found.compare("frame.sha256", said.sha256, plain.digest)
        return plain
    frame = read_prompt_template(folder, suite)
    if frame is None and incoming:
        raise SubmissionError(f"{FRAME}: not there; run the model again with this version, which stores the prompt")
    if frame is not None:
        found.compare("frame.sha256", said.sha256, frame.digest)
    if found.submission.model == LOCAL_WEIGHTS and has_chat_template(folder):
        found.compare("frame.sha256, rendered again", said.sha256, render_template_digest(folder, suite, record.track))
        found.checked.append("prompt: the chat template, rendered again")
    elif frame is None:
        found.checked.append("prompt: its chat template as claimed; the run did not store what it rendered")
    else:
        found.checked.append("prompt: shows the suite's solved examples; its chat template as claimed")
    return frame


def _check_stage(
    found: VerificationReport, suite: Suite, rows: list[Sample], stage: str, tasks: int, draws: int
) -> None:
    """That a stage has each task once, or once a draw; and what was found in each answer."""
    expected = tasks * max(draws, 1)
    if len(rows) != expected:
        # Before anything of that size is built: a record may speak of a thousand million draws.
        found.compare(f"samples.{stage}: tasks", len(rows), expected)
    elif draws:
        pairs = sorted((row.task, -1 if row.sample is None else row.sample) for row in rows)
        complete = pairs == [(task, draw) for task in range(tasks) for draw in range(draws)]
        found.compare(f"samples.{stage}: tasks", complete, True)
    else:
        complete = [row.task for row in rows] == list(range(tasks))
        complete &= all(row.sample is None for row in rows)
        found.compare(f"samples.{stage}: tasks", complete, True)
    for row in rows:
        raw = row.text if row.raw is None else row.raw
        text = raw if found.record.track == TRAINED else extract_program(raw)
        found.compare(f"samples.{stage}.{row.task}.text", row.text, text)


def _check_scores(found: VerificationReport, suite: Suite, rows: list[Sample]) -> None:
    scores = score(suite, test_tasks(suite), [row.text for row in rows])
    for i, row in enumerate(rows):
        again = {
            "outcome": OUTCOMES[scores.outcome[i]], "shown": bool(scores.shown[i]),
            "held_out": bool(scores.held_out[i]), "exact": bool(scores.exact[i]),
        }  # fmt: skip
        found.compare(f"samples.test.{row.task}", {name: getattr(row, name) for name in again}, again)
    found.compare("accuracy", found.record.accuracy, summarize(scores), ACCURACY_TOLERANCE)


def _check_content_counts(found: VerificationReport, suite: Suite, texts: Sequence[str]) -> None:
    """What of the paper's columns does not need the states: how many programs and states they rest on."""
    content, protocol = found.record.content, found.record.protocol
    programs, _ = parse_programs(texts)
    distinct = len({programs.program(i).tobytes() for i in range(len(programs))})
    found.compare("content is there", content is not None, distinct >= protocol.min_programs)
    if content is None or distinct < protocol.min_programs:
        return
    # Where a probe that is always right would stand: its n and numbers are those of any probe.
    states = count_hit_states(suite, protocol, texts) or 0
    perfect = np.ones((len(CONTENT_DEPTHS), len(PAPER_FEATURES), states), bool)
    known = semantic_content_from_hits(suite, protocol, texts, perfect)
    assert known is not None
    found.compare("content.depths", sorted(content.arithmetic), sorted(known.arithmetic))
    found.compare("content.depths", sorted(content.geometric), sorted(known.geometric))
    found.compare("content.programs", content.programs, known.programs)
    found.compare("content.test_states", content.test_states, known.test_states)
    for depth, figure in content.arithmetic.items():
        found.compare(f"content.{depth}.n", figure.n, known.arithmetic[CONTENT_DEPTHS[0]].n)
    found.checked.append("content: numbers of programs and states")


def check_semantic_content(found: VerificationReport, suite: Suite, arrays: Mapping[str, np.ndarray]) -> None:
    """The paper's columns, from where its probes are right, if the run stored it; the board shows no others."""
    record = found.record
    if record.content is None:
        found.compare(f"{PROBES}: {CONTENT_HITS} is there", CONTENT_HITS in arrays, False)
        return
    if CONTENT_HITS not in arrays:
        found.checked.append(
            "content: its figures not recomputed, the run stored no evidence of them; not on the board"
        )
        return
    texts = [row.text for row in found.samples if row.stage == GENERATED]
    states = count_hit_states(suite, record.protocol, texts)
    packed = arrays[CONTENT_HITS]
    expected = (len(CONTENT_DEPTHS), len(PAPER_FEATURES), -(-(states or 0) // 8))
    if states is None or packed.shape != expected:
        found.compare(f"{PROBES}: shape of {CONTENT_HITS}", packed.shape, expected)
        return
    again = semantic_content_from_hits(suite, record.protocol, texts, unpack_hits(packed, states))
    found.compare("content", record.content, again, ACCURACY_TOLERANCE)
    found.checked.append("content: every figure and interval, from probes.data")
