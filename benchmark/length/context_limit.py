"""Which programs fit into the context of a model.

The limit is the one that its configuration names. Some architectures run beyond it, into positions that they have never read
and others without any; what lies beyond is reported as not measured for all of them alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmark.length.long_programs import program_length
from benchmark.models.checkpoint import Checkpoint
from benchmark.models.json_files import CONFIG_FILE, read_json
from benchmark.models.loading import load_tokenizer_or_none
from benchmark.models.memory import MemoryCheckpoint
from benchmark.tasks.prompt_template import render_prompts
from benchmark.tasks.prompts import prompt_ids
from benchmark.tasks.suite import Suite, blind_tasks
from karel_env.syntax.dialects import program_bodies

CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len")
SAMPLE_TASKS = 32


@dataclass(frozen=True)
class ContextLimit:
    """Tokens that a model takes and tokens that programs need.

    Attributes:
        context: largest number of positions; None if the configuration names none.
        needed: tokens of prompt and program, by factor.
        written: tokens of prompt and longest answer, by factor.
    """

    context: int | None
    needed: dict[int, int]
    written: dict[int, int]

    def reason(self, factor: int, is_written: bool = False) -> str:
        """Why programs of a factor do not fit; empty if they do."""
        tokens = (self.written if is_written else self.needed).get(factor, 0)
        if self.context is None or tokens <= self.context:
            return ""
        what = "prompt and longest answer" if is_written else "prompt and program"
        return f"does not fit: {tokens} tokens of {what}, the model takes {self.context}"


def read_limit(checkpoint: Checkpoint, suite: Suite, factors: Sequence[int]) -> ContextLimit:
    """Count the tokens of a sample of prompts and programs of each factor; a custom class without tokenizer has no limit."""
    tokenizer = load_tokenizer_or_none(checkpoint)
    context = None if checkpoint.is_custom else _context(checkpoint)
    if tokenizer is None or context is None:
        return ContextLimit(None, {}, {})
    from benchmark.models.huggingface import HuggingFaceModel

    needed, written = {}, {}
    for factor in factors:
        longer = replace(suite, blind_length=program_length(suite, factor))
        tasks = blind_tasks(longer, SAMPLE_TASKS)
        prompts = [prompt_ids(tokenizer, text) for text in render_prompts(suite, tasks, tasks.inputs)]
        bodies = tokenizer(program_bodies(tasks.programs, suite.dialect), add_special_tokens=False)["input_ids"]
        prompt_tokens = max(map(len, prompts))
        needed[factor] = prompt_tokens + max(map(len, bodies))
        written[factor] = prompt_tokens + HuggingFaceModel.max_new_tokens(tokenizer, factor * suite.max_new_words)
    return ContextLimit(context, needed, written)


def _context(checkpoint: Checkpoint) -> int | None:
    config: dict[str, Any] = (
        checkpoint.config if isinstance(checkpoint, MemoryCheckpoint) else read_json(checkpoint.folder / CONFIG_FILE)
    )
    values = [config.get(key) for key in CONTEXT_KEYS]
    return next((value for value in values if isinstance(value, int) and value > 0), None)
