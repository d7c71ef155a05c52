"""Check the assumptions of the measurements on a model, once per run and before any computation.

Two checks on one prompt of the suite. Causality: replacing later tokens does not change earlier states and logits.
Greedy decoding: the generated tokens are the argmax of the logits of the forward pass whose states are probed. A custom
model is checked as far as its methods allow: states at items, and likelihoods if each item is one token. Errors are
`ModelError`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from benchmark.errors import ModelError
from benchmark.models.huggingface import HuggingFaceModel
from benchmark.models.interface import LanguageModel
from benchmark.models.validated import ValidatedModel
from benchmark.tasks.prompts import prompt_ids
from karel_env.language import ACTIONS, WORDS
from karel_env.syntax.dialects import append_body, word_spans

MAX_STATE_CHANGE = {"float64": 1e-8, "float32": 1e-4, "float16": 5e-3, "bfloat16": 2e-2}
"""Largest change of states or logits, relative to their norm, that is attributed to rounding; most models change by 0."""
MAX_LOGIT_GAP = {"float64": 1e-6, "float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
"""Largest distance of a generated token's logit from the largest logit, relative to the range of the logits."""
MAX_CHECKED_TOKENS = 160
"""Number of tokens at the end of a text that the causality check reads."""
NUM_NEW_TOKENS = 24
"""Number of tokens that are generated and compared."""
MAX_NATS_GAP = 0.05
"""Largest gap in log-likelihood between a generated item and the best one, for custom models of unknown precision."""
NUM_CHECKED_WORDS = 3
ACTION_SUBSTITUTES = {"move": "turn_left", "turn_left": "move"}
"""Replacement per action; other items are replaced by `move`."""


def check_soundness(model: LanguageModel, prompt: str, program: str, dtype: str, spec: str) -> None:
    """Run both checks.

    Args:
        model: model as loaded for the run.
        prompt: prompt of a task.
        program: program of that task without its header, at least two items.
        dtype: dtype of the model.
        spec: model spec for messages.

    Raises:
        ModelError: the model is not causal, or its generation is not the argmax of its logits.
    """
    if isinstance(model, HuggingFaceModel):
        check_causality(model, prompt, program, dtype, spec)
        check_greedy(model, prompt, dtype, spec)
        return
    change = measure_change_before_word(model, prompt, program)
    if change > MAX_STATE_CHANGE[dtype]:
        raise ModelError(f"{spec}: {_not_causal_message(f'states at earlier words change by {change:.1e}')}")
    if isinstance(model, ValidatedModel) and callable(getattr(model.model, "log_likelihoods", None)):
        check_likelihoods(model, prompt, spec)


