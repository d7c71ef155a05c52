"""What *Represents* is read from, where it is not from all programs: for the tables and the page of a row."""

from __future__ import annotations

from benchmark.probing.version4.track_protocol import rotation_protocol
from benchmark.tasks.prompt_template import FEWSHOT, TRAINED

NUM_PROGRAMS = rotation_protocol(FEWSHOT).max_programs
FEWSHOT_BUDGET = (
    f"Read from {NUM_PROGRAMS:,} programs at most, behind the prompts of the few-shot track, with outputs hidden in prompts and "
    "solved examples."
)
FEWSHOT_LINES = (
    f"*Represents* of this track is read from {NUM_PROGRAMS:,} programs at most, behind prompts and solved examples whose outputs",
    "are hidden: [docs/pretrained.md](docs/pretrained.md).",
)


def describe_budget(track: str, few_programs: bool) -> str:
    """A sentence on the programs that are read; empty for all programs of the trained track."""
    if track != TRAINED:
        return FEWSHOT_BUDGET
    standard = rotation_protocol(TRAINED).max_programs
    return (
        f"Read from {NUM_PROGRAMS:,} programs at most; other rows are read from {standard:,}." if few_programs else ""
    )
