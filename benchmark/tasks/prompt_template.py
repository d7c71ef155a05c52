"""Prompt templates of the tracks: the text before and after the worlds of a task, the same for every task of a run.

A model that was trained on the canonical text gets the task alone (`trained`); any other model first gets a description
of the language and solved examples (`fewshot`). If the tokenizer has a chat template, description and examples are the
messages of a conversation.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark.errors import ModelError
from benchmark.tasks.chat_template import render_chat
from benchmark.tasks.prompts import PROGRAM, PROMPT_END, examples_text, examples_texts, prompt_ids
from benchmark.tasks.suite import Suite, shot_tasks
from karel_env.generation.recipe import ControlRecipe, Tasks
from karel_env.language import ACTIONS, CONDITIONS, MAX_REPEAT
from karel_env.syntax.dialects import HEADERS, KAREL, PYTHON, program_texts
from karel_env.world import Worlds

TRAINED, FEWSHOT = TRACKS = ("trained", "fewshot")
LENGTH_FACTOR = {TRAINED: 1, FEWSHOT: 2}
"""Generation limit per track as a multiple of the suite's `max_new_words`; few-shot models write text around programs."""
TASKS_AT_ONCE = 500
"""Tasks whose worlds are rendered at once, which bounds memory."""
_PLACEHOLDER = "\x00"
THINKING_TAGS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "[THINK]": "[/THINK]",
}
"""Tags that enclose the reasoning of models before their answer: opening to closing tag."""


@dataclass(frozen=True)
class PromptTemplate:
    """The text of a prompt before and after the worlds of a task.

    Attributes:
        before: text before the worlds.
        after: text after the worlds, up to and including the program's header.
        shots: number of solved examples in `before`.
        chat: whether the tokenizer's chat template was applied.
    """

    before: str
    after: str
    shots: int = 0
    chat: bool = False

    def render(self, worlds_text: str) -> str:
        """The full prompt of a task."""
        return self.before + worlds_text + self.after

    @property
    def digest(self) -> str:
        """SHA-256 of both parts."""
        return hashlib.sha256(f"{self.before}\0{self.after}".encode()).hexdigest()


PLAIN = PromptTemplate("", PROMPT_END)


def describe_language(suite: Suite) -> str:
    """The description of the language in few-shot prompts: signs of the grid, statements, and the task."""
    actions = "; ".join(f"{name}() {effect}" for name, effect in zip(ACTIONS, _ACTION_DESCRIPTIONS, strict=True))
    lines = [
        "Karel is a robot on a grid. Each cell is one sign: . is free, # is a wall, a number counts markers,",
        "and ^ > v < is the robot, facing up, right, down or left"
        + (", with a number behind it where it stands on markers." if suite.show_under_robot else "."),
        f"{_FORMS[suite.dialect]}: {actions}.",
        "A move into a wall or a pick from an empty cell does nothing.",
    ]
    if isinstance(suite.recipe, ControlRecipe):
        lines.append(
            f"There are also {_CONTROL_FORMS[suite.dialect]} with N from 0 to {MAX_REPEAT} and C one of "
            + ", ".join(f"{name}()" for name in CONDITIONS)
            + ", each also as not C."
        )
    lines.append("Find the one program that turns each input into its output. Answer with the program alone.")
    return "\n".join(lines)


_FORMS = {
    KAREL: "A program is written def run() { ... } with one statement after another",
    PYTHON: "A program is a Python function def run(): with one statement per line",
}
_CONTROL_FORMS = {
    KAREL: "if (C) { ... }; ifelse (C) { ... } else { ... }; while (C) { ... }; and repeat (N) { ... };",
    PYTHON: "if C: with or without else:, while C: and for _ in range(N):",
}
_ACTION_DESCRIPTIONS = (
    "goes one cell ahead",
    "turns left on the spot",
    "turns right on the spot",
    "takes one marker from the robot's cell",
    "puts one there",
)