def check_causality(model: HuggingFaceModel, prompt: str, program: str, dtype: str, spec: str) -> None:
    """Replace the last token, the program and the second half in one uncached pass each, and an item in the probed pass.

    Raises:
        ModelError: earlier states or logits change by more than `MAX_STATE_CHANGE`.
    """
    ids = prompt_ids(model.tokenizer, append_body(prompt, program))[-MAX_CHECKED_TOKENS:]
    num_prompt_tokens = len(ids) - max(1, len(ids) - len(prompt_ids(model.tokenizer, prompt)))
    states, logits = model.plain_pass(ids)
    for cut in sorted({len(ids) // 2, min(max(num_prompt_tokens, 1), len(ids) - 1), len(ids) - 1}):
        other_states, other_logits = model.plain_pass(_substitute_tokens(ids, cut))
        changes = (
            _relative_change(states[:, :cut], other_states[:, :cut]),
            _relative_change(logits[:cut], other_logits[:cut]),
        )
        if max(changes) > MAX_STATE_CHANGE[dtype]:
            description = f"with the last {len(ids) - cut} of {len(ids)} tokens exchanged, earlier states change by {changes[0]:.1e}"
            raise ModelError(f"{spec}: {_not_causal_message(f'{description} and logits by {changes[1]:.1e}')}")
    change = measure_change_before_word(model, prompt, program)
    if change > MAX_STATE_CHANGE[dtype]:
        raise ModelError(f"{spec}: {_not_causal_message(f'states at earlier words change by {change:.1e}')}")


def measure_change_before_word(model: LanguageModel, prompt: str, program: str) -> float:
    """Largest relative change of the states of items before a replaced one: the first or the last action, so that the
    text stays a program."""
    spans = word_spans(program).tolist()
    names = [program[start:end].partition("(")[0] for start, end in spans]
    actions = [index for index, name in enumerate(names) if name in ACTIONS] or [0]
    largest = 0.0
    before = model.hidden_states([prompt], [program])
    for index in {actions[0], actions[-1]}:
        start, end = spans[index]
        changed = program[start:end].replace(names[index], ACTION_SUBSTITUTES.get(names[index], "move"))
        after = model.hidden_states([prompt], [f"{program[:start]}{changed}{program[end:]}"])
        for rows, count in (("emit", index + 1), ("read", index)):
            first, second = (states.values[getattr(states, rows)[:count]] for states in (before, after))
            if count:
                largest = max(largest, _relative_change(torch.from_numpy(first), torch.from_numpy(second)))
    return largest


def check_greedy(model: HuggingFaceModel, prompt: str, dtype: str, spec: str) -> None:
    """Compare generated tokens with the logits of the probed pass and, in float32 and float64, of an uncached pass.

    Raises:
        ModelError: a token is not the argmax, by more than `MAX_LOGIT_GAP`.
    """
    (tokens,) = model.new_tokens([prompt], NUM_NEW_TOKENS)
    last = next((i for i, token in enumerate(tokens) if token in model.ends), len(tokens) - 1)
    tokens = tokens[: last + 1]
    logits, _, _ = model.forced_logits([prompt], [tokens])
    passes = {"the pass that is probed": logits[0].float().cpu()}
    if dtype in ("float64", "float32"):
        text = [*prompt_ids(model.tokenizer, prompt), *tokens]
        passes["a pass without a cache"] = model.plain_pass(text)[1][-len(tokens) - 1 : -1]
    for pass_name, pass_logits in passes.items():
        gap = _max_logit_gap(pass_logits, tokens)
        if not gap <= MAX_LOGIT_GAP[dtype]:
            index = int(_logit_gaps(pass_logits, tokens).argmax())
            best = model.tokenizer.decode([int(pass_logits[index].argmax())])
            raise ModelError(
                f"{spec}: it writes {model.tokenizer.decode([tokens[index]])!r} as token {index + 1}, while {best!r} has the "
                f"largest logit of {pass_name} (by {gap:.1%} of their range); its cache or its generate is wrong: "
                "see `python -m benchmark.doctor`"
            )


def check_likelihoods(model: ValidatedModel, prompt: str, spec: str) -> None:
    """Check that the first generated items of a custom model are the most probable ones by its likelihoods.

    Raises:
        ModelError: another item is more probable, by more than `MAX_NATS_GAP`.
    """
    (answer,) = model.generate([prompt], NUM_CHECKED_WORDS + 1)
    words = answer.text.split()
    vocabulary = sorted(WORDS)
    for index in range(min(NUM_CHECKED_WORDS, len(words))):
        if words[index] not in WORDS:
            return
        prefix = words[:index]
        programs = [" ".join([*prefix, word]) for word in vocabulary]
        try:
            scored = model.log_likelihoods([prompt] * len(programs), programs)
        except Exception:  # it may accept only complete programs, and these are prefixes
            return
        if any(count != index + 1 for _, count in scored):
            return  # items of several tokens: the most probable tokens need not form the most probable item
        values = [value for value, _ in scored]
        gap = max(values) - values[vocabulary.index(words[index])]
        if gap > MAX_NATS_GAP:
            best = vocabulary[int(np.argmax(values))]
            raise ModelError(
                f"{spec}: generate writes {words[index]!r} as word {index + 1}, while log_likelihoods finds {best!r} more "
                f"probable by {gap:.2f} nats; both must use the same model, and greedy answers are its argmax"
            )


def _not_causal_message(evidence: str) -> str:
    return (
        f"it sees later tokens: {evidence}; only causal models can be evaluated: set is_decoder or switch bidirectional "
        "attention off if it was trained as a causal model"
    )


def _substitute_tokens(ids: Sequence[int], cut: int) -> list[int]:
    """Replace each token from `cut` on by the next larger token id that occurs in the text."""
    present = sorted(set(ids))
    if len(present) == 1:
        present.append(present[0] + 1 if present[0] == 0 else present[0] - 1)
    following = dict(zip(present, [*present[1:], present[0]], strict=True))
    return [*ids[:cut], *(following[token] for token in ids[cut:])]


def _relative_change(first: torch.Tensor, second: torch.Tensor) -> float:
    """Largest distance of two arrays [..., D] relative to the norm of the first; infinite on overflow.

    Raises:
        ModelError: an array contains NaN.
    """
    if bool(first.isnan().any()) or bool(second.isnan().any()):
        raise ModelError("logits: NaN, or hidden states: NaN; try another --dtype")
    distance = (first.double() - second.double()).norm(dim=-1) / first.double().norm(dim=-1).clamp(min=1e-12)
    return float(distance.max()) if bool(distance.isfinite().all()) else float("inf")


def _logit_gaps(logits: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    """Distance [tokens] of each token's logit from the largest of logits [tokens, V], relative to their range."""
    token_logits = logits.gather(-1, torch.tensor(list(tokens))[:, None])[:, 0]
    spread = (logits.amax(-1) - logits.amin(-1)).clamp(min=1e-12)
    return (logits.amax(-1) - token_logits) / spread


def _max_logit_gap(logits: torch.Tensor, tokens: Sequence[int]) -> float:
    return float(_logit_gaps(logits, tokens).max())
