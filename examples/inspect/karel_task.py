"""A suite as a task of Inspect: its own models, runners and log viewer, and the scores of this benchmark.

    pip install inspect-ai                       # beside this project
    inspect eval examples/inspect/karel_task.py --model hf/ORG/NAME -T suite=laptop -T limit=100

The few-shot prompt is that of the track `fewshot`. Only accuracy is measured so; hidden states need `karel-bench run`.
"""

from functools import cache

import numpy as np
from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import TaskState

from benchmark.tasks.extraction import extract_program
from benchmark.tasks.prompt_template import build_prompt_template, render_prompts
from benchmark.tasks.scoring import OUTCOMES, score_programs
from benchmark.tasks.suite import Suite, load_suite, test_tasks
from karel_env.generation.recipe import Tasks
from karel_env.language import HEADER_TEXT


@task
def karel(suite: str = "laptop", track: str = "fewshot", limit: int | None = None) -> Task:
    """The test tasks of a suite, or its first `limit`."""
    loaded, all_tasks = drawn(suite)
    tasks = all_tasks.take(np.arange(min(limit or loaded.tasks, loaded.tasks)))
    prompts = render_prompts(loaded, tasks, template=build_prompt_template(loaded, track))
    references = [text.removeprefix(HEADER_TEXT).strip() for text in tasks.programs.texts()]
    samples = [
        Sample(id=number, input=prompt, target=reference, metadata={"suite": suite, "task": number})
        for number, (prompt, reference) in enumerate(zip(prompts, references, strict=True))
    ]
    name = f"karel-{loaded.name}-v{loaded.version}"
    config = GenerateConfig(temperature=0.0, max_tokens=64)
    return Task(dataset=MemoryDataset(samples, name=name), scorer=[shown(), held_out()], config=config)


@cache
def drawn(suite: str) -> tuple[Suite, Tasks]:
    """A suite and its test tasks."""
    loaded = load_suite(suite)
    return loaded, test_tasks(loaded)


def score_answer(state: TaskState, examples: str) -> Score:
    """Whether the program in an answer is right on every example of a kind, `shown` or `held_out`."""
    suite, tasks = drawn(state.metadata["suite"])
    # A chat model repeats the header, a base model goes on after it.
    text = extract_program(state.output.completion)
    scores = score_programs(suite, tasks.take(np.array([state.metadata["task"]])), [text])
    is_right = bool(getattr(scores, examples)[0])
    return Score(value="C" if is_right else "I", answer=text, explanation=OUTCOMES[int(scores.outcome[0])])


@scorer(metrics=[accuracy(), stderr()])
def shown() -> Scorer:
    """Right on the examples that the prompt shows."""

    async def score(state: TaskState, target: Target) -> Score:
        return score_answer(state, "shown")

    return score


@scorer(metrics=[accuracy(), stderr()])
def held_out() -> Scorer:
    """Right on the examples that it does not show."""

    async def score(state: TaskState, target: Target) -> Score:
        return score_answer(state, "held_out")

    return score
