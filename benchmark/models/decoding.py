"""Logits processors and stopping criteria: greedy, grammar-constrained and sampled decoding.

All three take the argmax of processed logits: sampling adds Gumbel noise from the row's own seed (the Gumbel-max trick:
Gumbel 1954; Maddison, Tarlow & Minka 2014), so a sample depends on its task and not on the rest of the batch.
Letters: `B` rows, `V` vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from llguidance.hf import from_tokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from transformers import LogitsProcessor, StoppingCriteria, StoppingCriteriaList

from benchmark.errors import ModelError
from benchmark.models.interface import Decoding
from karel_env.syntax.dialects import KAREL, PYTHON
from karel_env.syntax.grammar import continuation_grammar

DEDENT = re.compile(r"\n(?=\S)")
"""What ends a function of Python: the line break before a line that is not indented."""


class StopAtClosingBracket(StoppingCriteria):
    """Stop each sequence when the bracket opened by the program header in the prompt is closed.

    Works for any tokenizer: brackets are counted in the text of each token.

    Args:
        opens: int [V], number of opening minus closing brackets per token.
        prompt_length: number of prompt tokens S.
    """

    def __init__(self, opens: torch.Tensor, prompt_length: int) -> None:
        self.opens, self.prompt_length = opens, prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """bool [B], whether each sequence has ended."""
        depth = 1 + self.opens.to(input_ids.device)[input_ids[:, self.prompt_length :]].cumsum(-1)
        return (depth <= 0).any(-1)


class StopAtDedent(StoppingCriteria):
    """Stop each sequence when its text has a line that is not indented: the function of the prompt has ended.

    Args:
        decode: gives the text of new token ids.
        prompt_length: number of prompt tokens S.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], prompt_length: int) -> None:
        self.decode, self.prompt_length = decode, prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """bool [B], whether each sequence has ended."""
        rows = input_ids[:, self.prompt_length :].tolist()
        return torch.tensor([bool(DEDENT.search(self.decode(row))) for row in rows], device=input_ids.device)


def stop_at_end(
    dialect: str, opens: torch.Tensor, decode: Callable[[Sequence[int]], str], prompt_length: int
) -> StoppingCriteriaList:
    """Stop each sequence at the end of its program; arguments as for the criteria of both dialects."""
    is_python = dialect == PYTHON
    criterion = StopAtDedent(decode, prompt_length) if is_python else StopAtClosingBracket(opens, prompt_length)
    return StoppingCriteriaList([criterion])


def find_program_end(text: str, dialect: str) -> int | None:
    """Number of characters up to the end of the program whose header the prompt has; None if it has not ended."""
    if dialect == PYTHON:
        dedent = DEDENT.search(text)
        return None if dedent is None else dedent.start()
    depth = 1
    for index, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return index + 1
    return None


class RefuseNaN(LogitsProcessor):
    """Raise `ModelError` if a logit is NaN, since the argmax would be arbitrary."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """float [B, V], the scores unchanged."""
        if scores.isnan().any():
            raise ModelError("logits: NaN; try another --dtype, or check the weights")
        return scores


class Grammar:
    """The grammar of a program after its header, over the tokens of one tokenizer.

    Args:
        tokenizer: a fast tokenizer of transformers.
        vocabulary: vocabulary size V of the model, which may exceed that of the tokenizer.
        dialect: one of `DIALECTS`.

    Raises:
        ModelError: the tokenizer has no end-of-sequence token, or llguidance cannot use it.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, dialect: str = KAREL) -> None:
        if tokenizer.eos_token_id is None:
            raise ModelError("tokenizer: it has no end-of-sequence token, which a grammar needs; set its eos_token")
        try:
            self.tokens = _build_tokenizer(tokenizer, vocabulary)
            self.grammar = LLMatcher.grammar_from_lark(continuation_grammar(dialect))
            self.matcher()
        except ValueError as error:
            raise ModelError(
                f"tokenizer: llguidance cannot use it ({error}); run without constrained decoding"
            ) from error

    def matcher(self) -> LLMatcher:
        """Return a matcher at the start of the grammar."""
        return LLMatcher(self.tokens, self.grammar)


def _build_tokenizer(tokenizer: Any, vocabulary: int) -> LLTokenizer:
    if tokenizer.backend_tokenizer.decoder is not None:
        return from_tokenizer(tokenizer, n_vocab=vocabulary)
    return LLTokenizer(TokenizerWrapper(_WordTokenizer(tokenizer)), n_vocab=vocabulary)


class _WordTokenizer:
    """A word-level tokenizer (its text is its tokens joined by spaces) with the interface that llguidance expects."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.eos_token_id, self.bos_token_id = tokenizer.eos_token_id, tokenizer.bos_token_id
        self.special_token_ids = list(tokenizer.all_special_ids)
        self.tokens = [f" {word}".encode() for word in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))]

    def __call__(self, text: str) -> list[int]:
        token_ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return token_ids


class GrammarMask(LogitsProcessor):
    """Mask the tokens that the grammar does not allow next; for an ended row, all but the end-of-sequence token."""

    def __init__(self, grammar: Grammar, rows: int, prompt_length: int) -> None:
        self.matchers = [grammar.matcher() for _ in range(rows)]
        self.num_consumed = prompt_length
        self.allowed = allocate_token_bitmask(rows, grammar.tokens.vocab_size)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """float [B, V], minus infinity where a token is not allowed."""
        new = input_ids[:, self.num_consumed :].tolist()
        self.num_consumed = input_ids.shape[1]
        for row, (matcher, tokens) in enumerate(zip(self.matchers, new, strict=True)):
            # An ended row is padded by `generate`; its matcher needs no more tokens.
            if not matcher.is_stopped():
                matcher.consume_tokens(tokens)
            fill_next_token_bitmask(matcher, self.allowed, row)
        bits = np.unpackbits(self.allowed.view(np.uint8), axis=1, bitorder="little")[:, : scores.shape[1]]
        return scores.masked_fill(torch.from_numpy(bits == 0).to(scores.device), -torch.inf)


class GumbelSampler(LogitsProcessor):
    """Add Gumbel noise to logits / temperature: the argmax is then a sample from their softmax.

    Row b uses a Philox stream with its own seed, V values per step.
    """

    def __init__(self, decoding: Decoding) -> None:
        self.temperature = decoding.temperature
        self.streams = [np.random.Generator(np.random.Philox(key=seed)) for seed in decoding.seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """float [B, V], scaled logits plus noise."""
        noise = np.stack([stream.gumbel(size=scores.shape[1]) for stream in self.streams])
        return scores / self.temperature + torch.from_numpy(noise).to(scores.device, scores.dtype)
