"""Is a model what the measurements take it for? Looked at once per run, before anything is computed with it.

Two checks on one prompt of the suite. Causal: where later tokens are exchanged, earlier states and logits stay. Greedy:
what the model writes is, token by token, the argmax of the logits of the very pass whose states are probed. A class of
the user's is checked as far as its methods allow: states at words, and likelihoods where each word is one token.
Errors are `ModelError`.
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
from karel_env.language import WORDS

MAX_STATE_CHANGE = {"float64": 1e-8, "float32": 1e-4, "float16": 5e-3, "bfloat16": 2e-2}
"""Largest change of a state or of logits, relative to their length, that rounding may cause; computed alone, most change
by nothing."""
MAX_LOGIT_GAP = {"float64": 1e-6, "float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
"""Largest distance of a written token's logit from the largest, relative to the range of the logits."""
MAX_CHECKED_TOKENS = 160
"""Of the end of a text that are read with later ones exchanged."""
NUM_NEW_TOKENS = 24
"""Tokens that are written and compared."""
MAX_NATS_GAP = 0.05
"""A written word may be less probable than another by so much, in a class of the user's, whose precision is not known."""
NUM_CHECKED_WORDS = 3
WORD_SUBSTITUTES = {"move();": "turn_left();", "turn_left();": "move();"}
"""What a word is replaced by; any other becomes the first."""


def check_soundness(model: LanguageModel, prompt: str, program: str, dtype: str, spec: str) -> None:
    """Both checks.

    Args:
        model: as it is loaded for the run.
        prompt: of a task.
        program: of that task, canonical text without its header, of two words or more.
        dtype: in which it computes.
        spec: of the model, for messages.

    Raises:
        ModelError: it sees later tokens, or does not write what its logits say.
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
    """Exchange the last token, the program's and the second half's, in one plain pass each, and a word in the pass that
    is probed."""
    ids = prompt_ids(model.tokenizer, f"{prompt} {program}")[-MAX_CHECKED_TOKENS:]
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
    """Largest relative change of the states of words before one that is exchanged: the first or the last action, so that
    the text stays a program."""
    words = program.split()
    actions = [index for index, word in enumerate(words) if word.endswith("();")] or [0]
    largest = 0.0
    before = model.hidden_states([prompt], [program])
    for index in {actions[0], actions[-1]}:
        changed_words = words.copy()
        changed_words[index] = WORD_SUBSTITUTES.get(words[index], "move();")
        after = model.hidden_states([prompt], [" ".join(changed_words)])
        for rows, count in (("emit", index + 1), ("read", index)):
            first, second = (states.values[getattr(states, rows)[:count]] for states in (before, after))
            if count:
                largest = max(largest, _relative_change(torch.from_numpy(first), torch.from_numpy(second)))
    return largest


def check_greedy(model: HuggingFaceModel, prompt: str, dtype: str, spec: str) -> None:
    """Compare what is written with the logits of the pass that is probed and, in the exact precisions, of a plain one."""
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
    """The first words that a class of the user's writes are the most probable ones by its likelihoods."""
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
        except Exception:  # it may take whole programs alone, of which these are beginnings
            return
        if any(count != index + 1 for _, count in scored):
            return  # words of several tokens: the most probable tokens need not make the most probable word
        values = [value for value, _ in scored]
        gap = max(values) - values[vocabulary.index(words[index])]
        if gap > MAX_NATS_GAP:
            best = vocabulary[int(np.argmax(values))]
            raise ModelError(
                f"{spec}: generate writes {words[index]!r} as word {index + 1}, while log_likelihoods finds {best!r} more "
                f"probable by {gap:.2f} nats; both must come of one model, and greedy answers are its argmax"
            )


def _not_causal_message(evidence: str) -> str:
    return (
        f"it sees later tokens: {evidence}; only causal models can be evaluated: set is_decoder or switch bidirectional "
        "attention off if it was trained as a causal one"
    )


def _substitute_tokens(ids: Sequence[int], cut: int) -> list[int]:
    """The tokens with those from `cut` on replaced by the next larger ones that the text holds."""
    present = sorted(set(ids))
    if len(present) == 1:
        present.append(present[0] + 1 if present[0] == 0 else present[0] - 1)
    following = dict(zip(present, [*present[1:], present[0]], strict=True))
    return [*ids[:cut], *(following[token] for token in ids[cut:])]


def _relative_change(first: torch.Tensor, second: torch.Tensor) -> float:
    """Largest distance of two arrays [..., D] over the length of the first; infinite where it overflows.

    Raises:
        ModelError: one of them holds NaN.
    """
    if bool(first.isnan().any()) or bool(second.isnan().any()):
        raise ModelError("logits: NaN, or hidden states: NaN; try another --dtype")
    distance = (first.double() - second.double()).norm(dim=-1) / first.double().norm(dim=-1).clamp(min=1e-12)
    return float(distance.max()) if bool(distance.isfinite().all()) else float("inf")


def _logit_gaps(logits: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    """How far below the largest logit [tokens, V] each token's is, as a share of the range."""
    token_logits = logits.gather(-1, torch.tensor(list(tokens))[:, None])[:, 0]
    spread = (logits.amax(-1) - logits.amin(-1)).clamp(min=1e-12)
    return (logits.amax(-1) - token_logits) / spread


def _max_logit_gap(logits: torch.Tensor, tokens: Sequence[int]) -> float:
    return float(_logit_gaps(logits, tokens).max())
