"""Score the choices of a question, and generate an answer. Letters: `N` prompts, `C` choices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from benchmark.models.huggingface import HuggingFaceModel
from benchmark.models.interface import Generation
from benchmark.models.token_alignment import align_tokens


class Answerer(Protocol):
    """What answers: a language model, or a baseline."""

    def log_likelihoods(self, prompts: Sequence[str], programs: Sequence[str]) -> list[tuple[float, int]]:
        """See `LanguageModel.log_likelihoods`."""
        ...

    def generate(self, prompts: Sequence[str], max_new_words: int) -> list[Generation]:
        """See `LanguageModel.generate`."""
        ...


def score_choices(answerer: Answerer, prompts: Sequence[str], choices: Sequence[str]) -> np.ndarray:
    """float64 [N, C], log-likelihood in nats of each choice after each prompt, all as one batch."""
    token_ids = _single_tokens(answerer, prompts[0], choices)
    if token_ids:
        assert isinstance(answerer, HuggingFaceModel)
        return next_token_log_probs(answerer, prompts, token_ids)
    values = [answerer.log_likelihoods(prompts, [choice] * len(prompts)) for choice in choices]
    return np.array([[value for value, _ in column] for column in values]).T


def next_token_log_probs(model: HuggingFaceModel, prompts: Sequence[str], token_ids: Sequence[int]) -> np.ndarray:
    """float64 [N, C], log-probability in nats of each of C tokens to follow each prompt, from one pass per prompt."""
    log_probs = np.empty((len(prompts), len(token_ids)))
    for group in model.group_prompts(prompts):
        logits, _, _ = model.forced_logits([prompts[i] for i in group], [[token_ids[0]]] * len(group))
        log_probs[group] = logits[:, 0].double().log_softmax(-1)[:, list(token_ids)].cpu().numpy()
    return log_probs


def generate_answers(answerer: Answerer, prompts: Sequence[str], choices: Sequence[str]) -> list[str]:
    """The text that follows each prompt, as long as the longest choice and one token more, which ends its word."""
    if not isinstance(answerer, HuggingFaceModel):
        return [generation.text for generation in answerer.generate(prompts, 1)]
    longest = max(len(align_tokens(answerer.tokenizer, prompts[0], choice).ids) for choice in choices)
    texts: dict[int, str] = {}
    for group in answerer.group_prompts(prompts):
        rows = answerer.new_tokens([prompts[i] for i in group], longest + 1)
        texts.update(zip(group, map(answerer.decode, rows), strict=True))
    return [texts[i] for i in range(len(prompts))]


def _single_tokens(answerer: Answerer, prompt: str, choices: Sequence[str]) -> list[int]:
    """The token of each choice, if a network has one for each; empty otherwise."""
    if not isinstance(answerer, HuggingFaceModel):
        return []
    ids = [align_tokens(answerer.tokenizer, prompt, choice).ids for choice in choices]
    return [first for first, *_ in ids] if all(len(tokens) == 1 for tokens in ids) else []
