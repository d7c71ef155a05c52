"""What a model is shown: input and output worlds in the canonical text, then the header of a program."""

from __future__ import annotations

from karel_env.language import HEADER_TEXT
from karel_env.world import Worlds, world_text

INPUT, OUTPUT, PROGRAM = "input", "output", "program"


def example_text(before: Worlds, after: Worlds, show_under_robot: bool) -> str:
    """One example: two lines with a name, each with its world below."""
    return f"{INPUT}\n{world_text(before, show_under_robot)}\n{OUTPUT}\n{world_text(after, show_under_robot)}\n"


def prompt_text(inputs: Worlds, outputs: Worlds, show_under_robot: bool = True) -> str:
    """The prompt of one task: all examples of `inputs` and `outputs` (worlds [E]), ending in the header.

    A model continues it with the program's statements and its closing bracket.
    """
    pairs = (example_text(inputs[e], outputs[e], show_under_robot) for e in range(len(inputs)))
    return "".join(pairs) + f"{PROGRAM}\n{HEADER_TEXT}"
