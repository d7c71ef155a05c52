"""Chat templates: programs of a model's author, rendered in a sandbox with a fixed date, no chance and bounded work.

The environment is the one that transformers documents for chat templates (Jinja, trimmed blocks, loop controls,
`raise_exception`, `strftime_now`, `tojson` without HTML escapes, `generation` blocks). What is rendered depends on the
template and the turns alone: the date is `DATE`, and what draws at random is not there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import FrameType
from typing import Any, ClassVar, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from benchmark.errors import ModelError
from benchmark.isolation import run_bounded

DATE = datetime(2026, 1, 1)
"""What templates that write the date are told, in every run."""
MAX_STEPS = 2_000_000
"""Lines of compiled template that a rendering may take; templates of chat models take some thousands."""
MAX_OUTPUT_LENGTH = 4_000_000
"""Characters of the result."""
MAX_TEMPLATE_LENGTH = 1_000_000
TIMEOUT_SECONDS, MEMORY_LIMIT = 60.0, 1 << 30
"""Of the process that renders: for single operations that are large."""
RANDOM_FILTERS = ("random", "shuffle")


def render_chat(
    template: str,
    messages: Sequence[Mapping[str, str]],
    special_tokens: Mapping[str, str],
    variables: Mapping[str, object],
) -> str:
    """The text of a conversation up to where an answer begins, rendered in a process of its own.

    Args:
        template: Jinja source.
        turns: dicts of role and content.
        special_tokens: by name, such as `bos_token`.
        variables: more that the template may ask for, such as `enable_thinking`.

    Raises:
        ModelError: the template raises, or takes more than the limits.
    """
    if len(template) > MAX_TEMPLATE_LENGTH:
        raise ModelError(f"chat template: {len(template):,} characters; expected at most {MAX_TEMPLATE_LENGTH:,}")
    context = {**special_tokens, **variables, "messages": [dict(turn) for turn in messages]}
    return run_bounded(render, template, context, seconds=TIMEOUT_SECONDS, memory=MEMORY_LIMIT, subject="chat template")


def render(template: str, context: Mapping[str, Any]) -> str:
    """The same in this process, with bounded steps but not bounded memory."""
    steps = 0

    def on_trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal steps
        steps += 1
        if steps > MAX_STEPS:
            raise ModelError(f"chat template: takes more than {MAX_STEPS:,} steps; remove it to run without one")
        return on_trace

    previous_trace = sys.gettrace()
    try:
        compiled = _create_environment().from_string(template)
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
    except Exception as problem:  # a template is a program of the model's author; it may raise anything
        message = " ".join(str(problem).split())[:200]
        raise ModelError(f"chat template: {message}; remove it from the tokenizer to run without one") from problem
    finally:
        sys.settrace(previous_trace)


class _Generation(Extension):
    """Blocks that mark what the assistant wrote; their content is rendered as it stands."""

    tags: ClassVar[set[str]] = {"generation"}  # type: ignore[misc]

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """The statements between `generation` and `endgeneration`."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def _create_environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    for name in RANDOM_FILTERS:
        environment.filters.pop(name, None)
    environment.globals.pop("lipsum", None)
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = DATE.strftime
    return environment


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)
