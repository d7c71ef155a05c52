"""What *Represents* of the few-shot track is read from, for the tables and the page of a row."""

from __future__ import annotations

from benchmark.probing.version4.track_protocol import rotation_protocol
from benchmark.tasks.prompt_template import FEWSHOT

_PROTOCOL = rotation_protocol(FEWSHOT)
NUM_PROGRAMS = _PROTOCOL.prompts * _PROTOCOL.programs_per_prompt
FEWSHOT_BUDGET = (
    f"Read from {NUM_PROGRAMS:,} programs at most, behind the prompts of the few-shot track, with outputs hidden in prompts and "
    "solved examples."
)
FEWSHOT_LINES = (
    f"*Represents* of this track is read from {NUM_PROGRAMS:,} programs at most, behind prompts and solved examples whose outputs",
    "are hidden: [docs/pretrained.md](docs/pretrained.md).",
)
