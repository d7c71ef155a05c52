"""Scores of generated programs: each is parsed, run on all examples of its task, and compared.

Letters: `N` tasks, `E` examples a task. The denominator is always N: a text that is not a program is a failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.statistics import Estimate, wilson
from benchmark.tasks.suite import Suite
from karel_env.generator import Tasks
from karel_env.interpreter import OK, TIMEOUT, run
from karel_env.language import HEADER_TEXT, Programs
from karel_env.parser import ParseError, parse

OUTCOMES = ("solved", "empty", "unparsable", "step limit", "wrong output")
"""What became of a task on its shown examples; each task has one."""


@dataclass(frozen=True)
class Scores:
    """The outcome of each task.

    Attributes:
        outcome: int8 [N], index in `OUTCOMES`, on the shown examples.
        shown, held_out: bool [N], all shown, all held-out examples right by the suite's equality.
        shown_state: bool [N], all shown examples right in full state.
        exact: bool [N], the program is the reference program, word for word.
        words: int32 [N], length of the program in words after the header, -1 where there is none.
        programs: N canonical texts, empty where there is none.
    """

    outcome: np.ndarray
    shown: np.ndarray
    held_out: np.ndarray
    shown_state: np.ndarray
    exact: np.ndarray
    words: np.ndarray
    programs: list[str]


def score_programs(suite: Suite, tasks: Tasks, continuations: Sequence[str]) -> Scores:
    """Score what a model wrote behind the prompt of each task.

    Args:
        suite: gives the number of shown examples and the equality.
        tasks: N tasks.
        continuations: N texts that follow `HEADER_TEXT`.
    """
    count = len(tasks)
    parsed = [_parse(text) for text in continuations]
    valid = np.array([p is not None for p in parsed])
    solved = {name: np.zeros((count, suite.recipe.examples), bool) for name in ("state", "drawn")}
    timeout = np.zeros(count, bool)
    if valid.any():
        programs = Programs.of([p for p in parsed if p is not None])
        valid_index = np.flatnonzero(valid)
        execution = run(programs, tasks.inputs[valid_index])
        has_ended = execution.status == OK
        solved["state"][valid_index] = has_ended & execution.worlds.same_state(tasks.outputs[valid_index])
        solved["drawn"][valid_index] = has_ended & execution.worlds.same_drawing(tasks.outputs[valid_index])
        timeout[valid_index] = (execution.status == TIMEOUT)[:, : suite.shown].any(1)
    is_right = solved[suite.equality]
    shown, held_out, shown_state = (
        np.asarray(hits.all(1))
        for hits in (is_right[:, : suite.shown], is_right[:, suite.shown :], solved["state"][:, : suite.shown])
    )
    empty = np.array([not text.strip() for text in continuations])
    outcome = np.select([shown, empty, ~valid, timeout], [0, 1, 2, 3], 4).astype(np.int8)
    references = [tasks.programs.program(i) for i in range(count)]
    return Scores(
        outcome=outcome,
        shown=shown,
        held_out=held_out,
        shown_state=shown_state,
        exact=np.array([p is not None and np.array_equal(p, r) for p, r in zip(parsed, references, strict=True)]),
        words=np.array([-1 if p is None else len(p) - 3 for p in parsed], np.int32),
        programs=["" if p is None else text for p, text in zip(parsed, _canonical_texts(parsed), strict=True)],
    )


def _parse(continuation: str) -> np.ndarray | None:
    try:
        return parse(f"{HEADER_TEXT} {continuation}")
    except ParseError:
        return None


def _canonical_texts(parsed: Sequence[np.ndarray | None]) -> list[str]:
    return Programs.of([p if p is not None else np.zeros(0, np.int16) for p in parsed]).texts()


def check_references(suite: Suite, tasks: Tasks) -> None:
    """The reference check of every run: the suite's own programs through the scorer must give 100%.

    Raises:
        AssertionError: they do not, so scores of this installation mean nothing.
    """
    texts = [text.removeprefix(HEADER_TEXT) for text in tasks.programs.texts()]
    scores = score_programs(suite, tasks, texts)
    if not (scores.shown & scores.held_out & scores.shown_state & scores.exact).all():
        wrong = int((~scores.shown).sum())
        raise AssertionError(f"reference check: {wrong} of {len(tasks)} reference programs do not solve their own task")


@dataclass(frozen=True)
class Summary:
    """Accuracy figures of a run; each interval is Wilson's at 95%.

    Attributes:
        shown, held_out, both: tasks with all shown, all held-out, all examples right.
        shown_state: as `shown` by equality of full states (differs where the suite compares drawings).
        exact: tasks whose program is the reference.
        valid: texts that are programs.
        distinct: share of different programs among the valid ones; None if there is none.
        mean_words: of valid programs, header left out; None if there is none.
        failures: number of tasks by outcome.
    """

    shown: Estimate
    held_out: Estimate
    both: Estimate
    shown_state: Estimate
    exact: Estimate
    valid: Estimate
    distinct: float | None
    mean_words: float | None
    failures: dict[str, int]


def summarize(scores: Scores) -> Summary:
    """The accuracy figures of all tasks of a run."""
    n = len(scores.outcome)
    valid = scores.words >= 0

    def share(hits: np.ndarray) -> Estimate:
        estimate = wilson(int(hits.sum()), n)
        if estimate is None:
            raise ValueError("summarize: no tasks")
        return estimate

    programs = [text for text in scores.programs if text]
    return Summary(
        shown=share(scores.shown),
        held_out=share(scores.held_out),
        both=share(scores.shown & scores.held_out),
        shown_state=share(scores.shown_state),
        exact=share(scores.exact),
        valid=share(valid),
        distinct=len(set(programs)) / len(programs) if programs else None,
        mean_words=float(scores.words[valid].mean()) if valid.any() else None,
        failures={name: int((scores.outcome == i).sum()) for i, name in enumerate(OUTCOMES)},
    )
