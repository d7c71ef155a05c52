"""Check the prompt template of a submission in the few-shot track.

A chat template is a program written by the author of the model, so a run stores its rendered text (`frame.json`). The
record holds the digest of this text, the prompt digests are computed with it, and it must contain the solved examples of
the suite, in order, and no other program. If the folder contains the tokenizer, the template is rendered again in a
subprocess.
"""

from __future__ import annotations

from pathlib import Path

from benchmark.artifacts import FRAME, MAX_BYTES
from benchmark.errors import ModelError, SubmissionError
from benchmark.files import parse_json, read_bytes, read_json, sanitize
from benchmark.isolation import run_bounded
from benchmark.tasks.extraction import count_headers
from benchmark.tasks.prompt_template import PromptTemplate, build_prompt_template, describe_language
from benchmark.tasks.prompts import examples_text
from benchmark.tasks.suite import Suite
from karel_env.generation.recipe import Tasks
from karel_env.syntax.dialects import HEADERS, program_texts

MAX_EXTRA_CHARACTERS = 20_000
"""Maximal number of characters that a chat template may add to the messages."""
MAX_SECONDS, MAX_MEMORY = 120.0, 4 << 30
"""Time limit in seconds and memory limit in bytes of the subprocess that renders a chat template."""
TOKENIZER_CONFIG = "tokenizer_config.json"


def read_prompt_template(folder: Path, suite: Suite, shots: Tasks) -> PromptTemplate | None:
    """Read the rendered chat template of a run; None if an older run did not store it.

    Args:
        folder: folder of the submission.
        suite: suite of the record.
        shots: solved examples of its few-shot prompts.

    Raises:
        SubmissionError: the file is malformed, or its text is not a few-shot prompt of this suite.
    """
    if not (folder / FRAME).exists():
        return None
    content = parse_json(read_bytes(folder / FRAME, MAX_BYTES[FRAME]), FRAME)
    if not isinstance(content, dict) or set(content) != {"before", "after"}:
        raise SubmissionError(f"{FRAME}: expected the entries before and after, as a run writes them")
    before, after = content["before"], content["after"]
    if not isinstance(before, str) or not isinstance(after, str):
        raise SubmissionError(f"{FRAME}: expected two texts")
    parts = [describe_language(suite)]
    for i, text in enumerate(program_texts(shots.programs, suite.dialect)):
        worlds = shots.inputs[i, : suite.shown], shots.outputs[i, : suite.shown]
        parts += [examples_text(*worlds, suite.show_under_robot), text]
    _check_layout(before, after, [part.strip("\n") for part in parts], suite.dialect)
    return PromptTemplate(before, after, len(shots), chat=True)


def _check_layout(before: str, after: str, parts: list[str], dialect: str) -> None:
    """Check that `before` contains all parts in order, few other characters, and no other program."""
    start = 0
    for number, part in enumerate(parts):
        index = before.find(part, start)
        if index < 0:
            part_name = (
                "the description of the language" if number == 0 else f"part {number} of the suite's solved examples"
            )
            raise SubmissionError(f"{FRAME}: {part_name} is not in its place; submit the run as it is")
        start = index + len(part)
    if len(before) + len(after) - sum(map(len, parts)) > MAX_EXTRA_CHARACTERS:
        raise SubmissionError(f"{FRAME}: more than {MAX_EXTRA_CHARACTERS:,} characters beside the suite's examples")
    num_headers = sum(count_headers(part, dialect) for part in parts)
    if count_headers(before + after, dialect) != num_headers + 1 or not after.endswith(HEADERS[dialect]):
        raise SubmissionError(f"{FRAME}: it shows other programs than the suite's solved examples")


def has_chat_template(folder: Path) -> bool:
    """Whether the tokenizer in a folder has a chat template."""
    if not (folder / TOKENIZER_CONFIG).exists():
        return False
    config = read_json(folder / TOKENIZER_CONFIG, MAX_BYTES[FRAME] * 10)
    return isinstance(config, dict) and bool(config.get("chat_template"))


def render_template_digest(folder: Path, suite: Suite, track: str) -> str:
    """Render the chat template of the tokenizer in a folder, in a subprocess, and compute its digest.

    Raises:
        SubmissionError: the template cannot be rendered within the limits.
    """
    try:
        return run_bounded(
            _render, str(folder), suite, track, seconds=MAX_SECONDS, memory=MAX_MEMORY, subject="chat template"
        )
    except ModelError as error:
        raise SubmissionError(f"chat template: {sanitize(str(error))}") from error


def _render(folder: str, suite: Suite, track: str) -> str:
    from benchmark.models.checkpoint import open_checkpoint
    from benchmark.models.interface import ModelSpec
    from benchmark.models.loading import load_tokenizer_or_none

    return build_prompt_template(
        suite, track, load_tokenizer_or_none(open_checkpoint(ModelSpec("path", folder)))
    ).digest
