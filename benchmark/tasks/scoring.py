"""Score generated programs: each is parsed, executed on all examples of its task, and compared with the outputs.

Letters: `N` tasks, `E` examples per task. The denominator is always N: a text that does not parse is a failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.statistics import Estimate, wilson
from benchmark.tasks.probe_sets import parse_programs
from benchmark.tasks.suite import Suite
from karel_env.generation.recipe import Tasks
from karel_env.language import HEADER, HEADER_TEXT

OUTCOMES = ("solved", "empty", "unparsable", "step limit", "wrong output")
"""Outcomes of a task on its shown examples; each task has exactly one."""


@dataclass(frozen=True)
class Scores:
    """The outcome of each task.

    Attributes:
        outcome: int8 [N], index in `OUTCOMES`, on the shown examples.
        shown, held_out: bool [N], whether all shown (held-out) examples are correct by the suite's equality.
        shown_state: bool [N], whether all shown examples are correct by equality of full states.
        exact: bool [N], whether the program equals the reference program token by token.
        num_tokens: int32 [N], length of the program in tokens after the header, -1 if the text does not parse.
        programs: N canonical texts, empty if the text does not parse.
    """

    outcome: np.ndarray
    shown: np.ndarray
    held_out: np.ndarray
    shown_state: np.ndarray
    exact: np.ndarray
    num_tokens: np.ndarray
    programs: list[str]


def score_programs(suite: Suite, tasks: Tasks, continuations: Sequence[str]) -> Scores:
    """Score the continuations of the prompts of N tasks.

    Args:
        suite: determines the number of shown examples and the equality.
        tasks: N tasks.
        continuations: N texts that follow `HEADER_TEXT`.
    """
    from karel_env.execution.interpreter import OK, TIMEOUT, run

    num_tasks = len(tasks)
    programs, valid_index = parse_programs(continuations)
    is_valid = np.zeros(num_tasks, bool)
    is_valid[valid_index] = True
    solved = {name: np.zeros((num_tasks, suite.recipe.examples), bool) for name in ("state", "drawn")}
    is_timeout = np.zeros(num_tasks, bool)
    if len(programs):
        execution = run(programs, tasks.inputs[valid_index])
        has_ended = execution.status == OK
        solved["state"][valid_index] = has_ended & execution.worlds.same_state(tasks.outputs[valid_index])
        solved["drawn"][valid_index] = has_ended & execution.worlds.same_drawing(tasks.outputs[valid_index])
        is_timeout[valid_index] = (execution.status == TIMEOUT)[:, : suite.shown].any(1)
    is_correct = solved[suite.equality]
    shown, held_out, shown_state = (
        np.asarray(hits.all(1))
        for hits in (is_correct[:, : suite.shown], is_correct[:, suite.shown :], solved["state"][:, : suite.shown])
    )
    is_empty = np.array([not text.strip() for text in continuations])
    outcome = np.select([shown, is_empty, ~is_valid, is_timeout], [0, 1, 2, 3], 4).astype(np.int8)
    exact, num_tokens, texts = np.zeros(num_tasks, bool), np.full(num_tasks, -1, np.int32), [""] * num_tasks
    num_tokens[valid_index] = programs.lengths - len(HEADER)
    for position, (index, text) in enumerate(zip(valid_index.tolist(), programs.texts(), strict=True)):
        exact[index] = programs.program(position).tobytes() == tasks.programs.program(index).tobytes()
        texts[index] = text
    return Scores(
        outcome=outcome,
        shown=shown,
        held_out=held_out,
        shown_state=shown_state,
        exact=exact,
        num_tokens=num_tokens,
        programs=texts,
    )


def check_references(suite: Suite, tasks: Tasks) -> None:
    """Check that the suite's reference programs score 100%, as every run does before it starts.

    Raises:
        AssertionError: a reference program does not solve its task, so scores of this installation are invalid.
    """
    texts = [text.removeprefix(HEADER_TEXT) for text in tasks.programs.texts()]
    scores = score_programs(suite, tasks, texts)
    if not (scores.shown & scores.held_out & scores.shown_state & scores.exact).all():
        num_failed = int((~scores.shown).sum())
        raise AssertionError(
            f"reference check: {num_failed} of {len(tasks)} reference programs do not solve their own task"
        )


@dataclass(frozen=True)
class Summary:
    """Accuracy of a run; each interval is a Wilson interval at 95%.

    Attributes:
        shown, held_out, both: share of tasks with all shown, all held-out, all examples correct.
        shown_state: as `shown`, by equality of full states (differs if the suite compares drawings).
        exact: share of tasks whose program equals the reference (exact match).
        valid: share of texts that parse (parse rate).
        distinct: share of distinct programs among the valid ones; None if there is none.
        mean_words: mean length of valid programs in tokens without header; None if there is none.
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


def describe_accuracy(summary: Summary) -> str:
    """The share of solved tasks as text."""
    shown = summary.shown
    return (
        f"{shown.value:.1%} [{shown.low:.1%}, {shown.high:.1%}] of {shown.n:,} tasks solved on all shown examples, "
        f"{summary.held_out.value:.1%} on the held-out one"
    )


def summarize(scores: Scores) -> Summary:
    """Summarize the scores of all tasks of a run.

    Args:
        scores: the scores of N tasks.

    Returns:
        Shares of N, with Wilson intervals at 95%, and counts.

    Raises:
        ValueError: there are no tasks.
    """
    num_tasks = len(scores.outcome)
    is_valid = scores.num_tokens >= 0

    def rate(hits: np.ndarray) -> Estimate:
        estimate = wilson(int(hits.sum()), num_tasks)
        if estimate is None:
            raise ValueError("summarize: no tasks")
        return estimate

    programs = [text for text in scores.programs if text]
    return Summary(
        shown=rate(scores.shown),
        held_out=rate(scores.held_out),
        both=rate(scores.shown & scores.held_out),
        shown_state=rate(scores.shown_state),
        exact=rate(scores.exact),
        valid=rate(is_valid),
        distinct=len(set(programs)) / len(programs) if programs else None,
        mean_words=float(scores.num_tokens[is_valid].mean()) if is_valid.any() else None,
        failures={name: int((scores.outcome == i).sum()) for i, name in enumerate(OUTCOMES)},
    )