def build_prompt_template(
    suite: Suite, track: str, tokenizer: Any = None, shots: Tasks | None = None
) -> PromptTemplate:
    """Build the prompt template of a track.

    Args:
        suite: determines the number and worlds of the solved examples.
        track: one of `TRACKS`.
        tokenizer: a transformers tokenizer, whose chat template is applied if it has one; None for a model without one.
        shots: the solved examples, see `suite.shot_tasks`; drawn if None.

    Raises:
        ModelError: the chat template raises an error, omits messages, or ends the prompt inside a thinking block.
    """
    if track == TRAINED:
        return PLAIN
    shots = shot_tasks(suite) if shots is None else shots
    solved_examples = [
        (examples_text(shots.inputs[i, : suite.shown], shots.outputs[i, : suite.shown], suite.show_under_robot), text)
        for i, text in enumerate(program_texts(shots.programs, suite.dialect))
    ]
    if tokenizer is None or not getattr(tokenizer, "chat_template", None):
        examples = "".join(f"{worlds}{PROGRAM}\n{text}\n\n" for worlds, text in solved_examples)
        before, after = f"{describe_language(suite)}\n\n{examples}", f"{PROGRAM}\n{HEADERS[suite.dialect]}"
        return PromptTemplate(before, after, len(solved_examples))
    messages = []
    for worlds, text in solved_examples:
        messages += [{"role": "user", "content": worlds}, {"role": "assistant", "content": text}]
    messages.append({"role": "user", "content": _PLACEHOLDER})
    messages[0] = {"role": "user", "content": f"{describe_language(suite)}\n\n{messages[0]['content']}"}
    before, after = apply_chat_template(tokenizer, messages, _PLACEHOLDER)
    return PromptTemplate(before, after + HEADERS[suite.dialect], len(solved_examples), chat=True)


def apply_chat_template(tokenizer: Any, messages: list[dict[str, str]], placeholder: str) -> tuple[str, str]:
    """Render a conversation; returns the text before and after the placeholder in its last message.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        messages: the conversation.
        placeholder: a text that occurs once, in the last message.

    Raises:
        ModelError: the chat template raises an error, omits messages, or ends the prompt inside a thinking block.
    """
    text = _render_messages(tokenizer, messages, {})
    if _ends_in_thinking(text, placeholder):
        # A reasoning model would continue the program's header as part of its thinking block.
        text = _render_messages(tokenizer, messages, {"enable_thinking": False})
        if _ends_in_thinking(text, placeholder):
            raise ModelError(
                f"chat template: the prompt ends inside a thinking block ({text.rstrip()[-20:]!r}), also with "
                "enable_thinking=False; edit the template so that the prompt ends after the thinking block, or remove it "
                "from the tokenizer"
            )
    parts = text.split(placeholder)
    if len(parts) != 2 or not all(message["content"].strip(f"{placeholder}\n") in text for message in messages):
        raise ModelError("chat template: it omits messages; remove it from the tokenizer to run without one")
    before = parts[0]
    # The tokenizer adds the BOS token to every prompt; a template that writes it as well would duplicate it.
    bos = tokenizer.bos_token
    if bos and before.startswith(bos) and prompt_ids(tokenizer, PROGRAM)[:1] == [tokenizer.bos_token_id]:
        before = before.removeprefix(bos)
    return before, parts[1]


def _render_messages(tokenizer: Any, messages: list[dict[str, str]], variables: dict[str, object]) -> str:
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:
        message = " ".join(str(error).split())[:200]
        raise ModelError(f"chat template: {message}; remove it from the tokenizer to run without one") from error
    special_tokens = {
        name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)
    }
    return render_chat(template, messages, special_tokens, variables)


def _ends_in_thinking(text: str, placeholder: str) -> bool:
    """Whether a prompt opens a thinking block after the last message without closing it."""
    suffix = text.rpartition(placeholder)[2]
    return any(
        suffix.rpartition(opening)[1] and closing not in suffix.rpartition(opening)[2]
        for opening, closing in THINKING_TAGS.items()
    )


def sampling_seeds(suite: Suite, tasks: np.ndarray, sample: int) -> tuple[int, ...]:
    """128-bit seeds of sample `sample` of each task, from SHA-256 over suite, task and sample."""
    names = [f"{suite.name} {suite.version} {suite.seed} {task} {sample}" for task in tasks.tolist()]
    return tuple(int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "big") for name in names)


def render_prompts(
    suite: Suite, tasks: Tasks, outputs: Worlds | None = None, template: PromptTemplate = PLAIN
) -> list[str]:
    """The prompt of each task; `outputs`, worlds [N, E], replaces the outputs of the tasks."""
    num_shown, show_under_robot = suite.shown, suite.show_under_robot
    outputs = tasks.outputs if outputs is None else outputs
    inputs, outputs = tasks.inputs[:, :num_shown], outputs[:, :num_shown]
    parts = [slice(start, start + TASKS_AT_ONCE) for start in range(0, len(tasks), TASKS_AT_ONCE)]
    return [
        template.render(text)
        for part in parts
        for text in examples_texts(inputs[part], outputs[part], show_under_robot)
    ]


def template_to_bytes(template: PromptTemplate) -> bytes:
    """The content of `frame.json`."""
    return (json.dumps({"before": template.before, "after": template.after}, indent=1) + "\n").encode()
