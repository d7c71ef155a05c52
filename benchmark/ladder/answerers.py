"""Models without a network that answer the questions: the interpreter, and chance. They read the prompt as a model does."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from benchmark.ladder.ladder_tasks import ANSWER, PROGRAM, QUESTION, WORLD
from benchmark.ladder.questions import Executions, list_questions
from benchmark.models.interface import GREEDY, Decoding, Generation
from karel_env.execution.interpreter import run
from karel_env.language import Programs
from karel_env.syntax.dialects import parse_program
from karel_env.world import parse_world

WRONG = -10.0
"""Log-likelihood of an answer that is not given, in nats."""


class Interpreter:
    """Executes the program of the prompt in its world; right always, so that a prompt is known to hold what is asked."""

    def __init__(self, dialect: str) -> None:
        self.dialect = dialect

    def answer(self, prompt: str) -> str:
        """The right answer to the last question of a prompt."""
        task = prompt.rpartition(f"\n{WORLD}\n")[2]
        world_text, _, after_world = task.partition(f"\n{PROGRAM}\n")
        program_text, _, asked_text = after_world.partition(f"\n{QUESTION} ")
        text = asked_text.removesuffix(f"\n{ANSWER}")
        programs = Programs.of([parse_program(program_text, self.dialect)])
        inputs = parse_world(world_text)[None]
        executions = Executions(programs, programs.lengths, inputs, run(programs, inputs).worlds)
        height, width = inputs.cells.shape[1:]
        # The number of moves bounds the numbers only, and any bound has the same words for the same numbers.
        question = next(q for q in list_questions(height, width, len(executions.actions[0])) if q.text == text)
        return question.choices[question.answer(executions)[0]]

    def log_likelihoods(self, prompts: Sequence[str], programs: Sequence[str]) -> list[tuple[float, int]]:
        """See `LanguageModel.log_likelihoods`."""
        answers = {prompt: self.answer(prompt) for prompt in dict.fromkeys(prompts)}
        return [
            (0.0 if answers[prompt] == choice else WRONG, 1) for prompt, choice in zip(prompts, programs, strict=True)
        ]

    def generate(self, prompts: Sequence[str], max_new_words: int, decoding: Decoding = GREEDY) -> list[Generation]:
        """See `LanguageModel.generate`."""
        return [Generation(f" {self.answer(prompt)}", 1, True) for prompt in prompts]


class Chance:
    """Prefers any answer as likely as another; the same for the same prompt. It generates nothing."""

    def log_likelihoods(self, prompts: Sequence[str], programs: Sequence[str]) -> list[tuple[float, int]]:
        """See `LanguageModel.log_likelihoods`."""
        return [(-_uniform(f"{p}\0{choice}"), 1) for p, choice in zip(prompts, programs, strict=True)]

    def generate(self, prompts: Sequence[str], max_new_words: int, decoding: Decoding = GREEDY) -> list[Generation]:
        """See `LanguageModel.generate`."""
        return [Generation("", 0, True) for _ in prompts]


def _uniform(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48
