"""What a model of one's own has to return, checked each time it does: wrong arrays would be read as wrong meaning.

Sizes and types follow `benchmark.models.interface`; what only the class's author can know (whether the states are those of the
words) is not checked here; `benchmark.doctor.command` tests what can be seen of it. Errors are `ModelError`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmark.errors import ModelError
from benchmark.models.custom_calls import exit_as_error
from benchmark.models.interface import GREEDY, Decoding, Generation, HiddenStates


class ValidatedModel:
    """A `LanguageModel` or `Writer` of the user's, of which nothing is believed.

    Args:
        model: what the factory made.
        spec: of the model, for messages.
    """

    def __init__(self, model: Any, spec: str) -> None:
        self.model, self.spec = model, spec

    def generate(self, prompts: Sequence[str], max_new_words: int, decoding: Decoding = GREEDY) -> list[Generation]:
        """See `LanguageModel`; a writer is not asked for a decoding."""
        more = () if decoding == GREEDY else (decoding,)
        with exit_as_error(self.spec, "generate"):
            found = self.model.generate(prompts, max_new_words, *more)
        self._expect(
            isinstance(found, list) and len(found) == len(prompts), "generate", f"a list of {len(prompts)}", found
        )
        for one in found:
            fields = tuple(type(getattr(one, name, None)) for name in ("text", "tokens", "finished"))
            self._expect(
                fields in ((str, int, bool), (str, int, np.bool_)),
                "generate",
                "Generation(text, tokens, finished)",
                one,
            )
        return [Generation(one.text, one.tokens, bool(one.finished)) for one in found]

    def hidden_states(self, prompts: Sequence[str], programs: Sequence[str]) -> HiddenStates:
        """See `LanguageModel`."""
        method = self._method("hidden_states")
        with exit_as_error(self.spec, "hidden_states"):
            found = method(prompts, programs)
        counts = [len(program.split()) for program in programs]
        total = sum(counts)
        for name in ("values", "emit", "read", "offsets"):
            self._expect(isinstance(getattr(found, name, None), np.ndarray), "hidden_states", f"an array {name}", found)
        values, offsets = found.values, np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._expect(
            values.dtype == np.float32 and values.ndim == 3 and values.shape[1] * values.shape[2] > 0,
            "hidden_states", "values float32 [rows, layers + 1, width]", values,
        )  # fmt: skip
        self._expect(
            np.array_equal(found.offsets, offsets), "hidden_states", f"offsets {offsets.tolist()}", found.offsets
        )
        for name, rows in (("emit", found.emit), ("read", found.read)):
            self._expect(
                rows.shape == (total,) and np.issubdtype(rows.dtype, np.integer)
                and bool(((rows >= 0) & (rows < len(values))).all()),
                "hidden_states", f"{name} with a row of values, 0 to {len(values) - 1}, for each of {total} words", rows,
            )  # fmt: skip
        return HiddenStates(values, found.emit, found.read, offsets)

    def log_likelihoods(self, prompts: Sequence[str], programs: Sequence[str]) -> list[tuple[float, int]]:
        """See `LanguageModel`."""
        method = self._method("log_likelihoods")
        with exit_as_error(self.spec, "log_likelihoods"):
            found = method(prompts, programs)
        self._expect(
            isinstance(found, list) and len(found) == len(prompts),
            "log_likelihoods",
            f"a list of {len(prompts)}",
            found,
        )
        for one in found:
            pair = isinstance(one, tuple) and len(one) == 2
            self._expect(
                pair and math.isfinite(one[0]) and one[0] <= 0 and one[1] > 0,
                "log_likelihoods", "pairs of a logarithm, 0 or less, and a number of tokens", one,
            )  # fmt: skip
        return [(float(value), int(tokens)) for value, tokens in found]

    def _method(self, name: str) -> Any:
        method = getattr(self.model, name, None)
        self._expect(callable(method), name, "a method", method)
        return method

    def _expect(self, holds: bool, method: str, what: str, got: Any) -> None:
        if not holds:
            shape = f" {got.dtype} {list(got.shape)}" if isinstance(got, np.ndarray) else ""
            said = " ".join(repr(got).split())[:120]
            raise ModelError(
                f"{self.spec}: {method} gave {type(got).__name__}{shape} {said}; expected {what}; see docs/models.md"
            )
