"""Validation of every return value of a custom model, since wrong arrays would give wrong measurements.

Shapes and types follow `benchmark.models.interface`. Whether the states belong to the items cannot be checked here;
`benchmark.doctor` tests it as far as possible. Errors are `ModelError`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmark.errors import ModelError
from benchmark.models.custom import exit_as_error
from benchmark.models.interface import GREEDY, Decoding, Generation, HiddenStates


class ValidatedModel:
    """A custom `LanguageModel` or `ProgramGenerator` whose return values are validated.

    Args:
        model: result of the factory.
        spec: model spec for messages.
    """

    def __init__(self, model: Any, spec: str) -> None:
        self.model, self.spec = model, spec

    def generate(self, prompts: Sequence[str], max_new_words: int, decoding: Decoding = GREEDY) -> list[Generation]:
        """See `LanguageModel.generate`; `decoding` is passed on only if it is not greedy."""
        extra_args = () if decoding == GREEDY else (decoding,)
        with exit_as_error(self.spec, "generate"):
            generations = self.model.generate(prompts, max_new_words, *extra_args)
        self._expect(
            isinstance(generations, list) and len(generations) == len(prompts),
            "generate",
            f"a list of {len(prompts)}",
            generations,
        )
        for generation in generations:
            fields = tuple(type(getattr(generation, name, None)) for name in ("text", "tokens", "finished"))
            self._expect(
                fields in ((str, int, bool), (str, int, np.bool_)),
                "generate",
                "Generation(text, tokens, finished)",
                generation,
            )
        return [Generation(generation.text, generation.tokens, bool(generation.finished)) for generation in generations]

    def hidden_states(self, prompts: Sequence[str], programs: Sequence[str]) -> HiddenStates:
        """See `LanguageModel.hidden_states`."""
        method = self._method("hidden_states")
        with exit_as_error(self.spec, "hidden_states"):
            states = method(prompts, programs)
        counts = [len(program.split()) for program in programs]
        total = sum(counts)
        for name in ("values", "emit", "read", "offsets"):
            self._expect(
                isinstance(getattr(states, name, None), np.ndarray), "hidden_states", f"an array {name}", states
            )
        values, offsets = states.values, np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._expect(
            values.dtype == np.float32 and values.ndim == 3 and values.shape[1] * values.shape[2] > 0,
            "hidden_states", "values float32 [rows, layers + 1, width]", values,
        )  # fmt: skip
        self._expect(
            np.array_equal(states.offsets, offsets), "hidden_states", f"offsets {offsets.tolist()}", states.offsets
        )
        for name, rows in (("emit", states.emit), ("read", states.read)):
            self._expect(
                rows.shape == (total,) and np.issubdtype(rows.dtype, np.integer)
                and bool(((rows >= 0) & (rows < len(values))).all()),
                "hidden_states", f"{name} with a row of values, 0 to {len(values) - 1}, for each of {total} words", rows,
            )  # fmt: skip
        return HiddenStates(values, states.emit, states.read, offsets)

    def log_likelihoods(self, prompts: Sequence[str], programs: Sequence[str]) -> list[tuple[float, int]]:
        """See `LanguageModel.log_likelihoods`."""
        method = self._method("log_likelihoods")
        with exit_as_error(self.spec, "log_likelihoods"):
            pairs = method(prompts, programs)
        self._expect(
            isinstance(pairs, list) and len(pairs) == len(prompts),
            "log_likelihoods",
            f"a list of {len(prompts)}",
            pairs,
        )
        for pair in pairs:
            is_pair = isinstance(pair, tuple) and len(pair) == 2
            self._expect(
                is_pair and math.isfinite(pair[0]) and pair[0] <= 0 and pair[1] > 0,
                "log_likelihoods", "pairs of a logarithm, 0 or less, and a number of tokens", pair,
            )  # fmt: skip
        return [(float(value), int(tokens)) for value, tokens in pairs]

    def _method(self, name: str) -> Any:
        method = getattr(self.model, name, None)
        self._expect(callable(method), name, "a method", method)
        return method

    def _expect(self, is_valid: bool, method: str, expected: str, received: Any) -> None:
        if not is_valid:
            shape = f" {received.dtype} {list(received.shape)}" if isinstance(received, np.ndarray) else ""
            text = " ".join(repr(received).split())[:120]
            raise ModelError(
                f"{self.spec}: {method} gave {type(received).__name__}{shape} {text}; expected {expected}; see docs/models.md"
            )
