"""The answers of a submission, checked: prompts digested again, programs found and executed again, figures computed again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmark.answers import constrained_figures, sampled_figures
from benchmark.content import generated_probe_set
from benchmark.errors import SubmissionError
from benchmark.evaluation import (
    CONSTRAINED,
    GENERATED,
    SAMPLED,
    TEST,
    Asked,
    prompts_of,
    stage_tasks,
    written_programs,
)
from benchmark.extraction import answered
from benchmark.intake import read_rows, shown
from benchmark.labels import MISSING
from benchmark.record import Record
from benchmark.scoring import OUTCOMES, score, summarize
from benchmark.submission import LIMITS, RECORD, SAMPLES, checked
from benchmark.suites import Suite, test_tasks
from benchmark.tracks import BARE, TRACKS, TRAINED, Frame, frame_of
from benchmark.verified import Sample, Verified
from karel_env.features import FEATURES, PAPER_FEATURES

WRITTEN = (TEST, GENERATED, CONSTRAINED, SAMPLED)
EXACT = 1e-9
"""Largest difference of a figure of accuracy."""


def submitted_samples(folder: Path) -> list[Sample]:
    """The lines of `samples.jsonl.gz`; raises `SubmissionError`."""
    rows = read_rows(folder / SAMPLES, LIMITS[SAMPLES])
    return [checked(Sample, row, f"{SAMPLES} line {number}") for number, row in enumerate(rows, 1)]


def asked_of(record: Record) -> Asked:
    """How the programs of a record were asked for."""
    sampled = record.sampled
    return Asked(
        track=record.track,
        constrained=record.constrained is not None,
        samples=sampled.samples if sampled else 0,
        temperature=sampled.temperature if sampled else 0.0,
        states=record.meaning is not None or record.model.spec.startswith("baseline:"),
    )


@lru_cache(maxsize=8)
def prompt_digests(suite: Suite, stage: str, frame: Frame = BARE) -> list[str]:
    """SHA-256 of the prompt of each task of a stage."""
    prompts = prompts_of(suite, stage_tasks(suite, stage), frame=frame)
    return [hashlib.sha256(text.encode()).hexdigest() for text in prompts]


def compare_answers(found: Verified, suite: Suite) -> None:
    """Every line of the samples, and all figures of accuracy; differences are noted in `found`."""
    record, asked, frame = found.record, asked_of(found.record), _frame(found, suite)
    network = not record.model.spec.startswith("baseline:")
    stages = {stage: [row for row in found.samples if row.stage == stage] for stage in WRITTEN}
    wanted = {
        TEST: suite.tasks,
        GENERATED: suite.probe_programs if network and asked.states else 0,
        CONSTRAINED: suite.tasks if asked.constrained else 0,
        SAMPLED: suite.tasks if asked.samples else 0,
    }
    for stage, rows in stages.items():
        _compare_rows(found, suite, rows, stage, wanted[stage], asked.samples if stage == SAMPLED else 0)
        if rows and frame is not None:
            expected = prompt_digests(suite, stage, frame)
            for row in rows:
                said = expected[row.task] if row.task < len(expected) else None
                found.compare(f"samples.{stage}.{row.task}.prompt", row.prompt, said)
    if any(one.entry.endswith(": tasks") for one in found.differences):
        return
    _compare_scores(found, suite, stages[TEST])
    if record.constrained is not None:
        again = constrained_figures(suite, [row.model_dump() for row in stages[CONSTRAINED]])
        found.compare("constrained", record.constrained, again, EXACT)
    if record.sampled is not None:
        drawn = [row.model_dump() for row in stages[SAMPLED]]
        again_drawn = sampled_figures(suite, drawn, asked.samples, asked.temperature)
        found.compare("sampled", record.sampled, again_drawn, EXACT)
    digested = "prompts' digests" if frame is not None else "answers (prompts in a chat template need the tokenizer)"
    found.checked.append(f"samples: {len(found.samples):,} {digested}, {suite.tasks:,} programs executed again")
    found.checked.append("accuracy: every figure and interval")
    if wanted[GENERATED]:
        _compare_content(found, suite, [row.text for row in stages[GENERATED]])


def _frame(found: Verified, suite: Suite) -> Frame | None:
    """What stood around the tasks; None where a chat template laid it out, which is a program and is not run here."""
    record = found.record
    if record.track not in TRACKS:
        raise SubmissionError(f"{RECORD}: track {shown(record.track)} is not one of {', '.join(TRACKS)}")
    found.compare("frame is there", record.frame is not None, record.track != TRAINED)
    if record.frame is not None and record.frame.chat_template:
        return None
    frame = frame_of(suite, record.track)
    if record.frame is not None:
        said = (record.frame.sha256, record.frame.shots)
        found.compare("frame", said, (frame.digest, frame.shots))
    return frame


def _compare_rows(found: Verified, suite: Suite, rows: list[Sample], stage: str, tasks: int, draws: int) -> None:
    """That a stage has each task once, or once a draw; and what was found in each answer."""
    if draws:
        pairs = sorted((row.task, -1 if row.sample is None else row.sample) for row in rows)
        complete = pairs == [(task, draw) for task in range(tasks) for draw in range(draws)]
    else:
        complete = [row.task for row in rows] == list(range(tasks))
        complete &= all(row.sample is None for row in rows)
    found.compare(f"samples.{stage}: tasks", complete, True)
    for row in rows:
        raw = row.text if row.raw is None else row.raw
        text = raw if found.record.track == TRAINED else answered(raw)
        found.compare(f"samples.{stage}.{row.task}.text", row.text, text)


def _compare_scores(found: Verified, suite: Suite, rows: list[Sample]) -> None:
    scores = score(suite, test_tasks(suite), [row.text for row in rows])
    for i, row in enumerate(rows):
        again = {
            "outcome": OUTCOMES[scores.outcome[i]], "shown": bool(scores.shown[i]),
            "held_out": bool(scores.held_out[i]), "exact": bool(scores.exact[i]),
        }  # fmt: skip
        found.compare(f"samples.test.{row.task}", {name: getattr(row, name) for name in again}, again)
    found.compare("accuracy", found.record.accuracy, summarize(scores), EXACT)


def _compare_content(found: Verified, suite: Suite, texts: Sequence[str]) -> None:
    """What of the paper's columns does not need the states: how many programs and states they rest on."""
    content, protocol = found.record.content, found.record.protocol
    programs, _ = written_programs(texts)
    distinct = len({programs.program(i).tobytes() for i in range(len(programs))})
    found.compare("content is there", content is not None, distinct >= protocol.min_programs)
    if content is None or distinct < protocol.min_programs:
        return
    probe_set = generated_probe_set(suite, protocol, texts)
    tested = np.unique(np.concatenate([probe_set.split(seed).test for seed in protocol.seeds]))
    heads = [FEATURES.index(name) for group in PAPER_FEATURES for name in group]
    executed = (probe_set.classes[0, heads] != MISSING).all(0)
    found.compare("content.programs", content.programs, distinct)
    found.compare("content.test_states", content.test_states, int(executed[tested].sum()))
    found.checked.append("content: numbers of programs and states (its figures need the states)")
