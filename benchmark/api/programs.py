"""Tasks of a suite, their prompts, the programs that a model writes for them, and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmark.api.inputs import InputError
from benchmark.api.model import as_model
from benchmark.tasks.prompt_template import render_prompts
from benchmark.tasks.scoring import Scores
from benchmark.tasks.scoring import score_programs as score_continuations
from benchmark.tasks.suite import Suite, load_suite, test_tasks
from karel_env.generation.recipe import Tasks
from karel_env.language import HEADER_TEXT


def load_tasks(suite: Suite | str = "laptop", limit: int | None = None) -> Tasks:
    """The test tasks of a suite, checked against the pinned digest.

    Args:
        suite: a suite of `load_suite`, or the name or file of one.
        limit: number of tasks, the first ones; None for all N.

    Returns:
        N tasks: `programs` (references), `inputs` and `outputs` worlds [N, E].

    Raises:
        InputError: a limit below 1.
        UsageError: no such suite.
        VerificationError: this installation generates other tasks.

    Source: docs/karel_env.md, "Suites".
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit: {limit}; expected at least 1, or None for all tasks")
    chosen_suite = _as_suite(suite)
    if limit is not None and limit < chosen_suite.tasks:
        # The first tasks of a suite do not depend on how many there are.
        return test_tasks(replace(chosen_suite, tasks=limit, sha256=""))
    return test_tasks(chosen_suite)


def task_prompts(suite: Suite | str, tasks: Tasks) -> list[str]:
    """The prompt of each task: its shown examples, then the header of a program.

    Args:
        suite: the suite, which determines the number of shown examples.
        tasks: N tasks.

    Returns:
        N texts; a model continues each with the statements of a program and the closing bracket.

    Raises:
        UsageError: no such suite.

    Source: docs/models.md.
    """
    return render_prompts(_as_suite(suite), tasks)


def generate_programs(model: Any, suite: Suite | str, tasks: Tasks) -> list[str]:
    """Programs that a model writes for tasks, by greedy decoding in batches of the suite's size.

    Args:
        model: a model of `load_model` or `wrap`, or a spec.
        suite: the suite, which determines prompts, batches and the largest length of a program.
        tasks: N tasks.

    Returns:
        N continuations of the prompts, each up to the bracket that closes the program.

    Raises:
        ModelError: the model cannot be loaded.
        UsageError: no such suite or model.

    Source: docs/models.md.
    """
    chosen_suite = _as_suite(suite)
    prompts = task_prompts(chosen_suite, tasks)
    handle = as_model(model)
    texts: list[str] = []
    with handle.opened() as loaded:
        for start in range(0, len(prompts), chosen_suite.batch):
            batch = prompts[start : start + chosen_suite.batch]
            texts += [generation.text for generation in loaded.generate(batch, chosen_suite.max_new_words)]
    return texts


def score_programs(suite: Suite | str, tasks: Tasks, programs: Sequence[str]) -> Scores:
    """Run programs on all examples of their tasks and compare the outputs; a text that does not parse is a failure.

    Args:
        suite: the suite, which determines the number of shown examples and the equality of worlds.
        tasks: N tasks.
        programs: N texts, with or without the header `def run() {` that ends each prompt.

    Returns:
        Per task, arrays [N]: the outcome, and whether the shown and the held-out examples are solved.

    Raises:
        InputError: another number of programs than of tasks, or something that is no text.
        UsageError: no such suite.

    Source: docs/karel_env.md, "Rules".
    """
    if isinstance(programs, str) or len(programs) != len(tasks):
        received = "one text" if isinstance(programs, str) else f"{len(programs)} texts"
        raise InputError(f"programs: {received}; expected {len(tasks)}, one per task")
    if not all(isinstance(program, str) for program in programs):
        raise InputError(
            "programs: an entry that is no text; expected texts, an empty one for a task without a program"
        )
    texts = [_continuation(program) for program in programs]
    return score_continuations(_as_suite(suite), tasks, texts)


def _continuation(program: str) -> str:
    """A program without its header."""
    return program.strip().removeprefix(HEADER_TEXT)


def _as_suite(suite: Suite | str) -> Suite:
    return load_suite(suite) if isinstance(suite, str) else suite
