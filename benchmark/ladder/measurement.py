"""Ask the questions and compare each answer with three answers that need no execution.

Floors: the *majority* answer; for questions of the state, the state *before* the program; the *last action*, the most
frequent answer to tasks with the same last action and the same answer before the program; and, of programs with control flow,
their actions once each *in order*. Majority and last action are learned from tasks that are never asked.

Letters: `N` tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from benchmark.ladder.choice_scores import Answerer, generate_answers, score_choices
from benchmark.ladder.ladder_tasks import LadderTasks
from benchmark.ladder.questions import BEFORE, IN_ORDER, LAST_ACTION, MAJORITY, Executions, Question
from benchmark.statistics import Estimate, mean, wilson
from karel_env.language import ACTIONS


@dataclass(frozen=True)
class RungResult:
    """The answers to one question.

    Attributes:
        question: its name.
        choices: number of answers to choose from.
        n: number of tasks.
        accuracy: share of tasks whose right answer is the most likely one; 95% Wilson interval.
        generated: share of tasks whose generated text begins with the right answer.
        floors: accuracy of each floor, by name.
        best_floor: name of the most accurate floor.
        above: accuracy minus that of the best floor, with a 95% interval over tasks.
        by_length: accuracy and accuracy of the best floor, by number of statements.
    """

    question: str
    choices: int
    n: int
    accuracy: Estimate
    generated: Estimate
    floors: dict[str, float]
    best_floor: str
    above: Estimate
    by_length: dict[int, tuple[float, float]]

    @property
    def is_reached(self) -> bool:
        """Whether the model is better than all floors."""
        return self.above.low > 0


def count_rungs(results: Sequence[RungResult]) -> int:
    """Number of rungs from the bottom that are reached one after another."""
    for reached, result in enumerate(results):
        if not result.is_reached:
            return reached
    return len(results)


def floor_answers(question: Question, tasks: LadderTasks) -> dict[str, np.ndarray]:
    """int64 [N], the answer of each floor to each task that is asked."""
    num_choices, num_actions = len(question.choices), len(ACTIONS)

    def before(executions: Executions) -> np.ndarray:
        if BEFORE in question.floors:
            return question.answer(executions.not_executed())
        return np.zeros(len(executions), np.int64)

    fitted, tests = tasks.fitted, tasks.tests
    answers = question.answer(fitted)
    counts = np.zeros((num_actions, num_choices, num_choices))
    np.add.at(counts, (fitted.last_action, before(fitted), answers), 1)
    overall = np.bincount(answers, minlength=num_choices)
    # Where a last action was not seen with an answer before, the answer is the most frequent one.
    counts += 1e-6 * overall
    floors = {
        MAJORITY: np.full(len(tests), overall.argmax()),
        BEFORE: before(tests),
        LAST_ACTION: counts[tests.last_action, before(tests)].argmax(-1),
    }
    if IN_ORDER in question.floors:
        floors[IN_ORDER] = question.answer(tests.in_order())
    return {name: floors[name] for name in question.floors}


def measure_rung(
    answerer: Answerer,
    question: Question,
    tasks: LadderTasks,
    batch: int,
    on_prompts: Callable[[int], None] = lambda count: None,
) -> RungResult:
    """Ask one question about every task.

    Args:
        answerer: who answers; its preamble, if it has one, is that of the question.
        question: the question.
        tasks: the tasks.
        batch: prompts per call.
        on_prompts: called with the number of prompts answered since the last call.
    """
    prompts, right = tasks.prompts(question), question.answer(tasks.tests)
    scores, texts = [], []
    for start in range(0, len(prompts), batch):
        # A model that has read a batch to score the choices does not read it again to generate.
        part = prompts[start : start + batch]
        scores.append(score_choices(answerer, part, question.choices))
        texts += generate_answers(answerer, part, question.choices)
        on_prompts(len(part))
    predicted = np.concatenate(scores).argmax(1)
    written = np.array([first_word(text) for text in texts])
    is_generated = written == np.array(question.choices)[right]
    floors = floor_answers(question, tasks)
    accuracies = {name: float((answer == right).mean()) for name, answer in floors.items()}
    best = max(accuracies, key=lambda name: accuracies[name])
    is_right, is_floor_right = predicted == right, floors[best] == right
    lengths = tasks.tests.lengths
    by_length = {
        int(length): (float(is_right[lengths == length].mean()), float(is_floor_right[lengths == length].mean()))
        for length in np.unique(lengths)
    }
    accuracy, generated = wilson(int(is_right.sum()), len(right)), wilson(int(is_generated.sum()), len(right))
    above = mean(is_right.astype(float) - is_floor_right)
    assert accuracy is not None
    assert generated is not None
    assert above is not None
    return RungResult(
        question.name, len(question.choices), len(right), accuracy, generated, accuracies, best, above, by_length
    )


def first_word(text: str) -> str:
    """The first word of a text, without punctuation, in lower case; empty if there is none."""
    words = text.split()
    return words[0].strip(".,;:!?'\"`*()[]").lower() if words else ""


def measure_ladder(
    open_answerer: Callable[[str], Answerer],
    tasks: LadderTasks,
    batch: int,
    earlier: Mapping[str, RungResult] = MappingProxyType({}),
    on_prompts: Callable[[int], None] = lambda count: None,
) -> Iterator[RungResult]:
    """Ask all questions, easiest first, and yield each result.

    Args:
        open_answerer: gives who answers prompts that begin with a preamble.
        tasks: the tasks.
        batch: prompts per call.
        earlier: results by question that are known and not asked for again.
        on_prompts: called with the number of prompts answered since the last call.
    """
    for question in tasks.questions:
        if question.name in earlier:
            yield earlier[question.name]
        else:
            yield measure_rung(open_answerer(tasks.frame(question)[0]), question, tasks, batch, on_prompts)
