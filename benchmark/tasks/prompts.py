"""Prompt text: input and output worlds in the canonical text, then the header of a program."""

from __future__ import annotations

from typing import Any

from karel_env.language import HEADER_TEXT
from karel_env.world import Worlds, world_texts

INPUT, OUTPUT, PROGRAM = "input", "output", "program"
PROMPT_END = f"{PROGRAM}\n{HEADER_TEXT}"
"""End of a prompt; a model continues it with the program's statements and the closing bracket."""


def examples_texts(inputs: Worlds, outputs: Worlds, show_under_robot: bool = True) -> list[str]:
    """All examples of each task, a name line before each world; `inputs` and `outputs` are worlds [N, E]."""
    tasks, examples = inputs.shape
    before, after = (world_texts(worlds.reshape(-1), show_under_robot) for worlds in (inputs, outputs))
    texts = [f"{INPUT}\n{a}\n{OUTPUT}\n{b}\n" for a, b in zip(before, after, strict=True)]
    return ["".join(texts[i * examples : (i + 1) * examples]) for i in range(tasks)]


def examples_text(inputs: Worlds, outputs: Worlds, show_under_robot: bool = True) -> str:
    """All examples of one task; `inputs` and `outputs` are worlds [E]."""
    return examples_texts(inputs.reshape(1, -1), outputs.reshape(1, -1), show_under_robot)[0]


def prompt_text(inputs: Worlds, outputs: Worlds, show_under_robot: bool = True) -> str:
    """The prompt of one task for a model that was trained on such prompts."""
    return examples_text(inputs, outputs, show_under_robot) + PROMPT_END


def prompt_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a prompt; special tokens that the tokenizer appends at the end are removed, since they end the text."""
    encoded = tokenizer(text, return_special_tokens_mask=True)
    special_tokens_mask = encoded["special_tokens_mask"]
    stop = max((i + 1 for i, is_special in enumerate(special_tokens_mask) if not is_special), default=0)
    return encoded["input_ids"][:stop]
