"""Tasks of execution: a world, a program of four actions, and the heading of the robot after it. NumPy only.

The heading after a program is the heading at its start plus the program's net rotation, modulo 4. The rotation is what is
edited; the start is in the world alone, so that no fixed word is right after an edit.

Letters: `N` tasks, `K` actions of a program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmark.causal.pairs import CAUSAL_STREAM, prefix_texts
from benchmark.causal.rotation import net_rotation
from benchmark.causal.targets import TURNS, check_straight_line
from benchmark.tasks.prompts import INPUT, PROMPT_END
from benchmark.tasks.suite import Suite
from karel_env.generation.recipe import Tasks
from karel_env.language import CLOSE, HEADER, HEADER_TEXT, WORDS
from karel_env.world import HEADINGS, world_texts

PROGRAM_LENGTH = 4
"""K; long enough that rotations are spread over their values, short enough for small models."""
NUM_SHOTS = 4
QUESTION = "the robot faces"
ANSWERS = tuple(f"{WORDS[CLOSE]} {QUESTION} {heading}" for heading in HEADINGS)
"""What may follow a program: its closing bracket, the question, and one of the four headings."""
AT_WORD, AT_QUESTION = EDIT_POSITIONS = ("word", "question")
"""Where states are edited: the last token of the program's last action, or of the question."""
EXECUTION_STREAM = 7_919
"""Added to the seed of the causal tasks, so that these tasks are others."""
TASKS_VERSION = 1
CHOOSE, REPORT = 0, 1


@dataclass(frozen=True)
class HeadingTasks:
    """Tasks of execution.

    Attributes:
        prompts: N texts up to and including the program's header.
        programs: int8 [N, K], actions.
        start: int64 [N], heading before the program, index in `karel_env.world.HEADINGS`.
        split: int8 [N], `CHOOSE` (makes means, chooses the site) or `REPORT`.
        edit_at: where states are edited, one of `EDIT_POSITIONS`.
    """

    prompts: Sequence[str]
    programs: np.ndarray
    start: np.ndarray
    split: np.ndarray
    edit_at: str = AT_WORD

    def __len__(self) -> int:
        return len(self.programs)

    @property
    def texts(self) -> list[str]:
        """What follows each prompt up to the token that is edited: the actions, and with `AT_QUESTION` the question."""
        question = f" {WORDS[CLOSE]} {QUESTION}" if self.edit_at == AT_QUESTION else ""
        return [f"{text}{question}" for text in prefix_texts(self.programs)]

    @property
    def answers(self) -> tuple[str, ...]:
        """What may follow the texts."""
        return tuple(HEADINGS) if self.edit_at == AT_QUESTION else ANSWERS

    @property
    def rotation(self) -> np.ndarray:
        """int64 [N], net rotation of each program in quarter turns to the right."""
        return net_rotation(self.programs)

    @property
    def heading(self) -> np.ndarray:
        """int64 [N], heading after each program."""
        return np.asarray((self.start + self.rotation) % TURNS)

    @property
    def is_report(self) -> np.ndarray:
        """bool [N], whether a task reports."""
        return np.asarray(self.split == REPORT)

    def targets(self) -> np.ndarray:
        """int64 [3, N], the heading that is right after an edit by one, two and three quarter turns to the right."""
        return np.asarray((self.heading + np.arange(1, TURNS)[:, None]) % TURNS)


def derive_heading_tasks(
    suite: Suite, count: int, choose_of_five: int = 2, num_shots: int = NUM_SHOTS, edit_at: str = AT_WORD
) -> HeadingTasks:
    """Derive tasks from a suite: its worlds and frequencies of actions, programs of `PROGRAM_LENGTH` actions.

    Two fifths of the tasks are `CHOOSE`. Solved examples before every world are tasks of the same kind.

    Raises:
        UsageError: the suite has control flow.
    """
    tasks = draw_tasks(suite, num_shots + count)
    header = len(HEADER)
    programs = np.stack([tasks.programs.program(i)[header:-1] for i in range(len(tasks))]).astype(np.int8)
    worlds = world_texts(tasks.inputs[:, 0], suite.show_under_robot)
    ends = tasks.outputs.robot[:num_shots, 0, 2]
    shots = "".join(
        f"{_render(world)} {text} {ANSWERS[end]}\n\n"
        for world, text, end in zip(worlds, prefix_texts(programs[:num_shots]), ends, strict=False)
    )
    prompts = heading_prompts(worlds[num_shots:], shots)
    split = np.where(np.arange(count) % 5 < choose_of_five, CHOOSE, REPORT).astype(np.int8)
    start = tasks.inputs.robot[num_shots:, 0, 2].astype(np.int64)
    return HeadingTasks(prompts, programs[num_shots:], start, split, edit_at)


def draw_tasks(suite: Suite, count: int) -> Tasks:
    """Draw the first tasks of a suite that are asked about, solved examples first.

    Raises:
        UsageError: the suite has control flow.
    """
    check_straight_line(suite)
    from karel_env.generation import generator

    recipe = replace(suite.recipe, length=(PROGRAM_LENGTH,) * 2, examples=1)
    seed = suite.seed + CAUSAL_STREAM + EXECUTION_STREAM + TASKS_VERSION
    return generator.generate(recipe, seed, "audit", np.arange(count))


def heading_prompts(worlds: Sequence[str], shots: str = "") -> list[str]:
    """The prompts of worlds, up to and including the program's header.

    Args:
        worlds: as `world_texts` gives them.
        shots: solved examples, as text.
    """
    return [f"{describe_task()}\n\n{shots}{_render(world)}" for world in worlds]


def _render(world: str) -> str:
    return f"{INPUT}\n{world}\n{PROMPT_END}"


def describe_task() -> str:
    """The description before the solved examples."""
    return "\n".join(
        [
            "Karel is a robot on a grid. Each cell is one sign: . is free, # is a wall, a number counts markers,",
            "and ^ > v < is the robot, facing north, east, south or west.",
            f"A program is written {HEADER_TEXT} ... }} with one statement after another: move(); goes one cell ahead;",
            "turn_left(); turns left on the spot; turn_right(); turns right on the spot; pick_marker(); takes one marker from",
            "the robot's cell; put_marker(); puts one there. A move into a wall or a pick from an empty cell does nothing.",
            "After each program stands the heading of the robot at its end.",
        ]
    )
