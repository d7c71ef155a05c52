"""Render chat templates in a sandbox with a fixed date, no random filters, and bounded time and memory.

The Jinja environment is the one that transformers documents for chat templates (trimmed blocks, loop controls,
`raise_exception`, `strftime_now`, `tojson` without HTML escapes, `generation` blocks; see `chat_environment`). The result
depends on the template and the messages only: the date is fixed, and random filters are removed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import FrameType
from typing import Any

from benchmark.errors import ModelError
from benchmark.isolation import run_bounded

MAX_STEPS = 2_000_000
"""Largest number of traced lines of the compiled template; templates of chat models take a few thousand."""
MAX_OUTPUT_LENGTH = 4_000_000
"""Largest number of characters of the result."""
MAX_TEMPLATE_LENGTH = 1_000_000
TIMEOUT_SECONDS, MEMORY_LIMIT = 60.0, 1 << 30
"""Limits of the rendering process, in seconds and bytes, for single expensive operations that steps do not bound."""


def render_chat(
    template: str,
    messages: Sequence[Mapping[str, str]],
    special_tokens: Mapping[str, str],
    variables: Mapping[str, object],
) -> str:
    """Render a conversation with the generation prompt in a separate process.

    Args:
        template: Jinja source.
        messages: dicts with role and content.
        special_tokens: special tokens by name, such as `bos_token`.
        variables: further template variables, such as `enable_thinking`.

    Raises:
        ModelError: the template raises an error or exceeds the limits.
    """
    if len(template) > MAX_TEMPLATE_LENGTH:
        raise ModelError(f"chat template: {len(template):,} characters; expected at most {MAX_TEMPLATE_LENGTH:,}")
    context = {**special_tokens, **variables, "messages": [dict(message) for message in messages]}
    # Imported here once, so that the limited processes, which are copies of this one, have it.
    import_module("benchmark.tasks.chat_environment")
    return run_bounded(render, template, context, seconds=TIMEOUT_SECONDS, memory=MEMORY_LIMIT, subject="chat template")


def render(template: str, context: Mapping[str, Any]) -> str:
    """Render in this process, with bounded steps but unbounded memory."""
    from benchmark.tasks.chat_environment import create_environment

    steps = 0

    def on_trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal steps
        steps += 1
        if steps > MAX_STEPS:
            raise ModelError(f"chat template: takes more than {MAX_STEPS:,} steps; remove it to run without one")
        return on_trace

    previous_trace = sys.gettrace()
    try:
        compiled = create_environment().from_string(template)
        parts, length = [], 0
        sys.settrace(on_trace)
        for part in compiled.generate(tools=None, documents=None, add_generation_prompt=True, **context):
            parts.append(part)
            length += len(part)
            if length > MAX_OUTPUT_LENGTH:
                raise ModelError(
                    f"chat template: writes more than {MAX_OUTPUT_LENGTH:,} characters; remove it to run without one"
                )
        return "".join(parts)
    except ModelError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # a template is code of the model's author and may raise anything
        message = " ".join(str(error).split())[:200]
        raise ModelError(f"chat template: {message}; remove it from the tokenizer to run without one") from error
    finally:
        sys.settrace(previous_trace)
