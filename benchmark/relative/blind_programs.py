"""The blind set of `relative`: that of protocol 4, or programs with control flow for a suite that has them.

Programs with control flow are taken as they are drawn (`karel_env.generation.unselected`), with uniform actions and as many statements
as the blind programs of the suite have actions; only a program that was drawn before is left out.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmark.probing.version4.rotation_protocol import RotationProtocol
from benchmark.tasks.shared_prompts import SharedPrompts, shared_prompts
from benchmark.tasks.suite import Suite, num_blind_programs
from karel_env.generation.recipe import ControlRecipe, Tasks
from karel_env.language import ACTIONS, Programs

SCREEN_SEED = 1


def draw_blind_programs(suite: Suite, protocol: RotationProtocol) -> SharedPrompts:
    """The first prompts of the blind set, `protocol.prompts` at most, each with `protocol.programs_per_prompt` programs."""
    num_pairs = protocol.prompts * protocol.programs_per_prompt
    if not isinstance(suite.recipe, ControlRecipe):
        num_pairs = min(num_blind_programs(suite), num_pairs)
        return shared_prompts(suite, num_pairs, protocol.programs_per_prompt).take_prompts(protocol.prompts)
    return control_flow_prompts(suite, num_pairs, protocol.programs_per_prompt)


def control_flow_prompts(suite: Suite, num_programs: int, programs_per_prompt: int) -> SharedPrompts:
    """Distinct programs with control flow; neighbours share the examples of the first of them."""
    tasks = _distinct_tasks(suite, num_programs)
    prompt = np.arange(num_programs) // programs_per_prompt
    inputs = tasks.inputs[prompt * programs_per_prompt]
    # The prompts show the inputs in place of the outputs, so that no program is executed.
    return SharedPrompts(Tasks(tasks.programs, inputs, inputs, tasks.key), prompt, prompt)


def draw_screen_programs(suite: Suite, count: int) -> Tasks:
    """Programs from the distribution of the blind set and apart from it, for the screen of the alternatives."""
    return _draw(suite, SCREEN_SEED, "audit", count)


def _draw(suite: Suite, seed: int, purpose: str, count: int) -> Tasks:
    from karel_env.generation.generator import generate
    from karel_env.generation.unselected import draw_unselected

    recipe = replace(suite.recipe, length=(suite.blind_length,) * 2, weights=(1,) * len(ACTIONS))
    if isinstance(recipe, ControlRecipe):
        return draw_unselected(recipe, seed, purpose, np.arange(count))
    return generate(recipe, seed, purpose, np.arange(count))


def _distinct_tasks(suite: Suite, count: int) -> Tasks:
    num_drawn = count
    while True:
        tasks = _draw(suite, suite.seed, "blind", num_drawn)
        first: dict[bytes, int] = {}
        for i, text in enumerate(program_bytes(tasks.programs)):
            first.setdefault(text, i)
        if len(first) >= count:
            return tasks.take(np.array(list(first.values())[:count]))
        num_drawn += max(count, 64)


def program_bytes(programs: Programs) -> list[bytes]:
    """The words of every program as bytes."""
    return [programs.program(i).tobytes() for i in range(len(programs))]
