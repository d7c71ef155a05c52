"""Load and check the tokenizer of a model; its files are untrusted data. Errors are `ModelError`."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from transformers import AutoTokenizer

from benchmark.errors import BenchmarkError, ModelError, is_panic
from benchmark.models.architecture import failure_message, register_classes
from benchmark.models.checkpoint import Checkpoint
from benchmark.models.json_files import check_kind

PROBE_TEXT = "def run() { move(); }"


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """Load the model's fast tokenizer, with padding on the left.

    Raises:
        ModelError: no tokenizer, or one that cannot be used.
    """
    for path in sorted(checkpoint.folder.glob("*.json")) + sorted(checkpoint.folder.glob("*.txt")):
        check_kind(path)
    with failures_as_model_errors(checkpoint.spec):
        register_classes(checkpoint)
        tokenizer = AutoTokenizer.from_pretrained(
            str(checkpoint.folder), padding_side="left", trust_remote_code=checkpoint.loading.remote_code
        )
        ids = tokenizer(PROBE_TEXT, add_special_tokens=False)["input_ids"]
        tokenizer(PROBE_TEXT)
    if not tokenizer.is_fast:
        raise ModelError(f"{checkpoint.spec}: its tokenizer is not a fast one; word positions need its offsets")
    if not ids:
        raise ModelError(
            f"{checkpoint.spec}: no tokenizer: {checkpoint.folder.name} has no tokenizer.json that splits texts (the word "
            f"{PROBE_TEXT.split()[0]!r} has no tokens); save the model's tokenizer beside it with save_pretrained"
        )
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def check_token_ids(spec: str, rows: Sequence[Sequence[int]], vocabulary: int | None) -> None:
    """Refuse token ids without an embedding.

    Args:
        spec: model spec for messages.
        rows: token ids per prompt.
        vocabulary: vocabulary size V of the model; None if its configuration has none.

    Raises:
        ModelError: a token id of V or more.
    """
    largest = max((max(row) for row in rows if len(row)), default=0)
    if vocabulary is not None and largest >= vocabulary:
        raise ModelError(
            f"{spec}: its tokenizer gives token {largest}, the model has {vocabulary:,} embeddings (0 to "
            f"{vocabulary - 1}); it is another model's tokenizer: save the right one next to the weights"
        )


def check_word_tokens(spec: str, tokenizer: Any, words: Iterable[str]) -> None:
    """Refuse a tokenizer that encodes two items of programs or worlds alike.

    Args:
        spec: model spec for messages.
        tokenizer: tokenizer of transformers.
        words: items of prompts and programs, split at white space.

    Raises:
        ModelError: names an unknown item, or two items with equal tokens.
    """
    advice = "so the model cannot tell them apart; it needs a vocabulary that covers the prompts and programs"
    by_tokens: dict[tuple[int, ...], str] = {}
    for word in sorted(set(words)):
        ids = tuple(tokenizer(word, add_special_tokens=False)["input_ids"])
        if not ids or tokenizer.unk_token_id in ids:
            token_name = f"the unknown token {tokenizer.unk_token}" if ids else "no token"
            raise ModelError(f"{spec}: its tokenizer gives {word!r} {token_name}, as it does others, {advice}")
        if ids in by_tokens:
            raise ModelError(f"{spec}: its tokenizer gives {word!r} the tokens of {by_tokens[ids]!r}, {advice}")
        by_tokens[ids] = word


@contextmanager
def failures_as_model_errors(spec: str) -> Iterator[None]:
    """Turn exceptions of a tokenizer, including panics of native code, into a `ModelError` of one line."""
    try:
        with suppress_native_stderr():
            yield
    except (BenchmarkError, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        reason = failure_message(error, 200).removesuffix(".")
        raise ModelError(f"{spec}: no usable tokenizer: {reason}; save it again with save_pretrained") from error


@contextmanager
def suppress_native_stderr() -> Iterator[None]:
    """Buffer file descriptor 2 and drop its text if native code panics, which prints its trace there; else write it on."""
    try:
        sys.stderr.flush()
        original_stderr = os.dup(2)
    except (OSError, ValueError):
        yield
        return
    panicked = False
    with tempfile.TemporaryFile() as buffer:
        os.dup2(buffer.fileno(), 2)
        try:
            yield
        except BaseException as error:
            panicked = is_panic(error)
            raise
        finally:
            sys.stderr.flush()
            os.dup2(original_stderr, 2)
            os.close(original_stderr)
            buffer.seek(0)
            text = buffer.read()
            if text and not panicked:
                os.write(2, text)
