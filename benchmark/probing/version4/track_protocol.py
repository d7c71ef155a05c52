"""The settings of protocol 4 per track, and with few programs.

A model that was not trained on the suite reads a longer prompt and is wider: it is probed with few programs, and also
at single layers, since its last layers predict text. A run of the trained track can ask for few programs as well.
"""

from __future__ import annotations

from dataclasses import replace

from benchmark.probing.version4.rotation_protocol import ROTATION_STANDARD, RotationProtocol
from benchmark.tasks.prompt_template import FEWSHOT

FEW_PROMPTS = 250
"""Prompts that few programs stand behind, each with four of them and a group of its own in the bootstrap."""
FEWSHOT_DEPTHS = (0.25, 0.5, 0.75)
"""Layers that are views besides the mean and the last, as fractions of the number of layers."""


def rotation_protocol(
    track: str, protocol: RotationProtocol = ROTATION_STANDARD, few_programs: bool = False
) -> RotationProtocol:
    """The settings for a track.

    Args:
        track: one of `tasks.prompt_template.TRACKS`; the few-shot track always has few programs.
        protocol: the settings of the trained track.
        few_programs: whether to read few programs in the trained track too.
    """
    if track != FEWSHOT and not few_programs:
        return protocol
    prompts = min(protocol.prompts, FEW_PROMPTS)
    return replace(protocol, prompts=prompts, units=prompts)


def view_layers(track: str, num_layers: int) -> list[int]:
    """The layers that are views besides the mean and the last; `num_layers` counts the embeddings as layer 0."""
    depths = FEWSHOT_DEPTHS if track == FEWSHOT else ()
    return [round(depth * (num_layers - 1)) for depth in depths]
